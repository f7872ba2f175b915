"""Molecules from files: constraints, masses, completing structures, and errors that say what to do."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.io.molecules import from_openmm, load_molecule
from metastable.io.rules import Implicit

pytest.importorskip("openmm")

PDB = Path(__file__).parents[2] / "examples" / "alanine-dipeptide.pdb"


def rewritten(tmp_path, change, name="changed.pdb"):
    """The example with its atom lines changed; None leaves a line out."""
    lines = [change(line) if line.startswith(("ATOM", "HETATM")) else line for line in PDB.read_text().splitlines()]
    path = tmp_path / name
    path.write_text("\n".join(line for line in lines if line is not None and not line.startswith("CONECT")) + "\n")
    return path


def told(*arguments, **options):
    """What the InputError says."""
    with pytest.raises(InputError) as caught:
        load_molecule(*arguments, **options)
    return [str(p) for p in caught.value.problems]


def test_a_molecule_has_all_its_parts():
    molecule = load_molecule(PDB, constraints="hydrogen-bonds", hydrogen_mass=3.0, implicit="OBC2")
    system = molecule.system
    assert len(system) == 22 and molecule.frame.positions.shape == (22, 3)
    hydrogens = system.numbers == 1
    assert len(system.constraints) == hydrogens.sum() == 12
    assert np.all(hydrogens[system.constraints].sum(1) == 1)
    distances = np.linalg.norm(np.diff(molecule.frame.positions[system.constraints], axis=1)[:, 0], axis=1)
    np.testing.assert_allclose(system.lengths, distances, atol=0.02)
    np.testing.assert_allclose(system.masses[hydrogens], 3.0)
    plain = load_molecule(PDB).system
    assert system.masses.sum() == pytest.approx(plain.masses.sum()) and len(plain.constraints) == 0
    assert plain.charges.sum() == pytest.approx(0, abs=1e-6)
    assert list(molecule.potential.terms) == ["bonds", "torsions", "angles", "solvent", "nonbonded"]
    assert system.topology.residue_names[6] == "ALA" and len(system.topology.bonds) == 21


@pytest.mark.parametrize(
    "constraints, count", [("none", 0), ("hydrogen-bonds", 12), ("all-bonds", 21), ("hydrogen-angles", 30)]
)
def test_constraints_by_name(constraints, count):
    assert len(load_molecule(PDB, constraints=constraints).system.constraints) == count


def test_settings_of_the_solvent_reach_it():
    term = load_molecule(PDB, implicit=Implicit("GBn2", 70.0, 2.0, 0.7, surface=False)).potential.terms["solvent"]
    assert (term.solvent, term.solute, term.kappa, term.tension) == (70.0, 2.0, 0.7, None)
    by_file = load_molecule(PDB, ["amber14-all.xml", "implicit/gbn2.xml"]).potential.terms["solvent"]
    assert (by_file.solvent, by_file.solute, by_file.kappa) == (78.5, 1.0, None) and by_file.tension > 0


def test_all_the_problems_of_a_call_at_once():
    said = told(PDB.with_name("alanin-dipeptide.pdb"), "amber14-al.xml", constraints="hydrogen-bond",
                hydrogen_mass=30.0, implicit=Implicit("OBC3", 0.5, 1.0, -1.0))  # fmt: skip
    for key, hint in [
        ("structure", "did you mean '" + str(PDB)),
        ("forcefield", "did you mean 'amber14-all.xml'"),
        ("constraints", "did you mean 'hydrogen-bonds'"),
        ("hydrogen_mass", "30.0 Da must lie between 1 and 4"),
        ("implicit.model", "did you mean 'OBC"),
        ("implicit.solvent", "0.5 must be at least 1"),
        ("implicit.kappa", "-1.0 1/nm must not be negative"),
    ]:
        assert any(s.startswith(key) and hint in s for s in said), (key, said)
    assert len(said) == 7


def test_a_structure_without_hydrogens_is_completed_when_asked(tmp_path):
    bare = rewritten(tmp_path, lambda line: None if line[12:16].strip().startswith(("H", "1", "2", "3")) else line)
    assert any("no hydrogens" in s and "fix = true" in s for s in told(bare))
    state = random.getstate()
    fixed = load_molecule(bare, fix=True)
    assert random.getstate() == state
    assert len(fixed.system) == 22
    again = load_molecule(bare, fix=True)
    np.testing.assert_array_equal(fixed.frame.positions, again.frame.positions)


def test_a_missing_atom_is_named(tmp_path):
    lacking = rewritten(tmp_path, lambda line: None if line[12:16].strip() == "CB" else line)
    (said,) = told(lacking)
    assert "ALA 2 (chain A)" in said and "lacks CB" in said and "fix = true" in said


def test_unknown_residues_and_elements_are_named(tmp_path):
    (said,) = told(rewritten(tmp_path, lambda line: line.replace("ALA", "ALX")))
    assert "ALX 2 (chain A)" in said and "ALA" in said.split("nearest")[1]
    odd = rewritten(tmp_path, lambda line: line[:12] + " QB " + line[16:76] if line[12:16].strip() == "CB" else line)
    assert any("QB of ALA 2" in s and "element" in s for s in told(odd))


def test_atoms_that_overlap_are_named(tmp_path):
    n = next(line for line in PDB.read_text().splitlines() if line[12:16].strip() == "N" and "ALA" in line)
    moved = rewritten(tmp_path, lambda s: s[:30] + n[30:54] + s[54:] if s[12:16].strip() == "CB" else s)
    (said,) = told(moved)
    assert "CB of ALA 2" in said and "N of ALA 2" in said and "overlap: 0.000 nm" in said


def test_files_that_are_no_structures(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nC 0 0 0\n")
    assert ".pdb" in told(tmp_path / "a.xyz")[0]
    (tmp_path / "empty.pdb").write_text("END\n")
    assert "no atoms" in told(tmp_path / "empty.pdb")[0] or "cannot be read" in told(tmp_path / "empty.pdb")[0]
    (tmp_path / "bad.pdb").write_text("ATOM      1  N   ALA A   1      xx.xxx  0.000   0.000\n")
    assert "cannot be read" in told(tmp_path / "bad.pdb")[0]
    (tmp_path / "bad.xml").write_text("<ForceField><Residues>")
    assert "cannot be read" in told(PDB, str(tmp_path / "bad.xml"))[0]


def test_a_model_that_contradicts_the_files():
    assert "contradicts the file implicit/obc2.xml" in told(PDB, ["amber14-all.xml", "implicit/obc2.xml"],
                                                            implicit="GBn2")[0]  # fmt: skip


def test_things_of_different_molecules_are_refused():
    from openmm import app

    pdb = app.PDBFile(str(PDB))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology)
    with pytest.raises(InputError, match="22 particles, the topology 22 atoms and there are 21"):
        from_openmm(system, pdb.topology, np.zeros((21, 3)))


def test_water_and_real_structures(data):
    structures = data / "structures"
    said = told(structures / "villin_2F4K.pdb")
    assert any("NLE 65 (chain A), NLE 70" in s and "not in the force field" in s for s in said)
    assert any("HOH" in s and "is water" in s for s in said) and len(said) < 6
    assert len(load_molecule(structures / "trpcage_2JOF.pdb").system) == 284


def test_openmm_is_imported_only_when_a_molecule_is_loaded():
    code = "import sys, metastable.io.molecules; sys.exit('openmm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
