"""How atoms move, as observables of a plan: diffusion, velocity autocorrelation. See ``observables``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from metastable.estimate.curve import Curve
from metastable.estimate.transport import (
    centers,
    diffusion,
    green_kubo,
    mean_squared_displacement,
    spectrum,
    unwrapped,
    velocity_autocorrelation,
)
from metastable.io.molecules import Molecule
from metastable.recipes.observing import (
    Complaint,
    Found,
    Graph,
    Observable,
    Records,
    Series,
    frame_spacing,
    molecule_of,
    needs_box,
    needs_frames,
    until,
    used_time,
    velocities,
)
from metastable.recipes.plan import Plan

_STOCHASTIC = ("langevin", "baoab", "overdamped")
_MOST = 4e9  # bytes of velocities


@dataclass(frozen=True)
class Diffusion(Observable):
    """D from the mean squared displacement: of centres of molecules, where whole ones of several atoms are chosen.

    window: ps, from and to: where the displacement is straight; from a 100th to a 25th of what is used, where None.
    """

    kind: ClassVar = "diffusion"
    cite: ClassVar = ("displacement",)
    atoms: Sequence[int]
    window: tuple[float, float] | None = None

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        """A box, frames, and a window that holds two lags and lies in the first half of what is used."""
        found = needs_box(molecule) + needs_frames(plan, 8)
        if found:
            return found
        (low, high), used, spacing = self._window(plan), used_time(plan), frame_spacing(plan)
        if high > used / 2:
            found.append(("window", f"ends at {high:g} ps, and must end within half of the {used:g} ps of the run that "
                                    "are used: run longer (dynamics.duration), or end it earlier"))  # fmt: skip
        lags = int(high / spacing + 1e-6) - max(int(np.ceil(low / spacing - 1e-6)), 1) + 1
        if lags < 2:
            found.append(("window", f"{low:g} to {high:g} ps holds {max(lags, 0)} of the frames, {spacing:g} ps apart, "
                                    "and a line needs two: widen it, or make output.trajectory shorter"))  # fmt: skip
        return found

    def _window(self, plan: Plan) -> tuple[float, float]:
        if self.window is not None:
            return self.window
        high = max(used_time(plan) / 25, 4 * frame_spacing(plan))
        return high / 4, high

    def estimate(self, name: str, records: Records) -> Found:
        """The displacement with the line that was laid through it, and D."""
        plan, system, atoms = records.plan, records.molecule.system, np.unique(self.atoms)
        positions, box = records.read(atoms)
        label = molecule_of(system)
        sizes, chosen = np.bincount(label), np.bincount(label[atoms], minlength=label.max() + 1)
        molecular = bool(np.all(chosen[chosen > 0] == sizes[chosen > 0]) and sizes[chosen > 0].max() > 1)
        if molecular:
            positions = centers(positions, system.masses[atoms], label[atoms])
        if plan.pressure is not None:  # a barostat moves what is far from the origin farther
            positions = unwrapped(positions, box)
        low, high = self._window(plan)
        curve = mean_squared_displacement(positions, records.spacing, limit=high * (1 + 1e-9))
        found = diffusion(curve, (low, high))
        graph = Graph("mean squared displacement", "time", curve, (low, high), _line(curve, low, high, found.value))
        what = "centres of molecules" if molecular else "atoms"
        return Found({f"diffusion of {what}": found}, (graph,), _thermostat(plan))


def _line(curve: Curve, low: float, high: float, slope: float) -> tuple[float, float]:
    """The slope, 6 D, and the intercept of the line that ``diffusion`` lays through the displacement."""
    inside = (curve.x > 0) & (curve.x >= low * (1 - 1e-6)) & (curve.x <= high * (1 + 1e-6))
    x, y = curve.x[inside], curve.values[inside]
    return 6 * slope, float(np.average(y - 6 * slope * x, weights=x**-3.0))


def _thermostat(plan: Plan) -> tuple[str, ...]:
    if plan.integrator not in _STOCHASTIC:
        return ()
    return (
        f"The friction of {plan.integrator}, {plan.friction:g}/ps, slows the motion: csvr and nose-hoover hardly do.",
    )


@dataclass(frozen=True)
class VelocityAutocorrelation(Observable):
    """<v(0) v(t)> of atoms, its spectrum with each atom weighed by its mass, and, in a box, D by Green and Kubo.

    limit: ps, the longest time; lines of the spectrum are 1 / limit wide. Atoms without mass are left out.
    """

    kind: ClassVar = "velocity autocorrelation"
    cite: ClassVar = ("observables", "spectrum")
    atoms: Sequence[int]
    limit: float = 2.0

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        """Records that are close enough, long enough, and not too many; atoms that have velocities."""
        found: list[Complaint] = []
        spacing, used, atoms = plan.every * plan.dt, used_time(plan), self._moving(molecule)
        if plan.integrator == "overdamped":
            found.append(("", "'overdamped' has no velocities: take another integrator"))
        if plan.trajectory_walkers < 1:
            found.append(("", "is of the walkers of the trajectory: set output.trajectory_walkers to at least 1"))
        if not len(atoms):
            return [*found, ("atoms", "none of them has a mass: name others")]
        widest, why = widest_spacing(molecule, atoms)
        if spacing > widest * (1 + 1e-6):
            found.append(("", f"output.every = {1e3 * spacing:g} fs is too wide for velocities: {why} wants at most "
                              f"{1e3 * widest:g} fs"))  # fmt: skip
        if not spacing * (1 - 1e-6) <= self.limit <= used / 2:
            found.append(("limit", f"{self.limit:g} ps must lie between output.every, {spacing:g} ps, and half of the "
                                   f"{used:g} ps of the run that are used: run longer, or lower it"))  # fmt: skip
        size = 12.0 * plan.records * plan.trajectory_walkers * len(atoms)
        if size > _MOST:
            found.append(("atoms", f"{len(atoms)} atoms make {size / 1e9:.3g} GB of velocities, and {_MOST / 1e9:g} GB "
                                   "are allowed: choose fewer atoms, or lower output.trajectory_walkers"))  # fmt: skip
        return found

    def _moving(self, molecule: Molecule) -> np.ndarray:
        atoms = np.unique(self.atoms)
        return atoms[molecule.system.masses[atoms] > 0]

    def series(self, name: str, plan: Plan, molecule: Molecule) -> dict[str, Series]:
        """The velocities of the atoms."""
        atoms = self._moving(molecule)
        take = velocities(molecule, atoms)
        return {f"velocities-{name}": Series(plan.trajectory_walkers, (len(atoms), 3), "nm/ps", take, atoms)}

    def estimate(self, name: str, records: Records) -> Found:
        """C(t) / C(0), the spectrum, and the running integral whose end is D."""
        plan = records.plan
        v, step = records.arrays[f"velocities-{name}"], plan.every * plan.dt
        masses = records.molecule.system.masses[self._moving(records.molecule)]
        curve = velocity_autocorrelation(v, step, limit=self.limit * (1 + 1e-9))
        states = _seen(spectrum(velocity_autocorrelation(v, step, masses, limit=self.limit * (1 + 1e-9))))
        graphs = (
            Graph("velocity autocorrelation", "time", curve.over(0, "")),
            Graph("density of states", "wavenumber", states),
        )
        if records.molecule.frame.box is None:  # a molecule by itself flies and turns: it does not diffuse
            return Found({}, graphs, _thermostat(plan))
        integral = green_kubo(curve)
        found = {f"diffusion by Green-Kubo, to {self.limit:g} ps": integral.estimate[-1]}
        return Found(found, (*graphs, Graph("Green-Kubo integral", "time", integral)), _thermostat(plan))


def widest_spacing(molecule: Molecule, atoms: np.ndarray) -> tuple[float, str]:
    """ps between two records of velocities, for the fastest motion of the atoms, and what that is."""
    system = molecule.system
    bonds = np.asarray(system.topology.bonds, int).reshape(-1, 2)
    fixed = {frozenset(pair) for pair in np.asarray(system.constraints, int).tolist()}
    of_atoms = bonds[np.isin(bonds, atoms).any(-1)]
    free = np.array([pair for pair in of_atoms.tolist() if frozenset(pair) not in fixed], int).reshape(-1, 2)
    if len(free) and np.any(system.numbers[free] == 1):
        return 0.004, "a bond to hydrogen that vibrates"
    if len(of_atoms):
        return 0.01, "a molecule that vibrates or librates"
    return 0.05, "an atom that rattles among its neighbours"


def _seen(states: Curve) -> Curve:
    """The spectrum up to where it ends, and a little beyond: at close records most of it is empty."""
    loud = np.flatnonzero(np.abs(states.values) > 0.01 * np.abs(states.values).max())
    return until(states, max(int(1.15 * loud[-1]) + 1, 8))
