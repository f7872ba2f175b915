"""Chains with known answers, and the question whether error bars tell the truth."""

import numpy as np
import pytest


@pytest.fixture
def metropolis():
    """metropolis(energy, start, kT, steps, move, rng): (steps, *start.shape), every element its own chain."""

    def sample(energy, start, kT, steps, move, rng):
        x, u, out = start.copy(), energy(start), np.empty((steps, *start.shape))
        for i in range(steps):
            y = x + rng.normal(0, move, x.shape)
            v = energy(y)
            accept = rng.random(x.shape) < np.exp(np.minimum(0, (u - v) / kT))
            x, u = np.where(accept, y, x), np.where(accept, v, u)
            out[i] = x
        return out

    return sample


@pytest.fixture
def calibrated():
    """calibrated(z, slack): z = (estimate - truth) / error, (experiments, quantities), lies within 1 for 68 %.

    The tolerance is 4 standard errors over the experiments, which are independent, plus the slack.
    """

    def check(z, slack=0.02):
        z = np.asarray(z, float).reshape(len(z), -1)
        assert np.isfinite(z).all()
        inside = (np.abs(z) < 1).mean(1)
        off = inside.mean() - 0.6827
        limit = 4 * inside.std() / np.sqrt(len(inside)) + slack
        assert abs(off) < limit, f"within one error: {inside.mean():.3f}, not 0.683 +- {limit:.3f}"
        assert limit < 0.12, f"too few experiments to tell: tolerance {limit:.3f}"

    return check


@pytest.fixture
def unit_spread():
    """unit_spread(found, exact, stretches): z = (value - exact) / error is Student's t: mean 0, and its spread."""

    def check(found, exact, stretches):
        z = np.array([(e.value - exact) / e.error for e in found])
        spread = np.sqrt((stretches - 1) / (stretches - 3))
        assert abs(z.mean()) < 4 * spread / np.sqrt(len(z)), z.mean()
        assert abs(z.std() / spread - 1) < 4 / np.sqrt(2 * len(z)), (z.std(), spread)
        assert len(z) > 300  # then the tolerance is below 16 %

    return check


@pytest.fixture(scope="session")
def liquid():
    """OpenMM's Lennard-Jones liquid at density 0.845 and kT = 1: positions, velocities every 0.01 ps, and box.

    sigma = 1 nm, epsilon = 1 kJ/mol, 1 Da: reduced units are those of the package.
    """
    import openmm
    from openmm import unit

    atoms, edge = 256, (256 / 0.845) ** (1 / 3)
    system, force, box = openmm.System(), openmm.NonbondedForce(), edge * np.eye(3)
    for _ in range(atoms):
        system.addParticle(1.0)
        force.addParticle(0.0, 1.0, 1.0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(2.5)
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*box)
    integrator = openmm.LangevinMiddleIntegrator(1.0 / 8.31446261815324e-3, 1.0, 0.005)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1"})
    cubic = [(i, j, k) for i in range(8) for j in range(8) for k in range(8) if (i + j + k) % 2 == 0]
    context.setPositions(np.array(cubic) * edge / 8)
    integrator.step(6000)
    integrator.setFriction(0.02)  # the velocities lose 1 % of their memory in half of their correlation time
    positions, velocities = np.empty((2, 6000, atoms, 3), np.float32)
    for t in range(len(positions)):
        integrator.step(2)
        state = context.getState(positions=True, velocities=True)
        positions[t] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities[t] = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
    return positions, velocities, box
