"""Bonded terms: known answers, finite differences, and gradient kernels against the plain energies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.potentials.bonded import (
    HarmonicAngles,
    HarmonicBonds,
    HarmonicTorsions,
    PeriodicTorsions,
    RyckaertBellemansTorsions,
    TorsionMaps,
    angles_energy,
    bonds_energy,
    harmonic_energy,
    periodic_energy,
    rb_energy,
    unique_torsions,
)
from metastable.potentials.geometry import angles, torsions

ATOMS = 9
RNG = np.random.default_rng(3)
POSITIONS = RNG.normal(size=(ATOMS, 3)) * 0.2


def some(count, k):
    """count different tuples of k different atoms."""
    return [RNG.permutation(ATOMS)[:k] for _ in range(count)]


QUADS = np.array([*some(4, 4), [0, 1, 2, 3], [0, 1, 2, 3], [3, 2, 1, 0]])
TERMS = {
    "bonds": (HarmonicBonds(some(6, 2), RNG.random(6), 100 * RNG.random(6)), bonds_energy),
    "angles": (HarmonicAngles(some(6, 3), 2 * RNG.random(6), RNG.random(6)), angles_energy),
    "periodic": (PeriodicTorsions(QUADS, [1, 2, 3, 4, 1, 2, 6], RNG.random(7), 6 * RNG.random(7)), periodic_energy),
    "rb": (RyckaertBellemansTorsions(QUADS, RNG.normal(size=(7, 6))), rb_energy),
    "wrapped": (HarmonicTorsions(QUADS, 6 * RNG.random(7) - 3, RNG.random(7)), harmonic_energy),
    "exact": (HarmonicTorsions(QUADS, 6 * RNG.random(7) - 3, RNG.random(7), periodic=False), harmonic_energy),
}
MAPS = TorsionMaps(QUADS[:3], QUADS[1:4], [0, 1, 0], RNG.normal(size=(2, 12, 12)))
ALL = {name: term for name, (term, _) in TERMS.items()} | {"maps": MAPS}


@pytest.mark.parametrize("name", TERMS)
def test_kernel_is_the_gradient_of_the_plain_energy(x64, name):
    term, plain = TERMS[name]
    x = jnp.asarray(POSITIONS)
    energy, ours = jax.jit(jax.value_and_grad(lambda x: term(Frame(x))))(x)
    plain_energy, wanted = jax.jit(jax.value_and_grad(lambda x: plain(x, term)))(x)
    np.testing.assert_allclose(ours, wanted, atol=1e-11 * np.abs(wanted).max())
    assert float(energy) == pytest.approx(float(plain_energy), rel=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_forces_are_finite_differences(x64, name):
    energy, h = jax.jit(jax.value_and_grad(lambda x: ALL[name](Frame(x)))), 1e-5
    gradient = energy(POSITIONS)[1]
    for atom, axis in [(0, 0), (1, 1), (2, 2), (3, 0)]:
        step = np.zeros_like(POSITIONS)
        step[atom, axis] = h
        slope = (energy(POSITIONS + step)[0] - energy(POSITIONS - step)[0]) / (2 * h)
        assert float(gradient[atom, axis]) == pytest.approx(float(slope), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_derivatives_of_energy_and_forces_in_parameters(x64, name):
    term, x, h = ALL[name], jnp.asarray(POSITIONS), 1e-6
    parameters, static = eqx.partition(term, eqx.is_inexact_array)
    direction = jax.tree.map(lambda p: np.random.default_rng(5).normal(size=p.shape), parameters)

    def energy(p, x):
        return eqx.combine(p, static)(Frame(x))

    def moved(s):
        return jax.tree.map(lambda p, d: p + s * d, parameters, direction)

    both = jax.value_and_grad(energy, 1)
    slopes = jax.jit(lambda p, d: jax.jvp(lambda p: both(p, x), (p,), (d,))[1])(parameters, direction)
    both = jax.jit(both)
    for slope, up, down in zip(slopes, both(moved(h), x), both(moved(-h), x), strict=True):
        wanted = (up - down) / (2 * h)
        np.testing.assert_allclose(slope, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ALL)
def test_moving_and_turning_the_molecule_changes_nothing(x64, name):
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    moved = POSITIONS @ turn.T + 1.7
    energy = jax.jit(jax.value_and_grad(lambda x: ALL[name](Frame(x))))
    (here, slope), (there, turned) = energy(jnp.asarray(POSITIONS)), energy(jnp.asarray(moved))
    assert float(here) == pytest.approx(float(there), rel=1e-11)
    np.testing.assert_allclose(slope @ turn.T, turned, atol=1e-10 * np.abs(slope).max())
    np.testing.assert_allclose(jnp.sum(slope, 0), 0, atol=1e-10 * np.abs(slope).max())


@pytest.mark.parametrize("name", ALL)
def test_replicas_are_a_loop(name):
    batch = jnp.asarray(POSITIONS + 0.02 * RNG.normal(size=(5, ATOMS, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: ALL[name](Frame(x))))
    ours = jax.jit(replicate(gradient))(jnp.moveaxis(batch, 0, -1))
    wanted = jnp.stack([gradient(x) for x in batch], -1)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0, 179.0, -90.0, -60.0])
def test_torsions_have_the_sign_of_iupac(x64, degrees):
    """Looking along the middle bond from j to k, the far atom l is turned clockwise by a positive angle."""
    a = np.radians(degrees)  # the middle bond points along -z, away from a reader above: clockwise is -a in x, y
    x = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, -1], [np.cos(-a), np.sin(-a), -1.3]])
    assert float(torsions(jnp.asarray(x), np.array([[0, 1, 2, 3]])).angle[0]) == pytest.approx(a, abs=1e-14)


def test_angles_to_the_ends_of_their_range(x64):
    for wanted in (1e-7, 0.3, np.pi / 2, np.pi - 1e-7):
        x = jnp.array([[0.1, 0, 0], [0, 0, 0], [0.2 * np.cos(wanted), 0.2 * np.sin(wanted), 0]])
        assert float(angles(x, np.array([[0, 1, 2]]))[0]) == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atoms_in_line_give_finite_forces(x64, dtype):
    x = jnp.asarray([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]], dtype)
    one = [[0, 1, 2, 3]]
    for term in (
        HarmonicAngles([[0, 1, 2]], [np.pi], [300.0]),
        PeriodicTorsions(one, [2], [5.0], [0.3]),
        RyckaertBellemansTorsions(one, np.ones((1, 6))),
        HarmonicTorsions(one, [1.0], [1.0]),
    ):
        assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: term(Frame(x))))(x)))


def test_torsions_on_the_same_atoms_are_found():
    index, which = unique_torsions(TERMS["periodic"][0].index)
    assert len(index) == 5 and which[4] == which[5] == which[6]


def test_maps_are_the_periodic_spline_through_their_points(x64):
    """Against scipy's periodic cubic splines, one direction after the other, between the points and at them."""
    n, table = 12, MAPS.tables[1]
    grid = 2 * np.pi * np.arange(n + 1) / n
    closed = np.pad(table, ((0, 1), (0, 1)), mode="wrap")
    two = jax.jit(lambda x: torsions(x, np.array([[0, 1, 2, 3], [4, 5, 6, 7]])).angle)
    ours = jax.jit(lambda x: TorsionMaps([[0, 1, 2, 3]], [[4, 5, 6, 7]], [0], table[None])(Frame(x)))
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(8, 3))
        phi, psi = two(jnp.asarray(x)) % (2 * np.pi)
        along_psi = CubicSpline(grid, closed, axis=1, bc_type="periodic")(float(psi))
        wanted = CubicSpline(grid, along_psi, bc_type="periodic")(float(phi))
        assert float(ours(x)) == pytest.approx(float(wanted), rel=1e-10)
