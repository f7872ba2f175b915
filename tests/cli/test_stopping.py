"""Runs that are stopped, killed, damaged or short of room: nothing breaks them, and they end in the same files."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metastable.cli import running
from metastable.cli.endings import DiskError
from metastable.core.errors import InputError, RunawayError
from metastable.report.sinks import read_arrays


def command(*arguments, **options):
    program = [sys.executable, "-m", "metastable.cli.main", *map(str, arguments)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def blocks(directory):
    try:
        return len((Path(directory) / "timing.csv").read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


def after_blocks(process, directory, count):
    """Wait until so many blocks more are done, or the process has ended."""
    first = blocks(directory)
    while process.poll() is None and blocks(directory) < first + count:
        time.sleep(0.005)


def test_stopped_and_killed_and_gone_on_with_gives_the_same_files(source, tmp_path, files):
    source.write_text(source.read_text().replace("12 ps", "240 ps"))  # long enough to be hit in its midst
    there, out = tmp_path / "there", tmp_path / "out"
    running.start(source, there)
    process = command("run", source, "--out", out)
    after_blocks(process, out, 2)
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 75 and "stopped after block" in err and "resume" in err, err
    for kills in range(2):
        process = command("resume", out)
        after_blocks(process, out, 1 + kills)
        time.sleep(0.03 * kills)
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    process = command("resume", out)
    after_blocks(process, out, 1)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130, err
    assert files(out) != files(there)
    running.resume(out)
    assert files(out) == files(there)


def test_killed_at_the_very_beginning(whole, tmp_path, files):
    source, there = whole
    out = tmp_path / "out"
    process = command("run", source, "--out", out)
    while process.poll() is None and not (out / "resolved.toml").exists():
        time.sleep(0.005)
    process.kill()
    ended(process)
    running.resume(out)
    assert files(out) == files(there)


def test_a_truncated_newest_checkpoint_falls_back_and_says_so(whole, capsys, files, stopped):
    source, there = whole
    out = stopped(source)
    newest = max((out / f"checkpoint-{i}" for i in range(2)), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-100])
    running.resume(out)
    assert f"{newest.name} is damaged or cut short: going back" in capsys.readouterr().out
    assert files(out) == files(there)


def test_a_changed_input_is_refused_with_the_difference(whole, source, files, stopped):
    out, toml = stopped(source, blocks=2), source.read_text()
    source.write_text(toml.replace("300 K", "310 K"))
    with pytest.raises(InputError) as error:
        running.resume(out)
    text = str(error.value)
    assert '-temperature = "300 K"' in text and '+temperature = "310 K"' in text and "--as-started" in text
    source.write_text(toml)
    structure = out / "s4.pdb"
    before = structure.read_text()
    structure.write_text(before.replace("2.600", "2.700"))
    with pytest.raises(InputError, match="sha256"):
        running.resume(out)
    structure.write_text(before)
    resolved = out / "resolved.toml"
    kept = resolved.read_text()
    resolved.write_text(kept.replace("seed = 7", "seed = 8"))
    with pytest.raises(InputError, match=r"\+seed = 8"):
        running.resume(out)
    resolved.write_text(kept)
    source.write_text("nonsense")
    running.resume(out, as_started=True)
    ours, theirs = files(out), files(whole[1])
    assert {n for n in theirs if ours[n] != theirs[n]} == {"origin.json"}


def test_a_full_disk_is_told_and_the_run_goes_on_where_there_is_room(whole, tmp_path, monkeypatch, files):
    """The limit is on the size of a file: the trajectory meets it in the middle of the run."""
    source, there = whole
    out = tmp_path / "out"
    limit = (there / "trajectory.xtc").stat().st_size // 2
    monkeypatch.setattr("metastable.report.sinks.arrays_size", lambda observables, records: 0)

    def small(self, block):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            for_trajectory(self, block)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    from metastable.report.sinks import Trajectory

    for_trajectory = Trajectory.write
    with monkeypatch.context() as patch:
        patch.setattr(Trajectory, "write", small)
        with pytest.raises(DiskError, match=r"disk is full .*File too large.*last checkpoint is whole.*resume"):
            running.start(source, out)
    assert 0 < len(read_arrays(out / "arrays.h5")["time"]) < 600
    running.resume(out)
    assert files(out) == files(there)


def test_a_runaway_stops_with_the_last_good_state(source, tmp_path):
    toml = source.read_text().replace('timestep = "2 fs"', 'timestep = "20 fs"').replace("walkers = 4", "walkers = 3")
    source.write_text(toml.replace('every = "0.02 ps"', 'every = "0.1 ps"'))
    xml = source.parent / "s4.xml"
    xml.write_text(xml.read_text().replace('k="100000"', 'k="300000"'))  # stable up to 14 fs
    with pytest.raises(RunawayError) as error:
        running.start(source, tmp_path / "out")
    assert 0 <= error.value.replica < 3 and error.value.step > 0
    assert error.value.term in ("bonds", "angles", "torsions") and "lower the time step" in str(error.value)
    assert (tmp_path / "out" / "checkpoint-0").exists()
    assert not (tmp_path / "out" / "results.json").exists()
