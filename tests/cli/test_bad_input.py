"""What is wrong with an input or its files: told in sentences, all at once, with exit code 2."""

import re
import shutil

import pytest


def test_bad_input_ends_with_2_and_sentences(source, capsys, exit_code):
    assert exit_code("check", source, "--set", "dynamics.timestep=-1 fs", "--set", "molecule.structure=no.pdb",
                     "--set", "cv.tau.atoms=[1,2,3,9]", "--set", "bias.widht=3") == 2  # fmt: skip
    said = capsys.readouterr().err
    for words in ("problems:", "dynamics.timestep", "molecule.structure", "did you mean 'width'"):
        assert words in said
    assert "Traceback" not in said


def test_what_is_wrong_with_the_files_is_told_with_what_is_wrong_in_the_input(source, capsys, exit_code):
    assert exit_code("check", source, "--set", "cv.tau.atoms=[1, 2, 3, 9]", "--set", "dynamics.walkers=-1") == 2
    said = capsys.readouterr().err
    assert "atom 9 is out of range: the structure has 4 atoms" in said and "dynamics.walkers" in said


MOLECULES = {
    "no hydrogens": (lambda lines: [x for x in lines if x[76:78].strip() != "H"], "has no hydrogens"),
    "unknown residue": (lambda lines: [x.replace("ALA", "ALX") for x in lines], "ALX 2 .chain A. is not in the force"),
    "no element": (lambda lines: [x[:12] + " Q  " + x[16:76] + " Q" if " CB " in x else x for x in lines], "no known"),
    "overlap": (lambda lines: [x[:30] + lines[2][30:54] + x[54:] if " HB1" in x else x for x in lines], "overlap"),
    "empty": (lambda lines: [], "cannot be read|has no atoms"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOLECULES)
def test_a_bad_molecule_is_an_input_error(tmp_path, capsys, kind, exit_code, example):
    change, words = MOLECULES[kind]
    shutil.copy(example, tmp_path)
    lines = example.with_suffix(".pdb").read_text().splitlines()
    atoms = [x for x in lines if x.startswith(("ATOM", "HETATM"))]
    (tmp_path / "alanine-dipeptide.pdb").write_text("\n".join([*change(atoms), "END\n"]))
    assert exit_code("check", tmp_path / example.name, "--set", "dynamics.seed=-1") == 2
    said = capsys.readouterr().err
    assert re.search(words, said) and "dynamics.seed" in said and "Traceback" not in said


def test_a_force_that_is_not_supported_is_named(source, capsys, exit_code):
    xml = source.parent / "s4.xml"
    xml.write_text(xml.read_text().replace("</ForceField>", '<CustomExternalForce energy="x"/></ForceField>').replace(
        "</ForceField>", "<Script>import openmm; sys.addForce(openmm.CustomExternalForce('x'))</Script></ForceField>", 1
    ).replace('<CustomExternalForce energy="x"/>', ""))  # fmt: skip
    assert exit_code("check", source) == 2
    assert "CustomExternalForce" in capsys.readouterr().err
