"""Ewald summation: Madelung constants, the freedom of alpha, scaling, derivatives, and OpenMM's sum."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest

from metastable.core.frame import Frame
from metastable.core.units import coulomb
from metastable.potentials import Sum
from metastable.potentials.ewald import DirectSum, Ewald, Excluded, choose_alpha, choose_grid, choose_kmax
from metastable.testing.conformance import check_potential

RNG = np.random.default_rng(4)
BOX = np.array([[2.0, 0, 0], [0.5, 2.2, 0], [-0.7, 0.9, 2.4]])
ATOMS = 12
POSITIONS = (np.arange(ATOMS)[:, None] * [0.37, 0.21, 0.44] + 0.05 * RNG.random((ATOMS, 3))) % 1 @ BOX
CHARGES = RNG.normal(size=ATOMS) + 0.3  # far from neutral
EDGE = np.sqrt(0.5) * np.array([[1, 0, 0], [0.5, np.sqrt(0.75), 0], [0.5, np.sqrt(1 / 12), np.sqrt(2 / 3)]])  # of fcc
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])

# lattice, cations (fractions), where the anions are from them, nearest distance, Madelung constant (OEIS A085469 and
# A181152; Sakamoto 1958, doi:10.1063/1.1744060, for zinc blende)
CRYSTALS = {
    "NaCl": (np.eye(3), FCC, [0.5, 0, 0], 0.5, 1.7475645946331822),
    "NaCl, two atoms": (EDGE, FCC[:1], [0.5, 0.5, 0.5], 0.5, 1.7475645946331822),
    "CsCl": (np.eye(3), FCC[:1], [0.5, 0.5, 0.5], np.sqrt(0.75), 1.7626747730709884),
    "ZnS": (np.eye(3), FCC, [0.25, 0.25, 0.25], np.sqrt(3 / 16), 1.6380550533887892),
    "ZnS, two atoms": (EDGE, FCC[:1], [0.25, 0.25, 0.25], np.sqrt(3 / 16), 1.6380550533887892),
}


def electrostatics(charges, alpha, cells=2, kmax=(14, 15, 16)):
    return Sum({"direct": DirectSum(charges, alpha, cells=cells), "reciprocal": Ewald(charges, alpha, kmax)})


@pytest.mark.parametrize("name", CRYSTALS)
def test_madelung_constants(x64, name):
    box, cations, shift, distance, madelung = CRYSTALS[name]
    sites = np.concatenate([cations, cations + shift])
    charges = np.repeat([1.0, -1.0], len(cations))
    energy = electrostatics(charges, 3.2, cells=3)(Frame(jnp.asarray(sites @ box), jnp.asarray(box)))
    assert float(-energy / (coulomb * len(cations)) * distance) == pytest.approx(madelung, abs=1e-9)


def test_alpha_is_free_also_for_a_charged_triclinic_box(x64):
    frame = Frame(jnp.asarray(POSITIONS), jnp.asarray(BOX))

    @jax.jit
    def both(alpha):
        energy = electrostatics(CHARGES, alpha)
        return energy(frame), jax.grad(lambda x: energy(frame.at(x)))(frame.positions)

    (energy, forces), (other, others) = both(2.6), both(3.4)
    assert float(energy) == pytest.approx(float(other), abs=1e-7)
    np.testing.assert_allclose(forces, others, atol=1e-7)


def test_energy_falls_as_one_over_the_size(x64):
    """Strained evenly, x and box alike, the derivative is -E: virial, background and self energy together."""
    x, box, term = jnp.asarray(POSITIONS), jnp.asarray(BOX), electrostatics(CHARGES, 3.0)
    energy, slope = jax.jit(jax.value_and_grad(lambda s: term(Frame(s * x, s * box))))(1.0)
    assert float(slope) == pytest.approx(-float(energy), rel=1e-9)


@pytest.mark.parametrize("name", ["ewald", "direct", "excluded"])
def test_contract(name):
    terms = {
        "ewald": Ewald(CHARGES, 3.0, (5, 6, 7)),
        "direct": DirectSum(CHARGES, 3.0, [[0, 1]], cells=1),
        "excluded": Excluded(CHARGES, 3.0, [[0, 1], [2, 5]]),
    }
    check_potential(terms[name], Frame(jnp.asarray(POSITIONS), jnp.asarray(BOX)), symmetries=["translation"])


def test_derivatives_in_charges_alpha_and_box_are_finite_differences(x64):
    x = jnp.asarray(POSITIONS)

    def energy(charges, alpha, box):
        terms = (
            Ewald(charges, alpha, (6, 6, 6)),
            DirectSum(charges, alpha, [[0, 1]]),
            Excluded(charges, alpha, [[0, 1]]),
        )
        return sum(n * term(Frame(x, box)) for n, term in enumerate(terms, 1))  # the plain sum does not vary with alpha

    arguments = (jnp.asarray(CHARGES), jnp.asarray(2.5), jnp.asarray(BOX))
    directions = (RNG.normal(size=ATOMS), 1.0, np.tril(RNG.normal(size=(3, 3))))
    compiled, h = jax.jit(jax.value_and_grad(energy, (0, 1, 2))), 1e-5
    for n, (slope, direction) in enumerate(zip(compiled(*arguments)[1], directions, strict=True)):
        up, down = (compiled(*(a + s * h * direction * (m == n) if m == n else a for m, a in enumerate(arguments)))[0]
                    for s in (1, -1))  # fmt: skip
        assert float(jnp.vdot(slope, jnp.asarray(direction))) == pytest.approx(float(up - down) / (2 * h), rel=1e-6)


def test_an_excluded_pair_lacks_coulombs_law(x64):
    frame = Frame(jnp.asarray(POSITIONS), jnp.asarray(BOX))
    out = [[0, 3], [5, 1]]
    left_out = DirectSum(CHARGES, 3.0, out)(frame) + Excluded(CHARGES, 3.0, out)(frame) - DirectSum(CHARGES, 3.0)(frame)
    images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3) @ BOX
    wanted = 0.0
    for i, j in out:
        r = np.linalg.norm(POSITIONS[i] - POSITIONS[j] + images, axis=1).min()
        wanted -= coulomb * CHARGES[i] * CHARGES[j] / r
    assert float(left_out) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("tolerance", [5e-4, 1e-6])
@pytest.mark.parametrize("cutoff", [0.7, 1.0])
def test_choices_are_openmms(charged, cutoff, tolerance):
    box = np.diag([2.0, 3.7, 7.3])
    system, force = charged(CHARGES, box, [], cutoff, openmm.NonbondedForce.PME)
    force.setEwaldErrorTolerance(tolerance)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatform("Reference"))
    context.setPositions(POSITIONS)
    alpha, *grid = force.getPMEParametersInContext(context)
    assert choose_alpha(cutoff, tolerance) == pytest.approx(alpha, rel=1e-12)
    friendly = np.array([n for n in range(6, 700) if (2 * 3 * 5 * 7) ** 9 % n == 0])
    assert choose_grid(box, alpha, tolerance) == tuple(friendly[friendly >= n][0] for n in grid)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_openmms_ewald(x64, charged, tolerance):
    """Also with few waves, where one more or less along one side is seen."""
    box, cutoff = np.diag([2.0, 2.3, 3.4]), 0.9
    out = [[0, 1], [2, 7]]
    charges = CHARGES - CHARGES.mean()
    system, force = charged(charges, box, out, cutoff, openmm.NonbondedForce.Ewald)
    force.setEwaldErrorTolerance(tolerance)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatform("Reference"))
    context.setPositions(POSITIONS)
    state = context.getState(energy=True, forces=True)
    alpha = choose_alpha(cutoff, tolerance)
    term = Sum({
        "direct": DirectSum(charges, alpha, out, cutoff),
        "excluded": Excluded(charges, alpha, out),
        "reciprocal": Ewald(charges, alpha, choose_kmax(box, alpha, tolerance)),
    })  # fmt: skip
    energy, gradient = jax.jit(jax.value_and_grad(lambda x: term(Frame(x, jnp.asarray(box)))))(jnp.asarray(POSITIONS))
    assert float(energy) == pytest.approx(state.getPotentialEnergy()._value, rel=1e-7)
    wanted = state.getForces(asNumpy=True)._value
    np.testing.assert_allclose(-gradient, wanted, atol=1e-7 * np.abs(wanted).max())


def test_bad_input():
    frame = Frame(jnp.asarray(POSITIONS))
    for term in (Ewald(CHARGES, 3.0, (5, 5, 5)), DirectSum(CHARGES, 3.0)):
        with pytest.raises(ValueError, match="periodic box"):
            eqx.filter_eval_shape(term, frame)
    with pytest.raises(ValueError, match=r"three box vectors.*\(5, 5\)"):
        Ewald(CHARGES, 3.0, (5, 5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"between 0 and 0\.5, not 0\.7"):
        choose_alpha(1.0, 0.7)
    with pytest.raises(ValueError, match=r"cutoff .* must be positive, nm, not -1"):
        choose_alpha(-1, 1e-4)
