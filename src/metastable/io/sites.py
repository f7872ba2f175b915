"""The virtual sites of an ``openmm.System`` as :class:`~metastable.potentials.sites.Sites`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metastable.core.errors import Problem
from metastable.io.tables import number, plain
from metastable.potentials.sites import Average, Local, Sites

_KINDS = ("TwoParticleAverageSite", "ThreeParticleAverageSite", "OutOfPlaneSite", "LocalCoordinatesSite")
_SHOWN = 10


def sites_of(system: Any) -> Sites | None:
    """The sites, those that are parents of others first; None without any. For systems without `site_problems`."""
    found = _found(system)
    generation: dict[int, int] = {}
    while len(generation) < len(found):
        for i, site in found.items():
            levels = [generation.get(j) if j in found else 0 for j in _parents(site)]
            if i not in generation and None not in levels:
                generation[i] = 1 + max(level for level in levels if level is not None)
    groups: dict[tuple[int, str, int], list[int]] = {}
    for i, site in found.items():
        kind = "average" if type(site).__name__ != _KINDS[-1] else "local"
        groups.setdefault((generation[i], kind, len(_parents(site)) if kind == "local" else 3), []).append(i)
    build = {"average": _averages, "local": _locals}
    ordered = sorted(groups.items())
    return Sites(tuple(build[kind](index, [found[i] for i in index]) for (_, kind, _), index in ordered)) or None


def site_problems(system: Any) -> list[Problem]:
    """What is wrong with the virtual sites: kinds that are unknown, masses, and parents that do not place them."""
    found, atoms = _found(system), system.getNumParticles()
    problems, placed = [], {i for i in range(atoms) if i not in found}
    for i, site in found.items():
        kind, parents = type(site).__name__, _parents(site)
        if kind not in _KINDS:
            problem = f"is a virtual site of another kind, such as SymmetrySite, than {', '.join(_KINDS)}"
        elif not all(0 <= j < atoms for j in parents):
            problem = f"is a virtual site of the particles {parents}, but there are {atoms}: its parents are missing"
        elif number(system.getParticleMass(i)) != 0:
            problem = f"is a virtual site of mass {number(system.getParticleMass(i))} Da, which must be 0"
        elif "Average" in kind and abs(sum(map(site.getWeight, range(len(parents)))) - 1) > 1e-6:
            problem = (
                f"is a virtual site whose weights add up to {sum(map(site.getWeight, range(len(parents))))}, not 1"
            )
        else:
            continue
        problems.append(Problem(f"particle {i}", problem))
    while not problems and (ready := [i for i in found if i not in placed and placed.issuperset(_parents(found[i]))]):
        placed.update(ready)
    lost = [i for i in found if i not in placed] * (not problems)
    problems += [Problem(f"particle {i}", f"is a virtual site of {_parents(found[i])}, which in turn follow it: "
                         "the parents of a site must lead to real atoms") for i in lost]  # fmt: skip
    rest = [Problem("particles", f"... and {len(problems) - _SHOWN} more virtual sites")] * (len(problems) > _SHOWN)
    return problems[:_SHOWN] + rest


def _found(system: Any) -> dict[int, Any]:
    return {i: system.getVirtualSite(i) for i in range(system.getNumParticles()) if system.isVirtualSite(i)}


def _parents(site: Any) -> list[int]:
    return [site.getParticle(j) for j in range(site.getNumParticles())]


def _averages(index: Sequence[int], sites: Sequence[Any]) -> Average:
    rows = []
    for site in sites:
        if type(site).__name__ == "OutOfPlaneSite":
            rows.append((site.getWeight12(), site.getWeight13(), site.getWeightCross()))
        else:
            rows.append((site.getWeight(1), site.getWeight(2) if site.getNumParticles() == 3 else 0.0, 0.0))
    return Average(index, [(_parents(site) * 2)[:3] for site in sites], np.array(rows))


def _locals(index: Sequence[int], sites: Sequence[Any]) -> Local:
    origin, along, across = (
        np.array([getattr(site, f"get{name}Weights")() for site in sites]) for name in ("Origin", "X", "Y")
    )
    coordinates = np.array([list(plain(site.getLocalPosition())) for site in sites])
    return Local(index, [_parents(site) for site in sites], origin, along, across, coordinates)
