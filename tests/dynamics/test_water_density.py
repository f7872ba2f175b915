"""TIP3P in a box at constant pressure: the density that OpenMM finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from openmm import Vec3, app, unit

from metastable.core.compiling import filter_jit_once
from metastable.core.frame import Frame
from metastable.core.space import molecules, volume
from metastable.core.units import bar, fs, kelvin, ps
from metastable.dynamics.barostats import CRescale
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.lists import Listed, overflowed
from metastable.dynamics.minimize import fire
from metastable.estimate.fluctuations import mass_density
from metastable.io.molecules import from_openmm
from metastable.loops.run import stream

OPENMM = (
    982.7,
    1.8,
)  # kg/m^3, value and error: 100 ps of its CPU platform with a Monte Carlo barostat, the same force field


@pytest.fixture(scope="module")
def water():
    """Some 210 molecules; a cutoff of 0.85 nm, with the mean of Lennard-Jones beyond, and particle-mesh Ewald."""
    modeller, field = app.Modeller(app.Topology(), unit.Quantity([], unit.nanometer)), app.ForceField("tip3p.xml")
    modeller.addSolvent(field, boxSize=Vec3(1.89, 1.89, 1.89))
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.85, rigidWater=True, removeCMMotion=False
    )
    return from_openmm(system, modeller.topology, modeller.positions)


@pytest.mark.physics
def test_density(water):
    """Stochastic cell rescaling at 300 K and 1 bar, from a box that is too large."""
    system, start, potential = water
    masses, bonds = np.float32(system.masses), Constraints.from_system(system, positions=start.positions)
    frame = Frame(jnp.asarray(start.positions, jnp.float32), jnp.asarray(start.box, jnp.float32))
    pairs = potential.terms["nonbonded"].pairs(frame, 0.1, most=440)
    langevin = Listed(Langevin(potential, masses, 2 * fs, 300 * kelvin, 3 / ps, bonds), pairs)
    groups = molecules(system.constraints, len(system))
    sampler = CRescale(langevin, 1 * bar, 0.5 * ps, groups=groups)

    @filter_jit_once
    def minimised(frame):
        frame = fire(potential, frame, steps=60, constraint=bonds, masses=masses)
        return sampler.init(jax.random.key(0), frame)

    state = minimised(Frame(frame.positions, frame.box, pairs))
    blocks = list(stream(jax.random.key(1), sampler, state, 7, 1250, every=25, observe=lambda s: volume(s.frame.box)))
    assert not overflowed(blocks[-1].state)
    volumes = np.concatenate([block.records for block in blocks[1:]])  # the first, five times the relaxation, left out
    found = mass_density(volumes, float(system.masses.sum()), length=50)  # blocks of 2.5 ps: two would tell no error
    assert found.error < 12
    assert abs(found.value - OPENMM[0]) < 3 * np.hypot(found.error, OPENMM[1]), str(found)
