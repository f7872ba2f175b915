"""SETTLE: against a root finder, in single precision for long, its derivatives, and which triangles it takes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.spatial.transform import Rotation

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.core.system import System, Topology
from metastable.dynamics.clusters import Clusters
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import VelocityVerlet
from metastable.dynamics.settle import Settle
from metastable.loops.run import run

LEG, ANGLE = 0.09572, np.deg2rad(104.52)
BASE = 2 * LEG * np.sin(ANGLE / 2)
ONE = LEG * np.array([[0, 0, 0], [1, 0, 0], [np.cos(ANGLE), np.sin(ANGLE), 0]])
WATER = [15.999, 1.008, 1.008]
TRIANGLE = np.array([[0, 1], [0, 2], [1, 2]])


def waters(count, spread=0.5, seed=0):
    """Settle, masses and positions of waters anywhere."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    positions = np.einsum("nij,kj->nki", turns, ONE) + spread * rng.uniform(-1, 1, (count, 1, 3))
    settle = Settle(np.arange(3 * count).reshape(-1, 3), np.full(count, LEG), np.full(count, BASE))
    return settle, np.tile(WATER, count), positions.reshape(-1, 3)


def moved(positions, masses, dt, seed=1, kT=2.5):
    velocities = np.random.default_rng(seed).normal(size=positions.shape) * np.sqrt(kT / masses)[:, None]
    return positions + dt * velocities


def shaken(new, old, masses):
    """SHAKE's equations for one triangle, by a general root finder."""
    i, j = TRIANGLE.T
    r = old[i] - old[j]
    pulls = np.zeros((3, *new.shape))
    pulls[range(3), i], pulls[range(3), j] = r / masses[i][:, None], -r / masses[j][:, None]
    lengths = np.array([LEG, LEG, BASE])

    def solution(multipliers):
        return new + np.einsum("k,kai->ai", multipliers, pulls)

    def errors(multipliers):
        x = solution(multipliers)
        return np.sum((x[i] - x[j]) ** 2, -1) / lengths**2 - 1

    found = optimize.root(errors, np.zeros(3), tol=1e-14)
    return solution(found.x)


@pytest.mark.parametrize("dt", [0.0005, 0.002, 0.006])
@pytest.mark.parametrize("masses", [WATER, [9.967, 4.032, 4.032], [1.0, 30.0, 30.0]])
def test_positions_solve_the_equations_of_shake(x64, masses, dt):
    settle, _, old = waters(40)
    masses = np.tile(masses, 40)
    new = moved(old, masses, dt)
    found = eqx.filter_jit(settle.positions)(jnp.asarray(new), jnp.asarray(old), masses)
    expected = [shaken(new[k : k + 3], old[k : k + 3], masses[k : k + 3]) for k in range(0, 120, 3)]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-12)
    assert np.max(np.abs(settle.stretch(found) - 1)) < 1e-13


def test_momenta_are_what_the_clusters_leave(x64):
    settle, masses, x = waters(30)
    momenta = np.random.default_rng(1).normal(size=x.shape) * np.sqrt(masses)[:, None]
    pairs = (TRIANGLE + 3 * np.arange(30)[:, None, None]).reshape(-1, 2)
    clusters = Clusters.from_pairs(pairs, np.tile([LEG, LEG, BASE], 30), masses)
    for positions in (x, moved(x, masses, 0.005)):  # also where the lengths do not hold, as before a minimisation
        frame = Frame(jnp.asarray(positions))
        one, other = (eqx.filter_jit(c.momenta)(jnp.asarray(momenta), frame, masses) for c in (settle, clusters))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_a_distorted_start_is_put_right(x64):
    settle, masses, x = waters(20)
    distorted = jnp.asarray(x + 0.01 * np.random.default_rng(2).normal(size=x.shape))
    found = settle.positions(distorted, distorted, masses)
    assert np.max(np.abs(settle.stretch(found) - 1)) < 1e-12
    centres = [np.einsum("nki,k->ni", np.reshape(y, (-1, 3, 3)), WATER) for y in (distorted, found)]
    np.testing.assert_allclose(*centres, atol=1e-12)


def test_single_precision_is_exact_far_from_the_origin():
    """To the rounding of the positions themselves, of which a length has two."""
    settle, masses, x = waters(200, spread=4.0)
    found = settle.positions(jnp.asarray(moved(x, masses, 0.002)), jnp.asarray(x), masses)
    assert found.dtype == jnp.float32
    exact = np.asarray(settle.stretch(found)) - 1
    assert np.max(np.abs(exact)) < 2e-7 + np.sqrt(3) * np.spacing(np.float32(4.0)) / LEG


def test_single_precision_for_long():
    settle, masses, x = waters(8, spread=0.3)

    def potential(frame):
        return 50 * jnp.sum((frame.positions - x) ** 2)

    sampler = VelocityVerlet(potential, masses, 0.002, settle, kT=2.5)
    first = sampler.init(jax.random.key(0), Frame(jnp.asarray(x)))
    _, error = run(
        jax.random.key(1), sampler, first, 100_000, every=100,
        observe=lambda s: jnp.max(jnp.abs(settle.stretch(s.positions) - 1)),
    )  # fmt: skip
    assert error.dtype == jnp.float32 and np.max(error) < 1e-6
    assert np.mean(error[-100:]) < 1.1 * np.mean(error[:100])  # nothing piles up


def test_derivatives(x64):
    settle, masses, old = waters(4)
    new, rng = moved(old, masses, 0.002), np.random.default_rng(2)
    weights = rng.normal(size=(2, *old.shape))

    def loss(new, old, legs, bases, masses):
        one = Settle(settle.waters, legs, bases)
        x = one.positions(new, old, masses)
        return jnp.sum(weights[0] * x) + jnp.sum(weights[1] * one.momenta(new, Frame(x), masses))

    masses = jnp.asarray(masses).reshape(-1, 3)[:, [0, 1]]  # a change must leave the hydrogens alike
    point = (jnp.asarray(new), jnp.asarray(old), jnp.asarray(settle.legs), jnp.asarray(settle.bases), masses)
    alike = jax.jit(lambda *p: loss(*p[:4], p[4][:, [0, 1, 1]].ravel()))
    gradient, h = jax.jit(jax.grad(alike, range(5)))(*point), 1e-6
    for n, x in enumerate(point):
        way = rng.normal(size=x.shape)
        up, down = (alike(*point[:n], x + s * h * way, *point[n + 1 :]) for s in (1, -1))
        assert np.isclose(np.sum(gradient[n] * way), (up - down) / (2 * h), rtol=1e-5), n


def test_replicate_is_a_loop(x64):
    settle, masses, old = waters(5)
    new = np.stack([moved(old, masses, 0.002, seed) for seed in range(3)], -1)

    def both(x):
        y = settle.positions(x, jnp.asarray(old), masses)
        return y, settle.momenta(x, Frame(y), masses)

    alone = jax.jit(both)
    for lifted in (jax.jit(replicate(both)), jax.jit(jax.vmap(both, -1, -1))):
        found = lifted(jnp.asarray(new))
        for n in range(3):
            for one, other in zip(found, alone(jnp.asarray(new[..., n])), strict=True):
                assert np.allclose(one[..., n], other, atol=1e-13)


def system(masses, pairs, lengths):
    names = ("X",) * len(masses)
    return System(np.zeros(len(masses), int), np.array(masses), np.zeros(len(masses)), Topology(*[names] * 4),
                  np.array(pairs), np.array(lengths))  # fmt: skip


def test_which_triangles_are_taken():
    """Of atoms 0-11, in no order: a water with its oxygen last, an equilateral one, and two that are no waters."""
    masses = [1.0, 1.0, 16.0, 2.0, 2.0, 2.0, 16.0, 1.0, 1.0, 16.0, 1.0, 2.0]
    sides = {(2, 0): 0.1, (1, 0): 0.15, (1, 2): 0.1, (3, 4): 0.2, (5, 4): 0.2, (3, 5): 0.2, (6, 7): 0.1, (8, 6): 0.11,
             (7, 8): 0.15, (9, 10): 0.1, (9, 11): 0.1, (10, 11): 0.15}  # fmt: skip
    order = np.random.default_rng(0).permutation(len(sides))
    molecule = system(masses, np.array(list(sides))[order], np.array(list(sides.values()))[order])
    held = Constraints.from_system(molecule)
    taken = {row[0]: set(row[1:]) for row in np.asarray(held.waters.waters).tolist()}
    assert taken[2] == {0, 1} and len(taken) == 2 and set.union({*taken}, *taken.values()) == {0, 1, 2, 3, 4, 5}
    assert dict(zip(np.asarray(held.waters.waters)[:, 0].tolist(), held.waters.bases.tolist(), strict=True))[2] == 0.15
    assert {frozenset(p) for p in held.clusters.pairs} == {frozenset(p) for p in list(sides)[6:]}
    assert len(held) == 12
    joined = system(masses, [*sides, (2, 9)], [*sides.values(), 0.3])  # water that hangs on something is no water
    held = Constraints.from_system(joined, positions=np.random.default_rng(0).normal(size=(12, 3)))
    assert set(np.asarray(held.waters.waters).ravel()) == {3, 4, 5}
    heavier = np.array(masses) + np.eye(12)[0]
    assert len(Constraints.from_system(molecule, heavier).waters) == 1
    assert len(Constraints.from_system(molecule, np.where(np.arange(12) == 2, 0, masses)).waters) == 1


def test_a_triangle_that_cannot_close():
    with pytest.raises(ValueError, match=r"0\.1, 0\.1 and 0\.2 nm form no triangle"):
        Constraints.from_system(system(WATER, TRIANGLE, [0.1, 0.1, 0.2]))
