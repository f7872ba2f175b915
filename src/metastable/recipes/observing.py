"""How observables are recorded and estimated: what those of :mod:`metastable.recipes.observables` have in common.

Each says what does not suit it (``problems``), what is recorded for it alone (``series``; frames, energies and volumes
are there anyway), and makes estimates and curves of what is kept of the records (``estimate``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.core.space import molecules, nearest, reach
from metastable.core.system import System
from metastable.dynamics.state import inverse
from metastable.enhanced.biases import Sum
from metastable.estimate.curve import Curve
from metastable.estimate.estimate import Estimate
from metastable.estimate.fluctuations import charges_beyond
from metastable.io.molecules import Molecule
from metastable.recipes.plan import Plan

Complaint = tuple[str, str]
"""Which key of the observable, "" for all of it, and what is wrong."""


class Series(NamedTuple):
    """What is recorded of each of the first ``walkers``: the shape of one record, its unit, and how it is made.

    atoms: the atoms that it is of, where it is of some: written beside it.
    """

    walkers: int
    shape: tuple[int, ...]
    unit: str
    take: Callable[[Any], Any]
    atoms: np.ndarray | None = None


@dataclass(frozen=True)
class Graph:
    """A curve to be shown. window: ps, where the straight line ``fit``, (slope, intercept), was laid through it."""

    label: str
    x_label: str
    curve: Curve
    window: tuple[float, float] | None = None
    fit: tuple[float, float] | None = None


@dataclass(frozen=True)
class Found:
    """What became of an observable: estimates by what they are, curves, and what a reader must know of them."""

    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    graphs: tuple[Graph, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """The records that estimates use, without the part that the plan discards.

    arrays: by name, (time, walkers, ...). first: how many records were left out. directory: of ``trajectory.xtc``.
    """

    plan: Plan
    molecule: Molecule
    arrays: Mapping[str, np.ndarray]
    first: int
    directory: Path

    @property
    def frames(self) -> range:
        """Which frames of each walker's trajectory are used."""
        every, end = self.plan.frames, self.first + len(self.arrays["time"])
        return range(-(-(self.first + 1) // every) - 1, end // every)

    @cached_property
    def spacing(self) -> float:
        """ps between two frames."""
        return frame_spacing(self.plan)

    def read(self, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of some atoms, (time, walkers, atoms, 3), and boxes, (time, walkers, 3, 3), nm.

        To 0.001 nm. Atoms are never put back into the box while a run runs, so that molecules are whole.
        """
        from mdtraj.formats import XTCTrajectoryFile

        walkers, used = self.plan.trajectory_walkers, self.frames
        if len(used) < 1:
            raise ValueError("no frame of the trajectory is left: run longer, or make output.trajectory shorter")
        with XTCTrajectoryFile(str(self.directory / "trajectory.xtc")) as file:
            file.seek(used.start * walkers)
            xyz, _, _, box = file.read(n_frames=len(used) * walkers, atom_indices=atoms)
        return xyz.reshape(len(used), walkers, len(atoms), 3), box.reshape(len(used), walkers, 3, 3)


class Observable:
    """What all observables have, and what those that need nothing of it leave as it is."""

    kind: ClassVar[str]
    cite: ClassVar[tuple[str, ...]] = ()

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        """What of the plan or the molecule does not suit it."""
        return []

    def series(self, name: str, plan: Plan, molecule: Molecule) -> dict[str, Series]:
        """What ``arrays.h5`` must hold for it, by name. name: of the observable."""
        return {}

    def estimate(self, name: str, records: Records) -> Found:
        """Estimates and curves. Raises ValueError where the records do not suffice."""
        raise NotImplementedError


def check(plan: Plan, molecule: Molecule, bias: Any = None) -> None:
    """Raise InputError with all that does not suit the observables of a plan."""
    found = problems(plan, molecule)
    if plan.observables and bias is not None and not (isinstance(bias, Sum) and not bias.biases):
        found.insert(0, Problem("observable", BIASED))
    if found:
        raise InputError(*found)


BIASED = "means of a run with a bias are not those of the liquid: take the bias out, or the observables"


def problems(plan: Plan, molecule: Molecule) -> list[Problem]:
    """All that does not suit the observables of a plan, under the keys of an input."""
    return [
        Problem(f"observable.{name}" + (f".{key}" if key else ""), message)
        for name, observable in plan.observables.items()
        for key, message in _misnamed(name, observable, molecule) or observable.problems(plan, molecule)
    ]


def _misnamed(name: str, observable: Any, molecule: Molecule) -> list[Complaint]:
    """The complaints of a name that no file can hold, and of atoms that are not there, or twice there."""
    found = [("", "is no name: leave '/' out")] if "/" in name else []
    for key in ("first", "second", "atoms"):
        group = getattr(observable, key, None)
        atoms = np.asarray(() if group is None else group, int)
        if group is not None and not len(atoms):
            found.append((key, "names no atom"))
        elif len(np.unique(atoms)) < len(atoms):
            found.append((key, "names an atom twice"))
        elif len(atoms) and not 0 <= atoms.min() <= atoms.max() < len(molecule.system):
            message = f"must lie from 0 to {len(molecule.system) - 1}: atoms are counted from 0 here"
            found.append((key, f"{atoms.min()} to {atoms.max()} {message}"))
    return found


def series(plan: Plan, molecule: Molecule) -> dict[str, Series]:
    """What is recorded for the observables of a plan, by name in ``arrays.h5``."""
    found: dict[str, Series] = {}
    for name, observable in plan.observables.items():
        found |= observable.series(name, plan, molecule)
    return found


def estimates(records: Records) -> dict[str, Found]:
    """What became of every observable of the plan; where its records do not suffice, a note says why."""
    found = {}
    for name, observable in records.plan.observables.items():
        try:
            found[name] = observable.estimate(name, records)
        except ValueError as error:
            found[name] = Found(notes=(f"Not enough to estimate it from: {error}.",))
    return found


def until(curve: Curve, end: int) -> Curve:
    """The first points of a curve."""
    return curve.map(lambda values: values[..., :end], curve.x[:end], curve.x_unit, curve.unit)


def frame_spacing(plan: Plan) -> float:
    """ps between two frames of the trajectory of a walker."""
    return plan.frames * plan.every * plan.dt


def used_time(plan: Plan) -> float:
    """ps that estimates use, of each walker."""
    return plan.time - int(plan.discard * plan.records) * plan.every * plan.dt


def molecule_of(system: System) -> np.ndarray:
    """The number of the molecule of each atom; a virtual site is of that of its parents."""
    return molecules(edges(system), len(system))


def edges(system: System) -> np.ndarray:
    """Pairs of atoms that belong together: bonds, constraints, virtual sites and their first parents."""
    pairs = [np.asarray(system.topology.bonds, int).reshape(-1, 2), np.asarray(system.constraints, int).reshape(-1, 2)]
    for group in system.sites.groups if system.sites is not None else ():
        pairs.append(np.stack([np.asarray(group.parents)[:, 0], np.asarray(group.index)], -1))
    return np.concatenate(pairs)


def needs_box(molecule: Molecule) -> list[Complaint]:
    """The complaint of what makes sense in a periodic box only."""
    return [] if molecule.frame.box is not None else [("", "needs a periodic box: add [molecule.box]")]


def needs_frames(plan: Plan, least: int) -> list[Complaint]:
    """The complaint of what is estimated from the trajectory."""
    if plan.trajectory_walkers < 1:
        return [("", "is taken from the trajectory: set output.trajectory_walkers to at least 1")]
    used, spacing = used_time(plan), frame_spacing(plan)
    if used < least * spacing:
        return [("", f"needs {least} frames, and {used:g} ps of the run are used, with a frame every {spacing:g} ps: "
                     "run longer (dynamics.duration), or make output.trajectory shorter")]  # fmt: skip
    return []


def dipole(molecule: Molecule) -> Callable[[Any], Any]:
    """From the state of a walker to the dipole of its box, e nm: see ``estimate.fluctuations.total_dipole``.

    Raises ValueError where a molecule is charged.
    """
    tree, weights = charges_beyond(molecule.system.charges, edges(molecule.system))
    parents, children = tree.T

    def take(state):
        x = state.frame.positions
        bonds = nearest(x[children] - x[parents], state.frame.box)
        return jnp.sum(jnp.asarray(weights, x.dtype)[:, None] * bonds, 0)

    return take


def velocities(molecule: Molecule, atoms: Sequence[int] | np.ndarray) -> Callable[[Any], Any]:
    """From the state of a walker to the velocities of some atoms, nm/ps."""
    index = np.asarray(atoms)
    scale = inverse(jnp.asarray(molecule.system.masses[index], float))[:, None]
    return lambda state: state.momenta[index] * scale.astype(state.momenta.dtype)


def half_of_box(molecule: Molecule) -> float:
    """nm: half of the shortest side of the box at the start."""
    return float(reach(jnp.asarray(molecule.frame.box)))
