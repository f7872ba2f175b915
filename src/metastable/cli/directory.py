"""The run directory: made once, complete in itself, and compared with its input before a run goes on."""

import difflib
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metastable.cli.input import Draft, Input, load_toml, read_input, read_tables
from metastable.cli.toml import write_toml
from metastable.core.errors import InputError, Problem
from metastable.loops.checkpoint import Checkpoints, write_atomically

_HASH = "# sha256 "


def resolved(given: Input, folder: Path) -> tuple[str, dict[str, Path]]:
    """(the resolved input of a run directory, which files go there under which name).

    Everything is written out, paths are names in the run directory, and a checksum of each file stands at the end.
    What includes other files (a GROMACS top, a folder) stays where it is.
    """
    files: dict[str, Path] = {}

    def local(entry: str) -> str:
        path = folder / entry
        if not path.exists():
            return entry  # a force field of OpenMM's own
        if path.is_dir() or path.suffix == ".top":
            return str(path.resolve())
        name = path.name
        while name in files and files[name] != path:
            name = f"other-{name}"
        files[name] = path
        return name

    tables = given.tables()
    molecule = tables["molecule"]
    molecule["structure"] = local(molecule["structure"])
    for key in ("forcefield", "parameters"):
        if key in molecule:
            molecule[key] = [local(entry) for entry in molecule[key]]
    outside = [Path(p) for p in molecule.get("parameters", ()) if Path(p).is_absolute() and Path(p).is_file()]
    sums = [f"{_HASH}{_sha256(path)} {name}\n" for name, path in [*files.items(), *((str(p), p) for p in outside)]]
    return write_toml(tables) + "\n" + "".join(sums), files


def create(out: Path, source: Path, overrides: Sequence[str], given: Input) -> str:
    """Make the run directory; returns what the run is told, which its checkpoints keep.

    Raises InputError where there is a run already.
    """
    if Checkpoints(out).identity() is not None:
        raise InputError(Problem(str(out), f"holds a run already: go on with it by 'metastable resume {out}', "
                                           "or give another --out"))  # fmt: skip
    text, files = resolved(given, source.parent)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "input.toml", source.read_bytes())
    for name, path in files.items():
        if path.resolve() != (out / name).resolve():
            write_atomically(out / name, path.read_bytes())
    write_atomically(out / "versions.json", _json(versions()))
    write_atomically(out / "origin.json", _json({"input": str(source.resolve()), "set": list(overrides)}))
    write_atomically(out / "resolved.toml", text.encode())
    return text


def reopen(out: Path, *, as_started: bool = False) -> tuple[Draft, str]:
    """The input of a run that goes on, and what it was told.

    as_started: pass over the file that it was started from, and take what the run directory holds.
    Raises InputError where there is no run, or, with the difference, where its input has changed since the start.
    """
    path = out / "resolved.toml"
    if not path.exists():
        raise InputError(Problem(str(out), "is no run directory: start one with 'metastable run INPUT --out DIR'"))
    text = path.read_text(encoding="utf-8")
    told = Checkpoints(out).identity() or text
    _compare(told, _with_sums(text, out), "what stands in the run directory now", "put it back as it was")
    origin = json.loads((out / "origin.json").read_text()) if (out / "origin.json").exists() else {}
    source = Path(origin.get("input", ""))
    if not as_started and origin and source.is_file():
        try:
            now = resolved(read_input(source, origin["set"]).finish(), source.parent)[0]
        except InputError as error:
            now = "".join(f"{p}\n" for p in error.problems)
        cure = f"put it back, run it into another --out, or 'metastable resume {out} --as-started'"
        _compare(told, now, str(source), cure)
    return read_tables(load_toml(text, str(path))), told


def _compare(told: str, now: str, name: str, cure: str) -> None:
    if told == now:
        return
    lines = difflib.unified_diff(told.splitlines(), now.splitlines(), "as the run was started", name, lineterm="", n=0)
    shown = [line for line in lines if not line.startswith("@@")]
    raise InputError(Problem("input", "changed since the run was started; " + cure + ":\n    " + "\n    ".join(shown)))


def _with_sums(text: str, out: Path) -> str:
    """The resolved input with the checksums that its files have now."""
    lines = []
    for line in text.splitlines():
        if line.startswith(_HASH):
            name = line.removeprefix(_HASH).split(" ", 1)[1]
            line = f"{_HASH}{_sha256(out / name) if (out / name).exists() else 'missing'} {name}"
        lines.append(line + "\n")
    return "".join(lines)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """One process at a time works in a run directory. Raises InputError where another one does."""
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise InputError(Problem(str(out), "another process is running there: wait for it, or end it")) from None
    try:
        yield
    finally:
        os.close(folder)


def changed_versions(out: Path) -> list[str]:
    """What is another version now than when the run was started, one sentence each."""
    path = out / "versions.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    changed = {name: now for name, now in versions().items() if before.get(name, now) != now}
    return [f"{name} was {before[name]} at the start and is {now}: what follows may differ in the last bits"
            for name, now in changed.items()]  # fmt: skip


def versions() -> dict[str, Any]:
    """What the numbers of a run depend on."""
    names = ("metastable", "jax", "jaxlib", "equinox", "numpy", "scipy", "openmm", "h5py", "mdtraj")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
