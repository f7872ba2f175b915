"""``results.json``: every estimate with its value, error and unit. The schema is that of ``report.reading``."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from metastable.core.axis import Axis
from metastable.core.units import bar
from metastable.cvs.variable import Variable
from metastable.estimate.correlation import statistical_inefficiency
from metastable.estimate.density import Density, free_energy
from metastable.estimate.fluctuations import mass_density
from metastable.estimate.landscape import Landscape
from metastable.io.molecules import Molecule
from metastable.io.structures import WATER
from metastable.loops.checkpoint import write_atomically
from metastable.potentials.periodic import MeshEwald
from metastable.recipes.observables import used_cites
from metastable.recipes.observing import Found, Graph
from metastable.recipes.plan import Plan

_CITE = {
    "langevin": ("Langevin dynamics, leapfrog middle scheme", "Zhang, Liu, Yan, Tuckerman, Liu, J. Phys. Chem. A 123, "
                 "6056 (2019)", "10.1021/acs.jpca.9b02771"),
    "baoab": ("Langevin dynamics, BAOAB", "Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (2013)",
              "10.1093/amrx/abs010"),
    "csvr": ("Temperature by velocity rescaling", "Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007)",
             "10.1063/1.2408420"),
    "nose-hoover": ("Temperature by Nose-Hoover chains", "Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992)",
                    "10.1063/1.463940"),
    "c-rescale": ("Pressure by stochastic cell rescaling", "Bernetti, Bussi, J. Chem. Phys. 153, 114107 (2020)",
                  "10.1063/5.0020514"),
    "monte-carlo": ("Pressure by Monte Carlo", "Chow, Ferguson, Comput. Phys. Commun. 91, 283 (1995)",
                    "10.1016/0010-4655(95)00059-O"),
    "mesh": ("Particle-mesh Ewald", "Essmann, Perera, Berkowitz, Darden, Lee, Pedersen, J. Chem. Phys. 103, 8577 "
             "(1995)",
             "10.1063/1.470117"),
    "force field": ("Reading force fields", "Eastman et al., OpenMM 8, J. Phys. Chem. B 128, 109 (2024)",
                    "10.1021/acs.jpcb.3c06662"),
    "well-tempered": ("Well-tempered metadynamics", "Barducci, Bussi, Parrinello, Phys. Rev. Lett. 100, 020603 (2008)",
                      "10.1103/PhysRevLett.100.020603"),
    "opes": ("OPES", "Invernizzi, Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020)", "10.1021/acs.jpclett.0c00497"),
    "opes-explore": ("OPES, where explore = true", "Invernizzi, Parrinello, J. Chem. Theory Comput. 18, 3988 (2022)",
                     "10.1021/acs.jctc.2c00152"),
    "walkers": ("Walkers that share a bias", "Raiteri, Laio, Gervasio, Micheletti, Parrinello, J. Phys. Chem. B 110, "
                "3533 (2006)", "10.1021/jp054359r"),
    "reweighting": ("Reweighting with c(t)", "Tiwary, Parrinello, J. Phys. Chem. B 119, 736 (2015)",
                    "10.1021/jp504920s"),
    "observables": ("Distributions, responses and Green-Kubo integrals", "Allen, Tildesley, Computer Simulation of "
                    "Liquids, 2nd ed., Oxford University Press (2017)", "10.1093/oso/9780198803195.001.0001"),
    "displacement": ("Mean squared displacement", "Kneller, Keiner, Kneller, Schiller, Comput. Phys. Commun. 91, 191 "
                     "(1995)", "10.1016/0010-4655(95)00048-K"),
    "unwrapping": ("Displacements in a box that changes", "von Buelow, Bullerjahn, Hummer, J. Chem. Phys. 153, 021101 "
                   "(2020)", "10.1063/5.0008316"),
    "spectrum": ("Density of states", "Lin, Blanco, Goddard, J. Chem. Phys. 119, 11792 (2003)", "10.1063/1.1624057"),
    "dielectric": ("Dielectric constant", "Neumann, Mol. Phys. 50, 841 (1983)", "10.1080/00268978300102721"),
}  # fmt: skip


def axes_of(plan: Plan, cv: Variable, samples: np.ndarray) -> tuple[Axis, ...]:
    """The axes of the landscape: the first two CVs, over their periods, their ranges, or what was seen of them."""
    found = []
    for i, component in enumerate(cv.components[:2]):
        given = plan.ranges[i] if i < len(plan.ranges) else None
        if component.period is not None:
            low, high = -component.period / 2, component.period / 2
        elif given is not None:
            low, high = given
        else:
            low, high = float(samples[..., i].min()), float(samples[..., i].max())
            high = high if high > low else low + 1.0
        bins = plan.bins[i] if i < len(plan.bins) else 60
        found.append(Axis(low, high, bins, component.period is not None, component.label, component.unit))
    return tuple(found)


def kept(plan: Plan, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The records that the estimates use: without the part that the plan discards."""
    first = first_kept(plan, arrays)
    return {name: values[first:] for name, values in arrays.items()}


def first_kept(plan: Plan, arrays: dict[str, np.ndarray]) -> int:
    """How many records the estimates leave out."""
    return int(plan.discard * len(arrays["time"]))


def write_results(
    directory: Path,
    recipe: str,
    plan: Plan,
    molecule: Molecule,
    arrays: dict[str, np.ndarray],
    found: Landscape | None,
    cite: Sequence[str],
    observed: Mapping[str, Found] = MappingProxyType({}),
) -> None:
    """Write ``results.json``. Nothing in it depends on the clock. arrays: all the records. observed: by name."""
    frames, used = _frames(plan, arrays), kept(plan, arrays)
    results: dict[str, Any] = {"recipe": recipe, "title": plan.title}
    results["estimates"] = [_mean("temperature", used["temperature"], "K"),
                            _mean("potential energy", used["potential"], "kJ/mol")]  # fmt: skip
    if "volume" in used:
        density = mass_density(used["volume"], molecule.system.masses.sum())
        entry = {"name": "density", "value": density.value, "error": density.error, "unit": density.unit}
        results["estimates"].append(entry)
        results["solute"] = {"atoms": _ranges(solute(molecule))}
    if found is not None:
        results["estimates"] = _estimates(found) + results["estimates"]
        results["landscape"] = _landscape(found, frames)
        results["convergence"] = _convergence(found, arrays["time"][-1] / 1e3, used["time"][0] / 1e3)
    if observed:
        results["observables"] = _observables(plan, observed)
        results["estimates"] = [e for row in results["observables"] for e in row["estimates"]] + results["estimates"]
    results["frames"] = frames
    results["used_from_ps"] = used["time"][0]
    results["facts"] = _facts(plan, molecule, arrays)
    moved = [plan.integrator] if plan.integrator in _CITE else []
    cited = (*cite, *moved, *_methods(plan, molecule), *used_cites(plan), "force field")
    results["cite"] = [dict(zip(("what", "text", "doi"), _CITE[c], strict=True)) for c in cited]
    text = json.dumps(_plain(results), indent=1, allow_nan=False)
    write_atomically(directory / "results.json", (text + "\n").encode())


def solute(molecule: Molecule) -> np.ndarray:
    """The atoms that are neither of water nor ions of one atom."""
    water, ion = _solvent(molecule)
    return np.flatnonzero(~(water | ion))


def _solvent(molecule: Molecule) -> tuple[np.ndarray, np.ndarray]:
    """Which atoms are of water, and which are charged and have no other in their residue."""
    edges = _edges(molecule)
    water = np.isin(molecule.system.topology.residue_names, WATER)
    return water, edges[:-1] & edges[1:] & (np.abs(molecule.system.charges) > 0.1)


def _edges(molecule: Molecule) -> np.ndarray:
    """Whether a residue begins, before each atom and behind the last."""
    topology = molecule.system.topology
    residues = zip(topology.chain_ids, topology.residue_ids, topology.residue_names, strict=True)
    return np.array([a != b for a, b in pairwise([None, *residues, None])])


def _ranges(atoms: np.ndarray) -> list[list[int]]:
    """Stretches of numbers without a gap, each as (first, behind the last)."""
    pieces = np.split(atoms, np.flatnonzero(np.diff(atoms) > 1) + 1) if len(atoms) else []
    return [[int(piece[0]), int(piece[-1]) + 1] for piece in pieces]


def _methods(plan: Plan, molecule: Molecule) -> list[str]:
    """What a box adds to the list of what to cite."""
    nonbonded: Any = molecule.potential.terms.get("nonbonded")
    mesh = isinstance(getattr(nonbonded, "coulomb", None), MeshEwald)
    return ([] if plan.pressure is None else [plan.barostat]) + ["mesh"] * mesh


def _estimates(found: Landscape) -> list[dict[str, Any]]:
    basins, names = found.basins, _names(found)
    rows = [(f"F({n}) - F({names[0]})", basins.free_energy[i]) for i, n in enumerate(names) if i]
    rows += [(f"population of {n}", basins.population[i]) for i, n in enumerate(names)]
    rows += [(f"barrier from {a} to {b}", basins.barrier[i, j])
             for i, a in enumerate(names) for j, b in enumerate(names) if i != j]  # fmt: skip
    listed = [{"name": name, "value": e.value, "error": e.error, "unit": e.unit} for name, e in rows]
    return [*listed, {"name": "effective sample size", "value": found.effective_size, "error": None, "unit": "frames"}]


def _observables(plan: Plan, observed: Mapping[str, Found]) -> list[dict[str, Any]]:
    """One entry an observable; their estimates carry its name where there are several of a kind."""
    kinds = [observable.kind for observable in plan.observables.values()]
    rows = []
    for name, found in observed.items():
        kind = plan.observables[name].kind
        told = f" ({name})" if kinds.count(kind) > 1 else ""
        listed = [{"name": what + told, "value": e.value, "error": e.error, "unit": e.unit}
                  for what, e in found.estimates.items()]  # fmt: skip
        curves = [_curve(graph) for graph in found.graphs]
        rows.append({"name": name, "kind": kind, "estimates": listed, "curves": curves, "notes": found.notes})
    return rows


def _curve(graph: Graph) -> dict[str, Any]:
    curve = graph.curve
    row = {"label": graph.label, "x_label": graph.x_label, "x_unit": curve.x_unit, "unit": curve.unit, "x": curve.x,
           "values": curve.values, "error": curve.estimate.error}  # fmt: skip
    return row if graph.window is None else row | {"window": graph.window, "line": graph.fit}


def _mean(name: str, values: np.ndarray, unit: str) -> dict[str, Any]:
    """The mean over time and walkers, and its error from the correlation in time."""
    independent = max(values.size / statistical_inefficiency(values), 1.0)
    return {"name": name, "value": values.mean(), "error": values.std() / np.sqrt(independent), "unit": unit}


def _landscape(found: Landscape, frames: dict[str, Any]) -> dict[str, Any]:
    basins = found.basins
    minima = [
        {
            "name": name,
            "location": basins.locations[i],
            "free_energy": basins.free_energy.value[i],
            "error": basins.free_energy.error[i],
            "population": basins.population.value[i],
            "population_error": basins.population.error[i],
            "frame": _nearest(basins.locations[i], frames["cvs"], found.axes),
        }
        for i, name in enumerate(_names(found))
    ]
    axes = [{"label": a.name, "unit": a.unit, "period": a.period, "grid": a.centers} for a in found.axes]
    surface = {"axes": axes, "free_energy": found.free_energy.value, "error": found.free_energy.error}
    return surface | {"minima": minima, "profiles": _profiles(found)}


def _profiles(found: Landscape) -> list[dict[str, Any]]:
    """The free energy along each axis of a surface, the other summed over."""
    if len(found.axes) < 2:
        return []
    rows = []
    for i, axis in enumerate(found.axes):
        other = 1 - i
        alone = Density((axis,), found.density.probability.sum(other), found.density.resamples.sum(other + 1))
        profile = free_energy(alone, found.kT)
        rows.append({"axis": i, "free_energy": profile.value, "error": profile.error})
    return rows


def _nearest(location: np.ndarray, cvs: np.ndarray, axes: Sequence[Axis]) -> int | None:
    """The trajectory frame that is nearest to a point, distances in parts of the axes; None where none is near."""
    if not len(cvs):
        return None
    spans = np.array([a.length for a in axes])
    delta = cvs[:, : len(axes)] - location
    delta -= np.array([a.periodic for a in axes]) * spans * np.round(delta / spans)
    distance = np.linalg.norm(delta / spans, axis=1)
    best = int(np.argmin(distance))
    return best if distance[best] < 0.1 else None


def _convergence(found: Landscape, end: float, start: float) -> list[dict[str, Any]]:
    curve, names = found.convergence, _names(found)
    rows = []
    for i, fraction in enumerate(curve.fractions):
        values = {f"F({n}) - F({names[0]})": {"value": curve.estimate.value[i, k], "error": curve.estimate.error[i, k]}
                  for k, n in enumerate(names) if k}  # fmt: skip
        time = start + fraction * (end - start)
        rows.append({"fraction": fraction, "time_ns": time, "values": values})
    return rows if len(names) > 1 else []


def _frames(plan: Plan, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """CVs, time and walker of every frame of the trajectory, in its order."""
    walkers = plan.trajectory_walkers
    numbers = np.arange(plan.frames - 1, len(arrays["time"]), plan.frames)
    found = {
        "time_ps": np.repeat(arrays["time"][numbers], walkers),
        "walker": np.tile(np.arange(walkers), len(numbers)),
    }
    if "cvs" not in arrays:
        return found
    cvs = arrays["cvs"][numbers, :walkers]
    return {"cvs": cvs.reshape(-1, cvs.shape[-1])} | found


def _facts(plan: Plan, molecule: Molecule, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    steps = int(arrays["step"][-1]) if len(arrays["step"]) else 0
    found = dict(plan.facts) | {
        "atoms": len(molecule.system),
        "temperature_K": plan.temperature,
        "dt_fs": plan.dt * 1e3,
        "walkers": plan.walkers,
        "steps": steps,
        "total_time_ns": steps * plan.dt * plan.walkers / 1e3,
        "discarded": f"the first {plan.discard:.0%} of the run",
        "seed": plan.seed,
    }
    return found if molecule.frame.box is None else found | _facts_of_box(plan, molecule, arrays)


def _facts_of_box(plan: Plan, molecule: Molecule, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What fills the box and how it is held. Its lengths are the mean ones, where all of them change alike."""
    box: Any = molecule.frame.box
    start, sides = np.linalg.det(np.asarray(box, float)), np.linalg.norm(np.asarray(box, float), axis=1)
    volumes = kept(plan, arrays)["volume"]
    water, ion = _solvent(molecule)
    counts = {"waters": int(np.sum(water & _edges(molecule)[:-1])), "ions": int(np.sum(ion))}
    found: dict[str, Any] = {what: count for what, count in counts.items() if count}
    if plan.pressure is None or plan.coupling == "isotropic":
        found["mean_box_nm"] = sides * np.mean(np.cbrt(volumes / start))
    else:
        found["mean_volume_nm3"] = volumes.mean()
    if plan.pressure is not None:
        found |= {"pressure_bar": plan.pressure / bar, "barostat": f"{plan.barostat}, {plan.coupling}"}
        if plan.constant_volume:
            found["constant_volume_ps"] = plan.constant_volume
    return found


def _names(found: Landscape) -> list[str]:
    return [chr(ord("A") + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(len(found.basins))]


def _plain(value: Any) -> Any:
    """Arrays as lists, numbers to seven digits, null for what is no number."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.7g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
