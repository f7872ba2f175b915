"""Quantities as people write them: ``"300 K"``, ``"2 fs"``, ``"1 kcal/mol"``. The only reader of units."""

import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from metastable.core import units

_ENERGIES = {
    "kJ/mol": units.kJ_mol, "kcal/mol": units.kcal_mol, "J/mol": 1e-3, "eV": units.eV, "meV": 1e-3 * units.eV,
}  # fmt: skip
_LENGTHS = {"nm": units.nm, "A": units.angstrom, "Å": units.angstrom, "angstrom": units.angstrom, "pm": 1e-3}
_ANGLES = {"rad": 1.0, "deg": units.degree, "degree": units.degree, "°": units.degree}

UNITS: dict[str, dict[str, float]] = {
    "temperature": {"K": 1.0},
    "time": {"ps": units.ps, "fs": units.fs, "ns": units.ns, "us": units.us, "µs": units.us, "ms": 1e9},
    "length": _LENGTHS,
    "angle": _ANGLES,
    "energy": _ENERGIES,
    "rate": {"1/ps": 1.0, "1/fs": 1e3, "1/ns": 1e-3},
    "mass": {"Da": units.dalton, "u": units.dalton, "amu": units.dalton},
    "pressure": {"bar": units.bar, "atm": 1.01325 * units.bar, "kbar": 1e3 * units.bar, "MPa": 10 * units.bar},
    "concentration": {"mol/l": 1.0, "M": 1.0, "mmol/l": 1e-3, "mM": 1e-3},
    "number": {"": 1.0},
    "force constant of a length": {
        f"{e}/{x}^2": e_value / x_value**2
        for e, e_value in _ENERGIES.items()
        for x, x_value in _LENGTHS.items()
        if e in ("kJ/mol", "kcal/mol", "eV") and x in ("nm", "A", "angstrom")
    },
    "force constant of an angle": {
        f"{e}/{x}^2": e_value / x_value**2
        for e, e_value in _ENERGIES.items()
        for x, x_value in _ANGLES.items()
        if e in ("kJ/mol", "kcal/mol", "eV") and x in ("rad", "deg")
    },
}
"""What each dimension may be written in, and how much of the internal unit that is; the internal one comes first."""

_EXAMPLES = {
    "temperature": "300 K", "time": "2 fs", "length": "0.15 nm", "angle": "20 deg", "energy": "1.2 kJ/mol",
    "rate": "1 /ps", "mass": "3 Da", "pressure": "1 bar", "concentration": "0.15 mol/l", "number": "1.5",
    "force constant of a length": "1000 kJ/mol/nm^2", "force constant of an angle": "100 kJ/mol/rad^2",
}  # fmt: skip
_FORM = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*", re.DOTALL)


class Quantity(float):
    """A number in the units of the inside, which remembers how it was written.

    text: e.g. ``300 K``. dimension: one of ``UNITS``.
    """

    text: str
    dimension: str

    def __new__(cls, value: float, text: str, dimension: str):
        self = super().__new__(cls, value)
        self.text, self.dimension = text, dimension
        return self

    def __getnewargs__(self):
        return float(self), self.text, self.dimension


def parse(value: Any, dimensions: Sequence[str]) -> Quantity:
    """Read a quantity of one of ``dimensions``. Raises ValueError that lists the units allowed."""
    if isinstance(value, Quantity):
        return parse(value.text if value.dimension != "number" else float(value), dimensions)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "number" not in dimensions:
            raise ValueError(f"{value!r} has no unit: write it as a string such as '{_example(dimensions)}' "
                             f"({_allowed(dimensions)})")  # fmt: skip
        return _finite(value, 1.0, f"{value!r}", "number")
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no quantity: write a string such as '{_example(dimensions)}'")
    found = _FORM.fullmatch(value)
    if found is None:
        raise ValueError(f"'{value}' is no quantity: write a number and a unit, such as '{_example(dimensions)}'")
    number, unit = found[1], re.sub(r"\s+", "", found[2])
    unit = re.sub(r"^(/|1/)?(.*?)\^?-1$", r"1/\2", unit)
    unit = re.sub(r"^/", "1/", unit).replace("²", "^2").replace("**", "^")
    for dimension in dimensions:
        if unit in UNITS[dimension]:
            return _finite(number, UNITS[dimension][unit], f"{number} {unit}".strip(), dimension)
    allowed = [u for d in dimensions for u in UNITS[d]]
    lower = {u.lower(): u for u in reversed(allowed)}
    near = difflib.get_close_matches(unit.lower(), lower, 1, 0.5)
    hint = f"; did you mean '{number} {lower[near[0]]}'?" if near and near[0] else ""
    what = f"'{value}' has the unit '{unit}'" if unit else f"'{value}' has no unit"
    raise ValueError(f"{what} ({_allowed(dimensions)}){hint}")


def _finite(number: Any, factor: float, text: str, dimension: str) -> Quantity:
    try:
        value = float(number) * factor
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is not a finite number")
    return Quantity(value, text, dimension)


def _example(dimensions: Sequence[str]) -> str:
    return _EXAMPLES[dimensions[0]]


def _allowed(dimensions: Sequence[str]) -> str:
    listed = [u for d in dimensions for u in UNITS[d] if u]
    plain = " or none" if "number" in dimensions else ""
    return f"allowed: {', '.join(listed)}{plain}" if listed else "allowed: a plain number"


def of_unit(unit: str) -> str:
    """The dimension whose internal unit is ``unit``: that of a collective variable given in it."""
    return {"nm": "length", "rad": "angle"}.get(unit, "number")


def force_constant_of(unit: str) -> str:
    """The dimension of a force constant on a collective variable given in ``unit``."""
    return {"nm": "force constant of a length", "rad": "force constant of an angle"}.get(unit, "energy")


class Measure:
    """Annotation of a pydantic field that holds a quantity: its dimensions and, in the internal unit, its limits.

    above, most: exclusive lower and inclusive upper limit, as text such as ``0 K``. least: inclusive lower limit.
    """

    def __init__(self, *dimensions: str, above: str | None = None, least: str | None = None, most: str | None = None):
        self.dimensions = dimensions
        self.above, self.least, self.most = (None if x is None else parse(x, dimensions) for x in (above, least, most))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler):
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(written)
        )

    def validate(self, value: Any) -> Quantity:
        """The quantity that a text or a number is. Raises what pydantic makes a ValidationError of."""
        try:
            quantity = parse(value, self.dimensions)
            self.check(quantity)
        except ValueError as error:
            raise PydanticCustomError("quantity", "{message}", {"message": str(error)}) from None
        return quantity

    def check(self, quantity: Quantity) -> None:
        """Raise ValueError where a limit is not kept."""
        if self.above is not None and not quantity > self.above:
            raise ValueError(f"'{quantity.text}' must be above {self.above.text}")
        if self.least is not None and not quantity >= self.least:
            raise ValueError(f"'{quantity.text}' must be at least {self.least.text}")
        if self.most is not None and not quantity <= self.most:
            raise ValueError(f"'{quantity.text}' must be at most {self.most.text}")


def written(quantity: Any) -> Any:
    """As it stands in a file: a string with its unit, or a plain number."""
    if isinstance(quantity, Quantity):
        return float(quantity) if quantity.dimension == "number" else quantity.text
    return quantity
