"""The commands beside run and resume: report, check, init, demo, doctor, help."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from metastable.cli import running
from metastable.core.errors import InputError


def test_a_report_is_made_again_and_of_a_run_that_is_not_done(whole, tmp_path, stopped):
    source, there = whole
    before = (there / "report.html").read_bytes()
    (there / "report.html").unlink()
    assert running.report(there) == there / "report.html"
    assert (there / "report.html").read_bytes() == before
    out = stopped(source)
    assert "<html" in running.report(out).read_text()
    assert not (out / "results.json").exists()
    with pytest.raises(InputError, match="no run directory"):
        running.report(tmp_path)


def test_a_report_of_malformed_results_is_an_input_error(whole, tmp_path, capsys, exit_code):
    shutil.copytree(whole[1], tmp_path / "out")
    path = tmp_path / "out" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cite": ["Barducci 2008"], "frames": [1]}))
    assert exit_code("report", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "results.json: cite" in said and "results.json: frames" in said and "take the key out" in said
    assert "Traceback" not in said


def test_check_tells_what_would_happen(source, capsys, exit_code):
    before = sorted(source.parent.iterdir())
    assert exit_code("check", source, "--set", "dynamics.duration=12.1 ps") == 0
    said = capsys.readouterr().out
    for words in ("4 atoms", "bonds", "tau", "4 walkers", "rounded up", "ns/day", "Disk: about", "no problem found"):
        assert words in said, words
    assert sorted(source.parent.iterdir()) == before
    told = float(re.search(r"Disk: about ([\d.]+) MB", said)[1])
    assert told < 5


def test_init_writes_an_input_that_is_valid(tmp_path, capsys, exit_code, example):
    shutil.copy(example.with_suffix(".pdb"), tmp_path / "ala.pdb")
    assert exit_code("init", tmp_path / "ala.pdb", "--out", tmp_path / "ala.toml") == 0
    tables = tomllib.loads((tmp_path / "ala.toml").read_text())
    example = tomllib.loads(example.read_text())
    assert tables["cv"] == {n: {"type": "torsion", "atoms": cv["atoms"]} for n, cv in example["cv"].items()}
    assert tables["molecule"]["structure"] == "ala.pdb"
    from metastable.cli.build import build
    from metastable.cli.input import read_input

    given, job = build(read_input(tmp_path / "ala.toml"), tmp_path)
    assert given.dynamics.walkers == job.plan.walkers == 64
    assert exit_code("init", tmp_path / "ala.pdb", "--out", tmp_path / "ala.toml") == 2
    capsys.readouterr()
    assert exit_code("init") == 0
    assert tomllib.loads(capsys.readouterr().out)["recipe"] == "metadynamics"


def test_init_says_what_every_key_means_and_its_default(tmp_path):
    from metastable.cli.input import read_tables
    from metastable.cli.models import DynamicsInput, MoleculeInput, OutputInput
    from metastable.cli.template import template

    text = template()
    for model in (MoleculeInput, DynamicsInput, OutputInput):
        for key in model.model_fields:
            assert re.search(rf"^(# )?{key} = ", text, re.M), key
    unset = re.sub(r"^# (\w+ = )(?!\.\.\.)", r"\1", text, flags=re.M)  # every default uncommented: it means the same
    assert read_tables(tomllib.loads(unset)).finish().toml() == read_tables(tomllib.loads(text)).finish().toml()


def test_init_proposes_the_torsions_of_a_chain_and_of_a_small_molecule(source):
    from metastable.cli.template import propose
    from metastable.core.system import Topology

    names = ("N", "CA", "C", "O") * 3
    ids = tuple(str(i // 4 + 5) for i in range(12))
    chain = Topology(names, ("GLY",) * 12, ids, ("A",) * 12)
    found = propose(chain)
    assert list(found) == ["psi5", "phi6", "psi6", "phi7"]
    assert found["phi6"] == ("GLY5:C", "GLY6:N", "GLY6:CA", "GLY6:C")
    small = Topology(("S1", "S2", "S3", "S4"), ("SSS",) * 4, ("1",) * 4, ("A",) * 4, np.array([[0, 1], [1, 2], [2, 3]]))
    assert propose(small) == {"torsion1": ("SSS1:S1", "SSS1:S2", "SSS1:S3", "SSS1:S4")}


def test_help_is_quick_and_needs_no_jax():
    program = "import sys; import metastable.cli.main; print('jax' in sys.modules, 'openmm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False False"
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "metastable.cli.main", "--help"], capture_output=True, text=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert done.returncode == 0 and min(seconds) < 0.5, seconds
    for name in ("run", "resume", "check", "report", "init", "demo", "doctor"):
        assert name in done.stdout


def test_version(capsys, exit_code):
    from metastable import __version__

    assert exit_code("--version") == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.physics
def test_doctor_finds_this_installation_well(capsys):
    from metastable.cli.doctor import examine

    assert examine()
    assert capsys.readouterr().out.count("  ok  ") == 3


@pytest.mark.physics
def test_the_demo_in_miniature(tmp_path):
    from metastable.cli.demonstration import demo

    demo(tmp_path / "demo", ["dynamics.duration=8 ps", "dynamics.walkers=8"])
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert [a["label"] for a in results["landscape"]["axes"]] == ["phi", "psi"]
    assert (tmp_path / "demo" / "report.html").stat().st_size < 1_500_000
