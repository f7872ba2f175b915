"""Observables from the input to the page: all types in one run, which a kill does not change; and what is refused."""

import json
import shutil

import numpy as np
import pytest

from metastable.cli import running
from metastable.cli.build import build
from metastable.cli.input import read_input, read_tables
from metastable.core.errors import InputError
from metastable.recipes.observables import RDF, Diffusion, VelocityAutocorrelation

TOML = """\
recipe = "dynamics"
title = "Argon"

[molecule]
structure = "argon.pdb"
forcefield = ["argon.xml"]
constraints = "none"

[molecule.box]
cutoff = "0.6 nm"
electrostatics = "ewald"
size = ["1.6 nm", "1.6 nm", "1.6 nm"]

[dynamics]
temperature = "94.4 K"
pressure = "1 bar"
barostat = "monte-carlo"
timestep = "5 fs"
duration = "6 ps"
walkers = 2
minimize = false

[observable.g]
type = "rdf"
first = "element Ar"
bins = 40

[observable.some]
type = "rdf"
first = [1, 2]
second = "index > 10"
limit = "0.7 nm"

[observable.d]
type = "diffusion"
atoms = "all"
window = ["0.2 ps", "0.6 ps"]

[observable.v]
type = "velocity-autocorrelation"
atoms = "index < 10"
limit = "0.4 ps"

[observable.c]
type = "heat-capacity"

[observable.k]
type = "compressibility"

[observable.a]
type = "thermal-expansion"

[observable.e]
type = "dielectric"

[output]
every = "20 fs"
trajectory = "0.2 ps"
trajectory_walkers = 1
block = "2 ps"
"""


@pytest.fixture
def folder(tmp_path, example):
    """64 atoms of the crystal, and the input."""
    lines = [x for x in (example.parent / "argon.pdb").read_text().splitlines() if x.startswith(("ATOM", "HETATM"))]
    places = np.array([[float(x[30 + 8 * k : 38 + 8 * k]) for k in range(3)] for x in lines])
    order = np.argsort(np.max(places, 1), kind="stable")[:32]  # of the corner
    rows = [f"HETATM{i + 1:5d}" + lines[k][11:22] + f"{i + 1:4d}" + lines[k][26:] for i, k in enumerate(sorted(order))]
    (tmp_path / "argon.pdb").write_text("\n".join([*rows, "END", ""]))
    shutil.copy(example.parent / "argon.xml", tmp_path)
    (tmp_path / "argon.toml").write_text(TOML)
    return tmp_path


def test_all_types_in_one_run_that_a_kill_does_not_change(folder, tmp_path, stopped, files, capsys):
    source = folder / "argon.toml"
    running.start(source, folder / "whole")
    said = capsys.readouterr().out
    out = stopped(source, 1)
    running.resume(out)
    assert files(out) == files(folder / "whole")
    results = json.loads((out / "results.json").read_text())
    assert "landscape" not in results and "cvs" not in results["frames"]
    kinds = {o["name"]: ([e["name"] for e in o["estimates"]], len(o["curves"])) for o in results["observables"]}
    assert kinds["c"] == (["isobaric heat capacity"], 0) and kinds["d"] == (["diffusion of atoms"], 1)
    assert kinds["v"] == (["diffusion by Green-Kubo, to 0.4 ps"], 3) and kinds["g"][1] == kinds["some"][1] == 2
    values = {e["name"]: e["value"] for e in results["estimates"]}
    assert values["dielectric constant"] == 1.0  # there are no charges
    assert values["isobaric heat capacity"] > 12 and values["thermal expansion"] is not None
    assert "isothermal compressibility" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("Observables", "g(r), g", "Mean squared displacement, d", "Velocity autocorrelation, v",
                  "Density of states, v", "Green-Kubo integral, v", "isobaric heat capacity",
                  "Allen, Tildesley"):  # fmt: skip
        assert words in page
    assert "collective variable" not in page and "landscape" not in page.partition("<script")[0].partition("<body")[2]


def test_the_tables_become_observables_with_their_atoms(folder):
    given, job = build(read_input(folder / "argon.toml"), folder)
    found = job.plan.observables
    assert found["some"] == RDF((0, 1), tuple(range(11, 32)), 0.7)
    assert found["d"] == Diffusion(tuple(range(32)), (0.2, 0.6))
    assert found["v"] == VelocityAutocorrelation(tuple(range(10)), 0.4)
    assert job.cv.components == () and list(found) == ["g", "some", "d", "v", "c", "k", "a", "e"]
    again = read_tables(given.tables()).finish()
    assert again.toml() == given.toml() and "[observable.some]" in given.toml() and "[cv" not in given.toml()


def problems(folder, *overrides):
    with pytest.raises(InputError) as caught:
        build(read_input(folder / "argon.toml", overrides), folder)
    return {p.where: p.message for p in caught.value.problems}


def test_all_that_does_not_suit_comes_at_once_with_its_key(folder):
    said = problems(
        folder, "observable.g.first='name O'", "observable.some.second='heavvy'",
        "observable.n.type='rdg'", "observable.c.atoms='all'", "dynamics.walkers=0",
        "observable.2.type='dielectric'",
    )  # fmt: skip
    assert said["observable.g.first"] == "'name O' matches no atom of the 32"
    assert "did you mean 'heavy'" in said["observable.some.second"]
    assert "did you mean 'rdf'" in said["observable.n.type"]
    assert "no key here" in said["observable.c.atoms"] and "is no name" in said["observable.2"]
    assert "dynamics.walkers" in said


def test_what_does_not_suit_the_run_is_told_with_its_cure(folder):
    said = problems(
        folder, "observable.d.window=['1 ps', '4 ps']", "observable.v.limit='9 ps'", "dynamics.integrator='verlet'",
        "molecule.box.electrostatics='reaction-field'", "output.every='100 fs'",
    )  # fmt: skip
    assert "must end within half of the 4.8 ps" in said["observable.d.window"]
    assert "half of the 4.8 ps" in said["observable.v.limit"]
    assert "output.every = 100 fs is too wide" in said["observable.v"]
    assert "set molecule.box.electrostatics = 'pme'" in said["observable.e"]
    assert "take a thermostat" in said["observable.c"] and "take a thermostat" in said["observable.k"]


def test_without_a_pressure_or_a_box_it_is_told(folder):
    text = (folder / "argon.toml").read_text()
    (folder / "argon.toml").write_text(text.replace('pressure = "1 bar"\n', ""))
    assert "set dynamics.pressure" in problems(folder)["observable.k"]


def test_observables_are_refused_beside_a_bias(folder):
    said = problems(folder, "cv.v.type='volume'", "bias.type='harmonic'", "bias.cv='v'", "bias.center=4",
                    "bias.force_constant='1 kJ/mol'")  # fmt: skip
    assert "take [bias] out" in said["observable"]


def test_a_window_has_its_order_and_metadynamics_its_variables(folder):
    said = problems(folder, "observable.d.window=['2 ps', '1 ps']", "recipe='metadynamics'")
    assert "must be before" in said["observable.d"] and "at least one collective variable" in said["cv"]


def test_groups_of_collective_variables_are_selections_too(source):
    overrides = ["cv.tau={type='gyration', atoms='index < 3', range=['1 A', '4 A']}", "bias.width={tau='0.1 A'}"]
    _, job = build(read_input(source, overrides), source.parent)
    assert tuple(np.asarray(job.cv.variables[0].atoms)) == (0, 1, 2)
