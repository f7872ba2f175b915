"""Minimisers against known minima and against scipy's, with constraints and without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.core.system import System, Topology
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.minimize import fire, largest_force, lbfgs

BOTH = [fire, lbfgs]


def cluster(frame):
    """Thirteen Lennard-Jones atoms, epsilon 1 kJ/mol, sigma 0.3 nm."""
    i, j = np.triu_indices(13, 1)
    x = frame.positions
    inverse = 0.09 / jnp.sum((x[i] - x[j]) ** 2, axis=-1)
    return 4 * jnp.sum(inverse**6 - inverse**3)


def icosahedron(noise, seed=0):
    golden = (1 + np.sqrt(5)) / 2
    corners = [np.roll([0, a, b], k) for k in range(3) for a in (-1, 1) for b in (-golden, golden)]
    x = 0.17 * np.concatenate([np.zeros((1, 3)), corners])
    return Frame(jnp.asarray(x + noise * np.random.default_rng(seed).normal(size=x.shape)))


@pytest.mark.parametrize("minimize", BOTH)
def test_lennard_jones_cluster(x64, minimize):
    """The global minimum of 13 atoms is the icosahedron (Hoare, Pal 1971), -44.326801 epsilon."""
    frame = minimize(cluster, icosahedron(0.02), 1e-7, 5000)
    assert np.isclose(cluster(frame), -44.326801, atol=1e-6)
    assert largest_force(cluster, frame) <= 1e-7


@pytest.mark.parametrize("minimize", BOTH)
def test_a_clash_is_survived_in_single_precision(minimize):
    start = icosahedron(0.06, seed=3)
    assert largest_force(cluster, start) > 1e4
    frame = minimize(cluster, start, 0.1, 5000)
    assert frame.positions.dtype == jnp.float32
    assert largest_force(cluster, frame) <= 0.1
    assert cluster(frame) < -35


@pytest.mark.parametrize("minimize", BOTH)
def test_stops_after_its_steps(minimize):
    start = icosahedron(0.02)
    frame = minimize(cluster, start, 1e-7, 3)
    assert 0 < np.abs(frame.positions - start.positions).max() < 0.1
    assert np.array_equal(minimize(cluster, start, 1e9, 100).positions, start.positions)


def polymer():
    """A bead chain in a tilted well, its bonds constrained; the start is straight and off its lengths by a per cent."""
    x = np.array([[0.152 * k, 0.01 * k * k, 0.02 * (k % 2)] for k in range(4)])
    x[1:] = x[0] + np.cumsum(0.1515 * np.diff(x, axis=0) / np.linalg.norm(np.diff(x, axis=0), axis=1)[:, None], axis=0)
    names = ("X",) * 4
    pairs, masses = np.array([[0, 1], [1, 2], [2, 3]]), np.array([12.0, 14.0, 16.0, 1.0])
    system = System(
        np.zeros(4, int), masses, np.zeros(4), Topology(names, names, names, names), pairs, np.full(3, 0.15)
    )

    def potential(frame):
        x = frame.positions
        return (
            jnp.sum(jnp.array([200, 300, 500]) * (x - 0.1) ** 2)
            + 20 * x[0, 0]
            - 50 / (0.05 + jnp.sum((x[0] - x[3]) ** 2))
        )

    return system, Frame(jnp.asarray(x)), potential


@pytest.mark.parametrize("minimize", [fire, pytest.param(lbfgs, marks=pytest.mark.physics)])
def test_constraints_are_kept(x64, minimize):
    system, start, potential = polymer()
    constraint = Constraints.from_system(system)
    frame = minimize(potential, start, 1e-5, 10000, constraint, system.masses)
    assert constraint.residual(frame.positions) < 1e-10
    assert largest_force(potential, frame, constraint, system.masses) < 1.1e-5
    bonds = {
        "type": "eq",
        "fun": lambda y: np.linalg.norm(np.diff(y.reshape(4, 3), axis=0), axis=1) - 0.15,
    }
    near = np.ravel(frame.positions) + 1e-3 * np.random.default_rng(0).normal(size=12)
    value = jax.jit(lambda y: potential(Frame(y.reshape(4, 3))))
    other = optimize.minimize(value, near, jac=jax.jit(jax.grad(value)), constraints=bonds,
                              options={"maxiter": 1000, "ftol": 1e-14})  # fmt: skip
    assert np.isclose(potential(frame), other.fun, atol=1e-6)
    assert np.allclose(frame.positions.reshape(-1), other.x, atol=1e-4)


@pytest.mark.parametrize("minimize", [fire, pytest.param(lbfgs, marks=pytest.mark.physics)])  # slow to compile
def test_each_replica_stops_by_itself(x64, minimize):
    starts = [icosahedron(0.02, seed).positions for seed in range(3)]
    together = jax.jit(replicate(lambda x: minimize(cluster, Frame(x), 1e-5, 500).positions))(
        jnp.stack(starts, axis=-1)
    )
    for n, x in enumerate(starts):
        alone = minimize(cluster, Frame(x), 1e-5, 500).positions
        assert np.isclose(cluster(Frame(together[..., n])), cluster(Frame(alone)), atol=1e-9)
        assert np.allclose(together[..., n], alone, atol=1e-6)
