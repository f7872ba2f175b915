"""Observables of liquids, one class a type, to stand by name in ``Plan.observables``.

Atoms are numbers from 0, e.g. from :func:`metastable.io.selection.select_atoms`. Times are in ps, lengths in nm. Means
over a run are those of its ensemble where no bias acts: none of them goes with one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.signal import find_peaks

from metastable.estimate.curve import Curve
from metastable.estimate.estimate import Estimate
from metastable.estimate.fluctuations import (
    dielectric_constant,
    isobaric_heat_capacity,
    isochoric_heat_capacity,
    isothermal_compressibility,
    thermal_expansion,
)
from metastable.estimate.structure import radial_distribution
from metastable.io.molecules import Molecule
from metastable.potentials.periodic import MeshEwald, PlainEwald
from metastable.recipes.motion import Diffusion, VelocityAutocorrelation
from metastable.recipes.observing import (
    Complaint,
    Found,
    Graph,
    Observable,
    Records,
    Series,
    dipole,
    half_of_box,
    molecule_of,
    needs_box,
    needs_frames,
    until,
)
from metastable.recipes.plan import Plan
from metastable.recipes.recording import degrees_of_freedom

_PROMINENT = 0.3  # of a peak of g(r)


@dataclass(frozen=True)
class RDF(Observable):
    """g(r) of the atoms ``second`` around ``first``, of ``first`` among themselves where None; and the neighbours.

    limit: the largest distance, nm; half of the shortest side of the box where None. intramolecular: whether the pairs
    within a molecule count, too.
    """

    kind: ClassVar = "radial distribution"
    cite: ClassVar = ("observables",)
    first: Sequence[int]
    second: Sequence[int] | None = None
    limit: float | None = None
    bins: int = 200
    intramolecular: bool = False

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        """A box, frames, pairs, and a limit within half of the box."""
        found = needs_box(molecule) + needs_frames(plan, 1)
        if molecule.frame.box is not None and self.limit is not None and self.limit > half_of_box(molecule):
            found.append(("limit", f"{self.limit:g} nm must be at most {half_of_box(molecule):.4g} nm, half of the "
                                   "shortest side of the box: beyond it an atom has more than one image"))  # fmt: skip
        label = self._labels(molecule)
        counts = [np.bincount(label[np.asarray(g)], minlength=len(label)) for g in (self.first, self._second)]
        if counts[0].sum() * counts[1].sum() <= counts[0] @ counts[1]:
            what = "an atom and another" if self.intramolecular else "atoms of different molecules"
            found.append(("second", f"leaves no pair of {what}: name others, or set intramolecular"))
        return found

    @property
    def _second(self) -> Sequence[int]:
        return self.first if self.second is None else self.second

    def _labels(self, molecule: Molecule) -> np.ndarray:
        return np.arange(len(molecule.system)) if self.intramolecular else molecule_of(molecule.system)

    def estimate(self, name: str, records: Records) -> Found:
        """g(r), the neighbours within r, and the first shell where one stands out."""
        atoms = np.union1d(self.first, self._second)
        positions, box = records.read(atoms)
        reached = float(np.diagonal(box, axis1=-2, axis2=-1).min()) / 2
        limit = None if self.limit is None or self.limit > reached else self.limit
        first, second = (np.searchsorted(atoms, group) for group in (self.first, self._second))
        labels = self._labels(records.molecule)[atoms]
        found = radial_distribution(positions, box, first, second, limit=limit, bins=self.bins, molecules=labels)
        notes = [] if limit == self.limit else [f"The box became so small that g(r) ends at {reached:.3g} nm."]
        if not np.isfinite(found.g.estimate.error).any():
            notes.append(f"Too short for errors of g(r) ({name}), and so for its first shell: run longer.")
        shell = first_shell(found.g)
        near = until(found.coordination, len(found.g) if shell is None else shell[1] + shell[1] // 2)
        graphs = (Graph("g(r)", "r", found.g), Graph("neighbours within r", "r", near))
        if shell is None:
            return Found({}, graphs, tuple(notes))
        top, end = shell
        peak = {f"first peak of g(r), at {found.g.x[top]:.3g} nm": found.g.estimate[top]}
        inside = {f"neighbours within {found.coordination.x[end]:.3g} nm": found.coordination.estimate[end]}
        return Found(peak | inside, graphs, tuple(notes))


def first_shell(g: Curve) -> tuple[int, int] | None:
    """Where the first peak of g(r) is, and the minimum behind it; None where no peak stands out of its errors."""
    smooth = np.convolve(np.pad(g.values, 2, mode="edge"), np.full(5, 0.2), "valid")
    error = g.estimate.error
    peaks = [p for p in find_peaks(smooth, prominence=_PROMINENT)[0] if g.values[p] - 1 > 4 * error[p]]
    if not peaks:
        return None
    peak = peaks[0] - 2 + int(np.argmax(g.values[max(peaks[0] - 2, 0) : peaks[0] + 3]))
    end = min(2 * peak, len(g) - 1) if len(peaks) < 2 else peaks[1]
    return peak, peak + int(np.argmin(smooth[peak : end + 1]))


class Fluctuation(Observable):
    """What follows from how a quantity fluctuates in the canonical ensemble."""

    cite: ClassVar = ("observables",)

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        """A thermostat."""
        if plan.integrator == "verlet":
            return [("", "'verlet' keeps the energy, and what fluctuates tells something else: take a thermostat")]
        return []


class _AtPressure(Fluctuation):
    """What follows from how the volume fluctuates."""

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        found = super().problems(plan, molecule) + needs_box(molecule)
        if plan.pressure is None:
            found.append(("", "needs a volume that fluctuates: set dynamics.pressure, e.g. '1 bar'"))
        return found


@dataclass(frozen=True)
class HeatCapacity(Fluctuation):
    """The heat capacity, J/(mol K), for a mole of molecules: at the pressure of the plan, or at constant volume."""

    kind: ClassVar = "heat capacity"

    def estimate(self, name: str, records: Records) -> Found:
        """From the potential energy; what the momenta add is known."""
        plan, molecule, energy = records.plan, records.molecule, records.arrays["potential"]
        count = int(molecule_of(molecule.system).max()) + 1
        free = degrees_of_freedom(plan, molecule)
        if plan.pressure is None:
            found = isochoric_heat_capacity(energy, plan.kT, degrees_of_freedom=free, molecules=count)
        else:
            volume = records.arrays["volume"]
            found = isobaric_heat_capacity(energy, volume, plan.pressure, plan.kT, degrees_of_freedom=free,
                                           molecules=count)  # fmt: skip
        what = "isochoric" if plan.pressure is None else "isobaric"
        return Found({f"{what} heat capacity": Estimate(1e3 * found.value, 1e3 * found.error, "J/(mol K)")},
                     notes=(f"Heat capacity: of a mole of molecules, of which there are {count}.",))  # fmt: skip


@dataclass(frozen=True)
class Compressibility(_AtPressure):
    """The isothermal compressibility, 1/bar."""

    kind: ClassVar = "compressibility"

    def estimate(self, name: str, records: Records) -> Found:
        """From the volume."""
        found = isothermal_compressibility(records.arrays["volume"], records.plan.kT)
        return Found({"isothermal compressibility": found})


@dataclass(frozen=True)
class ThermalExpansion(_AtPressure):
    """The coefficient of thermal expansion at constant pressure, 1/K."""

    kind: ClassVar = "thermal expansion"

    def estimate(self, name: str, records: Records) -> Found:
        """From the volume and the potential energy."""
        plan, arrays = records.plan, records.arrays
        assert plan.pressure is not None, "problems() asks for one"
        return Found({"thermal expansion": thermal_expansion(arrays["potential"], arrays["volume"], plan.pressure,
                                                             plan.kT)})  # fmt: skip


@dataclass(frozen=True)
class Dielectric(Fluctuation):
    """The dielectric constant of a liquid of neutral molecules, with Ewald sums."""

    kind: ClassVar = "dielectric constant"
    cite: ClassVar = ("dielectric",)

    def problems(self, plan: Plan, molecule: Molecule) -> list[Complaint]:
        """A box with Ewald sums, and neutral molecules."""
        found = super().problems(plan, molecule) + needs_box(molecule)
        if molecule.frame.box is None:
            return found
        if not isinstance(getattr(molecule.potential.terms["nonbonded"], "coulomb", None), MeshEwald | PlainEwald):
            found.append(("", "its formula is that of Ewald sums: set molecule.box.electrostatics = 'pme'"))
        try:
            dipole(molecule)
        except ValueError as error:
            found.append(("", str(error)))
        return found

    def series(self, name: str, plan: Plan, molecule: Molecule) -> dict[str, Series]:
        """The dipole of the box of every walker."""
        return {"dipole": Series(plan.walkers, (3,), "e nm", dipole(molecule))}

    def estimate(self, name: str, records: Records) -> Found:
        """From the dipole and the volume."""
        arrays = records.arrays
        return Found({"dielectric constant": dielectric_constant(arrays["dipole"], arrays["volume"], records.plan.kT)})


def used_cites(plan: Plan) -> list[str]:
    """What the observables of a plan rest on, each once, as ``results`` names it."""
    found = dict.fromkeys(key for observable in plan.observables.values() for key in observable.cite)
    if plan.pressure is not None and any(isinstance(o, Diffusion) for o in plan.observables.values()):
        found["unwrapping"] = None
    return list(found)


__all__ = [
    "RDF",
    "Compressibility",
    "Dielectric",
    "Diffusion",
    "HeatCapacity",
    "ThermalExpansion",
    "VelocityAutocorrelation",
]
