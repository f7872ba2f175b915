"""How numbers, units and names are written for people."""

import math
import re
from dataclasses import dataclass

import numpy as np

from metastable.report.rundata import Coordinate

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "theta": "θ", "phi": "φ", "psi": "ψ", "omega": "ω", "chi": "χ",
    "xi": "ξ", "tau": "τ", "chi1": "χ₁", "chi2": "χ₂", "chi3": "χ₃", "chi4": "χ₄",
}  # fmt: skip
_SUFFIXES = {
    "_kJ_mol": "kJ/mol",
    "_ns_per_day": "ns/day", "ns_per_day": "ns/day", "_per_ps": "/ps", "_per_ns": "/ns", "_per_nm": "/nm",
    "_K": "K", "_fs": "fs", "_ps": "ps", "_ns": "ns", "_nm": "nm", "_s": "s", "_Da": "Da",
    "_nm3": "nm³", "_bar": "bar",
}  # fmt: skip
_LABELS = {
    "dt": "Time step", "": "Speed", "total_time": "Total time", "wall_time": "Wall time",
    "cvs": "Collective variables", "kT": "kT",
}  # fmt: skip


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _decimals(error: float) -> int:
    """Decimal places that an error deserves: two significant digits where the first is a 1, else one."""
    if not (math.isfinite(error) and error > 0):
        return 1
    exponent = math.floor(math.log10(error))
    mantissa = error / 10**exponent
    return max(0, -exponent + (1 if mantissa < 1.95 else 0))


def number(value: float, places: int | None = None) -> str:
    """A number with a true minus sign; four significant digits unless ``places`` are asked for."""
    if not math.isfinite(value):
        return "–"
    if places is not None:
        text = f"{value:.{places}f}"
        text = text.removeprefix("-") if float(text) == 0 else text
    elif value == int(value) and abs(value) < 1e15:
        text = str(int(value)) if abs(value) < 1e4 else f"{int(value):,}".replace(",", "\u202f")
    else:
        text = f"{value:.4g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"
    return text.replace("-", "−")


def plus_minus(value: float, error: float, unit: str = "") -> str:
    """``8.2 ± 0.3 kJ/mol``, ``(4.6 ± 0.2) × 10⁻⁵ 1/bar``; ``25 502 frames`` without an error."""
    unit = typeset(unit)
    if value == 0 and not error > 0:
        return f"0 {unit}".rstrip()  # zero by definition
    largest = max(abs(value), error)
    if 1e-9 * largest < error and largest < 1e-3:
        power = math.floor(math.log10(largest))
        scaled = plus_minus(value / 10**power, error / 10**power)
        return f"({scaled}) × 10{str(power).translate(_RAISED)} {unit}".rstrip()
    if math.isfinite(error) and error > 1e-9 * abs(value):  # a lesser one is rounding
        text = number(value, _decimals(error))
        text += f" ± {number(error, _decimals(error))}" if math.isfinite(value) else ""
    else:
        text = number(float(f"{value:.3g}")) if abs(value) < 1 else _whole(value)
    return f"{text} {unit}".rstrip()


def typeset(text: str) -> str:
    """Powers of units as people write them: nm² for nm^2, cm⁻¹ for cm^-1."""
    return re.sub(r"(?<=[a-z])\^(-?\d)", lambda m: m[1].translate(_RAISED), text)


def _whole(value: float) -> str:
    return number(value, 1) if abs(value) < 100 else number(float(f"{value:.0f}"))


def percent(value: float, error: float) -> str:
    """``61 ± 3 %`` for the fractions 0.61 and 0.03."""
    return plus_minus(100 * value, 100 * error, "%")


def symbol(label: str) -> str:
    """φ for phi, and so on; any other label stays as it is."""
    return _GREEK.get(label.lower(), label)


def fact(name: str, value: object) -> tuple[str, str]:
    """The label and the text of one fact: ``dt_fs = 2`` is ("Time step", "2 fs")."""
    stem, unit = next(((name.removesuffix(s), u) for s, u in _SUFFIXES.items() if name.endswith(s)), (name, ""))
    label = _LABELS.get(stem) or stem[:1].upper() + stem[1:].replace("_", " ")
    if unit == "s" and isinstance(value, int | float):
        return label, duration(float(value))
    if isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "–"}[value]
    elif isinstance(value, int | float) and stem != "seed":
        text = number(value)
    elif stem.endswith("box") and isinstance(value, list):
        text = " × ".join(number(float(side)) for side in value)
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return label, f"{text} {unit}".strip()


def duration(seconds: float) -> str:
    """In seconds, minutes or hours, whichever gives a number that is easily read."""
    if seconds < 100:
        return f"{number(seconds, 1)} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{number(minutes, 1)} min" if minutes < 100 else f"{number(hours, 1)} h"


@dataclass(frozen=True)
class Shown:
    """An axis as it is shown: torsions in degrees. factor: multiplies what the run directory holds."""

    symbol: str
    unit: str
    factor: float
    lo: float
    hi: float
    ticks: tuple[float, ...]

    @property
    def title(self) -> str:
        """Symbol and unit, as they stand along the axis."""
        return f"{self.symbol} ({self.unit})" if self.unit else self.symbol

    def number(self, value: float) -> str:
        """A place on the axis, given in the units of the run directory, as a number in those of the page."""
        places = 0 if self.unit == "°" else max(0, 2 - math.floor(math.log10(max(self.hi - self.lo, 1e-9))))
        return number(value * self.factor, places)

    def text(self, value: float) -> str:
        """The same with its unit."""
        return f"{self.number(value)}{'' if self.unit == '°' else ' '}{self.unit}".strip()


def shown(axis: Coordinate) -> Shown:
    """Degrees for radians, the edges of the outermost bins, and where the ticks are."""
    factor, unit = (math.degrees(1), "°") if axis.unit in ("rad", "radian", "radians") else (1.0, axis.unit)
    grid = axis.grid * factor
    half = (grid[-1] - grid[0]) / max(1, len(grid) - 1) / 2
    lo, hi = float(grid[0] - half), float(grid[-1] + half)
    if unit == "°" and hi - lo > 200:
        ticks = tuple(float(t) for t in range(-360, 361, 60) if lo - 0.5 <= t <= hi + 0.5)
    else:
        ticks = ticks_between(lo, hi)
    return Shown(symbol(axis.label), unit, factor, lo, hi, ticks)


def ticks_between(lo: float, hi: float, about: int = 6) -> tuple[float, ...]:
    """Round numbers from lo to hi, about so many."""
    if not hi > lo:
        return (lo,)
    raw = (hi - lo) / about
    power = 10 ** math.floor(math.log10(raw))
    step = power * min((m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), default=10)
    first = math.ceil(lo / step - 1e-9)
    return tuple(np.round(step * k, 12) + 0.0 for k in range(first, math.floor(hi / step + 1e-9) + 1))
