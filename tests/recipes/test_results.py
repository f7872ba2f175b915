"""What ``results.json`` says of a run in a box, of numbers made up."""

import json

import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.core.units import bar, kelvin
from metastable.io.molecules import Molecule
from metastable.potentials.sum import Sum
from metastable.recipes.plan import Plan
from metastable.recipes.results import solute, write_results

RESIDUES = [("AR", 1, 0.0)] + [("HOH", 3, 0.4)] * 2 + [("NA", 1, 1.0), ("LIG", 2, 0.3), ("AR", 1, 0.0), ("CL", 1, -1.0)]
MASS = 18.0
BOX = np.array([[2.0, 0, 0], [0, 3.0, 0], [0.5, 0, 4.0]])


def molecule(box=BOX):
    rows = [(name, i, charge) for i, (name, atoms, charge) in enumerate(RESIDUES) for _ in range(atoms)]
    names, ids = tuple(r[0] for r in rows), tuple(str(r[1]) for r in rows)
    topology = Topology(names, names, ids, ("A",) * len(rows))
    charges = np.array([r[2] for r in rows])
    system = System(np.full(len(rows), 18), np.full(len(rows), MASS), charges, topology)
    return Molecule(system, Frame(np.zeros((len(rows), 3)), box), Sum({"none": lambda frame: 0.0}))


def results(tmp_path, plan, box=BOX):
    """Of 200 records, the first 40 of them, which are left out, of another density."""
    records, walkers, random = 200, 3, np.random.default_rng(0)
    volume = np.where(np.arange(records) < 40, 99.0, 24.0)[:, None] * (
        1 + 0.02 * random.normal(size=(records, walkers))
    )
    steps = np.arange(1, records + 1) * 10
    arrays = {"time": steps * 0.002, "step": steps, "cvs": np.zeros((records, walkers, 1)), "volume": volume,
              "potential": random.normal(size=(records, walkers)), "temperature": 300 + 0 * volume}  # fmt: skip
    if box is None:
        del arrays["volume"]
    write_results(tmp_path, "dynamics", plan, molecule(box), arrays, None, ())
    return json.loads((tmp_path / "results.json").read_text()), volume[40:]


PLAN = Plan(300 * kelvin, walkers=3, blocks=2, steps=1000, every=10, pressure=2 * bar)


def test_the_density_is_that_of_what_is_kept_with_its_error(tmp_path):
    """Independent records: the error is the spread over the root of their number."""
    found, volume = results(tmp_path, PLAN)
    (density,) = [e for e in found["estimates"] if e["name"] == "density"]
    series = 12 * MASS * 1.66053906660e-27 / (volume * 1e-27)
    assert density["unit"] == "kg/m^3" and density["value"] == pytest.approx(series.mean(), rel=1e-6)
    assert density["error"] == pytest.approx(series.std() / np.sqrt(series.size), rel=0.35)
    assert found["used_from_ps"] == pytest.approx(41 * 0.02)


def test_facts_tell_the_box_and_how_it_is_held(tmp_path):
    facts = results(tmp_path, PLAN)[0]["facts"]
    assert facts["mean_box_nm"] == pytest.approx([2.0, 3.0, np.hypot(0.5, 4.0)], rel=2e-3)
    assert (facts["pressure_bar"], facts["barostat"]) == (pytest.approx(2.0), "c-rescale, isotropic")
    assert (facts["waters"], facts["ions"]) == (2, 2)


def test_sides_that_change_apart_are_not_told_from_the_volume(tmp_path):
    plan = Plan(300 * kelvin, walkers=3, blocks=2, steps=1000, every=10, pressure=2 * bar, coupling="anisotropic")
    facts = results(tmp_path, plan)[0]["facts"]
    assert "mean_box_nm" not in facts and facts["mean_volume_nm3"] == pytest.approx(24.0, rel=5e-3)


def test_a_run_without_a_box_has_none_of_it(tmp_path):
    found, _ = results(tmp_path, Plan(300 * kelvin, walkers=3, blocks=2, steps=1000, every=10), box=None)
    assert "solute" not in found and not {"waters", "mean_box_nm", "pressure_bar"} & set(found["facts"])
    assert [e["name"] for e in found["estimates"]] == ["temperature", "potential energy"]


def test_the_solute_is_neither_water_nor_an_ion(tmp_path):
    """Argon has no charge, and is dissolved."""
    assert solute(molecule()).tolist() == [0, 8, 9, 10]
    assert results(tmp_path, PLAN)[0]["solute"] == {"atoms": [[0, 1], [8, 11]]}
