"""Walkers and replicas that take several steps at once, and what a bias pulls at."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.core.frame import Frame
from metastable.cvs import Distance
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.replicas import STRETCH, Replicas
from metastable.enhanced.biases import Harmonic
from metastable.enhanced.metadynamics import WellTempered
from metastable.enhanced.walkers import Biased, Walkers
from metastable.loops.run import run
from metastable.potentials.sites import Average, Sites, WithSites


def double_well(frame):
    x = frame.positions[0]
    return 8 * (x[0] ** 2 - 0.25) ** 2 + jnp.sum(x[1:] ** 2)


def x_of(frame):
    return frame.positions[0, :1]


def langevin():
    return Langevin(double_well, jnp.array([2.0]), 0.01, 1.0, 3.0)


def begun(sampler):
    return sampler.init(jax.random.key(0), Frame(jnp.array([[0.5, 0.0, 0.0]])))


def one_by_one(sampler, key, state, steps):
    step = eqx.filter_jit(sampler.step)
    for own in jax.random.split(key, (1, steps))[0]:
        state = step(own, state)
    return state


@pytest.mark.parametrize("lanes", [1, 2, 6])
def test_replicas(x64, lanes):
    sampler = Replicas(langevin(), 6, lanes=lanes)
    state = begun(sampler)
    steps = 2 * STRETCH + 6
    end, _ = run(jax.random.key(1), sampler, state, steps)
    plain = one_by_one(sampler, jax.random.key(1), state, steps)
    assert np.allclose(sampler.public(end.positions), sampler.public(plain.positions), rtol=0, atol=1e-11)


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("stride", [5, 7])
def test_walkers_feed_the_bias_at_the_same_steps(x64, lanes, stride):
    bias = WellTempered([Axis(-1.5, 1.5, 60, False, "x", "nm")], height=0.5, widths=[0.1], bias_factor=5.0)
    sampler = Walkers(langevin(), x_of, bias, stride, 4, lanes=lanes)
    state = begun(sampler)
    end, _ = run(jax.random.key(1), sampler, state, 60)
    plain = one_by_one(sampler, jax.random.key(1), state, 60)
    assert int(end.steps) == 60 and float(jnp.sum(end.bias.values)) > 10
    assert np.allclose(end.bias.values, plain.bias.values, rtol=0, atol=1e-9)


def test_joined_runs_feed_it_as_often(x64):
    bias = WellTempered([Axis(-1.5, 1.5, 60, False, "x", "nm")], height=0.5, widths=[0.1], bias_factor=np.inf)
    sampler = Walkers(langevin(), x_of, bias, 10, 4, lanes=2)
    state = begun(sampler)
    added = []
    for steps in (13, 40, 7, 40):
        before = float(jnp.sum(state.bias.values))
        state, _ = run(jax.random.key(steps), sampler, state, steps)
        added.append(float(jnp.sum(state.bias.values)) - before)
    assert int(state.steps) == 100
    hills = np.array(added) / added[1] * 4
    assert np.allclose(hills, [1, 4, 1, 4], atol=0.05)


def test_a_bias_on_virtual_sites_pulls_at_their_parents(x64):
    """The forces are the slope of the energy where sites follow their parents, and none are on the sites."""
    sites = Sites((Average([2], [0, 1, 0], [[0.3, 0.0, 0.0]]),))
    energy = Biased(WithSites(lambda frame: 0.0 * frame.positions[0, 0], sites), Distance(2, 3), Harmonic([0.5], 40.0))
    x = np.random.default_rng(0).normal(size=(4, 3))
    x = sites.place(jnp.array(x))
    slope = jax.grad(lambda x: energy(Frame(x)))(x)
    assert np.all(slope[2] == 0) and np.linalg.norm(slope[1]) > 1
    numeric = np.zeros((4, 3))
    for i, k in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[i, k] = 1e-5
        numeric[i, k] = (energy(Frame(sites.place(x + step))) - energy(Frame(sites.place(x - step)))) / 2e-5
    assert np.allclose(slope, numeric, rtol=0, atol=1e-6)
