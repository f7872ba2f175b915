"""Implicit solvent: the Born ion, the overlap integral by quadrature, the fast gradient against the plain energy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.potentials.implicit import GeneralizedBorn, Neck, Rescaling, born_radii, solvation_energy

COULOMB = 138.93545764438198
ATOMS = 8
RNG = np.random.default_rng(4)
POSITIONS = 0.16 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) + 0.02 * RNG.normal(size=(ATOMS, 3))
CHARGES, RADII = RNG.normal(size=ATOMS), 0.1 + 0.08 * RNG.random(ATOMS)
SCALES = np.where(np.arange(ATOMS) == 5, -0.7, 0.5 + 0.5 * RNG.random(ATOMS))  # GBn2's sulphur has a negative one
OBC2 = Rescaling(np.ones(ATOMS), np.full(ATOMS, 0.8), np.full(ATOMS, 4.85))
NECK = Neck(RNG.integers(0, 2, ATOMS), 0.25 + 0.1 * RNG.random((2, 2)), 0.3 * RNG.random((2, 2)), 0.36, 0.68)


def solvent(rescaling=OBC2, neck=None, **more):
    return GeneralizedBorn(CHARGES, RADII, SCALES, rescaling, neck, 1.0, 78.5, **more)


MODELS = {
    "HCT": solvent(None),
    "OBC2": solvent(tension=28.0),
    "OBC2, inside": solvent(tension=28.0, inside=True),
    "GBn": solvent(neck=NECK, tension=28.0),
    "GBn2, salt": solvent(Rescaling(*RNG.random((3, ATOMS))), NECK, tension=28.0, kappa=0.7),
}


def test_an_ion_by_itself_has_borns_energy(x64):
    one = GeneralizedBorn([1.5], [0.2], [0.8], None, None, 1.0, 78.5, offset=0.0)
    assert float(one(Frame(jnp.zeros((1, 3))))) == pytest.approx(-0.5 * COULOMB * (1 - 1 / 78.5) * 1.5**2 / 0.2)


def test_far_ions_feel_the_permittivity_of_the_solvent(x64):
    far = GeneralizedBorn([1.0, -1.0], [0.15, 0.2], [0.8, 0.8], None, None, 1.0, 78.5)
    near, away = (float(far(Frame(jnp.array([[0.0, 0, 0], [r, 0, 0]])))) for r in (50.0, 100.0))
    assert near - away == pytest.approx(COULOMB * (1 - 1 / 78.5) * (1 / 50 - 1 / 100), rel=1e-4)


@pytest.mark.parametrize("r", [0.005, 0.05, 0.12, 0.2, 0.5])
def test_the_integral_is_that_over_the_part_of_a_sphere_outside_of_the_atom(x64, r):
    """1/(4 pi) of the integral of x^-4 over |x| > rho inside the sphere s at r, shell by shell; at 0.005 nm the
    smaller atom lies inside the larger sphere, and the larger has nothing outside of it.
    """
    radii = (0.11, 0.09)
    pair = GeneralizedBorn([0, 0], radii, [1, 1], None, None, 1.0, 78.5, offset=0.0, inside=True)
    born = jax.jit(lambda r2: born_radii(r2, pair))(jnp.array([[0, r * r], [r * r, 0]]))
    for rho, s, found in zip(radii, radii[::-1], born, strict=True):

        def shell(x, s=s):
            return 0.5 * (1 - np.clip((x * x + r * r - s * s) / (2 * x * r), -1, 1)) / x**2

        wanted = quad(shell, rho, r + s, points=[max(rho, abs(r - s))])[0] if r + s > rho else 0.0
        assert 1 / rho - 1 / float(found) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_forces_are_the_gradient_of_the_plain_energy(x64, name):
    model, x = MODELS[name], jnp.asarray(POSITIONS)
    ours, wanted = (jax.jit(jax.grad(f))(x) for f in (lambda x: model(Frame(x)), lambda x: solvation_energy(x, model)))
    np.testing.assert_allclose(ours, wanted, atol=1e-10 * np.abs(wanted).max())
    np.testing.assert_allclose(jnp.sum(ours, 0), 0, atol=1e-10 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["HCT", "GBn2, salt"])
def test_derivatives_in_parameters_are_finite_differences(x64, name):
    x, h = jnp.asarray(POSITIONS), 1e-6
    parameters, static = eqx.partition(MODELS[name], eqx.is_inexact_array)
    direction = jax.tree.map(lambda p: p * np.random.default_rng(1).normal(size=p.shape), parameters)
    up, down = (jax.tree.map(lambda p, d: p + s * d, parameters, direction) for s in (h, -h))

    def energy(p, x):
        return eqx.combine(p, static)(Frame(x))

    both = jax.value_and_grad(energy, 1)
    slopes = jax.jit(lambda p, d: jax.jvp(lambda p: both(p, x), (p,), (d,))[1])(parameters, direction)
    both = jax.jit(both)
    for slope, higher, lower in zip(slopes, both(up, x), both(down, x), strict=True):
        wanted = (higher - lower) / (2 * h)
        np.testing.assert_allclose(slope, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["OBC2", "GBn2, salt"])
def test_replicas_are_a_loop(name):
    batch = jnp.asarray(POSITIONS + 0.01 * RNG.normal(size=(5, ATOMS, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: MODELS[name](Frame(x))))
    ours = jax.jit(replicate(gradient))(jnp.moveaxis(batch, 0, -1))
    wanted = jnp.stack([gradient(x) for x in batch], -1)
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
