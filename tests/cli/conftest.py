"""A molecule small enough to be started, killed and gone on with many times: a chain of four sulfur atoms."""

import os
import sys
from pathlib import Path

import pytest

from metastable.cli import running
from metastable.cli.main import main

CLOCK = {"timing.csv"}

PDB = """\
HETATM    1  S1  SSS A   1       1.503   1.352   0.000  1.00  0.00           S
HETATM    2  S2  SSS A   1       0.000   0.000   0.000  1.00  0.00           S
HETATM    3  S3  SSS A   1       2.050   0.000   0.000  1.00  0.00           S
HETATM    4  S4  SSS A   1       2.600  -1.400   1.350  1.00  0.00           S
CONECT    1    2
CONECT    2    1    3
CONECT    3    2    4
CONECT    4    3
END
"""

XML = """\
<ForceField>
 <AtomTypes><Type name="S" class="S" element="S" mass="32.06"/></AtomTypes>
 <Residues><Residue name="SSS">
  <Atom name="S1" type="S"/><Atom name="S2" type="S"/><Atom name="S3" type="S"/><Atom name="S4" type="S"/>
  <Bond atomName1="S1" atomName2="S2"/><Bond atomName1="S2" atomName2="S3"/><Bond atomName1="S3" atomName2="S4"/>
 </Residue></Residues>
 <HarmonicBondForce><Bond class1="S" class2="S" length="0.205" k="100000"/></HarmonicBondForce>
 <HarmonicAngleForce><Angle class1="S" class2="S" class3="S" angle="1.82" k="500"/></HarmonicAngleForce>
 <PeriodicTorsionForce>
  <Proper class1="S" class2="S" class3="S" class4="S" periodicity1="2" phase1="0" k1="8"
   periodicity2="1" phase2="0" k2="1.5"/>
 </PeriodicTorsionForce>
</ForceField>
"""

TOML = """\
recipe = "metadynamics"
title = "Four sulfur atoms"

[molecule]
structure = "s4.pdb"
forcefield = ["s4.xml"]
constraints = "none"

[dynamics]
temperature = "300 K"
timestep = "2 fs"
duration = "12 ps"
walkers = 4
seed = 7

[cv.tau]
type = "torsion"
atoms = [1, 2, 3, 4]
bins = 24

[bias]
type = "metadynamics"
height = "0.5 kJ/mol"
width = {tau = "20 deg"}
bias_factor = 6
pace = "0.1 ps"

[output]
every = "0.02 ps"
trajectory = "0.1 ps"
trajectory_walkers = 2
block = "1 ps"
"""


def write_input(folder: Path) -> Path:
    """The three files of the input in a folder; gives back the TOML."""
    folder.mkdir(parents=True)
    (folder / "s4.pdb").write_text(PDB)
    (folder / "s4.xml").write_text(XML)
    path = folder / "s4.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    """An input of its own."""
    return write_input(tmp_path / "input")


@pytest.fixture(scope="session", autouse=True)
def compilations(tmp_path_factory):
    """All runs share what XLA compiles."""
    with pytest.MonkeyPatch.context() as patch:
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compilations")))
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, Path]:
    """An input and the directory of its uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    source = write_input(folder / "input")
    running.start(source, folder / "out")
    return source, folder / "out"


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Starts a run that stops by itself after some blocks, as if by a signal, and gives back its directory."""

    def start(source: Path, blocks: int = 5) -> Path:
        seen = []

        def asked(self, block):
            seen.append(block)
            if len(seen) == blocks:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("metastable.cli.running.Watch.__call__", asked)
            with pytest.raises(KeyboardInterrupt):
                running.start(source, tmp_path / "out")
        return tmp_path / "out"

    return start


@pytest.fixture(scope="session")
def files():
    """What the files of a directory hold, by name, without those that depend on the clock."""
    return lambda directory: {p.name: p.read_bytes() for p in Path(directory).iterdir() if p.name not in CLOCK}


@pytest.fixture
def exit_code(monkeypatch):
    """Runs a command in this process and gives back its exit code."""

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["metastable", *map(str, arguments)])
        try:
            main()
        except SystemExit as ending:
            return ending.code or 0
        return 0

    return run


@pytest.fixture(scope="session")
def example() -> Path:
    """The input that the package brings along; its molecule is beside it."""
    return Path(running.__file__).parent / "examples" / "alanine-dipeptide.toml"
