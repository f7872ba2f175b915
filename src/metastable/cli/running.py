"""``run``, ``resume`` and ``report``: from an input to a run directory."""

import errno
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from metastable.cli.build import Job, build
from metastable.cli.directory import changed_versions, create, held, reopen
from metastable.cli.endings import DiskError
from metastable.cli.input import read_input
from metastable.cli.progress import Watch, progress_line, stopping
from metastable.core.errors import InputError, Problem
from metastable.estimate.landscape import Landscape
from metastable.recipes import dynamics, metadynamics, opes
from metastable.report.notation import plus_minus
from metastable.report.page import write_report

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def keep_compilations() -> None:
    """Keep what XLA compiles in the user's cache, so that a second start takes seconds less."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "metastable" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def start(source: Path, out: Path, overrides: Sequence[str] = ()) -> None:
    """Run an input into a directory. Raises InputError, RunawayError, DiskError, Stopped."""
    keep_compilations()
    draft = read_input(source, overrides)
    double = draft.dynamics is not None and draft.dynamics.precision == "double"
    with jax.enable_x64(double):
        given, job = build(draft, source.parent)
        with _clear(out):
            identity = create(out, source, overrides, given)
        _go(job, out, identity)


def resume(out: Path, *, as_started: bool = False) -> None:
    """Go on with a run; where it is done only its results and its report are made again."""
    keep_compilations()
    draft, identity = reopen(out, as_started=as_started)
    for note in changed_versions(out):
        print(note)
    double = draft.dynamics is not None and draft.dynamics.precision == "double"
    with jax.enable_x64(double):
        _go(build(draft, out)[1], out, identity)


def report(directory: Path) -> Path:
    """Make the report again, from the files of the run alone; of a run that is not done, as far as it got."""
    if (directory / "resolved.toml").exists() and not (directory / "results.json").exists():
        if not (directory / "arrays.h5").exists():
            raise InputError(Problem(str(directory), "the run has not begun: there is nothing to report yet"))
        draft, _ = reopen(directory, as_started=True)
        conclude(build(draft, directory)[1], directory)
        path = write_report(directory)
        (directory / "results.json").unlink()  # the next report looks again how far the run is
        return path
    return write_report(directory)


def conclude(job: Job, directory: Path) -> Landscape | None:
    """The estimates of a run, as far as it got."""
    if job.recipe in ("metadynamics", "opes"):
        recipe = {"metadynamics": metadynamics, "opes": opes}[job.recipe]
        return recipe.conclude(job.plan, job.molecule, job.cv, directory)
    moving = dynamics.moves(job.bias)
    return dynamics.conclude(job.plan, job.molecule, job.cv, directory, moving=moving)


def _go(job: Job, out: Path, identity: str) -> None:
    recipe = {"metadynamics": metadynamics.metadynamics, "opes": opes.opes, "dynamics": dynamics.dynamics}[job.recipe]
    with held(out), _clear(out), stopping() as asked, progress_line(job.plan.blocks) as line:
        watch = Watch(job.plan, job.cv, out, asked, line)
        found = recipe(job.plan, job.molecule, job.cv, job.bias, out, watch=watch, identity=identity, say=print)
    if found is not None:
        print(summary(found))
    for line in observed(out):
        print(line)
    print(f"report: {out / 'report.html'}")


def summary(found: Landscape) -> str:
    """The minima, for the terminal."""
    lines = [f"{len(found.basins)} minima:"]
    for i, location in enumerate(found.basins.locations):
        place = ", ".join(
            f"{a.name} {x * 57.29577951308232:.0f}°" if a.unit == "rad" else f"{a.name} {x:.3g} {a.unit}".rstrip()
            for a, x in zip(found.axes, location, strict=True)
        )
        energy, share = found.basins.free_energy[i], found.basins.population[i]
        known = f" +- {100 * share.error:.2f}" if math.isfinite(share.error) else ""
        percent = f"{100 * share.value:.2f}{known} %"
        lines.append(f"  {chr(ord('A') + i % 26)}  {place}  F = {energy}  population {percent}")
    if not np.isfinite(found.basins.population.error).all():
        lines.append("  too short for errors: run longer, or more walkers")
    return "\n".join(lines)


def observed(out: Path) -> list[str]:
    """The estimates of the observables, as ``results.json`` has them, for the terminal."""
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = [e for observable in found.get("observables", ()) for e in observable["estimates"]]
    return [f"{e['name']}  {plus_minus(_number(e['value']), _number(e['error']), e['unit'])}" for e in rows]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


class _clear:
    """Turns the errors of a full disk, or of a directory that cannot be written, into sentences."""

    def __init__(self, out: Path):
        self.out = out

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> bool:
        if not isinstance(error, OSError) or error.errno is None:
            return False
        what = f"{error.filename or self.out}: {error.strerror}"
        if error.errno in FULL:
            raise DiskError(f"the disk is full ({what}). The last checkpoint is whole: make room, and go on with "
                            f"'metastable resume {self.out}'") from error  # fmt: skip
        raise DiskError(f"cannot be written: {what}") from error
