"""From names to objects: atoms, collective variables and biases with their numbers in internal units."""

import copy
from pathlib import Path

import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest

from metastable.cli import build as build_module
from metastable.cli.build import build
from metastable.cli.input import read_tables
from metastable.cli.selection import select
from metastable.core.errors import InputError
from metastable.core.system import Topology
from metastable.enhanced.metadynamics import WellTempered

EXAMPLES = Path(build_module.__file__).parent / "examples"
TABLES = {
    "recipe": "metadynamics",
    "molecule": {"structure": "alanine-dipeptide.pdb", "forcefield": ["amber14/protein.ff14SB.xml"]},
    "dynamics": {"temperature": "300 K", "timestep": "2 fs", "duration": "10 ps", "walkers": 2},
    "cv": {
        "phi": {"type": "torsion", "atoms": [5, 7, 9, 15]},
        "d": {"type": "distance", "atoms": ["ACE:CH3", "NME3:C"], "range": ["2 A", "1.2 nm"]},
        "a": {"type": "angle", "atoms": ["2:N", "ALA2:CA", "A:ALA2:C"]},
        "rg": {"type": "gyration", "atoms": "heavy"},
        "off": {"type": "rmsd", "atoms": "backbone"},
        "n": {"type": "coordination", "first": ["ALA2:H"], "second": ["ACE1:O", "ALA2:O"], "r0": "2.5 A"},
    },
    "bias": [
        {
            "type": "metadynamics", "cvs": ["phi", "d"], "height": "1 kcal/mol", "bias_factor": 10, "pace": "1 ps",
            "width": {"phi": "20 deg", "d": "0.5 A"},
        },
        {"type": "upper-wall", "cv": "d", "at": "9 A", "force_constant": "2 kcal/mol/A^2"},
        {"type": "harmonic", "cv": "phi", "center": "170 deg", "force_constant": "3 kJ/mol/rad^2"},
        {"type": "lower-wall", "cv": "n", "at": 0.5, "force_constant": "7 kJ/mol"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def job():
    return build(read_tables(TABLES), EXAMPLES)[1]


def test_collective_variables_are_those_of_mdtraj(job):
    values = np.asarray(job.cv(type(job.molecule.frame)(jnp.asarray(job.molecule.frame.positions))))
    t = mdtraj.load(str(EXAMPLES / "alanine-dipeptide.pdb"))
    at = {f"{a.residue.name}:{a.name}": a.index for a in t.topology.atoms}
    heavy = t.atom_slice([a.index for a in t.topology.atoms if a.element.symbol != "H"])
    masses = np.ones(heavy.n_atoms)
    contacts = mdtraj.compute_distances(t, [[at["ALA:H"], at["ACE:O"]], [at["ALA:H"], at["ALA:O"]]])[0] / 0.25
    exact = [
        mdtraj.compute_phi(t)[1][0, 0],
        mdtraj.compute_distances(t, [[at["ACE:CH3"], at["NME:C"]]])[0, 0],
        mdtraj.compute_angles(t, [[at["ALA:N"], at["ALA:CA"], at["ALA:C"]]])[0, 0],
        mdtraj.compute_rg(heavy, masses)[0],
        0.0,
        np.sum((1 - contacts**6) / (1 - contacts**12)),
    ]
    assert np.allclose(values[[0, 1, 2, 3, 5]], np.array(exact)[[0, 1, 2, 3, 5]], atol=2e-5, rtol=2e-3)
    assert abs(values[4]) < 1e-3
    assert job.cv.labels == ("phi", "d", "a", "rg", "off", "n")


def test_biases_have_their_numbers_in_internal_units(job):
    def bias(**changes):
        s = {"phi": 170 * np.pi / 180, "d": 0.5, "a": 2.0, "rg": 0.2, "off": 0.0, "n": 1.0} | changes
        return float(job.bias(jnp.array(list(s.values()))))

    assert bias() == pytest.approx(0, abs=1e-5)
    assert bias(d=1.0) == pytest.approx(2 * 418.4 * 0.1**2, rel=1e-4)
    assert bias(phi=np.radians(-170)) == pytest.approx(1.5 * np.radians(20) ** 2, rel=1e-4)  # across the period
    assert bias(n=0.25) == pytest.approx(7 * 0.25**2, rel=1e-4)
    hills = next(b for b in job.bias.biases if isinstance(getattr(b, "bias", b), WellTempered)).bias
    assert float(hills.height) == pytest.approx(4.184)
    assert np.allclose(hills.widths, [np.radians(20), 0.05])
    assert [(a.lower, a.upper, a.periodic) for a in hills.axes] == [(-np.pi, np.pi, True), (0.2, 1.2, False)]
    assert all(a.spacing <= w / 3 * 1.001 for a, w in zip(hills.axes, hills.widths, strict=True))


def test_all_that_does_not_fit_the_molecule_is_told():
    tables = copy.deepcopy(TABLES)
    tables["cv"]["phi"]["atoms"] = [5, 7, 9, 23]
    tables["cv"]["d"]["atoms"] = ["ACE:CH", "ACE:CH3"]
    tables["cv"]["a"]["atoms"] = [1, 1, 2]
    tables["cv"]["n"]["second"] = ["ALA2:H"]
    with pytest.raises(InputError) as error:
        build(read_tables(tables), EXAMPLES)
    said = {p.where: p.message for p in error.value.problems}
    assert "out of range: the structure has 22 atoms, counted from 1" in said["cv.phi.atoms"]
    assert "did you mean 'ACE1:CH3'" in said["cv.d.atoms"]
    assert "twice" in said["cv.a.atoms"] and "shares atoms" in said["cv.n.second"]


def test_a_hill_that_its_grid_cannot_hold_is_told():
    tables = copy.deepcopy(TABLES)
    tables["bias"][0]["width"]["phi"] = "80 deg"
    with pytest.raises(InputError, match=r"bias.0: .*longer than the period"):
        build(read_tables(tables), EXAMPLES)


TWO = Topology(("CA", "CB", "CA"), ("ALA", "ALA", "ALA"), ("1", "1", "1"), ("A", "A", "B"))


@pytest.mark.parametrize(
    ("atom", "index"), [(1, 0), (3, 2), ("A:ALA1:CA", 0), ("ALA:CB", 1), ("1:CB", 1), ("B:1:CA", 2), ("ALA1:CB", 1)]
)
def test_an_atom_by_number_and_name(atom, index):
    assert select(atom, TWO) == index


@pytest.mark.parametrize(
    ("atom", "words"),
    [(4, "3 atoms, counted from 1"), ("ALA:CA", "'A:ALA1:CA', 'B:ALA1:CA'"), ("ALA1:CV", "did you mean 'ALA1:C"),
     ("C:ALA:CA", "there is no atom"), ("CA", "is no atom")],
)  # fmt: skip
def test_an_atom_that_is_not_there_or_twice_there(atom, words):
    with pytest.raises(ValueError, match=words):
        select(atom, TWO)
