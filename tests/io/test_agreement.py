"""Real molecules against OpenMM: some of the rows of benchmarks/agreement.py."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("openmm")
_PATH = Path(__file__).parents[2] / "benchmarks" / "agreement.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_agreement", _PATH)
agreement = importlib.util.module_from_spec(_SPEC)
sys.modules["benchmark_agreement"] = agreement
sys.path.insert(0, str(_PATH.parent))  # as where it runs as a script
_SPEC.loader.exec_module(agreement)

CHOSEN = [
    "ala2, amber99sbildn.xml + amber99_obc.xml",
    "alanine-dipeptide-implicit, alanine-dipeptide-implicit.prmtop, GBn2",
    "chignolin_1UAO, amber14-all.xml, OBC2 kappa 0.7",
    pytest.param("chignolin_1UAO, charmm36_2024.xml, GBn2", marks=pytest.mark.physics),  # slow: OpenMM reads 15 MB
]


@pytest.mark.parametrize("name", CHOSEN)
def test_energies_and_forces_are_openmms(data, name):
    case = next(c for c in agreement.CASES if c.name == name)
    rows = list(agreement.rows(case, data / "structures"))
    assert len(rows) == 3  # energy, forces, and forces in single precision
    for row in rows:
        assert row["ratio"] <= row["reach"], row
