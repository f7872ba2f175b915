"""Every example input is valid, fits its molecule, and says what it needs."""

from pathlib import Path

import numpy as np
import pytest

from metastable.cli import build, running
from metastable.cli.input import read_input
from metastable.core.errors import InputError

EXAMPLES = Path(running.__file__).parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_an_example_can_be_built(path):
    given, job = build.build(read_input(path), EXAMPLES)
    assert job.plan.blocks > 10
    assert np.isfinite(np.asarray(job.molecule.frame.positions)).all()
    assert (given.molecule.box is None) == (job.molecule.frame.box is None) == (job.plan.pressure is None)


@pytest.mark.parametrize(
    ("overrides", "where", "says"),
    [
        (["molecule.box.cutoff='1.5 nm'"], "molecule.box", "at least 3 nm"),
        (["dynamics.pressure='1 bat'"], "dynamics.pressure", "bar"),
        (["dynamics.barostat='berendsen'"], "dynamics.barostat", "c-rescale"),
        (["molecule.solvate.salt='9 mol/l'"], "molecule.solvate.salt", "5 mol/l"),
        (["molecule.box.electrostatics='pmee'"], "molecule.box.electrostatics", "pme"),
        (["molecule.box.skin='-1 nm'"], "molecule.box.skin", "0 nm"),
        (["molecule.forcefield=['amber14-all.xml']"], "molecule.structure", "add a water model"),
    ],
)
def test_what_does_not_fit_a_box_is_told_with_its_cure(overrides, where, says):
    with pytest.raises(InputError) as caught:
        build.build(read_input(EXAMPLES / "water.toml", overrides), EXAMPLES)
    assert any(p.where.startswith(where) and says in p.message for p in caught.value.problems), caught.value.problems


def test_the_volume_is_constant_only_before_a_pressure_and_while_nothing_is_estimated():
    for example, time, says in (("water", "60 ps", "50 ps"), ("alanine-dipeptide", "1 ps", "without")):
        with pytest.raises(InputError) as caught:
            build.build(read_input(EXAMPLES / f"{example}.toml", [f"dynamics.constant_volume='{time}'"]), EXAMPLES)
        assert [p.where for p in caught.value.problems if says in p.message] == ["dynamics.constant_volume"]


def test_pressure_and_volume_need_a_box():
    overrides = ["dynamics.pressure='1 bar'", "cv.v.type='volume'"]
    with pytest.raises(InputError) as caught:
        build.build(read_input(EXAMPLES / "alanine-dipeptide.toml", overrides), EXAMPLES)
    assert {p.where for p in caught.value.problems} & {"dynamics.pressure", "cv.v"}
