"""Integrators: order, conservation, reversibility, and the distributions that they sample."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, linalg, stats

from metastable.core.frame import Frame
from metastable.core.random import threefry_normal
from metastable.dynamics.integrators import BAOAB, Langevin, Overdamped, VelocityVerlet
from metastable.dynamics.state import State, force, kinetic_energy, total_energy
from metastable.loops.run import run

MASSES = np.array([1.0, 4.0])
KT = 2.5


def anharmonic(frame):
    """Two atoms in a quartic well that couples all their coordinates."""
    x = frame.positions.reshape(-1)
    return 20 * jnp.sum(x**2) + 15 * jnp.sum(x**2) ** 2 + 10 * jnp.sum(x[:-1] * x[1:])


def start(seed=0):
    rng = np.random.default_rng(seed)
    frame = Frame(jnp.asarray(rng.normal(size=(2, 3)) * 0.3))
    return State(frame, jnp.asarray(rng.normal(size=(2, 3)) * 3), force(anharmonic, frame))


def go(sampler, state, steps, key=0, **options):
    return run(jax.random.key(key), sampler, state, steps, **options)


def test_verlet_is_of_second_order(x64):
    state, time = start(), 1.0
    masses = np.repeat(MASSES, 3)
    slope = jax.jit(lambda x: force(anharmonic, Frame(x.reshape(2, 3))).ravel())

    def motion(_, y):
        return np.concatenate([y[6:] / masses, slope(y[:6])])

    y = np.concatenate([np.ravel(state.positions), np.ravel(state.momenta)])
    exact = integrate.solve_ivp(motion, (0, time), y, method="DOP853", rtol=1e-12, atol=1e-12).y[:6, -1]
    errors = []
    for steps in (400, 800, 1600):
        end, _ = go(VelocityVerlet(anharmonic, MASSES, time / steps), state, steps)
        errors.append(np.abs(np.ravel(end.positions) - exact).max())
    assert np.allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.02)


def test_verlet_keeps_its_energy(x64):
    def spread(dt):
        sampler = VelocityVerlet(anharmonic, MASSES, dt)
        records = go(sampler, start(), 20000, every=10, observe=lambda s: total_energy(anharmonic, s, MASSES))[1]
        energy = np.asarray(records)
        drift = np.polyfit(np.arange(len(energy)), energy, 1)[0] * len(energy)
        return np.std(energy), abs(drift)

    (coarse, drift), (fine, _) = spread(0.01), spread(0.005)
    assert np.isclose(coarse / fine, 4, rtol=0.1)  # a shadow energy is kept: the fluctuation is of second order
    assert drift < coarse


def test_verlet_is_reversible(x64):
    sampler = VelocityVerlet(anharmonic, MASSES, 0.01)
    there, _ = go(sampler, start(), 500)
    back, _ = go(sampler, State(there.frame, -there.momenta, there.forces), 500)
    assert np.allclose(back.positions, start().positions, atol=1e-10)
    assert np.allclose(back.momenta, -start().momenta, atol=1e-10)


def test_langevin_without_friction_is_verlet(x64):
    dt, state = 0.01, start()
    verlet, _ = go(VelocityVerlet(anharmonic, MASSES, dt), state, 200)
    leapfrog = State(state.frame, state.momenta - dt / 2 * state.forces, None)  # half a step behind
    for sampler, first in (
        (Langevin(anharmonic, MASSES, dt, KT, 0.0), leapfrog),
        (BAOAB(anharmonic, MASSES, dt, KT, 0.0), state),
    ):
        end, _ = go(sampler, first, 200)
        assert np.allclose(end.positions, verlet.positions, atol=1e-9)


ALL = [
    lambda potential: VelocityVerlet(potential, MASSES, 0.01, kT=KT),
    lambda potential: Langevin(potential, MASSES, 0.01, KT, 1.0),
    lambda potential: BAOAB(potential, MASSES, 0.01, KT, 1.0),
    lambda potential: Overdamped(potential, MASSES, 0.01, KT, 10.0),
]


@pytest.mark.parametrize("make", ALL)
def test_one_force_evaluation_a_step(make):
    calls = []

    def potential(frame):
        calls.append(1)
        return anharmonic(frame)

    sampler = make(potential)
    state = sampler.init(jax.random.key(0), start().frame)
    calls.clear()
    jax.make_jaxpr(sampler.step)(jax.random.key(1), state)
    assert len(calls) == 1


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_follows_the_positions(x64, make, dtype):
    sampler = make(anharmonic)
    state = sampler.init(jax.random.key(0), Frame(start().positions.astype(dtype)))
    state = sampler.step(jax.random.key(1), state)
    assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype(dtype)}
    assert state.forces is None or np.allclose(state.forces, force(anharmonic, state.frame))


@pytest.mark.parametrize("make", ALL)
def test_a_massless_atom_does_not_move(make):
    sampler = make(anharmonic)
    sampler = type(sampler)(**{**vars(sampler), "masses": jnp.array([0.0, 1.0])})
    first = sampler.init(jax.random.key(0), start().frame)
    state = sampler.step(jax.random.key(1), first)
    assert np.array_equal(state.positions[0], first.positions[0])
    assert not np.any(state.positions[1] == first.positions[1])


def _covariance(make, k, mass):
    """That of (x, p) of a harmonic oscillator under a sampler, exactly: the fixed point of its linear step."""

    def step(x, p, noise):
        sampler = make(lambda frame: k * jnp.sum(frame.positions**2) / 2, np.array([mass]),
                       lambda key, shape, dtype: jnp.full(shape, noise, dtype))  # fmt: skip
        frame = Frame(jnp.full((1, 3), x))
        state = State(frame, jnp.full((1, 3), p), -k * frame.positions)  # forces for those that carry them
        new = sampler.step(jax.random.key(0), state)
        return np.array([new.positions[0, 0], new.momenta[0, 0]])

    matrix, noise = np.transpose([step(1.0, 0.0, 0.0), step(0.0, 1.0, 0.0)]), step(0.0, 0.0, 1.0)
    return linalg.solve_discrete_lyapunov(matrix, np.outer(noise, noise))


@pytest.mark.parametrize("dt", [0.01, 0.05, 0.1])
def test_harmonic_oscillator_is_exact_at_any_step(x64, dt):
    k, mass, friction = 300.0, 2.0, 3.0  # the frequency is 12 / ps: 0.1 ps is 1.2 / frequency
    langevin = _covariance(lambda u, m, n: Langevin(u, m, dt, KT, friction, normal=n), k, mass)
    baoab = _covariance(lambda u, m, n: BAOAB(u, m, dt, KT, friction, normal=n), k, mass)
    assert np.isclose(langevin[0, 0], KT / k, rtol=1e-12)
    assert np.isclose(langevin[1, 1], mass * KT, rtol=1e-12)  # the middle scheme's momenta are exact too
    assert np.isclose(baoab[0, 0], KT / k, rtol=1e-12)
    assert np.isclose(baoab[1, 1], mass * KT * (1 - k / mass * dt**2 / 4), rtol=1e-12)


@pytest.mark.parametrize("dt", [0.01, 0.1])
def test_overdamped_harmonic_oscillator_is_exact(x64, dt):
    k, mass, friction = 300.0, 2.0, 20.0
    covariance = _covariance(lambda u, m, n: Overdamped(u, m, dt, KT, friction, normal=n), k, mass)
    assert np.isclose(covariance[0, 0], KT / k, rtol=1e-12)
    assert np.isclose(covariance[1, 1], mass * KT, rtol=1e-12)


def test_ou_relaxes_as_it_should(x64):
    """Free flight: <v(0) v(t)> decays with the friction, and the diffusion is kT / (m friction)."""
    sampler = Langevin(lambda frame: 0.0 * jnp.sum(frame.positions), np.ones(2), 0.05, KT, 2.0)

    def path(key):
        state = sampler.init(key, Frame(jnp.zeros((2, 3))))
        return state, run(key, sampler, state, 100)[0]

    first, end = jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), 20000))
    t, friction, n = 100 * 0.05, 2.0, first.momenta.size
    expected = 2 * KT / friction * (t - (1 - np.exp(-friction * t)) / friction)
    assert abs(np.mean(end.positions**2) - expected) < 4.5 * expected * np.sqrt(2 / n)
    assert abs(np.mean(first.momenta * end.momenta) / KT - np.exp(-friction * t)) < 4.5 / np.sqrt(n)


def test_overdamped_diffuses():
    sampler = Overdamped(lambda frame: 0.0 * jnp.sum(frame.positions), MASSES, 0.01, KT, 10.0)

    def path(key):
        return run(key, sampler, sampler.init(key, Frame(jnp.zeros((2, 3)))), 200)[0].positions

    end = np.asarray(jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), 5000)))
    expected = 2 * KT / (10.0 * MASSES) * 0.01 * (200 - 0.5)  # the first and the last noise count by half, once squared
    assert np.all(np.abs(np.mean(end**2, axis=(0, 2)) / expected - 1) < 4.5 * np.sqrt(2 / 15000))


@pytest.mark.physics
@pytest.mark.parametrize("normal", [None, threefry_normal])
@pytest.mark.parametrize("make", [Langevin, BAOAB])
def test_equipartition_and_the_virial(make, normal):
    """<x dU/dx> = kT for each coordinate at any mass; kinetic energy likewise, chi-square distributed."""
    sampler = make(anharmonic, MASSES, 0.01, KT, 5.0, **({"normal": normal} if normal else {}))

    def path(key):
        state, _ = run(key, sampler, sampler.init(key, start().frame), 200)
        return run(
            key, sampler, state, 400, every=100, observe=lambda s: (s.positions, s.momenta, force(anharmonic, s.frame))
        )[1]

    x, p, f = jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(1), 20000))
    n = len(x)  # per replica averages are independent
    virial = np.mean(np.asarray(-x * f), axis=1)
    error = np.std(virial, axis=0) / np.sqrt(n)
    assert np.all(np.abs(np.mean(virial, axis=0) - KT) < 4.5 * error + 0.004 * KT)  # the step's own error
    if make is Langevin:  # BAOAB's momenta have an error of second order, which this would see
        kinetic = np.asarray(jax.vmap(lambda p: kinetic_energy(p, MASSES))(p[:, -1]))
        assert stats.kstest(2 * kinetic / KT, stats.chi2(6).cdf).pvalue > 1e-4
    per_atom = np.mean(np.asarray(p) ** 2, axis=(1, 3)) / MASSES
    error = np.std(per_atom, axis=0) / np.sqrt(n)
    assert np.all(np.abs(np.mean(per_atom, axis=0) - KT) < 4.5 * error + (0.01 if make is BAOAB else 0.002) * KT)


@pytest.mark.physics
@pytest.mark.parametrize("make", [Langevin, BAOAB, Overdamped])
def test_double_well(make):
    """Occupation of both wells and of the barrier against the Boltzmann weights, by quadrature."""

    def energy(x):
        return 4 * (x**2 - 1) ** 2 + x

    def potential(frame):
        x, rest = frame.positions[:, 0], frame.positions[:, 1:]
        return jnp.sum(energy(x)) + 5 * jnp.sum(rest**2)

    sampler = make(potential, np.ones(1), 0.02, KT, 2.0 if make is not Overdamped else 5.0)

    def path(key):
        state, _ = run(key, sampler, sampler.init(key, Frame(jnp.zeros((1, 3)))), 1500)
        return run(key, sampler, state, 2000, every=20, observe=lambda s: s.positions[0, 0])[1]

    x = np.asarray(jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(2), 4000)))
    edges = np.linspace(-1.6, 1.6, 17)

    def weight(low, high):
        return integrate.quad(lambda y: np.exp(-energy(y) / KT), low, high)[0]

    expected = np.array([weight(*ends) for ends in pairwise(edges)]) / weight(-4, 4)
    found = np.array([np.histogram(row, edges)[0] / len(row) for row in x])
    error = np.std(found, axis=0) / np.sqrt(len(x))
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4.5 * error + 0.005 * expected)
