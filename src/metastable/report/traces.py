"""``arrays.h5``, read back as far as the run got: few enough points for a figure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.core.units import kg_m3
from metastable.report.rundata import Landscape, Series, Trace


@contextmanager
def _observables(path: Path) -> Iterator[Any]:
    """The group of an H5MD file that holds what was observed, or nothing. Raises InputError where it is damaged."""
    if not path.exists():
        yield {}
        return
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file.get("observables") or {}
    except (OSError, KeyError, TypeError, ValueError) as error:
        message = f"cannot be read: {error}: take it away, and the page is made without it"
        raise InputError(Problem(str(path), message)) from error


def read_cvs(path: Path, landscape: Landscape | None, walkers: int, points: int) -> Series | None:
    """``/observables/cvs``, thinned.

    Names and units are the attributes ``names`` and ``units`` of the group, or those of the landscape's axes.
    """
    with _observables(path) as observables:
        found = _thinned(observables.get("cvs"), walkers, points)
    if found is None:
        return None
    time, values, chosen, told = found
    columns = values.shape[-1]
    axes = landscape.axes if landscape and len(landscape.axes) == columns else ()
    names, units = [a.label for a in axes], [a.unit for a in axes]
    names, units = (t if len(t) == columns else own for t, own in zip(told, (names, units), strict=True))
    names = names or [f"CV {i + 1}" for i in range(columns)]
    return Series(time, values, chosen, tuple(names), tuple(units or [""] * columns))


def _thinned(group: Any, walkers: int, points: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], list] | None:
    """Times, values, the walkers that were chosen, and what the group says of its names and units."""
    if group is None:
        return None
    value = group["value"]
    frames, replicas, _ = value.shape
    time, reached = _times(group, frames)
    if not reached:
        return None
    stride = max(1, reached // points)
    chosen = sorted({round(i) for i in np.linspace(0, replicas - 1, min(walkers, replicas))})
    values = np.asarray(value[:reached:stride, chosen, :], dtype=float)
    told = [[str(x) for x in group.attrs.get(key, ())] for key in ("names", "units")]
    return time[:reached:stride], values, tuple(chosen), told


def _times(group: Any, frames: int) -> tuple[np.ndarray, int]:
    """The time of each record, ps, and how many the run has reached."""
    time = np.asarray(group["time"], dtype=float)
    time = time if time.ndim else time * np.arange(frames)  # H5MD: a scalar is the increment
    return time, int(np.count_nonzero(np.isfinite(time)))


def read_traces(path: Path, points: int = 120) -> tuple[Trace, ...]:
    """Density and potential energy in time, each point the mean of as many records as make ``points`` of them.

    The density is the attribute ``mass`` of the group ``volume`` over its values; no trace is of what stays
    as it is: the density in a box that does.
    """
    found = []
    with _observables(path) as observables:
        if "volume" in observables and "mass" in observables["volume"].attrs:
            mass = float(observables["volume"].attrs["mass"])
            found.append(_trace("density", "kg/m^3", observables["volume"], points, mass / kg_m3))
        if "potential" in observables:
            found.append(_trace("potential energy", "kJ/mol", observables["potential"], points))
    return tuple(t for t in found if t is not None and np.ptp(t.walkers) > 1e-6 * abs(t.walkers[0, 0]))


_GROWTH = {
    "offset": ("offset of the bias, c(t)", "kJ/mol"),
    "kernels": ("kernels", ""),
    "effective_size": ("effective samples in the kernels", ""),
}


def read_growth(path: Path, points: int = 240) -> tuple[Trace, ...]:
    """How a bias that all walkers share grew: what was recorded of it, by one number at a time."""
    with _observables(path) as observables:
        found = [_trace(*told, observables[name], points) for name, told in _GROWTH.items() if name in observables]
    return tuple(t for t in found if t is not None)


def _trace(name: str, unit: str, group: Any, points: int, over: float | None = None) -> Trace | None:
    """Values, or ``over`` divided by them, in stretches of records."""
    time, reached = _times(group, len(group["value"]))
    if reached < 2:
        return None
    values = np.asarray(group["value"][:reached], float).reshape(reached, -1)
    values = values if over is None else over / values
    records = -(-reached // points)
    used = reached // records * records
    walkers = values[:used].reshape(-1, records, values.shape[1]).mean(1)
    return Trace(name, unit, time[:used].reshape(-1, records).mean(1), walkers, records)
