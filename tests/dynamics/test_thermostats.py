"""Thermostats: the exact law of one step, the kinetic and configurational distributions, and what is conserved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metastable.core.frame import Frame
from metastable.core.random import spread, threefry_normal
from metastable.core.replicas import replicate
from metastable.core.system import System, Topology
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.state import force, kinetic_energy
from metastable.dynamics.thermostats import CSVR, CSVRState, NoseHoover
from metastable.loops.run import run

MASSES = np.array([1.0, 12.0, 16.0])
KT = 2.5
DEGREES = 9


def free(frame):
    return 0.0 * jnp.sum(frame.positions)


def anharmonic(frame):
    """Springs that are chaotic together, all held to the origin."""
    x = frame.positions
    stiffness = jnp.array([[90.0], [400.0], [700.0]]) * jnp.array([1.0, 1.3, 0.8])
    return jnp.sum(stiffness * x**2) / 2 + 100 * jnp.sum((x[0] - x[1]) ** 4) + 300 * jnp.sum(x[1] * x[2]) ** 2


START = ((0.1, 0.0, -0.1), (0.0, 0.05, 0.0), (-0.05, 0.0, 0.05))


def frame():
    return Frame(jnp.asarray(START))


@pytest.mark.parametrize("degrees", [1, 2, 7])
@pytest.mark.parametrize("normal", [None, threefry_normal])
def test_one_step_of_csvr_has_the_exact_law(degrees, normal):
    """Given K, the new K is (1 - c) kT / 2 times a noncentral chi-square deviate: Bussi and Parrinello 2008."""
    dt, time, old = 0.3, 0.5, 4.0
    sampler = CSVR(free, np.ones(1), dt, KT, time, degrees, **({"normal": normal} if normal else {}))
    momenta = jnp.array([[np.sqrt(2 * old), 0, 0]])
    state = CSVRState(Frame(jnp.zeros((1, 3))), momenta, jnp.zeros((1, 3)), heat=jnp.zeros(()))
    new = jax.jit(jax.vmap(lambda key: sampler.step(key, state)))(jax.random.split(jax.random.key(0), 40000))
    kinetic = np.sum(np.asarray(new.momenta) ** 2, axis=(1, 2)) / 2
    c = np.exp(-dt / time)
    width = (1 - c) * KT / 2
    assert stats.kstest(kinetic / width, stats.ncx2(degrees, c * old / width).cdf).pvalue > 1e-4
    assert np.allclose(new.heat, kinetic - old, rtol=1e-4, atol=1e-4)
    if degrees == 1:  # the sign of the factor matters most there: the momentum is then an Ornstein-Uhlenbeck process
        p, mean = np.asarray(new.momenta)[:, 0, 0], np.sqrt(c) * np.sqrt(2 * old)
        assert stats.kstest(p, stats.norm(mean, np.sqrt((1 - c) * KT)).cdf).pvalue > 1e-4


@pytest.mark.parametrize("make", [CSVR, NoseHoover])
def test_conserved_quantity(x64, make):
    """It fluctuates with the square of the time step, while the energy goes up and down by kT."""

    def fluctuation(dt):
        sampler = make(anharmonic, MASSES, dt, KT, 0.1, DEGREES)
        state, _ = run(jax.random.key(2), sampler, sampler.init(jax.random.key(0), frame()), round(1 / dt))
        records = run(jax.random.key(1), sampler, state, round(2 / dt), every=1, observe=lambda s: (
            sampler.conserved(s), kinetic_energy(s.momenta, MASSES)))[1]  # fmt: skip
        return [np.std(np.asarray(x)) for x in records]

    (coarse, kinetic), (fine, _) = fluctuation(0.008), fluctuation(0.002)
    assert kinetic > KT
    assert coarse < 0.1 * kinetic
    assert 8 < coarse / fine < 32  # second order: 16


def test_nose_hoover_is_reversible(x64):
    sampler = NoseHoover(anharmonic, MASSES, 0.005, KT, 0.1, DEGREES)
    first = sampler.init(jax.random.key(0), frame())
    there, _ = run(jax.random.key(1), sampler, first, 400)
    turned = type(there)(there.frame, -there.momenta, there.forces, chain=there.chain, velocities=-there.velocities)
    back, _ = run(jax.random.key(1), sampler, turned, 400)
    assert np.allclose(back.positions, first.positions, atol=1e-8)
    assert np.allclose(back.chain, first.chain, atol=1e-8)


@pytest.mark.parametrize("make", [CSVR, NoseHoover])
def test_total_momentum_stays_zero(x64, make):
    def bound(frame):  # a molecule in empty space
        x = frame.positions
        return 200 * (jnp.sum((x[0] - x[1]) ** 2) + jnp.sum((x[1] - x[2]) ** 2))

    names = ("X",) * 3
    system = System(
        np.zeros(3, int), MASSES, np.zeros(3), Topology(names, names, names, names), np.array([[0, 2]]), [0.15]
    )
    constraint = Constraints.from_system(system)
    sampler = make(bound, MASSES, 0.005, KT, 0.1, DEGREES - 4, constraint)
    state = sampler.init(jax.random.key(0), frame())
    for _ in range(5):  # the start is off its constraint by more than one solution is made for
        state = sampler.init(jax.random.key(0), state.frame)
    end, _ = run(jax.random.key(1), sampler, state, 500)
    assert np.allclose(np.sum(end.momenta, axis=0), 0, atol=1e-10)
    assert constraint.residual(end.positions) < 1e-10


def _paths(sampler, count, steps, every, observe):
    """From Langevin dynamics: the distribution must stay, and would not with a wrong thermostat."""
    langevin = Langevin(sampler.potential, MASSES, 0.004, KT, 5.0)

    def path(key):
        state, _ = run(key, langevin, langevin.init(key, frame()), 400)
        first = sampler.init(key, state.frame)
        first = eqx.tree_at(lambda s: s.momenta, first, state.momenta)
        return run(jax.random.fold_in(key, 1), sampler, first, steps, every=every, observe=observe)[1]

    records = jax.jit(replicate(path))(spread(jax.random.key(0), count))
    return jax.tree.map(lambda x: np.moveaxis(np.asarray(x), -1, 0), records)


@pytest.mark.physics
@pytest.mark.parametrize("make", [CSVR, NoseHoover])
def test_canonical_distribution(make):
    """Kinetic energy chi-square, each momentum Gaussian, and <x dU/dx> = kT for each coordinate."""
    sampler = make(anharmonic, MASSES, 0.004, KT, 0.08, DEGREES)

    def observe(s):
        return kinetic_energy(s.momenta, MASSES), s.momenta, -s.positions * force(anharmonic, s.frame)

    kinetic, momenta, virial = _paths(sampler, 4096, 2000, 500, observe)
    assert stats.kstest(2 * kinetic[:, -1] / KT, stats.chi2(DEGREES).cdf).pvalue > 1e-4
    mean = np.mean(2 * kinetic, axis=1)
    assert abs(np.mean(mean) - DEGREES * KT) < 4.5 * np.std(mean) / np.sqrt(len(mean)) + 0.01 * DEGREES * KT
    for atom, mass in enumerate(MASSES):
        assert stats.kstest(momenta[:, -1, atom, 0] / np.sqrt(mass * KT), "norm").pvalue > 1e-4
    virial = np.mean(virial, axis=1)
    error = np.std(virial, axis=0) / np.sqrt(len(virial))
    assert np.all(np.abs(np.mean(virial, axis=0) - KT) < 4.5 * error + 0.01 * KT)  # the time step's own error


@pytest.mark.physics
def test_nose_hoover_chain_samples_one_oscillator():
    """A single thermostat would not (Martyna, Klein, Tuckerman 1992); the chain does."""

    def oscillator(frame):
        return 50 * jnp.sum(frame.positions**2)

    line = jnp.array([[1.0, 0, 0]])  # motion along x only
    sampler = NoseHoover(oscillator, np.ones(1), 0.01, KT, 0.1, 1, length=4)

    def path(key):
        keys = jax.random.split(key, 3)
        state = sampler.init(key, Frame(0.3 * line * jax.random.normal(keys[0])))
        momenta, velocities = 2 * line * jax.random.normal(keys[1]), 10 * jax.random.normal(keys[2], (4,))
        state = eqx.tree_at(lambda s: (s.momenta, s.velocities), state, (momenta, velocities))
        state, _ = run(key, sampler, state, 10000)
        return state.positions[0, 0], state.momenta[0, 0]

    x, p = (np.asarray(y) for y in jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), 4000)))
    assert stats.kstest(x / np.sqrt(KT / 100), "norm").pvalue > 1e-4
    assert stats.kstest(p / np.sqrt(KT), "norm").pvalue > 1e-4
