"""What a system is made with, whatever its force field: constraints, solvent, box, water around it."""

import difflib
from dataclasses import dataclass
from typing import Any

from metastable.core.errors import Problem

METHODS = {"pme": "PME", "ewald": "Ewald", "reaction-field": "CutoffPeriodic"}
SHAPES = ("cube", "dodecahedron", "octahedron")
WATERS = ("tip3p", "spce", "tip4pew", "tip5p", "swm4ndp")
MODELS = ("HCT", "OBC1", "OBC2", "GBn", "GBn2")
CONSTRAINTS = {"none": None, "hydrogen-bonds": "HBonds", "all-bonds": "AllBonds", "hydrogen-angles": "HAngles"}


@dataclass(frozen=True)
class Implicit:
    """Implicit solvent: a model (HCT, OBC1, OBC2, GBn, GBn2), permittivities, salt, and the surface term.

    kappa: inverse Debye length, 1/nm. surface: whether the non-polar ("ACE") term is there.
    """

    model: str
    solvent: float = 78.5
    solute: float = 1.0
    kappa: float = 0.0
    surface: bool = True

    def options(self) -> dict[str, Any]:
        """As ``openmm.app`` calls them."""
        return {
            "solventDielectric": self.solvent,
            "soluteDielectric": self.solute,
            "implicitSolventKappa": self.kappa,
            "sasaMethod": "ACE" if self.surface else None,
        }


@dataclass(frozen=True)
class Box:
    """A periodic box, and what is done about what lies beyond the cutoff.

    cutoff: nm. electrostatics: pme, ewald or reaction-field. tolerance: of the Ewald sums, as OpenMM has it.
    switch: nm, where Lennard-Jones begins to be switched off; None for a sharp end. tail: its mean energy beyond.
    vectors: nm, one a row; None for those of the structure file.
    """

    cutoff: float = 1.0
    electrostatics: str = "pme"
    tolerance: float = 5e-4
    switch: float | None = None
    tail: bool = True
    vectors: Any = None


@dataclass(frozen=True)
class Solvate:
    """Water around the molecule, in a box as large as that takes, and ions.

    model: what the water is laid out as (the force field says how it interacts). padding: nm of water between the
    molecule and its images, and half the least width of the box. salt: mol/l, beside the ions that neutralise.
    shape: cube, dodecahedron or octahedron.
    """

    model: str = "tip3p"
    padding: float = 1.0
    salt: float = 0.0
    shape: str = "cube"


@dataclass(frozen=True)
class Rules:
    """What holds for any force field: constraints, hydrogen mass (Da, None for its own), solvent, box."""

    constraints: str = "none"
    hydrogen_mass: float | None = None
    implicit: Implicit | None = None
    box: Box | None = None
    solvate: Solvate | None = None

    def problems(self) -> list[Problem]:
        """What is wrong with the values."""
        found = []
        if self.constraints not in CONSTRAINTS:
            found.append(Problem("constraints", unknown(self.constraints, CONSTRAINTS)))
        if self.hydrogen_mass is not None and not 1 <= self.hydrogen_mass <= 4:
            found.append(Problem("hydrogen_mass", f"{self.hydrogen_mass} Da must lie between 1 and 4 Da"))
        if self.implicit is not None:
            if self.implicit.model not in MODELS:
                found.append(Problem("implicit.model", unknown(self.implicit.model, MODELS)))
            for name in ("solvent", "solute"):
                if not getattr(self.implicit, name) >= 1:
                    found.append(Problem(f"implicit.{name}", f"{getattr(self.implicit, name)} must be at least 1"))
            if not self.implicit.kappa >= 0:
                found.append(Problem("implicit.kappa", f"{self.implicit.kappa} 1/nm must not be negative"))
            if self.box is not None:
                found.append(Problem("implicit", "is for molecules in no box: leave out either implicit or box"))
        return found + self._box_problems()

    def _box_problems(self) -> list[Problem]:
        found, box, water = [], self.box, self.solvate
        if box is not None:
            if box.electrostatics not in METHODS:
                found.append(Problem("box.electrostatics", unknown(box.electrostatics, METHODS)))
            if not box.cutoff > 0:
                found.append(Problem("box.cutoff", f"{box.cutoff} nm must be positive; 0.9 or 1.0 nm is usual"))
            if not 0 < box.tolerance < 0.5:
                found.append(Problem("box.tolerance", f"{box.tolerance} must lie between 0 and 0.5; 5e-4 is usual"))
            if box.switch is not None and not 0 < box.switch < box.cutoff:
                found.append(
                    Problem("box.switch", f"{box.switch} nm must lie between 0 and the cutoff, {box.cutoff} nm")
                )
        if water is not None:
            if box is None:
                found.append(Problem("solvate", "needs a periodic box: give box as well, if only its cutoff"))
            if water.model not in WATERS:
                found.append(Problem("solvate.model", unknown(water.model, WATERS)))
            if water.shape not in SHAPES:
                found.append(Problem("solvate.shape", unknown(water.shape, SHAPES)))
            if not water.padding > 0:
                found.append(Problem("solvate.padding", f"{water.padding} nm must be positive; 1 nm is usual"))
            if not 0 <= water.salt <= 5:
                found.append(Problem("solvate.salt", f"{water.salt} mol/l must lie between 0 and 5 mol/l"))
        return found

    def options(self) -> dict[str, Any]:
        """As ``createSystem`` of ``openmm.app`` takes them."""
        from openmm import app, unit

        kind = CONSTRAINTS[self.constraints]
        return {
            "nonbondedMethod": app.NoCutoff if self.box is None else getattr(app, METHODS[self.box.electrostatics]),
            **({} if self.box is None else {"nonbondedCutoff": self.box.cutoff}),
            "constraints": None if kind is None else getattr(app, kind),
            "rigidWater": kind is not None,
            "hydrogenMass": None if self.hydrogen_mass is None else unit.Quantity(self.hydrogen_mass, unit.dalton),  # pyright: ignore
            "removeCMMotion": False,
        }


def unknown(value: str, allowed: Any) -> str:
    """'x' is not one of ...; the nearest is 'y'."""
    lower = {str(a).lower(): str(a) for a in allowed}
    near = difflib.get_close_matches(str(value).lower(), lower, 1, 0.4)
    hint = f"; did you mean '{lower[near[0]]}'?" if near else ""
    return f"'{value}' is not one of {', '.join(map(str, allowed))}{hint}"
