"""A run directory, read back.

It has ``results.json`` and, as far as the run got, ``resolved.toml``, ``versions.json``, ``log.csv``, ``arrays.h5``
(H5MD), ``topology.pdb`` and ``trajectory.xtc`` (or ``.dcd``). Each of them may be missing; what is there must be
readable. The schema of ``results.json`` is written out in :func:`read_run`.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.report.movie import read_movie
from metastable.report.rundata import (
    Coordinate,
    Curve,
    Landscape,
    Minimum,
    Observed,
    Part,
    Profile,
    Quantity,
    RunData,
)
from metastable.report.traces import read_cvs, read_growth, read_traces

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
        observables: [{name, kind, estimates: as above, notes: [str],
                       curves: [{label, x_label, x_unit, unit, x: [...], values: [...], error: [...],
                                 window?: [from, to], line?: [slope, intercept]}]}]
            the line is laid through the curve within the window
        solute: {atoms: [[first, behind the last], ...]}         ranges of atoms; none where all is water and ions
        used_from_ps: number                        before it the estimates use nothing
        facts: {name: number | str | list}  a suffix is the unit: temperature_K, dt_fs, total_time_ns, wall_time_s
        cite: [{what, text, doi}]

    Raises InputError where the directory is no run directory, or where a file in it cannot be understood.
    """
    directory = Path(directory)
    if not any((directory / name).exists() for name in _KNOWN):
        raise InputError(Problem(str(directory), f"is no run directory: it holds none of {', '.join(_KNOWN)}"))
    results = _read_results(directory / "results.json")
    landscape, frames, solute = results["landscape"], results.pop("frames"), results.pop("solute")
    keep = [m.frame for m in landscape.minima if m.frame is not None] if landscape else []
    movie = read_movie(directory, keep, frames, solute)
    return RunData(
        directory=directory,
        versions={k: str(v) for k, v in _read_json(directory / "versions.json").items()},
        resolved=_read_text(directory / "resolved.toml"),
        log=_read_log(directory / "log.csv"),
        cvs=read_cvs(directory / "arrays.h5", landscape, walkers, points),
        traces=read_traces(directory / "arrays.h5"),
        growth=read_growth(directory / "arrays.h5"),
        movie=None if isinstance(movie, str) else movie,
        unseen=movie if isinstance(movie, str) else "",
        **results,
    )


def _read_results(path: Path) -> dict[str, Any]:
    """The parts of ``results.json``, under the names that they have in ``RunData``, and ``frames``."""
    given = _read_json(path)
    parts = (
        ("recipe", "recipe", _text, "", "a text"),
        ("title", "title", _text, "", "a text"),
        ("estimates", "quantities", _quantities, (), "a list of {name, value, error, unit}"),
        ("landscape", "landscape", _landscape, None, "an object with axes, free_energy, error and minima"),
        ("observables", "observed", _observed, (), "a list of {name, kind, estimates, curves, notes}"),
        ("convergence", "convergence", _convergence, (), "a list of {time_ns, values: {name: {value, error}}}"),
        ("frames", "frames", _frames, {}, "an object of the lists cvs, time_ps and walker, one entry a frame"),
        ("solute", "solute", _solute, None, "an object with atoms, a list of ranges"),
        ("used_from_ps", "used_from", _number, 0.0, "a number"),
        ("facts", "facts", _object, {}, "an object"),
        ("cite", "cite", lambda rows: tuple(map(_object, rows)), (), "a list of {what, text, doi}"),
    )
    found, problems = {}, []
    for key, name, read, empty, expected in parts:
        try:
            found[name] = read(given[key]) if given.get(key) else empty
        except (KeyError, TypeError, IndexError, ValueError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            cure = f"must be {expected}, but {why}: mend it, or take the key out, and the page is made without it"
            problems.append(Problem(f"{path}: {key}", cure))
    if problems:
        raise InputError(*problems)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{_short(value)} is none")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{_short(value)} is no object")
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _quantities(rows: Any) -> tuple[Quantity, ...]:
    return tuple(
        Quantity(_text(e["name"]), _number(e["value"]), _number(e.get("error")), _text(e.get("unit") or ""))
        for e in map(_object, rows)
    )


def _observed(rows: Any) -> tuple[Observed, ...]:
    return tuple(
        Observed(
            _text(e["name"]),
            _text(e.get("kind") or ""),
            _quantities(e.get("estimates") or ()),
            tuple(map(_curve, e.get("curves") or ())),
            tuple(map(_text, e.get("notes") or ())),
        )
        for e in map(_object, rows)
    )


def _curve(data: Any) -> Curve:
    texts = [_text(_object(data).get(key) or "") for key in ("label", "x_label", "x_unit", "unit")]
    x, values, error = (_numbers(data[key]) for key in ("x", "values", "error"))
    if not (x.ndim == 1 and len(x) > 1 and x.shape == values.shape == error.shape):
        raise ValueError(f"a curve of shape {x.shape} has values {values.shape} and errors {error.shape}")
    if not np.isfinite(x).all():
        raise ValueError("a curve has places that are no numbers")
    label, x_label, x_unit, unit = texts
    return Curve(label, x_label, x_unit, unit, x, values, error, _pair(data.get("window")), _pair(data.get("line")))


def _pair(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    first, second = map(float, values)
    return first, second


def _convergence(rows: Any) -> tuple[Part, ...]:
    return tuple(
        Part(
            _number(e["time_ns"]),
            {n: (_number(v.get("value")), _number(v.get("error"))) for n, v in _named_objects(e["values"])},
        )
        for e in map(_object, rows)
    )


def _named_objects(value: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(name, _object(v)) for name, v in _object(value).items()]


def _frames(value: Any) -> dict[str, np.ndarray]:
    lists = {"cvs": 2, "time_ps": 1, "walker": 1}
    found = {k: _numbers(v) for k, v in _object(value).items() if k in lists and v is not None}
    for key, values in found.items():
        if values.ndim != lists[key]:
            raise ValueError(f"{key} is of shape {values.shape}")
    return found


def _solute(value: Any) -> np.ndarray:
    """The atoms in the ranges, in their order."""
    rows = [(int(first), int(behind)) for first, behind in _object(value)["atoms"]]
    return np.unique(np.concatenate([np.zeros(0, int), *(np.arange(*row) for row in rows)]))


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


def _coordinate(data: dict[str, Any]) -> Coordinate:
    period = data.get("period")
    unit = _text(data.get("unit") or "")
    return Coordinate(_text(data["label"]), unit, _numbers(data["grid"]), None if period is None else float(period))


def _landscape(data: dict) -> Landscape:
    data = _object(data)
    axes = tuple(_coordinate(_object(a)) for a in data["axes"])
    shape = tuple(len(a.grid) for a in axes)
    free_energy = _numbers(data["free_energy"])
    error = _numbers(data["error"]) if data.get("error") is not None else np.full(shape, np.nan)
    if len(axes) not in (1, 2) or free_energy.shape != shape or error.shape != shape:
        raise ValueError(f"axes of {shape} bins, free_energy {free_energy.shape}, error {error.shape}")
    listed: list[dict] = data.get("minima") or []
    minima = [
        Minimum(
            name=_text(m.get("name") or "") or chr(ord("A") + i % 26) + (str(i // 26) if i >= 26 else ""),
            location=tuple(float(x) for x in m["location"]),
            free_energy=_number(m["free_energy"]),
            error=_number(m.get("error")),
            population=_number(m.get("population")),
            population_error=_number(m.get("population_error")),
            frame=None if m.get("frame") is None else int(m["frame"]),
        )
        for i, m in enumerate(map(_object, listed))
    ]
    if any(len(m.location) != len(axes) for m in minima):
        raise ValueError(f"a minimum has not as many places as there are axes, {len(axes)}")
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
