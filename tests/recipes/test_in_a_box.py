"""The recipes in a periodic box: water around a molecule, at constant pressure, with lists of near pairs."""

import json

import h5py
import mdtraj
import numpy as np
import pytest

from metastable import cvs
from metastable.core.axis import Axis
from metastable.core.units import bar, kelvin
from metastable.enhanced.metadynamics import WellTempered
from metastable.io.molecules import load_molecule
from metastable.io.rules import Box, Solvate
from metastable.recipes.metadynamics import metadynamics
from metastable.recipes.plan import Plan

pytestmark = pytest.mark.physics  # for their time: the dynamics in a box compiles for half a minute
GROWING = ("arrays.h5", "trajectory.xtc", "log.csv", "results.json", "checkpoint-0", "checkpoint-1")
PLAN = Plan(kT=300 * kelvin, walkers=2, blocks=3, steps=100, every=20, pace=20, frames=5, pressure=1 * bar, seed=5)


@pytest.fixture(scope="module")
def molecule(request):
    return load_molecule(
        request.config.rootpath / "examples" / "alanine-dipeptide.pdb",
        ["amber14-all.xml", "amber14/tip3p.xml"],
        constraints="hydrogen-bonds",
        box=Box(0.7, "reaction-field"),
        solvate=Solvate(padding=0.8),
    )


def run(molecule, directory, watch=lambda block: None, say=lambda sentence: None):
    cv = cvs.Stack(cvs.Torsion(4, 6, 8, 14, label="phi"), cvs.Torsion(6, 8, 14, 16, label="psi"))
    bias = WellTempered([Axis.angle("phi", 54), Axis.angle("psi", 54)], height=0.5, widths=[0.35] * 2, bias_factor=8)
    metadynamics(PLAN, molecule, cv, bias, directory, watch=watch, say=say)
    return {name: (directory / name).read_bytes() for name in GROWING}


@pytest.fixture(scope="module")
def whole(molecule, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(molecule, directory)


def test_it_writes_boxes_densities_and_volumes(molecule, whole):
    directory, _ = whole
    trajectory = mdtraj.load(str(directory / "trajectory.xtc"), top=str(directory / "topology.pdb"))
    volumes = h5py.File(directory / "arrays.h5")["observables/volume/value"][:]
    rows = np.genfromtxt(directory / "log.csv", delimiter=",", names=True)
    assert np.allclose(trajectory.unitcell_volumes, volumes[4::5, 0], rtol=1e-4)
    assert np.allclose(rows["density_kg_m3"], mdtraj.density(trajectory, molecule.system.masses), rtol=0.05)
    assert len(np.unique(volumes)) > 10  # the barostat moves the box


def test_killed_and_gone_on_with_the_files_are_the_same(molecule, whole, tmp_path):
    def watch(block):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(molecule, tmp_path, watch)
    assert run(molecule, tmp_path) == whole[1]


def test_lists_that_are_too_small_are_enlarged_and_change_nothing(molecule, whole, tmp_path):
    """Room for 100 neighbours where some 220 are: the block is repeated, and ends bit for bit as with ample room."""
    (tmp_path / "lists.json").write_text(json.dumps({"most": 100, "skin": 0.1, "grid": None}))
    said = []
    assert run(molecule, tmp_path, say=said.append) == whole[1]
    assert len(said) == 1 and "too small" in said[0]
    assert json.loads((tmp_path / "lists.json").read_text())["most"] > 200
