"""Numbers out of OpenMM's objects."""

from typing import Any

import numpy as np


class Unsupported(ValueError):
    """A force, or an option of it, for which there is no potential here."""


def plain(x: Any) -> Any:
    """A quantity as what it is in nm, ps, Da, kJ/mol, e, rad; what has no unit as it is."""
    from openmm import unit

    return x.value_in_unit_system(unit.md_unit_system) if unit.is_quantity(x) else x


def number(x: Any) -> float:
    """A plain number in nm, ps, Da, kJ/mol, e, rad."""
    return float(plain(x))


def table_values(function: Any) -> np.ndarray:
    """values[x, y] of a Discrete2DFunction."""
    if type(function).__name__ != "Discrete2DFunction":
        raise Unsupported(f"has a {type(function).__name__} where a Discrete2DFunction is expected")
    first, second, values = function.getFunctionParameters()
    return np.array(values).reshape(second, first).T.copy()
