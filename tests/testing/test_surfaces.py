"""The model systems against their published stationary points and against integrals done otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad, quad

from metastable.core.axis import Axis
from metastable.core.frame import Frame
from metastable.testing.surfaces import DoubleWell, MuellerBrown, exact_free_energy, on_plane


@pytest.mark.parametrize(
    ("x", "y", "energy"),
    [
        (-0.558224, 1.441726, -146.6995),
        (0.623499, 0.028038, -108.1667),
        (-0.050011, 0.466694, -80.7678),
        (-0.822002, 0.624313, -40.6648),
        (0.212487, 0.292988, -72.2489),
    ],
)
def test_mueller_brown_has_its_published_stationary_points(x64, x, y, energy):
    value, gradient = jax.value_and_grad(lambda p: MuellerBrown()(Frame(p)))(jnp.array([[x, y, 0.0]]))
    assert float(value) == pytest.approx(energy, abs=1e-3)
    assert np.abs(gradient).max() < 5e-3  # curvatures of some thousand times the digits given


def test_double_well_has_its_barrier_and_wells():
    energy = on_plane(DoubleWell(height=7.0, width=0.5, tilt=0.0))
    np.testing.assert_allclose(energy(np.array([-0.5, 0.0, 0.5])), [0, 7, 0], atol=1e-6)
    assert energy(np.array([1.0])) == pytest.approx(63.0)


def test_exact_free_energy_is_the_integral_over_each_cell(x64):
    kT, axis = 2.5, Axis(-1.6, 1.6, 8)
    f = exact_free_energy(on_plane(DoubleWell(tilt=1.0)), (axis,), kT)
    p = [quad(lambda x: np.exp(-(10 * (x**2 - 1) ** 2 + x) / kT), a, a + axis.spacing)[0] for a in axis.edges[:-1]]
    np.testing.assert_allclose(np.exp(-f / kT), np.array(p) / np.sum(p), rtol=1e-9)


def test_exact_surface_is_the_integral_over_each_cell(x64):
    kT, axes = 15.0, (Axis(-1.5, 1.2, 9, name="x"), Axis(-0.2, 2.0, 7, name="y"))
    f = exact_free_energy(on_plane(MuellerBrown()), axes, kT)
    heights, a, b, c, x0, y0 = np.array([[-200, -100, -170, 15], [-1, -1, -6.5, 0.7], [0, 0, 11, 0.6],
                                         [-10, -10, -6.5, 0.7], [1, 0, -0.5, -1], [0, 0.5, 1.5, 1]])  # fmt: skip

    def density(y, x):
        dx, dy = x - x0, y - y0
        return np.exp(-np.sum(heights * np.exp(a * dx**2 + b * dx * dy + c * dy**2)) / kT)

    def integral(i, j):
        (xs, ys) = (axis.edges for axis in axes)
        return dblquad(density, xs[i], xs[i + 1], ys[j], ys[j + 1])[0]

    ratio = integral(3, 5) / integral(7, 1)
    assert f[7, 1] - f[3, 5] == pytest.approx(kT * np.log(ratio), abs=2e-3)
    assert np.exp(-f / kT).sum() == pytest.approx(1.0)
