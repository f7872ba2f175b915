"""The derivatives that benchmarks/gradients.py prints, of a real molecule with constraints, in both modes."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gradients.py"


@pytest.mark.physics
def test_derivatives_of_an_average_over_a_trajectory_are_finite_differences(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)  # as where it runs as a script
    spec = importlib.util.spec_from_file_location("gradients", SCRIPT)
    gradients = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gradients)
    rows = list(gradients.rows())
    assert len(rows) == 2 * len(gradients.WHAT)
    for row in rows:
        assert row["ratio"] < row["reach"], row
        assert abs(row["peer"]) > 1e-6, row  # nm: there is something to differentiate
