"""What tests of the potentials share."""

import openmm
import pytest


@pytest.fixture
def charged():
    """A function that makes an OpenMM system of these charges alone, and its force."""
    return _charged


def _charged(charges, box, excluded, cutoff, method):
    system, force = openmm.System(), openmm.NonbondedForce()
    for charge in charges:
        system.addParticle(1)
        force.addParticle(charge, 1, 0)
    for i, j in excluded:
        force.addException(int(i), int(j), 0, 1, 0)
    force.setExceptionsUsePeriodicBoundaryConditions(True)
    force.setNonbondedMethod(method)
    force.setCutoffDistance(cutoff)
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) for row in box.tolist()))
    system.addForce(force)
    return system, force
