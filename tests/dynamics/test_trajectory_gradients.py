"""Derivatives of an average over a trajectory, by automatic differentiation and by finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.dynamics.constraints import Constraints, Unconstrained
from metastable.dynamics.integrators import BAOAB, Langevin, Overdamped
from metastable.dynamics.thermostats import CSVR, NoseHoover
from metastable.loops.run import run

MASSES = np.array([12.0, 1.0, 16.0])
START = np.array([[0.0, 0, 0], [0.1, 0, 0], [-0.05, 0.13, 0]])


class Spring(eqx.Module):
    stiffness: jax.Array

    def __call__(self, frame):
        x = frame.positions
        r = jnp.sqrt(jnp.sum((x[1:] - x[:1]) ** 2, axis=-1))
        return self.stiffness * jnp.sum((r - jnp.array([0.1, 0.14])) ** 2) + 30 * jnp.sum((x - START) ** 4) * 100


def constraint():
    names = ("X",) * 3
    return Constraints.from_system(
        System(np.zeros(3, int), MASSES, np.zeros(3), Topology(names, names, names, names), np.array([[0, 1]]), [0.1])
    )


MAKE = {
    "langevin": lambda u, dt, kT, rate: Langevin(u, MASSES, dt, kT, rate),
    "constrained": lambda u, dt, kT, rate: Langevin(u, MASSES, dt, kT, rate, constraint()),
    "baoab": lambda u, dt, kT, rate: BAOAB(u, MASSES, dt, kT, rate, constraint()),
    "overdamped": lambda u, dt, kT, rate: Overdamped(u, MASSES, dt, kT, 20 * rate),
    "csvr": lambda u, dt, kT, rate: CSVR(u, MASSES, dt, kT, 1 / rate, 9, Unconstrained()),
    "nose-hoover": lambda u, dt, kT, rate: NoseHoover(u, MASSES, dt, kT, 0.1 / rate, 9),
}


SLOW = ("baoab", "csvr", "nose-hoover")  # to compile


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.physics if n in SLOW else ()) for n in MAKE])
def test_average_over_a_hundred_steps(x64, name):
    def average(parameters):
        sampler = MAKE[name](Spring(parameters[0] * 1e4), *parameters[1:])
        state = sampler.init(jax.random.key(0), Frame(jnp.asarray(START)))
        _, record = run(jax.random.key(1), sampler, state, 100, every=1, observe=lambda s: jnp.sum(s.positions**2))
        return jnp.mean(record)

    average, h = jax.jit(average), 1e-5
    point = jnp.array([1.0, 0.001, 2.5, 5.0])  # stiffness, dt, kT, friction or the like
    gradient = jax.jit(jax.grad(average))(point)
    for n in range(4):
        step = h * point[n] * jnp.eye(4)[n]
        difference = (average(point + step) - average(point - step)) / (2 * h * point[n])
        assert np.isclose(gradient[n], difference, rtol=1e-5), n
        assert abs(difference) > 1e-8  # there is something to differentiate
