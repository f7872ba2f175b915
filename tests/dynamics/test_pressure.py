"""The virial: finite differences, the sum over pairs, OpenMM's pressure, and what a strain does to molecules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.core.replicas import last, replicate
from metastable.core.space import nearest, volume
from metastable.core.units import bar
from metastable.dynamics.pressure import (
    centres,
    count,
    molecular,
    pressure,
    pressure_tensor,
    strained,
    strained_momenta,
    summed,
    virial,
)

RANDOM = np.random.default_rng(3)
GROUPS = np.array([0, 0, 1, 2, 2, 2, 1, 3])  # in no order, of several sizes
MASSES = RANDOM.uniform(1, 16, len(GROUPS))
BOX = np.array([[1.3, 0.0, 0.0], [0.3, 1.4, 0.0], [-0.4, 0.5, 1.2]])
POSITIONS = RANDOM.uniform(0, 1.3, (4, 3))[GROUPS] + RANDOM.normal(0, 0.1, (len(GROUPS), 3))
MOMENTA = RANDOM.normal(0, 5, POSITIONS.shape)


def pairs(frame):
    """A smooth energy of all pairs, whose range is shorter than half the box."""
    i, j = np.triu_indices(len(frame.positions), 1)
    d = nearest(frame.positions[i] - frame.positions[j], frame.box)
    x = jnp.maximum(0, 1 - jnp.sum(d * d, -1) / 0.3)
    return 40 * jnp.sum((1 + 0.2 * np.cos(i + 2.0 * j)) * x**3)


def by_hand(positions, box, strain, groups):
    """The strained system, molecule by molecule."""
    positions = positions.copy()
    for g in np.unique(groups):
        own = groups == g
        centre = MASSES[own] @ positions[own] / MASSES[own].sum()
        positions[own] += centre @ strain - centre
    return positions, box @ strain


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_virial_is_the_finite_difference(x64, groups):
    label = np.arange(len(GROUPS)) if groups is None else groups
    found = np.asarray(virial(pairs, Frame(jnp.array(POSITIONS), jnp.array(BOX)), MASSES, groups))
    assert np.array_equal(found, found.T)
    energy, h = jax.jit(lambda x, box: pairs(Frame(x, box))), 1e-5
    for i in range(3):
        for j in range(i + 1):
            strain = np.zeros((3, 3))
            strain[i, j] = h
            above, below = (energy(*by_hand(POSITIONS, BOX, np.eye(3) + s * strain, label)) for s in (1, -1))
            assert np.isclose(found[i, j], -(above - below) / (2 * h), rtol=1e-7, atol=1e-6), (i, j)
    assert np.max(np.abs(found)) > 10


def test_virial_is_the_sum_over_pairs(x64):
    """All of the tensor, -sum r dU/dr, in a triclinic box: also above the diagonal, where no box is strained."""
    i, j = np.triu_indices(len(POSITIONS), 1)
    d = np.asarray(nearest(jnp.array(POSITIONS[i] - POSITIONS[j]), BOX))
    slope = -6 * 40 * (1 + 0.2 * np.cos(i + 2.0 * j)) * np.maximum(0, 1 - np.sum(d * d, -1) / 0.3) ** 2 / 0.3
    expected = -np.einsum("p,pi,pj->ij", slope, d, d)
    assert np.allclose(virial(pairs, Frame(jnp.array(POSITIONS), jnp.array(BOX)), MASSES), expected, rtol=1e-10)


def test_ideal_gas(x64):
    frame = Frame(jnp.array(POSITIONS), jnp.array(BOX))
    found = pressure_tensor(lambda frame: 0.0 * jnp.sum(frame.positions), frame, MOMENTA, MASSES, GROUPS)
    total = [(MOMENTA[g == GROUPS].sum(0), MASSES[g == GROUPS].sum()) for g in range(4)]
    expected = sum(np.outer(p, p) / m for p, m in total) / np.linalg.det(BOX)
    assert np.allclose(found, expected, rtol=1e-12)


def test_pressure_agrees_with_openmm(x64):
    """OpenMM's is a finite difference of the volume, with molecules moved by the mean of their atoms: equal masses."""
    mm, unit = pytest.importorskip("openmm"), pytest.importorskip("openmm.unit")
    system, force = mm.System(), mm.CustomNonbondedForce("40*(1+0.2*cos(2*b1*b2))*step(x)*x^3; x=1-r^2/0.3")
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(0.3**0.5)
    force.addPerParticleParameter("b")
    bonds = mm.HarmonicBondForce()
    parameter = RANDOM.uniform(0, 1, len(MASSES))
    label = np.array([0, 0, 1, 1, 2, 2, 2, 3])
    masses = np.array([5.0, 8.0, 3.0, 12.0])[label]
    for mass, b in zip(masses, parameter, strict=True):
        system.addParticle(mass)
        force.addParticle([b])
    for i, j in [(0, 1), (2, 3), (4, 5), (5, 6)]:
        bonds.addBond(i, j, 0.1, 1000.0)
    system.setDefaultPeriodicBoxVectors(*BOX)
    system.addForce(force)
    system.addForce(bonds)
    barostat = mm.MonteCarloBarostat(1.0, 300.0)
    system.addForce(barostat)
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(POSITIONS)
    context.setVelocities(MOMENTA / masses[:, None])

    def energy(frame):
        i, j = np.triu_indices(len(MASSES), 1)
        d = nearest(frame.positions[i] - frame.positions[j], frame.box)
        x = jnp.maximum(0, 1 - jnp.sum(d * d, -1) / 0.3)
        a, b = np.array([(0, 1), (2, 3), (4, 5), (5, 6)]).T
        r = jnp.linalg.norm(frame.positions[a] - frame.positions[b], axis=-1)
        nonbonded = 40 * jnp.sum((1 + 0.2 * np.cos(2 * parameter[i] * parameter[j])) * x**3)
        return nonbonded + 500 * jnp.sum((r - 0.1) ** 2)

    frame = Frame(jnp.array(POSITIONS), jnp.array(BOX))
    state = context.getState(getEnergy=True)
    assert np.isclose(energy(frame), state.getPotentialEnergy()._value, rtol=1e-6)
    found = pressure(energy, frame, MOMENTA, masses, label) / bar
    assert np.isclose(found, barostat.computeCurrentPressure(context).value_in_unit(unit.bar), rtol=2e-3)
    assert not np.isclose(found, pressure(energy, frame, MOMENTA, masses) / bar, rtol=0.1)


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_a_strain_moves_molecules_as_wholes(x64, groups):
    strain = np.array([[1.1, 0, 0], [0.05, 0.9, 0], [-0.1, 0.2, 1.2]])
    frame = Frame(jnp.array(POSITIONS), jnp.array(BOX), pairs=jnp.array([3, 1]))
    new = strained(frame, jnp.array(strain), MASSES, groups)
    label = np.arange(len(GROUPS)) if groups is None else groups
    positions, box = by_hand(POSITIONS, BOX, strain, label)
    assert np.allclose(new.positions, positions, atol=1e-12)
    assert np.allclose(new.box, box, atol=1e-12)
    assert np.array_equal(new.box, np.tril(new.box))
    assert np.array_equal(new.pairs, frame.pairs)
    momenta = np.asarray(strained_momenta(jnp.array(MOMENTA), jnp.linalg.inv(strain), MASSES, groups))
    for g in np.unique(label):
        own = label == g
        assert np.allclose(momenta[own].sum(0), MOMENTA[own].sum(0) @ np.linalg.inv(strain).T)
        velocity = (momenta - MOMENTA)[own] / MASSES[own, None]
        assert np.allclose(velocity, velocity[0])  # nothing within the molecule


def test_sums_over_molecules_of_any_size():
    label = np.repeat([0, 1, 2, 3, 4], [200, 3, 1, 3, 1])[RANDOM.permutation(208)]
    values = RANDOM.normal(size=(208, 2)).astype(np.float32)
    expected = np.zeros((5, 2))
    np.add.at(expected, label, values)
    assert np.allclose(summed(jnp.array(values), molecular(label)), expected, atol=1e-4)
    assert count(molecular(label), 208) == 5
    assert count(None, 208) == 208


def test_centres_far_from_the_origin():
    """Single precision: the distances within a molecule are all that is lost."""
    near = np.asarray(centres(jnp.array(POSITIONS, jnp.float32), jnp.float32(MASSES), molecular(GROUPS)))
    far = np.asarray(centres(jnp.array(POSITIONS + 1000, jnp.float32), jnp.float32(MASSES), molecular(GROUPS)))
    assert np.allclose(far - 1000, near, atol=2 * 1000 * np.finfo(np.float32).eps)


def test_replicas_precision_and_derivatives(x64):
    frames = Frame(jnp.array(POSITIONS + RANDOM.normal(0, 0.01, (3, *POSITIONS.shape))), BOX * jnp.ones((3, 1, 1)))

    def of_one(frame):
        return pressure(pairs, frame, MOMENTA, MASSES, GROUPS)

    compiled = jax.jit(of_one)
    looped = [compiled(Frame(frames.positions[k], frames.box[k])) for k in range(3)]
    assert np.allclose(jax.jit(replicate(of_one))(last(frames)), looped)
    assert np.allclose(jax.jit(jax.vmap(of_one))(frames), looped)
    one = Frame(jnp.array(POSITIONS, jnp.float32), jnp.array(BOX, jnp.float32))
    single = jax.jit(lambda p: pressure(pairs, one, p, MASSES, GROUPS))(jnp.array(MOMENTA, jnp.float32))
    assert single.dtype == jnp.float32
    assert np.isclose(single, compiled(Frame(jnp.array(POSITIONS), jnp.array(BOX))), rtol=1e-4)
    assert np.isfinite(jax.jit(jax.grad(lambda x: of_one(Frame(x, jnp.array(BOX)))))(jnp.array(POSITIONS))).all()
    assert np.isclose(volume(jnp.array(BOX)), np.linalg.det(BOX))


def test_one_bar():
    """1e5 J/m^3 in kJ/mol/nm^3, with Avogadro's number as it is defined."""
    assert bar == pytest.approx(1e5 * 1e-27 * 1e-3 * 6.02214076e23, rel=1e-12)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="no box"):
        pressure(pairs, Frame(jnp.array(POSITIONS)), jnp.array(MOMENTA), MASSES)
    with pytest.raises(ValueError, match="without a gap"):
        virial(pairs, Frame(jnp.array(POSITIONS), jnp.array(BOX)), MASSES, GROUPS + 1)
