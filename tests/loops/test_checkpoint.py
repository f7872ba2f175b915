"""Checkpoints and the loop that a kill cannot hurt, on samplers small enough to be killed often."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.loops import checkpoint as checkpoint_module
from metastable.loops.checkpoint import Checkpoint, Checkpoints, DamagedError, begin, from_bytes, persist, to_bytes


class Walk(eqx.Module):
    """A random walk that carries a key, a counter and a nest of arrays."""

    width: float = 1.0

    def init(self, key, frame):
        return {"key": key, "x": (jnp.zeros(5), jnp.asarray(0, jnp.int32))}

    def step(self, key, state):
        x, n = state["x"]
        own, draw = jax.random.split(state["key"])
        return state | {"key": own, "x": (x + jax.random.normal(key, (5,)) + jax.random.normal(draw, (5,)), n + 1)}


def observe(state):
    return {"x": state["x"][0]}


class Lines:
    """A sink: a text file, a line a record."""

    def __init__(self, path):
        self.file = Path(path).open("a+")  # noqa: SIM115

    def write(self, block):
        for row in block.records["x"]:
            self.file.write(" ".join(f"{v:.9g}" for v in row) + "\n")

    def commit(self):
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()

    def rewind(self, mark):
        self.file.truncate(mark)
        self.file.seek(mark)

    def close(self):
        self.file.close()


def go(directory, blocks=6, stop=None, sampler=None):
    """Start or go on; returns the notes on damaged checkpoints."""
    sampler = Walk() if sampler is None else sampler
    store = Checkpoints(directory)
    state = sampler.init(jax.random.key(1), None)
    found, notes = store.latest(state)
    sinks = {"lines": Lines(Path(directory) / "lines.txt")}
    start = begin(state, "told") if found is None else found
    for block in persist(
        jax.random.key(2), sampler, start, blocks, 20, every=5, observe=observe, sinks=sinks, checkpoints=store
    ):
        if block.index == stop:
            break
    return notes


def files(directory):
    return {p.name: p.read_bytes() for p in Path(directory).iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    go(directory)
    return files(directory)


def same(a, b):
    a, b = eqx.filter(a, eqx.is_array), eqx.filter(b, eqx.is_array)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        bool(jnp.all(x == y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_state_comes_back_with_keys_and_scalars(tmp_path, impl):
    state = Walk().init(jax.random.key(3, impl=impl), None) | {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "f": jnp.sin,
        "name": "walk",
    }
    store = Checkpoints(tmp_path)
    store.save(Checkpoint(4, state, {"a": 7}, "identity"))
    found, notes = store.latest(eqx.filter_eval_shape(lambda s: s, state))
    assert found[0] == 4 and found[2:] == ({"a": 7}, "identity") and notes == []
    assert same(found.state, state) and found.state["f"] is jnp.sin and found.state["name"] == "walk"


def test_another_precision_or_structure_is_refused(tmp_path):
    state = {"x": jnp.zeros(3, jnp.float32)}
    path = tmp_path / "c"
    path.write_bytes(to_bytes(Checkpoint(1, state, {}, "")))
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"float32\[3\].*float64\[3\].*precision"):
        from_bytes(path, {"x": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"float32\[3\].*float32\[4\]"):
        from_bytes(path, {"x": jnp.zeros(4, jnp.float32)})
    with pytest.raises(ValueError, match="another kind of run"):
        from_bytes(path, {"y": jnp.zeros(3, jnp.float32)})


@pytest.mark.parametrize("stop", range(5))
def test_a_stopped_run_goes_on_to_the_same_files(tmp_path, whole, stop):
    go(tmp_path, stop=stop)
    assert files(tmp_path) != whole
    go(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_older_and_says_so(tmp_path, whole, damage):
    go(tmp_path, stop=3)
    newest = tmp_path / "checkpoint-0"
    data = bytearray(newest.read_bytes())
    if damage == "gone":
        newest.unlink()
    else:
        data[len(data) // 2] ^= 1
        newest.write_bytes({"cut": bytes(data[:-40]), "empty": b"", "flip": bytes(data)}[damage])
    notes = go(tmp_path)
    assert (notes == []) if damage == "gone" else ("checkpoint-0 is" in notes[0] and "other checkpoint" in notes[0])
    assert files(tmp_path) == whole


def test_both_damaged_is_an_error_of_its_own(tmp_path):
    go(tmp_path, stop=2)
    for name in ("checkpoint-0", "checkpoint-1"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(
        InputError, match=r"checkpoint-0 is no checkpoint and checkpoint-1 is no checkpoint.*nothing to go on"
    ):
        go(tmp_path)
    with pytest.raises(DamagedError, match="no checkpoint"):
        from_bytes(tmp_path / "checkpoint-0", {})


@pytest.mark.parametrize("where", ["write", "replace", "fsync"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, whole, monkeypatch, where):
    calls = 0
    real = {"replace": os.replace, "fsync": os.fsync}

    def full(*arguments):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real[where](*arguments)

    if where == "write":
        write = Lines.write
        monkeypatch.setattr(Lines, "write", lambda self, block: full_write(self, block))

        def full_write(self, block):
            write(self, block)
            if block.index == 3:
                self.file.flush()
                raise OSError(errno.ENOSPC, "No space left on device")
    else:
        monkeypatch.setattr(checkpoint_module.os, where, full)
    with pytest.raises(OSError, match="No space"):
        go(tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.new"))
    found, notes = Checkpoints(tmp_path).latest(Walk().init(jax.random.key(1), None))
    assert found.blocks > 0 and notes == []
    go(tmp_path)
    assert files(tmp_path) == whole


def test_inspection_ends_the_run_before_anything_is_written(tmp_path):
    def inspect(before, block):
        if block.index == 2:
            raise RuntimeError("runaway")

    store, sampler = Checkpoints(tmp_path), Walk()
    sinks = {"lines": Lines(tmp_path / "lines.txt")}
    stream = persist(jax.random.key(2), sampler, begin(sampler.init(jax.random.key(1), None)), 6, 20, every=5,
                     observe=observe, sinks=sinks, checkpoints=store, inspect=inspect)  # fmt: skip
    with pytest.raises(RuntimeError, match="runaway"):
        list(stream)
    found, _ = store.latest(sampler.init(jax.random.key(1), None))
    assert found.blocks == 2 and len((tmp_path / "lines.txt").read_text().splitlines()) == 8


def test_kill_at_any_moment_then_resume_gives_the_same_files(tmp_path, whole):
    """The process is killed after 1, 2, 3, ... system calls that touch the disk, until it lives to the end."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_checkpoint as t
left = [int(sys.argv[2])]
def deadly(function):
    def call(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
t.Lines.write = deadly(t.Lines.write)
t.Lines.rewind = deadly(t.Lines.rewind)
t.go(sys.argv[1])
"""
    died = 0
    for deaths in (3, 4, 6, 60):
        run = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), str(deaths)], capture_output=True, text=True
        )
        assert run.returncode in (0, -signal.SIGKILL), run.stderr
        died += run.returncode != 0
    assert died == 3 and run.returncode == 0
    assert files(tmp_path) == whole
