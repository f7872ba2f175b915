"""Bins: ends, wrapping, what lies outside."""

import numpy as np
import pytest

from metastable.estimate.axes import Axis, cell_index, grid, straighten


def test_a_periodic_axis_wraps():
    axis = Axis.angle(bins=4)
    np.testing.assert_array_equal(
        axis.index(np.array([-np.pi, -0.1, 0.1, 3.1, np.pi, 3.3, -7.0])), [0, 1, 2, 3, 0, 0, 1]
    )


def test_another_axis_leaves_out_what_lies_outside():
    axis = Axis(0.0, 1.0, 4)
    np.testing.assert_array_equal(axis.index(np.array([-0.01, 0.0, 0.25, 0.99, 1.0, 1.01])), [-1, 0, 1, 3, 3, -1])
    np.testing.assert_allclose(axis.centers, [0.125, 0.375, 0.625, 0.875])
    assert len(axis.edges) == 5 and axis.width == 0.25


def test_single_precision_at_the_end_of_the_turn_stays_on_the_axis():
    near = np.nextafter(np.float32(np.pi), np.float32([-9, 9]))
    assert set(Axis.angle(bins=60).index(np.concatenate([near, -near]))) <= {0, 59}


def test_cells_count_in_c_order_and_stay_out_together():
    axes = (Axis(0, 1, 2), Axis(0, 3, 3))
    samples = np.concatenate([grid(axes).reshape(-1, 2), [[0.5, 4.0], [-1.0, 0.5]]])
    np.testing.assert_array_equal(cell_index(samples, axes), [0, 1, 2, 3, 4, 5, -1, -1])


def test_straightened_angles_do_not_jump():
    near = straighten(np.array([[np.pi - 1e-6, 5.0], [-np.pi + 1e-6, 5.0]]), (Axis.angle(), Axis(0, 9, 3)))
    np.testing.assert_allclose(near[0], near[1], atol=1e-5)
    assert near.shape == (2, 3)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="1 samples are not finite"):
        Axis.angle().index(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="must lie below"):
        Axis(1.0, 1.0, 3)
    with pytest.raises(ValueError, match="at least 1"):
        Axis(0.0, 1.0, 0)
    with pytest.raises(ValueError, match="3 collective variables, the grid 2"):
        cell_index(np.zeros((5, 3)), (Axis.angle(), Axis.angle()))
