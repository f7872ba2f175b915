"""Constraints: against the exact solution, against themselves, and in what they do to distributions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from metastable.core.frame import Frame
from metastable.core.random import spread
from metastable.core.replicas import replicate
from metastable.core.system import System, Topology
from metastable.dynamics.clusters import Clusters
from metastable.dynamics.constraints import Constraints, Unconstrained
from metastable.dynamics.integrators import BAOAB, Langevin, VelocityVerlet
from metastable.dynamics.state import kinetic_energy, total_energy
from metastable.loops.run import run


def system(masses, pairs, lengths):
    n = len(masses)
    names = ("X",) * n
    return System(
        np.zeros(n, int), np.asarray(masses, float), np.zeros(n), Topology(names, names, names, names),
        np.asarray(pairs, int).reshape(-1, 2), np.asarray(lengths, float),
    )  # fmt: skip


def star(hydrogens):
    """A heavy atom with constrained hydrogens on it, at tetrahedral angles."""
    directions = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    positions = np.concatenate([np.zeros((1, 3)), 0.109 * directions[:hydrogens]])
    pairs = [(0, k) if k % 2 else (k, 0) for k in range(1, hydrogens + 1)]
    return system([12.011] + [1.008] * hydrogens, pairs, [0.109] * hydrogens), positions


def water():
    angle = np.deg2rad(104.52)
    positions = 0.09572 * np.array([[0, 0, 0], [1, 0, 0], [np.cos(angle), np.sin(angle), 0]])
    pairs = [(0, 1), (0, 2), (1, 2)]
    return system(
        [15.999, 1.008, 1.008], pairs, [np.linalg.norm(positions[i] - positions[j]) for i, j in pairs]
    ), positions


def chain(beads=8):
    """A zigzag of heavy atoms, two hydrogens on each: one cluster of 23 constraints, and a pair apart."""
    heavy = np.array([[0.126 * k, 0.089 * (k % 2), 0] for k in range(beads)])
    side = np.where(np.arange(beads) % 2, 1, -1)[:, None]
    shifts = [side * np.array([0, 0.063, s * 0.089]) for s in (-1, 1)]
    positions = np.concatenate([heavy, heavy + shifts[0], heavy + shifts[1], [[0, 0, 1], [0, 0.1, 1]]])
    pairs = [(k, k + 1) for k in range(beads - 1)]
    pairs += [(k, k + beads) for k in range(beads)] + [(k, k + 2 * beads) for k in range(beads)]
    pairs += [(3 * beads, 3 * beads + 1)]
    lengths = [np.linalg.norm(positions[i] - positions[j]) for i, j in pairs]
    return system([12.011] * beads + [1.008] * 2 * beads + [16.0, 1.008], pairs, lengths), positions


def mixed():
    """Several clusters of different kinds in one system, in no order, and an atom without a constraint."""
    parts = [star(3), star(1), water(), star(3), star(2), star(1)]
    masses, pairs, lengths, positions = [10.0], [], [], [np.full((1, 3), -1.0)]
    for n, (part, x) in enumerate(parts):
        pairs += [(i + len(masses), j + len(masses)) for i, j in part.constraints]
        lengths += list(part.lengths)
        masses += list(part.masses)
        positions.append(x + n)
    order = np.random.default_rng(0).permutation(len(pairs))
    return system(masses, np.array(pairs)[order], np.array(lengths)[order]), np.concatenate(positions)


CASES = {
    "CH": lambda: star(1),
    "CH2": lambda: star(2),
    "CH3": lambda: star(3),
    "CH4": lambda: star(4),
    "water": water,
    "mixed": mixed,
    "chain": chain,
}  # made anew by each test: jax remembers the precision that a numpy array was first traced in


def displaced(case, kT=2.5, dt=0.002, seed=0):
    """Where free flight of dt takes each atom with its thermal momenta."""
    molecule, positions = CASES[case]()
    velocities = np.random.default_rng(seed).normal(size=positions.shape) * np.sqrt(kT / molecule.masses)[:, None]
    return molecule, positions, positions + dt * velocities


def exact(molecule, old, new):
    """SHAKE's equations, by a general root finder."""
    i, j = molecule.constraints.T
    r, weights = old[i] - old[j], 1 / molecule.masses[:, None]

    def solution(multipliers):
        x, pull = new.copy(), multipliers[:, None] * r
        np.add.at(x, i, pull * weights[i])
        np.subtract.at(x, j, pull * weights[j])
        return x

    def errors(multipliers):
        x = solution(multipliers)
        return np.sum((x[i] - x[j]) ** 2, axis=1) / molecule.lengths**2 - 1

    return solution(optimize.root(errors, np.zeros(len(i)), tol=1e-13).x)


@pytest.mark.parametrize("case", CASES)
def test_positions_solve_the_equations(x64, case):
    molecule, old, new = displaced(case)
    constraint = Constraints.from_system(molecule, positions=old)
    found = eqx.filter_jit(constraint.positions)(jnp.asarray(new), jnp.asarray(old), molecule.masses)
    assert constraint.residual(found) < 1e-10
    assert np.allclose(found, exact(molecule, old, new), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_single_precision(case):
    molecule, old, new = displaced(case)
    constraint = Constraints.from_system(molecule, positions=old)
    found = eqx.filter_jit(constraint.positions)(jnp.asarray(new), jnp.asarray(old), molecule.masses)
    rounding = np.abs(old).max() * np.finfo(np.float32).eps / molecule.lengths.min()  # of the positions themselves
    assert found.dtype == jnp.float32
    assert constraint.residual(found) < 1e-6 + 2 * rounding


@pytest.mark.parametrize("case", CASES)
def test_momenta_are_projected(x64, case):
    """Orthogonal to the constraints, in the mass metric; what is taken is a combination of their gradients."""
    molecule, x, _ = displaced(case)
    constraint = Constraints.from_system(molecule, positions=x)
    momenta = np.random.default_rng(1).normal(size=x.shape) * np.sqrt(molecule.masses)[:, None]
    project = eqx.filter_jit(constraint.momenta)
    projected = project(jnp.asarray(momenta), Frame(jnp.asarray(x)), molecule.masses)
    v = np.asarray(projected) / molecule.masses[:, None]
    i, j = molecule.constraints.T
    rate = np.sum((x[i] - x[j]) * (v[i] - v[j]), axis=1)
    assert np.abs(rate).max() < 1e-10
    gradients = np.zeros((len(i), *x.shape))
    gradients[np.arange(len(i)), i], gradients[np.arange(len(i)), j] = x[i] - x[j], x[j] - x[i]
    taken = (momenta - projected).ravel()
    rest = np.linalg.lstsq(gradients.reshape(len(i), -1).T, taken, rcond=None)
    assert np.allclose(gradients.reshape(len(i), -1).T @ rest[0], taken, atol=1e-9)
    again = project(projected, Frame(jnp.asarray(x)), molecule.masses)
    assert np.allclose(again, projected, atol=1e-9)


def test_order_of_the_constraints_does_not_matter(x64):
    molecule, old, new = displaced("mixed")
    back = system(molecule.masses, molecule.constraints[::-1], molecule.lengths[::-1])
    one, other = (
        eqx.filter_jit(Constraints.from_system(m).positions)(jnp.asarray(new), jnp.asarray(old), m.masses)
        for m in (molecule, back)
    )
    assert np.allclose(one, other, atol=1e-12)
    assert len(Constraints.from_system(molecule)) == len(molecule.constraints)


def test_replicate_is_a_loop(x64):
    molecule, old, _ = displaced("mixed")
    constraint = Constraints.from_system(molecule)
    new = np.stack([displaced("mixed", seed=n)[2] for n in range(3)], axis=-1)
    solve = jax.jit(lambda x: constraint.positions(x, jnp.asarray(old), molecule.masses))
    lifted = jax.jit(replicate(solve))(jnp.asarray(new))
    for n in range(3):
        assert np.allclose(lifted[..., n], solve(jnp.asarray(new[..., n])), atol=1e-13)


@pytest.mark.parametrize("case", ["CH3", "chain"])
def test_derivatives(x64, case):
    """Of the constrained positions, with respect to the free ones, the lengths and the masses."""
    molecule, old, new = displaced(case)
    constraint = Constraints.from_system(molecule, positions=old).clusters
    weights = np.random.default_rng(2).normal(size=old.shape)

    def loss(new, lengths, masses):
        moved = Clusters(lengths, constraint.inverse, constraint.pairs, constraint.clusters)
        return jnp.sum(weights * moved.positions(new, jnp.asarray(old), masses))

    point = (jnp.asarray(new), constraint.lengths, jnp.asarray(molecule.masses))
    gradient = jax.jit(jax.grad(loss, (0, 1, 2)))(*point)
    rng, h = np.random.default_rng(3), 1e-6
    loss = jax.jit(loss)
    for n, x in enumerate(point):
        way = rng.normal(size=x.shape)
        up, down = (loss(*point[:n], x + s * h * way, *point[n + 1 :]) for s in (1, -1))
        assert np.isclose(np.sum(gradient[n] * way), (up - down) / (2 * h), rtol=1e-5)


def test_nothing_to_constrain():
    molecule = system([1.0, 2.0], [], [])
    x = jnp.ones((2, 3))
    for constraint in (Unconstrained(), Constraints.from_system(molecule)):
        assert constraint.positions(x, 0 * x, molecule.masses) is x
        assert constraint.momenta(x, Frame(x), molecule.masses) is x
    assert Constraints.from_system(molecule).residual(x) == 0


def test_residual_tells_of_errors_and_of_nan():
    molecule, x = star(2)
    constraint = Constraints.from_system(molecule)
    stretched = np.array(x)
    stretched[2] *= 1.01
    frames = jnp.stack([jnp.asarray(x), jnp.asarray(stretched), jnp.full(x.shape, jnp.nan)])
    residual = np.asarray(constraint.residual(frames))
    assert residual[0] < 1e-6
    assert np.isclose(residual[1], 0.01, rtol=1e-4)
    assert np.isnan(residual[2])


def test_bad_input():
    molecule, _ = chain()
    with pytest.raises(ValueError, match=r"23 constraints hang together.*positions"):
        Constraints.from_system(molecule)
    with pytest.raises(ValueError, match=r"must be positive; the least is -0\.1"):
        Constraints.from_system(system([1.0, 1.0], [(0, 1)], [-0.1]))


def springs(molecule, positions):
    """A potential for what the constraints leave free: springs between atoms two bonds apart, and to the start."""
    near = {tuple(sorted(p)) for p in molecule.constraints.tolist()}
    i, j = np.triu_indices(len(positions), 1)
    reach = np.linalg.norm(positions[i] - positions[j], axis=1)
    use = (reach < 0.3) & np.array([(a, b) not in near for a, b in zip(i, j, strict=True)], bool)
    i, j, reach = i[use], j[use], reach[use]

    def potential(frame):
        x = frame.positions
        r = jnp.sqrt(jnp.sum((x[i] - x[j]) ** 2, axis=-1))
        return jnp.sum(2e4 * (r - reach) ** 2) + 50 * jnp.sum((x - positions) ** 2)

    return potential


@pytest.mark.parametrize("case", [pytest.param("mixed", marks=pytest.mark.physics), "CH3", "chain"])
def test_verlet_with_constraints_keeps_energy_and_reverses(x64, case):
    molecule, x = CASES[case]()
    constraint = Constraints.from_system(molecule, positions=x)
    potential = springs(molecule, x)
    sampler = VelocityVerlet(potential, molecule.masses, 0.002, constraint, kT=2.5)
    first = sampler.init(jax.random.key(0), Frame(jnp.asarray(x)))

    def observe(s):
        return total_energy(potential, s, molecule.masses), constraint.residual(s.positions)

    end, (energy, residual) = run(jax.random.key(1), sampler, first, 2000, every=10, observe=observe)
    kinetic = float(kinetic_energy(first.momenta, molecule.masses))
    assert np.std(energy) < 0.01 * kinetic
    assert abs(np.mean(energy[:100]) - np.mean(energy[100:])) < 0.002 * kinetic
    assert np.max(residual) < 1e-10
    turned = type(end)(end.frame, -end.momenta, end.forces)
    back, _ = run(jax.random.key(1), sampler, turned, 2000)
    assert np.allclose(back.positions, first.positions, atol=1e-6)


@pytest.mark.physics
@pytest.mark.parametrize("case", ["mixed", "chain"])
def test_langevin_keeps_its_constraints_in_single_precision(case):
    molecule, x = CASES[case]()
    constraint = Constraints.from_system(molecule, positions=x)
    sampler = Langevin(springs(molecule, x), molecule.masses, 0.002, 2.5, 10.0, constraint)
    keys = spread(jax.random.key(0), 16)
    state = replicate(lambda key: sampler.init(key, Frame(jnp.asarray(x))))(keys)
    step = replicate(sampler.step)
    walk = jax.jit(lambda state: jax.lax.fori_loop(0, 300, lambda n, s: step(spread(jax.random.key(n), 16), s), state))
    positions = np.moveaxis(walk(state).positions, -1, 0)
    rounding = np.abs(positions).max() * np.finfo(np.float32).eps / molecule.lengths.min()
    assert np.max(constraint.residual(jnp.asarray(positions))) < 2e-6 + 2 * rounding


def free(frame):
    return 0.0 * jnp.sum(frame.positions)


def _paths(sampler, frame, count, warm, steps, every, observe, seed=0):
    def path(key):
        state, _ = run(key, sampler, sampler.init(key, frame), warm)
        return run(jax.random.fold_in(key, 1), sampler, state, steps, every=every, observe=observe)[1]

    path = replicate(path)
    return jax.tree.map(lambda x: np.moveaxis(np.asarray(x), -1, 0), jax.jit(path)(spread(jax.random.key(seed), count)))


@pytest.mark.physics
@pytest.mark.parametrize("make", [Langevin, BAOAB])
def test_temperature_with_fewer_degrees_of_freedom(make):
    """2 K / kT is chi-square distributed, with 3 degrees of freedom an atom less one a constraint."""
    molecule, x = CASES["mixed"]()
    constraint = Constraints.from_system(molecule)
    sampler = make(springs(molecule, x), molecule.masses, 0.001, 2.5, 10.0, constraint)

    def observe(s):
        return kinetic_energy(constraint.momenta(s.momenta, s.frame, molecule.masses), molecule.masses)

    kinetic = _paths(sampler, Frame(jnp.asarray(x)), 4096, 1000, 1, 1, observe)[:, 0]
    assert stats.kstest(2 * kinetic / 2.5, stats.chi2(molecule.degrees_of_freedom).cdf).pvalue > 1e-4
    f = molecule.degrees_of_freedom
    assert abs(np.mean(2 * kinetic / 2.5) - f) < 4.5 * np.sqrt(2 * f / len(kinetic))


@pytest.mark.physics
def test_free_rotor():
    """A rigid dimer without a potential: the angular momentum is a Gaussian in two directions, its axis uniform."""
    molecule = system([3.0, 5.0], [(0, 1)], [0.2])
    frame = Frame(jnp.asarray([[0.0, 0, 0], [0.2, 0, 0]]))
    sampler = Langevin(free, molecule.masses, 0.01, 2.5, 2.0, Constraints.from_system(molecule))
    x, p = _paths(sampler, frame, 20000, 1500, 1, 1, lambda s: (s.positions, s.momenta))
    axis = (x[:, 0, 1] - x[:, 0, 0]) / 0.2
    for n in range(3):
        assert stats.kstest(axis[:, n], stats.uniform(-1, 2).cdf).pvalue > 1e-4
    reduced = 15 / 8
    velocity = p[:, 0, 1] / 5.0 - p[:, 0, 0] / 3.0
    spin = np.cross(axis, velocity)
    assert stats.kstest(np.sum(spin**2, 1) * reduced / 2.5, stats.chi2(2).cdf).pvalue > 1e-4


@pytest.mark.physics
@pytest.mark.parametrize("make", [Langevin, BAOAB])
def test_angle_of_a_free_trimer(make):
    """Two rigid bonds leave the angle a with the density sin(a) sqrt(4 - cos(a)^2), not sin(a) (Fixman 1974)."""
    molecule = system([2.0, 2.0, 2.0], [(0, 1), (1, 2)], [0.2, 0.2])
    frame = Frame(jnp.asarray([[0.0, 0.2, 0], [0, 0, 0], [0.2, 0, 0]]))
    sampler = make(free, molecule.masses, 0.005, 2.5, 3.0, Constraints.from_system(molecule))
    x = _paths(sampler, frame, 8192, 500, 2500, 500, lambda s: s.positions).reshape(-1, 3, 3)
    a, b = x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]
    cosine = np.sum(a * b, axis=1) / 0.04

    def primitive(c):  # of the density of the cosine, up to its norm
        return c * np.sqrt(4 - c * c) / 2 + 2 * np.arcsin(c / 2)

    def distribution(c):
        c = np.clip(c, -1, 1)
        return (primitive(c) - primitive(-1)) / (primitive(1) - primitive(-1))

    assert stats.kstest(cosine, distribution).pvalue > 1e-4
    assert stats.kstest(cosine, stats.uniform(-1, 2).cdf).pvalue < 1e-3  # the test sees the difference
