"""Particle-mesh Ewald: Ewald's sum that it converges to, its derivatives, replicas, and OpenMM's forces."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest
from openmm import app

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.core.units import coulomb
from metastable.potentials import Sum
from metastable.potentials.ewald import DirectSum, Ewald, Excluded
from metastable.potentials.pme import PME, _at_once, _in_turn
from metastable.testing.conformance import check_potential

RNG = np.random.default_rng(5)
BOX = np.array([[2.0, 0, 0], [0.5, 2.2, 0], [-0.7, 0.9, 2.4]])
ATOMS = 40
POSITIONS = (1.5 * RNG.random((ATOMS, 3)) - 0.3) @ BOX  # also outside the box
CHARGES = RNG.normal(size=ATOMS) + 0.1  # far from neutral
GRID = (14, 15, 16)


@pytest.fixture
def frame(x64):
    return Frame(jnp.asarray(POSITIONS), jnp.asarray(BOX))


def gradient(term, frame):
    return jax.jit(jax.value_and_grad(lambda x: term(frame.at(x))))(frame.positions)


def relative(ours, wanted):
    return float(jnp.linalg.norm(ours - wanted) / jnp.linalg.norm(wanted))


@pytest.mark.parametrize(("order", "fine", "falls"), [(4, 3e-4, 8), (5, 1e-5, 16)])
def test_converges_to_ewalds_sum(frame, order, fine, falls):
    """Errors of forces fall with the order-th power of the grid's spacing, or nearly: at least with one less."""
    energy, wanted = gradient(Ewald(CHARGES, 3.0, (16, 16, 16)), frame)
    (_, coarse), (ours, forces) = (gradient(PME(CHARGES, 3.0, (n, n + 1, n), order), frame) for n in (24, 48))
    assert relative(forces, wanted) < fine
    assert relative(forces, wanted) < relative(coarse, wanted) / falls
    assert float(ours) == pytest.approx(float(energy), rel=3 * fine)


def test_contract():
    few = 10
    frame = Frame(jnp.asarray(POSITIONS[:few]), jnp.asarray(BOX))
    check_potential(PME(CHARGES[:few], 3.0, (8, 9, 10)), frame, symmetries=[])


def test_derivatives_in_charges_alpha_and_box_are_finite_differences(frame):
    """Of the energy, and of the forces in the charges."""

    def energy(charges, alpha, box):
        return PME(charges, alpha, GRID)(Frame(frame.positions, box))

    def push(charges):
        along = jax.grad(lambda x: PME(charges, 3.0, GRID)(frame.at(x)))(frame.positions)
        return jnp.vdot(along, np.cos(np.arange(3 * ATOMS)).reshape(-1, 3))

    def check(function, arguments, n, direction, h=1e-5):
        compiled = jax.jit(jax.value_and_grad(function, n))
        up, down = (
            compiled(*(a + s * h * direction if m == n else a for m, a in enumerate(arguments)))[0] for s in (1, -1)
        )
        slope = jnp.vdot(compiled(*arguments)[1], jnp.asarray(direction))
        assert float(slope) == pytest.approx(float(up - down) / (2 * h), rel=1e-6)

    arguments = (jnp.asarray(CHARGES), jnp.asarray(3.0), frame.box)
    check(energy, arguments, 0, RNG.normal(size=ATOMS))
    check(energy, arguments, 1, 1.0)
    check(energy, arguments, 2, np.tril(RNG.normal(size=(3, 3))))
    check(push, arguments[:1], 0, RNG.normal(size=ATOMS))


def test_virial_is_that_of_ewalds_sum(frame):
    """The derivative in a strain of the atoms and the box together, of all six kinds."""

    def virial(term):
        def strained(strain):
            return term(Frame(frame.positions @ (jnp.eye(3) + strain), frame.box @ (jnp.eye(3) + strain)))

        slope = jax.jit(jax.grad(strained))(jnp.zeros((3, 3)))
        return slope[np.tril_indices(3)]  # which keep the first vector along x, the second in the plane

    wanted = virial(Ewald(CHARGES, 3.0, (14, 14, 14)))
    np.testing.assert_allclose(virial(PME(CHARGES, 3.0, (40, 44, 48), 8)), wanted, atol=1e-5 * np.abs(wanted).max())


def test_atoms_may_be_in_any_box_and_on_its_border(frame):
    term = PME(CHARGES, 3.0, GRID)
    energy, forces = gradient(term, frame)
    moved = frame.at(frame.positions + jnp.asarray(RNG.integers(-3, 4, (ATOMS, 3)) @ BOX))
    other, others = gradient(term, moved)
    assert float(other) == pytest.approx(float(energy), rel=1e-10)
    np.testing.assert_allclose(others, forces, atol=1e-8 * np.abs(forces).max())
    border = np.array([[0, 0, 0], [-1e-9, -1e-9, -1e-9], [1 - 1e-9, 1, 1 + 1e-9], [0.1, 0.2, 0.3]]) @ BOX
    for dtype in (jnp.float32, jnp.float64):
        at = Frame(jnp.asarray(border, dtype), jnp.asarray(BOX, dtype))
        (one, slopes), (three, others) = (
            gradient(PME([*q, -1.0], 3.0, GRID), at)
            for q in ([1.0, 0, 0], [0.5, 0.3, 0.2])  # three in one place
        )
        apart = coulomb * 3.0 / np.sqrt(np.pi) * (1 - 0.38)  # the self energies of three are not that of one
        assert float(three) - float(one) == pytest.approx(apart, rel=1e-4)
        np.testing.assert_allclose(np.sum(others[:3], 0), slopes[0], atol=1e-4 * np.abs(slopes).max())


def test_single_precision(frame):
    energy, forces = gradient(PME(CHARGES, 3.0, GRID), frame)
    single = Frame(*(jnp.asarray(v, jnp.float32) for v in (POSITIONS, BOX)))
    ours, gradients = gradient(PME(CHARGES, 3.0, GRID), single)
    assert ours.dtype == gradients.dtype == jnp.float32
    assert float(ours) == pytest.approx(float(energy), rel=1e-5)
    assert relative(gradients, forces) < 1e-5


def test_replicas_with_boxes_of_their_own_are_a_loop(frame):
    def forces(x, box, charges):
        return jax.value_and_grad(lambda *a: PME(a[2], 3.0, GRID)(Frame(*a[:2])), (0, 1, 2))(x, box, charges)

    x = jnp.stack([frame.positions, frame.positions + 0.1, frame.positions - 0.2])
    box = jnp.stack([s * frame.box for s in (0.9, 1.0, 1.1)])
    shared = jnp.asarray(CHARGES)
    wanted = [jax.jit(forces)(a, b, shared) for a, b in zip(x, box, strict=True)]
    mapped = jax.jit(jax.vmap(forces, (0, 0, None)))(x, box, shared)
    lifted = jax.jit(replicate(forces, shared=(2,)))(jnp.moveaxis(x, 0, -1), jnp.moveaxis(box, 0, -1), shared)
    for n in range(3):
        for one, m, r in zip(*map(jax.tree.leaves, (wanted[n], mapped, lifted)), strict=True):
            np.testing.assert_allclose(m[n], one, atol=1e-10 * np.abs(one).max())
            np.testing.assert_allclose(r[..., n], one, atol=1e-10 * np.abs(one).max())


def test_both_ways_of_spreading_are_one(x64):
    planes, rows = jnp.asarray(RNG.normal(size=(25, 30))), jnp.asarray(RNG.normal(size=(5, 30)))
    first = jnp.asarray(RNG.integers(0, 4, (30, 3)), jnp.int32)
    shape = (9, 8, 10)
    wanted = np.zeros(shape)
    for plane, row, (a, b, c) in zip(planes.T, rows.T, first.tolist(), strict=True):
        wanted[a : a + 5, b : b + 5, c : c + 5] += np.outer(plane, row).reshape(5, 5, 5)
    for spread in (_in_turn, _at_once):
        np.testing.assert_allclose(jax.jit(partial(spread, shape=shape))(planes, rows, first), wanted, atol=1e-12)


def compare_with_openmm(charged, charges, positions, box, excluded, alpha=3.5, grid=(36, 36, 36), cutoff=0.9):
    """Relative errors of the energy and of the forces (rms), all in double precision."""
    system, force = charged(charges, box, excluded, cutoff, openmm.NonbondedForce.PME)
    force.setPMEParameters(alpha, *grid)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    term = Sum({
        "direct": DirectSum(charges, alpha, excluded, cutoff),
        "excluded": Excluded(charges, alpha, excluded),
        "reciprocal": PME(charges, alpha, grid),
    })  # fmt: skip
    energy, slopes = gradient(term, Frame(jnp.asarray(positions), jnp.asarray(box)))
    wanted = state.getPotentialEnergy()._value
    return abs(float(energy) / wanted - 1), relative(-slopes, jnp.asarray(state.getForces(asNumpy=True)._value))


def test_openmm_in_a_charged_triclinic_box(x64, charged):
    excluded = [[0, 1], [0, 2], [7, 30]]
    energy, forces = compare_with_openmm(charged, CHARGES, POSITIONS, BOX, excluded, grid=(24, 28, 30))
    assert energy < 1e-7
    assert forces < 1e-7


def test_openmm_in_a_water_box(x64, charged, data):
    pdb = app.PDBFile(str(data / "structures/tip3p-box-openmm.pdb"))
    box = np.diag(pdb.topology.getUnitCellDimensions()._value)
    atoms = pdb.topology.getNumAtoms()
    charges = np.tile([-0.834, 0.417, 0.417], atoms // 3)
    excluded = np.concatenate([3 * np.arange(atoms // 3)[:, None] + pair for pair in ([0, 1], [0, 2], [1, 2])])
    positions = pdb.getPositions(asNumpy=True)._value
    energy, forces = compare_with_openmm(charged, charges, positions, box, excluded)
    assert energy < 1e-6
    assert forces < 1e-6


def test_bad_input():
    with pytest.raises(ValueError, match=r"order .* between 3 and 12, not 2"):
        PME(CHARGES, 3.0, GRID, 2)
    with pytest.raises(ValueError, match=r"5 points or more .* not \(14, 4, 16\)"):
        PME(CHARGES, 3.0, (14, 4, 16))
    with pytest.raises(ValueError, match="periodic box"):
        PME(CHARGES, 3.0, GRID)(Frame(jnp.asarray(POSITIONS)))
