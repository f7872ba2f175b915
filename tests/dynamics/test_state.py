"""State and its kinetic quantities against plain sums and the Maxwell-Boltzmann distribution."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from metastable.core.frame import Frame
from metastable.core.random import threefry_normal
from metastable.core.units import kelvin
from metastable.dynamics.state import at_rest, force, kinetic_energy, maxwell_boltzmann, temperature

MASSES = np.array([1.008, 12.011, 15.999])


def test_kinetic_energy_and_temperature():
    momenta = np.arange(9.0).reshape(3, 3)
    expected = sum(p @ p / (2 * m) for p, m in zip(momenta, MASSES, strict=True))
    assert np.isclose(kinetic_energy(jnp.asarray(momenta), MASSES), expected, rtol=1e-6)
    assert np.isclose(temperature(jnp.asarray(momenta), MASSES, 9) / kelvin, 2 * expected / 9 / 0.00831446261815324)


def test_a_massless_atom_has_no_kinetic_energy():
    assert float(kinetic_energy(jnp.ones((2, 3)), np.array([0.0, 1.0]))) == 1.5


def test_force_is_minus_the_gradient(x64):
    def potential(frame):
        return jnp.sum(jnp.sin(frame.positions @ frame.box) ** 2)

    box = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    x = np.random.default_rng(1).normal(size=(4, 3))
    forces, h = force(potential, Frame(jnp.asarray(x), box)), 1e-6
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        up, down = (potential(Frame(jnp.asarray(x + s * step), box)) for s in (1, -1))
        assert np.isclose(forces[i], -(up - down) / (2 * h), atol=1e-8)


def test_momenta_are_maxwell_boltzmann():
    for normal in ({}, {"normal": threefry_normal}):
        draw = jax.vmap(lambda key: maxwell_boltzmann(key, MASSES, 2.5, **normal))
        momenta = np.asarray(draw(jax.random.split(jax.random.key(0), 20000)))
        scaled = momenta / np.sqrt(MASSES * 2.5)[:, None]
        for atom in range(3):
            assert stats.kstest(scaled[:, atom].ravel(), "norm").pvalue > 1e-4


def test_at_rest_takes_the_momentum_of_the_centre_of_mass():
    momenta = jnp.asarray(np.random.default_rng(2).normal(size=(3, 3)))
    still = at_rest(momenta, MASSES)
    assert np.allclose(np.sum(still, axis=0), 0, atol=1e-6)
    change = np.asarray(momenta - still) / MASSES[:, None]  # one velocity, taken from all
    assert np.allclose(change, change[0], atol=1e-6)
