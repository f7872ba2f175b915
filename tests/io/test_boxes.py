"""Molecules in a box: read, solvated, and with OpenMM's energies and forces."""

import jax
import jax.numpy as jnp
import numpy as np
import openmm
import pytest
from openmm import app, unit

from metastable.core.errors import InputError
from metastable.core.frame import Frame
from metastable.dynamics.state import force
from metastable.io.molecules import from_openmm, load_molecule
from metastable.io.rules import Box, Solvate

WATER = ["amber14-all.xml", "amber14/tip3p.xml"]


@pytest.fixture(scope="module")
def alanine(request) -> str:
    return str(request.config.rootpath / "examples" / "alanine-dipeptide.pdb")


@pytest.mark.parametrize(
    ("method", "shape", "platform", "tolerance"),
    [
        (app.PME, "cube", "Reference", 1e-9),
        (app.CutoffPeriodic, "cube", "Reference", 1e-9),
        (app.Ewald, "cube", "Reference", 1e-9),
        # in skewed boxes its Reference platform loses pairs; the CPU platform does not, in single precision
        (app.PME, "octahedron", "CPU", 3e-4),
        (app.CutoffPeriodic, "dodecahedron", "CPU", 2e-5),
    ],
)
def test_energy_and_forces_are_openmms(alanine, method, shape, platform, tolerance):
    """With OpenMM's own alpha and grid: a solvated molecule, switched, with its tail."""
    pdb = app.PDBFile(alanine)
    field = app.ForceField(*WATER)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(field, padding=1.2 * unit.nanometer, boxShape=shape)
    system = field.createSystem(modeller.topology, nonbondedMethod=method, nonbondedCutoff=0.75, constraints=app.HBonds)
    (nonbonded,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    nonbonded.setUseSwitchingFunction(True)
    nonbonded.setSwitchingDistance(0.65)
    nonbonded.setEwaldErrorTolerance(1e-5)
    nonbonded.setPMEParameters(3.5, 32, 30, 36)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    with jax.enable_x64(True):
        molecule = from_openmm(system, modeller.topology, modeller.positions)
        context.setPositions(molecule.frame.positions)
        state = context.getState(getEnergy=True, getForces=True)
        theirs = state.getForces(asNumpy=True).value_in_unit(unit.kilojoules_per_mole / unit.nanometer)
        frame = Frame(jnp.asarray(molecule.frame.positions), jnp.asarray(molecule.frame.box))
        frame = Frame(frame.positions, frame.box, molecule.potential.terms["nonbonded"].pairs(frame))
        energy, ours = jax.jit(lambda f: (molecule.potential(f), force(molecule.potential, f)))(frame)
    expected = state.getPotentialEnergy().value_in_unit(unit.kilojoules_per_mole)
    assert abs(float(energy) - expected) < tolerance * abs(expected)
    assert np.sqrt(np.mean((np.asarray(ours) - theirs) ** 2) / np.mean(theirs**2)) < tolerance


def test_a_molecule_is_solvated_reproducibly_and_with_ions(alanine):
    one, two = (
        load_molecule(
            alanine, WATER, constraints="hydrogen-bonds", box=Box(0.8), solvate=Solvate(padding=1.1, salt=0.2)
        )
        for _ in range(2)
    )
    names = one.system.topology.residue_names
    assert names == two.system.topology.residue_names and names.count("HOH") > 900
    assert names.count("NA") == names.count("CL") > 0
    assert np.array_equal(one.frame.positions, two.frame.positions)
    assert abs(one.system.charges.sum()) < 1e-6


def test_molecules_that_the_border_cuts_are_whole(alanine):
    molecule = load_molecule(alanine, WATER, constraints="hydrogen-bonds", box=Box(0.8), solvate=Solvate(padding=1.0))
    i, j = molecule.system.constraints.T
    lengths = np.linalg.norm(molecule.frame.positions[i] - molecule.frame.positions[j], axis=1)
    assert np.abs(lengths / molecule.system.lengths - 1).max() < 0.3


@pytest.mark.parametrize(
    ("options", "where", "says"),
    [
        ({"box": Box(2.0), "solvate": Solvate(padding=0.9)}, "box", "at least 4 nm"),
        ({"box": Box()}, "box", "solvate"),
        ({"solvate": Solvate()}, "solvate", "box"),
        ({"box": Box(electrostatics="pmee")}, "box.electrostatics", "did you mean 'pme'"),
        ({"box": Box(switch=1.2)}, "box.switch", "cutoff"),
        ({"box": Box(), "solvate": Solvate("tip9p")}, "solvate.model", "tip3p"),
        ({"box": Box(), "solvate": Solvate(padding=-1)}, "solvate.padding", "positive"),
        ({"box": Box(), "implicit": "OBC2"}, "implicit", "box"),
        ({"box": Box(vectors=np.array([[1.0, 1, 0], [0, 1, 0], [0, 0, 1]]))}, "box", "rotate"),
    ],
)
def test_a_box_that_makes_no_sense_is_an_error_with_a_cure(alanine, options, where, says):
    with pytest.raises(InputError) as caught:
        load_molecule(alanine, WATER, **options)
    assert any(p.where == where and says in p.message for p in caught.value.problems), caught.value.problems
