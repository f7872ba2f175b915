"""Clusters of rigid water, of three, four and five sites: what the dynamics and the minimisers keep."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from metastable.core.frame import Frame
from metastable.core.random import spread
from metastable.core.replicas import replicate
from metastable.core.system import System, Topology
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import BAOAB, Langevin, VelocityVerlet
from metastable.dynamics.minimize import fire, largest_force, lbfgs
from metastable.dynamics.state import State, at_rest, force, kinetic_energy, total_energy
from metastable.loops.run import run
from metastable.potentials.nonbonded import Combined, Exceptions, Nonbonded
from metastable.potentials.sites import Average, Sites, WithSites
from metastable.potentials.sum import Sum

COUNT = 8
LEG, ANGLE = 0.09572, np.deg2rad(104.52)
MODELS = {  # charges of oxygen, hydrogen and site; sigma, epsilon of the oxygen; weights of each site
    "TIP3P": ((-0.834, 0.417), (0.31507, 0.6364), []),
    "TIP4P-Ew": ((0.0, 0.52422, -1.04844), (0.316435, 0.680946), [(0.106676721, 0.106676721, 0.0)]),
    "TIP5P": ((0.0, 0.241, -0.241), (0.312, 0.66944), [(-0.344908, -0.344908, s * 6.4437903) for s in (1, -1)]),
}


def cluster(model):
    """System, positions and potential."""
    (oxygen, hydrogen, *of_site), (sigma, epsilon), weights = MODELS[model]
    size = 3 + len(weights)
    one = LEG * np.array([[0, 0, 0], [1, 0, 0], [np.cos(ANGLE), np.sin(ANGLE), 0]] + [[0, 0, 0]] * len(weights))
    lattice = 0.31 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)
    x = np.stack([Rotation.random(random_state=n).apply(one) + lattice[n] for n in range(COUNT)]).reshape(-1, 3)
    first = size * np.arange(COUNT)
    charges = np.tile([oxygen, hydrogen, hydrogen, *of_site * len(weights)], COUNT)
    own = np.stack(np.triu_indices(size, 1), 1)
    pairs = (own + first[:, None, None]).reshape(-1, 2)
    lj = Combined(np.tile([sigma] + [0.1] * (size - 1), COUNT), np.tile([epsilon] + [0.0] * (size - 1), COUNT))
    plain = Sum({"nonbonded": Nonbonded(charges, lj, Exceptions(pairs, *np.zeros((3, len(pairs)))))})
    sites = [Average(first + 3 + k, first[:, None] + np.arange(3), np.tile(w, (COUNT, 1)))
             for k, w in enumerate(weights)]  # fmt: skip
    names = ("X",) * len(x)
    molecule = System(
        np.tile([8, 1, 1] + [0] * len(weights), COUNT),
        np.tile([15.999, 1.008, 1.008] + [0.0] * len(weights), COUNT),
        charges,
        Topology(names, names, names, names),
        (np.array([[0, 1], [0, 2], [1, 2]]) + first[:, None, None]).reshape(-1, 2),
        np.tile([LEG, LEG, 2 * LEG * np.sin(ANGLE / 2)], COUNT),
        Sites(tuple(sites)) if sites else None,
    )
    return molecule, x, WithSites(plain, molecule.sites) if sites else plain


def prepared(model):
    molecule, x, potential = cluster(model)
    constraint = Constraints.from_system(molecule)
    frame = fire(potential, Frame(jnp.asarray(x)), 50.0, 500, constraint, jnp.asarray(molecule.masses))
    return molecule, frame, potential, constraint


def misplaced(molecule, positions):
    """The farthest that a site is from its place, nm."""
    place = molecule.sites.place if molecule.sites else lambda x: x
    return jnp.max(jnp.abs(positions - place(positions)))


@pytest.mark.parametrize("model", MODELS)
def test_energy_is_kept(x64, model):
    molecule, frame, potential, constraint = prepared(model)
    assert molecule.degrees_of_freedom == 6 * COUNT
    assert len(constraint.waters) == COUNT and len(constraint.clusters) == 0
    sampler = VelocityVerlet(potential, molecule.masses, 0.001, constraint, kT=1.2)
    first = eqx.filter_jit(sampler.init)(jax.random.key(0), frame)

    def observe(s):
        spin = jnp.sum(jnp.cross(s.positions, s.momenta), 0)
        held = constraint.residual(s.positions), misplaced(molecule, s.positions)
        return total_energy(potential, s, molecule.masses), *held, jnp.sum(s.momenta, 0), spin

    end, seen = run(jax.random.key(1), sampler, first, 3000, every=20, observe=observe)
    energy, residual, off, momentum, spin = seen
    kinetic = float(kinetic_energy(first.momenta, molecule.masses))
    assert kinetic > 10
    assert np.std(energy) < 0.003 * kinetic
    assert abs(np.mean(energy[:50]) - np.mean(energy[-50:])) < 0.003 * kinetic
    assert np.max(residual) < 1e-12 and np.max(off) < 1e-15
    assert np.max(np.ptp(momentum, 0)) < 1e-9 and np.max(np.ptp(spin, 0)) < 1e-9
    assert np.all(np.asarray(end.momenta)[molecule.masses == 0] == 0)
    assert np.max(np.abs(end.positions - first.positions)) > 0.02


@pytest.mark.physics
def test_energy_in_single_precision_does_not_drift():
    """Clusters 2 nm from the origin, where positions are rounded to 2e-7 nm: less than 0.001 kT a degree of freedom
    and ns, within two standard errors; and none wanders far."""
    molecule, frame, potential, constraint = prepared("TIP3P")
    sampler = VelocityVerlet(potential, molecule.masses, 0.001, constraint, kT=1.2)

    def path(key):
        first = sampler.init(key, frame.at(frame.positions + 2))
        first = State(first.frame, at_rest(first.momenta, molecule.masses), first.forces)
        return run(
            jax.random.key(1), sampler, first, 30_000, every=500,
            observe=lambda s: (total_energy(potential, s, molecule.masses), constraint.residual(s.positions)),
        )[1]  # fmt: skip

    energy, residual = jax.jit(replicate(path))(spread(jax.random.key(0), 48))
    assert energy.dtype == jnp.float32
    slopes = np.polyfit(np.arange(len(energy)) / 2000, np.asarray(energy, float), 1)[0]  # kJ/mol/ns
    drifts = slopes / molecule.degrees_of_freedom / 1.2
    assert abs(np.mean(drifts)) < 0.001 + 2 * np.std(drifts) / np.sqrt(len(drifts))
    assert np.std(drifts) < 0.02  # an impulse from rounded positions makes this 0.08
    assert np.max(residual) < 2e-7 + np.sqrt(3) * np.spacing(np.float32(3)) / LEG


@pytest.mark.physics
@pytest.mark.parametrize("make", [Langevin, BAOAB])
def test_temperature_of_four_site_water(make):
    """2 K / kT is chi-square distributed with 6 degrees of freedom a water."""
    molecule, frame, potential, constraint = prepared("TIP4P-Ew")
    sampler = make(potential, molecule.masses, 0.001, 1.2, 20.0, constraint)

    def path(key):
        state, _ = run(key, sampler, sampler.init(key, frame), 300)
        momenta = constraint.momenta(state.momenta, state.frame, molecule.masses)
        return kinetic_energy(momenta, molecule.masses), misplaced(molecule, state.positions)

    kinetic, off = jax.jit(replicate(path))(spread(jax.random.key(0), 1024))
    f = molecule.degrees_of_freedom
    assert stats.kstest(2 * np.asarray(kinetic) / 1.2, stats.chi2(f).cdf).pvalue > 1e-4
    assert np.max(off) < 1e-6


@pytest.mark.parametrize("minimise", [fire, lbfgs])
def test_minimisers_keep_waters_and_sites(x64, minimise):
    molecule, frame, potential, constraint = prepared("TIP4P-Ew")
    masses = jnp.asarray(molecule.masses)
    end = minimise(potential, frame, 1.0, 3000, constraint, masses)
    assert constraint.residual(end.positions) < 1e-12 and misplaced(molecule, end.positions) < 1e-15
    assert largest_force(potential, end, constraint, masses) < 10.0
    assert potential(end) < -20.0 * COUNT


def test_a_trajectory_can_be_differentiated(x64):
    """Through waters and sites: where a few steps lead, with respect to the start and the strength of the forces."""
    molecule, frame, potential, constraint = prepared("TIP4P-Ew")
    sampler = VelocityVerlet(potential, molecule.masses, 0.001, constraint, kT=1.2)
    first = eqx.filter_jit(sampler.init)(jax.random.key(0), frame)
    weights = np.random.default_rng(1).normal(size=frame.positions.shape)

    def loss(scale, x):
        scaled = WithSites(lambda f: scale * potential.potential(f), molecule.sites)
        sampler = VelocityVerlet(scaled, molecule.masses, 0.001, constraint)
        start = State(Frame(x), first.momenta, force(scaled, Frame(x)))
        return jnp.sum(weights * run(jax.random.key(1), sampler, start, 20)[0].positions)

    point, h = (jnp.asarray(1.0), frame.positions), 1e-5
    gradient = jax.jit(jax.grad(loss, (0, 1)))(*point)
    value, rng = jax.jit(loss), np.random.default_rng(0)
    for n, x in enumerate(point):
        way = rng.normal(size=x.shape)
        up, down = (value(*point[:n], x + s * h * way, *point[n + 1 :]) for s in (1, -1))
        assert np.isclose(np.sum(gradient[n] * way), (up - down) / (2 * h), rtol=1e-5)
