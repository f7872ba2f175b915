"""Bins: ends, wrapping, what lies outside."""

import jax
import numpy as np
import pytest

from metastable.core.axis import Axis


def test_a_periodic_axis_wraps():
    axis = Axis.angle(bins=4)
    np.testing.assert_array_equal(
        axis.index(np.array([-np.pi, -0.1, 0.1, 3.1, np.pi, 3.3, -7.0])), [0, 1, 2, 3, 0, 0, 1]
    )


def test_another_axis_leaves_out_what_lies_outside():
    axis = Axis(0.0, 1.0, 4)
    np.testing.assert_array_equal(axis.index(np.array([-0.01, 0.0, 0.25, 0.99, 1.0, 1.01])), [-1, 0, 1, 3, 3, -1])
    np.testing.assert_allclose(axis.centers, [0.125, 0.375, 0.625, 0.875])
    assert len(axis.edges) == 5 and axis.spacing == 0.25


def test_points_count_the_seam_of_a_periodic_axis_once():
    np.testing.assert_allclose(Axis(0.0, 1.0, 4).points, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(Axis(0.0, 1.0, 4, periodic=True).points, [0, 0.25, 0.5, 0.75])
    assert Axis(0.0, 1.0, 4).period is None and Axis.angle().period == pytest.approx(2 * np.pi)


def test_it_can_be_a_static_argument():
    assert len({Axis.angle(), Axis.angle(), Axis.angle("psi")}) == 2
    assert jax.jit(lambda x, axis: x * axis.bins, static_argnums=1)(2.0, Axis.angle(bins=7)) == 14


def test_single_precision_at_the_end_of_the_turn_stays_on_the_axis():
    near = np.nextafter(np.float32(np.pi), np.float32([-9, 9]))
    assert set(Axis.angle(bins=60).index(np.concatenate([near, -near]))) <= {0, 59}


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="1 samples are not finite"):
        Axis.angle().index(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="must lie below"):
        Axis(1.0, 1.0, 3)
    with pytest.raises(ValueError, match="at least 1"):
        Axis(0.0, 1.0, 0)
