"""Numbers out of OpenMM's objects."""

from typing import Any

import numpy as np


class Unsupported(ValueError):
    """A force, or an option of it, for which there is no potential here."""


def number(x: Any) -> float:
    """A plain number in nm, ps, kJ/mol, e, rad."""
    from openmm import unit

    return float(x.value_in_unit_system(unit.md_unit_system)) if unit.is_quantity(x) else float(x)


def table_values(function: Any) -> np.ndarray:
    """values[x, y] of a Discrete2DFunction."""
    if type(function).__name__ != "Discrete2DFunction":
        raise Unsupported(f"has a {type(function).__name__} where a Discrete2DFunction is expected")
    first, second, values = function.getFunctionParameters()
    return np.array(values).reshape(second, first).T.copy()
