"""What a run directory holds, read back: the only thing that the report knows of a run.

A run directory has ``results.json`` and, as far as the run got, ``resolved.toml``, ``versions.json``, ``log.csv``,
``arrays.h5`` (H5MD), ``topology.pdb`` and ``trajectory.xtc`` (or ``.dcd``). Each of them may be missing; what is there
must be readable. The schema of ``results.json`` is written out in :func:`read_run`.
"""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.report.movie import Movie, read_movie


@dataclass(frozen=True)
class Quantity:
    """An estimate by its name: value and standard error in ``unit``."""

    name: str
    value: float
    error: float
    unit: str


@dataclass(frozen=True)
class Coordinate:
    """A collective variable as an axis. grid: bin centres in ``unit``; period in ``unit``, None where there is none."""

    label: str
    unit: str
    grid: np.ndarray
    period: float | None = None


@dataclass(frozen=True)
class Minimum:
    """A minimum of the landscape: place in the units of the axes, kJ/mol, populations as fractions.

    frame: which frame of the trajectory shows it, None where none does.
    """

    name: str
    location: tuple[float, ...]
    free_energy: float
    error: float
    population: float
    population_error: float
    frame: int | None


@dataclass(frozen=True)
class Profile:
    """A free energy along one axis, kJ/mol, (bins,). bound: the error is an upper bound, not a standard error."""

    axis: Coordinate
    free_energy: np.ndarray
    error: np.ndarray
    bound: bool = False


@dataclass(frozen=True)
class Landscape:
    """Free energy over one or two axes, kJ/mol, first axis first; NaN where the run never was."""

    axes: tuple[Coordinate, ...]
    free_energy: np.ndarray
    error: np.ndarray
    minima: tuple[Minimum, ...]
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Series:
    """Some walkers in time. time: ps, (frames,); values: (frames, walkers, columns); walkers: their numbers."""

    time: np.ndarray
    values: np.ndarray
    walkers: tuple[int, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class RunData:
    """A run directory, read. ``None`` or empty is what the run did not write."""

    directory: Path
    recipe: str = ""
    title: str = ""
    quantities: tuple[Quantity, ...] = ()
    landscape: Landscape | None = None
    convergence: tuple[dict, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    cite: tuple[dict, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    resolved: str = ""
    log: dict[str, np.ndarray] = field(default_factory=dict)
    cvs: Series | None = None
    movie: Movie | None = None


_KNOWN = ("results.json", "resolved.toml", "log.csv", "arrays.h5", "topology.pdb")


def read_run(directory: str | Path, *, walkers: int = 4, points: int = 600) -> RunData:
    """Read a run directory for the report.

    walkers, points: of the collective variables in ``arrays.h5``, how many walkers and about how many times are read.

    ``results.json`` is an object; every key may be missing, null stands for a number that is not there::

        recipe: str    title: str
        estimates: [{name, value, error, unit}]
        landscape:
            axes: [{label, unit, period | null, grid: [bin centres]}]            one or two axes
            free_energy, error: nested lists, kJ/mol, [first axis][second axis]
            minima: [{name?, location: [one per axis], free_energy, error, population, population_error,
                      frame: index into the trajectory | null}]
                populations are fractions; a free energy is against the lowest state, whose own error is 0
            profiles?: [{axis: 0 | 1, free_energy: [...], error: [...]}]
        convergence: [{fraction, time_ns, values: {name: {value, error}}}]       time of all walkers together
        frames?: {cvs: [[one per axis], ...], time_ps: [...], walker: [...]}     one entry a trajectory frame
        facts: {name: number | str}       a suffix is the unit: temperature_K, dt_fs, total_time_ns, wall_time_s
        cite: [{what, text, doi}]

    Raises InputError where the directory is no run directory, or where a file in it cannot be understood.
    """
    directory = Path(directory)
    if not any((directory / name).exists() for name in _KNOWN):
        raise InputError(Problem(str(directory), f"is no run directory: it holds none of {', '.join(_KNOWN)}"))
    results = _read_json(directory / "results.json")
    try:
        landscape = _landscape(results["landscape"]) if results.get("landscape") else None
        quantities = tuple(
            Quantity(e["name"], _number(e["value"]), _number(e.get("error")), e.get("unit") or "")
            for e in results.get("estimates") or ()
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        message = f"is not as the report expects: {type(error).__name__}: {error}"
        raise InputError(Problem(str(directory / "results.json"), message)) from error
    keep = [m.frame for m in landscape.minima if m.frame is not None] if landscape else []
    return RunData(
        directory=directory,
        recipe=results.get("recipe") or "",
        title=results.get("title") or "",
        quantities=quantities,
        landscape=landscape,
        convergence=tuple(results.get("convergence") or ()),
        facts=results.get("facts") or {},
        cite=tuple(results.get("cite") or ()),
        versions={k: str(v) for k, v in _read_json(directory / "versions.json").items()},
        resolved=_read_text(directory / "resolved.toml"),
        log=_read_log(directory / "log.csv"),
        cvs=_read_cvs(directory / "arrays.h5", landscape, walkers, points),
        movie=read_movie(directory, keep, results.get("frames") or {}),
    )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _numbers(values: Any) -> np.ndarray:
    array = np.array(values, dtype=float)  # None becomes NaN
    return np.where(np.isfinite(array), array, np.nan)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(_read_text(path) or "{}")
    except json.JSONDecodeError as error:
        raise InputError(Problem(f"{path}:{error.lineno}", f"is not JSON: {error.msg}")) from error
    if not isinstance(value, dict):
        raise InputError(Problem(str(path), f"holds a {type(value).__name__} where an object is expected"))
    return value


def _landscape(data: dict) -> Landscape:
    axes = tuple(
        Coordinate(a["label"], a.get("unit") or "", _numbers(a["grid"]), a.get("period")) for a in data["axes"]
    )
    shape = tuple(len(a.grid) for a in axes)
    free_energy = _numbers(data["free_energy"])
    error = _numbers(data["error"]) if data.get("error") is not None else np.full(shape, np.nan)
    if len(axes) not in (1, 2) or free_energy.shape != shape or error.shape != shape:
        raise ValueError(f"axes of {shape} bins, free_energy {free_energy.shape}, error {error.shape}")
    listed: list[dict] = data.get("minima") or []
    minima = [
        Minimum(
            name=m.get("name") or chr(ord("A") + i % 26) + (str(i // 26) if i >= 26 else ""),
            location=tuple(float(x) for x in m["location"]),
            free_energy=_number(m["free_energy"]),
            error=_number(m.get("error")),
            population=_number(m.get("population")),
            population_error=_number(m.get("population_error")),
            frame=m.get("frame"),
        )
        for i, m in enumerate(listed)
    ]
    profiles = tuple(
        Profile(axes[p["axis"]], _numbers(p["free_energy"]), _numbers(p["error"])) for p in data.get("profiles") or ()
    )
    return Landscape(axes, free_energy, error, tuple(minima), profiles)


def _read_log(path: Path) -> dict[str, np.ndarray]:
    """Columns of numbers; what is not a number is NaN. A last line that a kill cut short is left out."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    header = lines[0] if lines else []
    rows = [row for row in lines[1:] if len(row) == len(header)]
    return {name: np.array([_cell(row[i]) for row in rows]) for i, name in enumerate(header)}


def _cell(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _read_cvs(path: Path, landscape: Landscape | None, walkers: int, points: int) -> Series | None:
    """``/observables/cvs`` of an H5MD file as far as the run got, thinned.

    Names and units are the attributes ``names`` and ``units`` of the group, or those of the landscape's axes.
    """
    if not path.exists():
        return None
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        group: Any = file.get("observables/cvs")
        if group is None:
            return None
        value, time = group["value"], np.asarray(group["time"], dtype=float)
        frames, replicas, columns = value.shape
        time = time if time.ndim else time * np.arange(frames)  # H5MD: a scalar is the increment
        reached = int(np.count_nonzero(np.isfinite(time)))
        if not reached:
            return None
        stride = max(1, reached // points)
        chosen = sorted({round(i) for i in np.linspace(0, replicas - 1, min(walkers, replicas))})
        values = np.asarray(value[:reached:stride, chosen, :], dtype=float)
        told = [[str(x) for x in group.attrs.get(key, ())] for key in ("names", "units")]
    axes = landscape.axes if landscape and len(landscape.axes) == columns else ()
    names, units = [a.label for a in axes], [a.unit for a in axes]
    names, units = (t if len(t) == columns else own for t, own in zip(told, (names, units), strict=True))
    names = names or [f"CV {i + 1}" for i in range(columns)]
    return Series(time[:reached:stride], values, tuple(chosen), tuple(names), tuple(units or [""] * columns))
