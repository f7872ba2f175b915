"""Lennard-Jones and Coulomb: a plain double loop, exceptions, tables, and what the parameters' derivatives mean."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.potentials.nonbonded import Combined, Exceptions, Geometric, Nonbonded, Tabulated, pairs_energy

COULOMB = 138.935457644
ATOMS = 7
RNG = np.random.default_rng(2)
POSITIONS = 0.25 * RNG.permutation(np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3))[:ATOMS]
POSITIONS = POSITIONS + 0.03 * RNG.normal(size=(ATOMS, 3))
CHARGES, SIGMA, EPSILON = RNG.normal(size=ATOMS), 0.1 + 0.2 * RNG.random(ATOMS), RNG.random(ATOMS)
EPSILON[:2] = 0.0
PAIRS = np.array([[0, 1], [4, 2], [3, 6]])
OWN = Exceptions(PAIRS, [0.0, 0.3, -0.2], [0.1, 0.3, 0.25], [0.0, 0.5, 0.7])


def molecule(form):
    return Nonbonded(CHARGES, form, OWN)


FORMS = {
    "combined": Combined(SIGMA, EPSILON),
    "geometric": Geometric(1e-4 * RNG.random(ATOMS), 1e-2 * RNG.random(ATOMS)),
    "tabulated": Tabulated([0, 1, 1, 0, 1, 0, 1], *(s * (lambda m: m + m.T)(RNG.random((2, 2))) for s in (1e-7, 1e-3))),
}


def lennard_jones(name, i, j):
    """(coefficient of r^-12, of r^-6), as the books have them."""
    form = FORMS[name]
    if name == "combined":
        sigma, epsilon = (SIGMA[i] + SIGMA[j]) / 2, np.sqrt(EPSILON[i] * EPSILON[j])
        return 4 * epsilon * sigma**12, 4 * epsilon * sigma**6
    if name == "geometric":
        return form.repulsion[i] * form.repulsion[j], form.dispersion[i] * form.dispersion[j]
    s, t = np.asarray(form.types)[[i, j]]
    return form.repulsion[s, t], form.dispersion[s, t]


@pytest.mark.parametrize("name", FORMS)
def test_energy_is_a_double_loop(x64, name):
    special = {frozenset(p): n for n, p in enumerate(PAIRS.tolist())}
    total = 0.0
    for i in range(ATOMS):
        for j in range(i):
            r = np.linalg.norm(POSITIONS[i] - POSITIONS[j])
            a, b = lennard_jones(name, i, j)
            q, n = CHARGES[i] * CHARGES[j], special.get(frozenset((i, j)))
            if n is not None:
                s6 = OWN.sigma[n] ** 6
                q, a, b = OWN.charges[n], 4 * OWN.epsilon[n] * s6**2, 4 * OWN.epsilon[n] * s6
            total += COULOMB * q / r + a / r**12 - b / r**6
    assert float(molecule(FORMS[name])(Frame(jnp.asarray(POSITIONS)))) == pytest.approx(total, rel=1e-11)


@pytest.mark.parametrize("atoms", [2, 3, 6, 7])
def test_forces_are_the_gradient_of_the_plain_energy(x64, atoms):
    term = Nonbonded(CHARGES[:atoms], Combined(SIGMA[:atoms], EPSILON[:atoms]), Exceptions([[0, 1]], [0.1], [0.2], [1]))
    x = jnp.asarray(POSITIONS[:atoms])
    ours, wanted = (
        jax.jit(jax.grad(f))(x) for f in (lambda x: term(Frame(x)), lambda x: pairs_energy(x, term.pairs()))
    )
    np.testing.assert_allclose(ours, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


@pytest.mark.parametrize("name", FORMS)
def test_derivatives_in_parameters_are_finite_differences(x64, name):
    x, h = jnp.asarray(POSITIONS), 1e-7
    parameters, static = eqx.partition(molecule(FORMS[name]), eqx.is_inexact_array)

    def energy(p, x):
        return eqx.combine(p, static)(Frame(x))

    direction = jax.tree.map(lambda p: p * np.random.default_rng(1).normal(size=p.shape), parameters)
    up, down = (jax.tree.map(lambda p, d: p + s * d, parameters, direction) for s in (h, -h))
    both = jax.value_and_grad(energy, 1)
    slopes = jax.jit(lambda p, d: jax.jvp(lambda p: both(p, x), (p,), (d,))[1])(parameters, direction)
    both = jax.jit(both)
    for slope, higher, lower in zip(slopes, both(up, x), both(down, x), strict=True):
        wanted = (higher - lower) / (2 * h)
        np.testing.assert_allclose(slope, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())
    assert all(
        np.all(np.isfinite(g)) for g in jax.tree.leaves(jax.jit(jax.grad(energy))(parameters, x))
    )  # epsilon = 0 among them


def test_the_derivative_in_a_charge_is_the_potential_there(x64):
    x = jnp.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.25, 0]])
    zero = np.zeros(3)
    none = Exceptions(np.zeros((0, 2)), [], [], [])

    def energy(charges):
        return Nonbonded(charges, Combined(zero, zero), none)(Frame(x))

    assert float(jax.grad(energy)(jnp.array([1.0, 2.0, -1.0]))[0]) == pytest.approx(COULOMB * (2 / 0.5 - 1 / 0.25))


def test_replicas_are_a_loop():
    batch = jnp.asarray(POSITIONS + 0.01 * RNG.normal(size=(5, ATOMS, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: molecule(FORMS["combined"])(Frame(x))))
    ours = jax.jit(replicate(gradient))(jnp.moveaxis(batch, 0, -1))
    wanted = jnp.stack([gradient(x) for x in batch], -1)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
