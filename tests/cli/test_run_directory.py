"""What a run leaves in its directory, and that it can be had again from there."""

import json
import shutil
import tomllib

import mdtraj
import numpy as np
import pytest

from metastable.cli import running
from metastable.core.errors import InputError
from metastable.report.sinks import read_arrays


def test_a_run_leaves_everything(whole, files):
    _, out = whole
    assert set(files(out)) == {
        "input.toml", "resolved.toml", "versions.json", "origin.json", "s4.pdb", "s4.xml", "topology.pdb", "log.csv",
        "trajectory.xtc", "arrays.h5", "checkpoint-0", "checkpoint-1", "results.json", "report.html",
    }  # fmt: skip
    arrays = read_arrays(out / "arrays.h5")
    assert arrays["cvs"].shape == (600, 4, 1) and arrays["time"][-1] == pytest.approx(12)
    assert {"jax", "openmm", "metastable", "python"} <= set(json.loads((out / "versions.json").read_text()))
    assert tomllib.loads((out / "resolved.toml").read_text())["dynamics"]["seed"] == 7


def test_results_tell_a_value_an_error_and_a_unit(whole):
    results = json.loads((whole[1] / "results.json").read_text())
    assert all(set(e) == {"name", "value", "error", "unit"} for e in results["estimates"])
    named = {e["name"]: e for e in results["estimates"]}
    assert abs(named["temperature"]["value"] - 300) < 5 * named["temperature"]["error"] + 3
    minima = results["landscape"]["minima"]
    assert sum(m["population"] for m in minima) == pytest.approx(1)
    assert results["facts"]["seed"] == 7 and results["facts"]["total_time_ns"] == pytest.approx(0.048)


def test_the_trajectory_is_that_of_the_records(whole):
    _, out = whole
    trajectory = mdtraj.load(str(out / "trajectory.xtc"), top=str(out / "topology.pdb"))
    frames = json.loads((out / "results.json").read_text())["frames"]
    tau = mdtraj.compute_dihedrals(trajectory, [[0, 1, 2, 3]])
    assert len(trajectory) == 240 and np.allclose(trajectory.time, frames["time_ps"])
    off = np.abs(np.angle(np.exp(1j * (tau - np.array(frames["cvs"])))))
    assert off.max() < 0.03  # XTC keeps 0.001 nm
    arrays = read_arrays(out / "arrays.h5")
    assert np.allclose(arrays["cvs"][4::5, :2].reshape(-1, 1), frames["cvs"], rtol=1e-5)


def test_the_log_has_a_row_a_block(whole):
    rows = (whole[1] / "log.csv").read_text().splitlines()
    assert rows[0].split(",")[0] == "time_ps" and len(rows) == 13


def test_the_resolved_input_gives_the_same_run(whole, tmp_path, files):
    _, out = whole
    source = tmp_path / "again"
    source.mkdir()
    for name in ("resolved.toml", "s4.pdb", "s4.xml"):
        shutil.copy(out / name, source)
    running.start(source / "resolved.toml", tmp_path / "out")
    ours, theirs = files(tmp_path / "out"), files(out)
    assert {n for n in theirs if ours[n] != theirs[n]} == {"input.toml", "origin.json"}


def test_a_run_is_not_started_over_another(whole, capsys, exit_code, files):
    source, out = whole
    before = files(out)
    assert exit_code("run", source, "--out", out) == 2
    assert "holds a run already" in capsys.readouterr().err and files(out) == before


def test_only_one_process_works_in_a_directory(whole, tmp_path):
    from metastable.cli.directory import held

    with held(tmp_path), pytest.raises(InputError, match="another process"), held(tmp_path):
        pass
    with held(tmp_path):
        pass
