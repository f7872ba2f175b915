"""From the tables [observable.NAME] to observables, with the atoms that they name."""

from collections.abc import Mapping
from typing import Any

from metastable.cli.models import ObservableInput
from metastable.cli.selection import chosen, select_group
from metastable.core.errors import Problem
from metastable.core.system import System
from metastable.recipes import observables
from metastable.recipes.observing import Observable

_PLAIN = {
    "heat-capacity": observables.HeatCapacity, "compressibility": observables.Compressibility,
    "thermal-expansion": observables.ThermalExpansion, "dielectric": observables.Dielectric,
}  # fmt: skip


def observables_of(
    given: Mapping[str, ObservableInput], system: System, problems: list[Problem]
) -> dict[str, Observable]:
    """The observables by name, those whose atoms are there; the others become problems."""
    made = {name: _observable(f"observable.{name}", one, system, problems) for name, one in given.items()}
    return {name: one for name, one in made.items() if one is not None}


def _observable(where: str, given: Any, system: System, problems: list[Problem]) -> Observable | None:
    if given.type in _PLAIN:
        return _PLAIN[given.type]()
    before = len(problems)
    atoms = {key: _atoms(where, key, given, system, problems) for key in ("first", "second", "atoms")
             if getattr(given, key, None) is not None}  # fmt: skip
    if len(problems) > before:
        return None
    if given.type == "rdf":
        limit = None if given.limit is None else float(given.limit)
        return observables.RDF(**atoms, limit=limit, bins=given.bins, intramolecular=given.intramolecular)
    if given.type == "diffusion":
        window = None if given.window is None else (float(given.window[0]), float(given.window[1]))
        return observables.Diffusion(**atoms, window=window)
    return observables.VelocityAutocorrelation(**atoms, limit=float(given.limit))


def _atoms(where: str, key: str, given: Any, system: System, problems: list[Problem]) -> tuple[int, ...]:
    return chosen(getattr(given, key), lambda group: select_group(group, system), f"{where}.{key}", problems)
