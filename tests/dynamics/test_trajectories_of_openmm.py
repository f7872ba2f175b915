"""Trajectories against OpenMM's Reference platform in double precision: the same molecule from the same start."""

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest

from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.dynamics.constraints import Constraints, Unconstrained
from metastable.dynamics.integrators import Langevin, VelocityVerlet
from metastable.dynamics.state import State, force
from metastable.loops.run import run

# a methyl group, with two heavy atoms after it
START = np.array(
    [[0, 0, 0], [-0.036, 0.103, 0], [-0.036, -0.051, 0.089], [-0.036, -0.051, -0.089], [0.153, 0, 0], [0.2, 0.14, 0.02]]
)
MASSES = np.array([12.011, 1.008, 1.008, 1.008, 12.011, 15.999])
BONDS = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [4, 5]])
LENGTHS = np.array([0.109, 0.109, 0.109, 0.153, 0.143])
ANGLES = np.array([[1, 0, 2], [1, 0, 3], [2, 0, 3], [1, 0, 4], [2, 0, 4], [3, 0, 4], [0, 4, 5]])
BENT = 1.91
FAR = np.array([[1, 5], [2, 5], [3, 5]])
STEPS, DT = 300, 0.001


def potential(frame):
    x = frame.positions

    def distance(pairs):
        d = x[pairs[:, 0]] - x[pairs[:, 1]]
        return jnp.sqrt(jnp.sum(d * d, axis=-1))

    a, b = x[ANGLES[:, 0]] - x[ANGLES[:, 1]], x[ANGLES[:, 2]] - x[ANGLES[:, 1]]
    cosine = jnp.sum(a * b, axis=-1) / jnp.sqrt(jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1))
    bonds = jnp.sum(1e5 * (distance(BONDS) - LENGTHS) ** 2)
    angles = jnp.sum(150 * (jnp.arccos(cosine) - BENT) ** 2)
    return bonds + angles + jnp.sum(4 * 0.5 * ((0.25 / distance(FAR)) ** 12 - (0.25 / distance(FAR)) ** 6))


def openmm_context(integrator, constrained):
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    pairs = openmm.CustomBondForce("2*((0.25/r)^12 - (0.25/r)^6)")
    for mass in MASSES:
        system.addParticle(mass)
    for n, ((i, j), length) in enumerate(zip(BONDS.tolist(), LENGTHS, strict=True)):
        bonds.addBond(i, j, length, 2e5)
        if n < constrained:
            system.addConstraint(i, j, length)
    for i, j, k in ANGLES.tolist():
        angles.addAngle(i, j, k, BENT, 300)
    for i, j in FAR.tolist():
        pairs.addBond(i, j)
    for term in (bonds, angles, pairs):
        system.addForce(term)
    integrator.setConstraintTolerance(1e-12)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))


def prepare(constrained):
    """A constraint, and positions and momenta on it."""
    names = ("X",) * len(MASSES)
    topology = Topology(names, names, names, names)
    held = System(np.zeros(6, int), MASSES, np.zeros(6), topology, BONDS[:constrained], LENGTHS[:constrained])
    constraint = Constraints.from_system(held, positions=START) if constrained else Unconstrained()
    x = jnp.asarray(START)
    for _ in range(5):
        x = constraint.positions(x, x, MASSES)
    p = jnp.asarray(np.random.default_rng(0).normal(size=START.shape) * np.sqrt(2.5 * MASSES)[:, None])
    return constraint, Frame(x), constraint.momenta(p, Frame(x), MASSES)


def positions_of(context):
    return context.getState(getPositions=True).getPositions(asNumpy=True)._value


@pytest.mark.parametrize("constrained", [0, 3, 5])
def test_verlet(x64, constrained):
    constraint, frame, momenta = prepare(constrained)
    forces = force(potential, frame)
    context = openmm_context(openmm.VerletIntegrator(DT), constrained)
    context.setPositions(np.asarray(frame.positions))
    context.setVelocities(np.asarray((momenta - DT / 2 * forces) / MASSES[:, None]))  # it is half a step behind
    context.getIntegrator().step(STEPS)
    sampler = VelocityVerlet(potential, MASSES, DT, constraint)
    end, _ = run(jax.random.key(0), sampler, State(frame, momenta, forces), STEPS)
    assert np.abs(end.positions - frame.positions).max() > 0.05  # it went somewhere
    assert np.allclose(end.positions, positions_of(context), rtol=0, atol=1e-8)


@pytest.mark.parametrize("constrained", [0, 5])
def test_langevin_at_absolute_zero(x64, constrained):
    """Without noise the middle scheme is deterministic, its friction included."""
    constraint, frame, momenta = prepare(constrained)
    context = openmm_context(openmm.LangevinMiddleIntegrator(0.0, 4.0, DT), constrained)
    context.setPositions(np.asarray(frame.positions))
    context.setVelocities(np.asarray(momenta / MASSES[:, None]))
    context.getIntegrator().step(STEPS)
    sampler = Langevin(potential, MASSES, DT, 0.0, 4.0, constraint)
    end, _ = run(jax.random.key(0), sampler, State(frame, momenta, None), STEPS)
    assert np.abs(end.positions - frame.positions).max() > 0.01
    assert np.allclose(end.positions, positions_of(context), rtol=0, atol=1e-8)
    velocities = context.getState(getVelocities=True).getVelocities(asNumpy=True)._value
    assert np.allclose(end.momenta / MASSES[:, None], velocities, rtol=0, atol=1e-6)
