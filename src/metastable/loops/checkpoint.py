"""Checkpoints, and the loop that a kill at any moment cannot hurt.

A run writes after each block: its sinks first, then one of two checkpoint files in turn, which says how far the sinks
were. A checkpoint takes its place by a rename, so that at any moment one whole checkpoint is there; going on from it
the sinks cut off what they have beyond it. Block i depends only on (key, i, state): what is repeated comes out the
same, bit for bit.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from metastable.core.errors import InputError, Problem
from metastable.loops.run import Block, run

_MAGIC = b"metastable checkpoint 1\n"


class Sink(Protocol):
    """A file that grows block by block, and can be cut back to where it was."""

    def write(self, block: Block) -> None:
        """Add what the block recorded."""
        ...

    def commit(self) -> int:
        """Put everything on the disk, and return the mark to go back to."""
        ...

    def rewind(self, mark: int) -> None:
        """Take away all that was written after the mark; 0 is the beginning."""
        ...

    def close(self) -> None:
        """Let go of the file, whatever state it is in; called once, also after an error."""
        ...


class Checkpoint(NamedTuple):
    """A place to go on from.

    blocks: how many are done. state: after them. marks: of the sinks, by name. identity: what the run was told.
    """

    blocks: int
    state: Any
    marks: dict[str, int]
    identity: str


class DamagedError(ValueError):
    """A file that is no whole checkpoint."""


class Checkpoints:
    """The two checkpoints of a run, ``checkpoint-0`` and ``checkpoint-1``, written in turn."""

    def __init__(self, directory: str | Path):
        self.paths = [Path(directory) / f"checkpoint-{i}" for i in range(2)]

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the older one. Raises OSError where the disk is full; the newer one then still stands."""
        write_atomically(self.paths[checkpoint.blocks % 2], to_bytes(checkpoint))

    def latest(self, like: Any) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, None where there is none, and a sentence on each that is not.

        like: a state of the same structure, arrays or ``jax.ShapeDtypeStruct``. Raises InputError where no
        checkpoint is whole, or where the newest is whole and of another structure or precision.
        """
        newest, notes = self._newest()
        return (None if newest is None else from_bytes(newest[1], like)), notes

    def identity(self) -> str | None:
        """What the run was told, from the newest whole checkpoint; None where there is none."""
        newest, _ = self._newest()
        return None if newest is None else newest[0]["identity"]

    def _newest(self) -> tuple[tuple[dict[str, Any], Path] | None, list[str]]:
        whole, damaged = [], []
        for path in self.paths:
            try:
                whole.append((_opened(path)[0], path))
            except FileNotFoundError:
                continue
            except DamagedError as error:
                damaged.append(f"{path.name} {error}")
        if damaged and not whole:
            message = f"{' and '.join(damaged)}: there is nothing to go on from, start it again in another directory"
            raise InputError(Problem(str(self.paths[0].parent), message))
        notes = [f"{name}: going back to the other checkpoint" for name in damaged]
        return max(whole, key=lambda item: item[0]["blocks"], default=None), notes


def persist(
    key: PRNGKeyArray,
    sampler: Any,
    start: Checkpoint,
    blocks: int,
    steps: int,
    *,
    every: int,
    observe: Callable[[Any], Any],
    sinks: Mapping[str, Sink],
    checkpoints: Checkpoints,
    between: Callable[[Any], Any] = lambda state: state,
    again: Callable[[Any, Any], Any] = lambda before, after: None,
    close: Callable[[Any], Any] = lambda state: state,
    inspect: Callable[[Any, Block], None] = lambda before, block: None,
) -> Iterator[Block]:
    """``stream`` from a checkpoint, with every block in the sinks and in a checkpoint before it is handed on.

    start: ``begin(state, ...)`` of a new run, or what ``Checkpoints.latest`` found.
    between: what is done with the state before each block, for instance to put drifting molecules back.
    again: gives, from the states before and after a block that must not stand, the state to repeat it from; or None.
    close: takes from a state what ``between`` makes anew and a checkpoint need not hold.
    inspect: called with the state before the block and the block before anything of it is written; what it raises
    ends the run with the last good state in the checkpoint.
    Raises OSError where a file cannot be written: the checkpoint of the block before is then untouched.
    """
    for name, sink in sinks.items():
        sink.rewind(start.marks.get(name, 0))
    if start.blocks == 0:
        checkpoints.save(start._replace(state=close(start.state)))
    state = start.state
    try:
        for index in range(start.blocks, blocks):
            own, state = jax.random.fold_in(key, index), between(state)
            after, records = run(own, sampler, state, steps, every=every, observe=observe)
            while (repeat := again(state, after)) is not None:
                state = repeat
                after, records = run(own, sampler, state, steps, every=every, observe=observe)
            block = Block(index, after, jax.tree.map(np.asarray, records))
            inspect(state, block)
            state = after
            for sink in sinks.values():
                sink.write(block)
            marks = {name: sink.commit() for name, sink in sinks.items()}
            checkpoints.save(Checkpoint(index + 1, close(state), marks, start.identity))
            yield block
    finally:
        for sink in sinks.values():
            sink.close()


def begin(state: Any, identity: str = "") -> Checkpoint:
    """The checkpoint of a run that has not done anything."""
    return Checkpoint(0, state, {}, identity)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file so that at any moment, power cuts included, either the old one or the whole new one is there."""
    path = Path(path)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as bytes: a header in JSON, the arrays, and a SHA-256 over both."""
    arrays, rows = [], []
    for path, leaf in _leaves(checkpoint.state):
        key = str(jax.random.key_impl(leaf)) if _is_key(leaf) else None
        array = np.asarray(jax.random.key_data(leaf) if key else leaf)
        rows.append({"path": path, "dtype": array.dtype.str, "shape": list(array.shape), "key": key})
        arrays.append(array.tobytes())
    head = {"blocks": checkpoint.blocks, "marks": checkpoint.marks, "identity": checkpoint.identity, "leaves": rows}
    text = json.dumps(head, sort_keys=True).encode()
    body = b"".join([_MAGIC, len(text).to_bytes(8, "little"), text, *arrays])
    return body + hashlib.sha256(body).digest()


def from_bytes(path: str | Path, like: Any) -> Checkpoint:
    """Read a checkpoint into the structure of ``like``.

    Raises DamagedError where the file is not whole, InputError where its state is of another structure or precision.
    """
    head, data = _opened(Path(path))
    wanted, place, values = _leaves(like), 0, []
    if [path for path, _ in wanted] != [row["path"] for row in head["leaves"]]:
        message = "holds the state of another kind of run, or of another version of the package"
        raise InputError(Problem(str(path), message))
    for (name, leaf), row in zip(wanted, head["leaves"], strict=True):
        dtype, shape = np.dtype(row["dtype"]), tuple(row["shape"])
        size = dtype.itemsize * int(np.prod(shape))
        array = np.frombuffer(data, dtype, int(np.prod(shape)), place).reshape(shape)
        place += size
        value = jax.random.wrap_key_data(jax.numpy.asarray(array), impl=row["key"]) if row["key"] else array
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            message = (
                f"{name or 'the state'} is {dtype.name}{list(shape)}, and this run has "
                f"{leaf.dtype.name}{list(leaf.shape)}: go on with the precision and walkers that it started with"
            )
            raise InputError(Problem(str(path), message))
        values.append(jax.numpy.asarray(value))
    arrays, rest = eqx.partition(like, _is_array)
    state = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), values), rest)
    return Checkpoint(head["blocks"], state, head["marks"], head["identity"])


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes of the arrays. Raises DamagedError where the checksum is not right."""
    data = path.read_bytes()
    body, checksum = data[:-32], data[-32:]
    if not data.startswith(_MAGIC):
        raise DamagedError("is empty" if not data else "is no checkpoint")
    if hashlib.sha256(body).digest() != checksum:
        raise DamagedError("is damaged or cut short")
    start = len(_MAGIC) + 8
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    return json.loads(data[start:end]), data[end:-32]


def _leaves(state: Any) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_leaves_with_path(eqx.filter(state, _is_array))
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in found]


def _is_array(x: Any) -> bool:
    return eqx.is_array(x) or isinstance(x, np.ndarray | jax.ShapeDtypeStruct)


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
