"""The input: what is valid is understood, what is not gives InputError with every problem, and never anything else."""

import copy
import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metastable.cli.input import load_toml, override, read_input, read_tables
from metastable.cli.quantities import UNITS, parse
from metastable.core.errors import InputError

VALID = {
    "recipe": "metadynamics",
    "title": "a test",
    "molecule": {"structure": "ala.pdb", "forcefield": ["amber14-all.xml"], "implicit": {"model": "OBC2"}},
    "dynamics": {"temperature": "300 K", "timestep": "2 fs", "duration": "1 ns", "walkers": 8},
    "cv": {
        "phi": {"type": "torsion", "atoms": ["ACE1:C", "ALA2:N", 9, 15]},
        "r": {"type": "distance", "atoms": [1, 2], "range": ["1 A", "1 nm"]},
    },
    "bias": [
        {
            "type": "metadynamics", "cvs": ["phi"], "height": "0.1 kcal/mol", "width": {"phi": "20 deg"},
            "bias_factor": 8, "pace": "0.2 ps",
        },
        {"type": "upper-wall", "cv": "r", "at": "9 A", "force_constant": "10 kcal/mol/A^2"},
    ],
    "output": {"every": "0.2 ps"},
}  # fmt: skip


def changed(path, value):
    tables = copy.deepcopy(VALID)
    *names, last = path.split(".")
    at = tables
    for name in names:
        at = at[int(name)] if isinstance(at, list) else at[name]
    last = int(last) if isinstance(at, list) else last
    if value is None:
        del at[last]
    else:
        at[last] = value
    return tables


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("300 K", "temperature", 300.0),
        ("300K", "temperature", 300.0),
        ("2 fs", "time", 0.002),
        ("1e-3 ns", "time", 1.0),
        ("1 /ps", "rate", 1.0),
        ("1/ps", "rate", 1.0),
        ("2 1/ps", "rate", 2.0),
        ("2 ps^-1", "rate", 2.0),
        ("1 kcal/mol", "energy", 4.184),
        ("180 deg", "angle", math.pi),
        ("1.5 Å", "length", 0.15),
        ("1 kcal/mol/A^2", "force constant of a length", 418.4),
        ("1 kcal/mol/A²", "force constant of a length", 418.4),
        (3, "number", 3.0),
        ("-.5", "number", -0.5),
    ],
)
def test_quantities_are_read_in_internal_units(text, dimension, value):
    assert parse(text, [dimension]) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "K", "300 k", "3e999 K", "nan K", "1 K K", "1_0 K", 3, True, None, [], "1 ps"])
def test_what_is_no_temperature_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError) as error:
        parse(text, ["temperature"])
    assert "K" in str(error.value)


@given(st.sampled_from([(d, u) for d, units in UNITS.items() for u in units]), st.floats(-1e6, 1e6))
def test_a_quantity_reads_back_as_itself(unit, number):
    dimension, unit = unit
    quantity = parse(f"{number!r} {unit}", [dimension])
    assert parse(quantity.text, [dimension]) == quantity
    assert quantity == number * UNITS[dimension][unit]


def test_a_valid_input_resolves_to_one_that_means_the_same():
    first = read_tables(VALID).finish()
    text = first.toml()
    second = read_tables(tomllib.loads(text)).finish()
    assert second.toml() == text
    assert second.schedule == first.schedule
    assert first.schedule.blocks * first.schedule.steps == 500_000
    assert (first.schedule.every, first.schedule.pace, first.schedule.frames) == (100, 100, 10)
    assert first.biases[0].height == pytest.approx(0.4184)


WRONG = {
    "recipe": ("metadynamic", "metadynamics, opes, dynamics; did you mean 'metadynamics'"),
    "walkers": (3, "did you mean 'dynamics.walkers'"),
    "molecule.forcefeld": (["a"], "did you mean 'forcefield'"),
    "molecule.structure": (None, "is required"),
    "molecule.parameters": (["a.prmtop"], "not both"),
    "molecule.implicit.model": ("obc", "HCT, OBC1, OBC2, GBn, GBn2"),
    "dynamics": (None, "is missing"),
    "dynamics.temperature": ("300 C", "allowed: K"),
    "dynamics.timestep": ("-2 fs", "above 0 fs"),
    "dynamics.friction": (1, "has no unit"),
    "dynamics.duration": ("1 nm", "did you mean '1 ns'"),
    "dynamics.walkers": (0, "greater than or equal to 1"),
    "dynamics.seed": (-1, "greater than or equal to 0"),
    "dynamics.precision": ("dooble", "single, double; did you mean 'double'"),
    "cv": ({}, "at least one collective variable"),
    "cv.phi.type": ("torson", "did you mean 'torsion'"),
    "cv.phi.atoms": ([1, 2, 3], "at least 4 items"),
    "cv.phi.range": (["0 rad", "1 rad"], "leave range out"),
    "cv.r.range": (["1 nm", "1 A"], "must be below"),
    "cv.r.bins": (2.5, "integer"),
    "cv.2": ({"type": "gyration"}, "is no name"),
    "bias.0.cvs": (["phj"], "did you mean 'phi'"),
    "bias.0.width": ({"phi": "1 nm"}, "allowed: rad"),
    "bias.0.width.phi": ("0 deg", "above 0"),
    "bias.0.height": ("1 nm", "allowed: kJ/mol"),
    "bias.0.bias_factor": (1.0, "greater than 1"),
    "bias.0.pace": ("3 fs", "whole number"),
    "bias.0.grid": ({"phi": 1}, "from 4 to 4096"),
    "bias.1.cv": ("q", "is not one of: phi, r"),
    "bias.1.force_constant": ("1 kJ/mol/rad^2", "kJ/mol/nm^2"),
    "bias.1": ({"type": "lower-wall", "cv": "phi", "at": "1 rad", "force_constant": "1 kJ/mol/rad^2"}, "periodic"),
    "bias": ([], "needs one bias of type = 'metadynamics'"),
    "output.every": ("0.3 fs", "whole number"),
    "output.trajectory": ("0.5 ps", "whole number"),
    "output.block": ("0.5 ps", "whole number"),
}


@pytest.mark.parametrize("path", WRONG)
def test_a_problem_names_its_key_and_its_cure(path):
    value, words = WRONG[path]
    with pytest.raises(InputError) as error:
        read_tables(changed(path, value)).finish()
    hit = [p for p in error.value.problems if words in p.message]
    key = path.replace(".0.", ".").split(".")[0]
    assert hit and hit[0].where.startswith(key), [str(p) for p in error.value.problems]


def test_all_problems_come_at_once():
    tables = copy.deepcopy(VALID)
    tables["molecule"]["constraint"] = "none"
    tables["dynamics"] |= {"timestep": "-2 fs", "temperature": "3"}
    tables["cv"]["phi"]["atoms"] = [0, 1]
    tables["bias"][0] |= {"bias_factor": 0, "width": {"phi": "1 nm"}}
    tables["bias"][1]["cv"] = "s"
    places = {p.where for p in read_tables(tables).problems}
    assert places >= {
        "molecule.constraint", "dynamics.timestep", "dynamics.temperature", "cv.phi.atoms.0", "bias.0.bias_factor",
        "bias.0.width.phi", "bias.1.cv",
    }  # fmt: skip


def test_a_duration_that_is_no_whole_number_of_blocks_is_rounded_up_and_shown():
    tables = changed("dynamics.duration", "100.1 ps")
    tables["output"]["block"] = "2 ps"
    resolved = read_tables(tables).finish()
    assert resolved.tables()["dynamics"]["duration"] == "102.0 ps"
    assert read_tables(tomllib.loads(resolved.toml())).finish().schedule.blocks == resolved.schedule.blocks == 51


def test_overrides(tmp_path):
    tables = override(copy.deepcopy(VALID), ["dynamics.walkers=2", "dynamics.duration = 2 ns", "bias.0.bias_factor=5"])
    read = read_tables(tables).finish()
    assert (read.dynamics.walkers, read.dynamics.duration, read.biases[0].bias_factor) == (2, 2000.0, 5.0)
    with pytest.raises(InputError) as error:
        override({"title": "x"}, ["a", "=3", "title.x=1"])
    assert len(error.value.problems) == 3


def test_a_broken_file_names_the_line(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("recipe = 'dynamics'\n[molecule\n")
    with pytest.raises(InputError) as error:
        read_input(path)
    assert error.value.problems[0].where == f"{path}:2"
    with pytest.raises(InputError) as error:
        read_input(tmp_path / "b.toml")
    assert "did you mean 'a.toml'" in str(error.value)


_names = st.one_of(
    st.sampled_from(
        "recipe title molecule dynamics cv bias output structure forcefield parameters implicit model temperature "
        "timestep duration friction walkers seed phi r type atoms range bins cvs height width pace grid every block "
        "bias_factor force_constant at center first second r0 trajectory".split()
    ),
    st.text(max_size=5),
)
_leaves = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.times(),
    st.sampled_from(
        ["metadynamics", "dynamics", "torsion", "distance", "coordination", "harmonic", "upper-wall", "moving", "phi",
         "300 K", "2 fs", "1 ns", "1 /ps", "20 deg", "0.1 nm", "1 kJ/mol", "1e308 ns", "1e-300 fs", "heavy", "A:CA", 5]
    ),
)  # fmt: skip
_nests = st.recursive(
    _leaves, lambda x: st.lists(x, max_size=4) | st.dictionaries(_names, x, max_size=5), max_leaves=25
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(_names, _nests, max_size=7))
def test_any_nest_is_an_input_or_an_input_error(tables):
    try:
        read_tables(tables).finish()
    except InputError as error:
        assert error.problems


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.lists(_names, min_size=1, max_size=4), _nests), min_size=1, max_size=4))
def test_a_valid_input_with_some_values_changed_is_an_input_or_an_input_error(changes):
    tables = copy.deepcopy(VALID)
    for path, value in changes:
        at = tables
        for name in path[:-1]:
            if isinstance(at, list):
                at = at[0] if at else {}
            at = at.setdefault(name, {}) if isinstance(at, dict) else {}
        if isinstance(at, dict):
            at[path[-1]] = value
    try:
        text = read_tables(tables).finish().toml()
    except InputError as error:
        assert error.problems
    else:
        assert read_tables(tomllib.loads(text)).finish().toml() == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_toml_or_an_input_error(text):
    try:
        read_tables(load_toml(text, "a.toml")).finish()
    except InputError as error:
        assert error.problems
