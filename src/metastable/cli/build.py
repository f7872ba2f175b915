"""From a validated input to objects: the only place where names become molecules, collective variables and biases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metastable import cvs
from metastable.cli.input import Draft, Input
from metastable.cli.liquids import observables_of
from metastable.cli.models import (
    BoxInput,
    CVInput,
    LearningInput,
    MetadynamicsInput,
    MoleculeInput,
    MovingInput,
    OPESInput,
)
from metastable.cli.selection import chosen, select, select_group
from metastable.core.axis import Axis
from metastable.core.errors import InputError, Problem
from metastable.core.units import kelvin
from metastable.enhanced import biases
from metastable.enhanced.metadynamics import WellTempered
from metastable.enhanced.opes import OPES
from metastable.io.molecules import Molecule, load_molecule
from metastable.io.rules import Box, Implicit, Solvate
from metastable.recipes import observing
from metastable.recipes.plan import Plan

_SPACING = {"metadynamics": 3, "opes": 6}  # points of a bias grid in a width; the kernels of OPES become narrower


@dataclass(frozen=True)
class Job:
    """Everything that a recipe takes."""

    recipe: str
    plan: Plan
    molecule: Molecule
    cv: cvs.Stack
    bias: Any


def build(draft: Draft, folder: Path) -> tuple[Input, Job]:
    """Read the molecule and make the objects. Relative paths are taken from ``folder``.

    Raises InputError with every problem of the input and of the files that it names.
    """
    problems = list(draft.problems)
    molecule = None if draft.molecule is None else load(draft.molecule, folder, problems)
    variables = {} if molecule is None else _collective_variables(draft.cvs, molecule, problems)
    observables = {} if molecule is None else _observables(draft, molecule, problems)
    if problems:
        raise InputError(*problems)
    given = draft.finish()
    assert molecule is not None
    if given.dynamics.integrator == "overdamped" and len(molecule.system.constraints):
        message = "'overdamped' keeps no bonds: set molecule.constraints = 'none' (and a timestep that suits)"
        problems.append(Problem("dynamics.integrator", message))
    if given.dynamics.integrator == "verlet" and given.recipe != "dynamics":
        message = f"'verlet' keeps the energy, but {given.recipe} needs a thermostat: take one of the others"
        problems.append(Problem("dynamics.integrator", message))
    ranges = {name: _range(cv) for name, cv in given.cvs.items()}
    if given.dynamics.pressure is not None and given.molecule.box is None:
        message = "needs a periodic box: add [molecule.box], or leave the pressure out"
        problems.append(Problem("dynamics.pressure", message))
    still, left_out = float(given.dynamics.constant_volume), given.output.discard * float(given.dynamics.duration)
    if still and given.dynamics.pressure is None:
        message = "is for runs with a pressure: without one the volume is constant all the time; leave it out"
        problems.append(Problem("dynamics.constant_volume", message))
    elif still > left_out + 1e-9:
        message = (
            f"'{given.dynamics.constant_volume.text}' is more than the {left_out:g} ps that the estimates leave out: "
            f"shorten it, or raise output.discard ({given.output.discard:g})"
        )
        problems.append(Problem("dynamics.constant_volume", message))
    bias = _bias_of(given, variables, ranges, problems)
    if problems:
        raise InputError(*problems)
    plan = _plan_of(given, ranges, observables)
    return given, Job(given.recipe, plan, molecule, cvs.Stack(*variables.values()), bias)


def load(given: MoleculeInput, folder: Path, problems: list[Problem]) -> Molecule | None:
    """The molecule, or None and problems that carry the keys of the input."""
    implicit = given.implicit
    try:
        return load_molecule(
            folder / given.structure,
            [str(folder / f) if (folder / f).is_file() else f for f in given.forcefield or ()],
            parameters=None if given.parameters is None else [folder / p for p in given.parameters],
            box=given.box and _box(given.box),
            solvate=given.solvate and Solvate(given.solvate.model, float(given.solvate.padding),
                                              float(given.solvate.salt), given.solvate.shape),
            implicit=implicit and Implicit(implicit.model, implicit.solvent, implicit.solute, surface=implicit.surface),
            constraints=given.constraints,
            hydrogen_mass=None if given.hydrogen_mass is None else float(given.hydrogen_mass),
            fix=given.fix,
        )  # fmt: skip
    except InputError as error:
        keys = set(MoleculeInput.model_fields)
        problems += [
            Problem(f"molecule.{p.where}" if p.where.split(".")[0] in keys else p.where, p.message)
            for p in error.problems
        ]
        return None


def _box(given: BoxInput) -> Box:
    size = None if given.size is None else np.diag([float(x) for x in given.size])
    switch = None if given.switch is None else float(given.switch)
    return Box(float(given.cutoff), given.electrostatics, given.tolerance, switch, given.tail, size)


def _collective_variables(
    given: dict[str, CVInput], molecule: Molecule, problems: list[Problem]
) -> dict[str, cvs.Variable]:
    """The CVs by name; atoms that are not there become problems."""
    return {name: cv for name, cv in ((n, _variable(n, c, molecule, problems)) for n, c in given.items()) if cv}


def _variable(name: str, given: Any, molecule: Molecule, problems: list[Problem]) -> cvs.Variable | None:
    where, system = f"cv.{name}", molecule.system

    def atoms(key: str, choose=lambda value: select_group(value, system)) -> tuple[int, ...]:
        return chosen(getattr(given, key), choose, f"{where}.{key}", problems)

    before = len(problems)
    if given.type == "volume":
        if molecule.frame.box is None:
            problems.append(Problem(where, "the molecule is in no box: add [molecule.box]"))
            return None
        return cvs.Volume(label=name)
    if given.type == "coordination":
        first, second = atoms("first"), atoms("second")
        if set(first) & set(second):
            problems.append(Problem(f"{where}.second", "shares atoms with first: name each atom in one of them"))
        if len(problems) > before:
            return None
        return cvs.Coordination(first, second, switching=cvs.Rational(float(given.r0)), label=name)
    if given.type in ("gyration", "rmsd"):
        group = atoms("atoms")
        if len(problems) > before:
            return None
        if given.type == "gyration":
            return cvs.RadiusOfGyration(group, label=name)
        return cvs.RMSD(group, molecule.frame.positions[np.array(group)], label=name)
    points = atoms("atoms", lambda value: _each(value, molecule))
    if len(problems) > before:
        return None
    kind = {"torsion": cvs.Torsion, "angle": cvs.Angle, "distance": cvs.Distance}[given.type]
    return kind(*points, label=name)


def _each(atoms: Sequence[int | str], molecule: Molecule) -> tuple[int, ...]:
    found, wrong = [], []
    for atom in atoms:
        try:
            found.append(select(atom, molecule.system.topology))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(found)


def _range(given: CVInput) -> tuple[float, float] | None:
    if given.type == "torsion":
        return -math.pi, math.pi
    return None if given.range is None else (float(given.range[0]), float(given.range[1]))


def _bias_of(given: Input, variables: dict[str, cvs.Variable], ranges: dict[str, Any], problems: list[Problem]) -> Any:
    """All biases, as one on the vector of all CVs."""
    names = list(variables)
    many = len(given.biases) > 1
    parts = []
    for i, one in enumerate(given.biases):
        where = f"bias.{i}" if many else "bias"
        try:
            if isinstance(one, LearningInput):
                chosen = one.cvs or names
                axes = _axes(one, chosen, variables, ranges)
                made = _metadynamics(one, axes) if isinstance(one, MetadynamicsInput) else _opes(one, axes, given)
            else:
                chosen = [one.cv]
                made = _restraint(one, variables[one.cv], given)
        except ValueError as error:
            problems.append(Problem(where, str(error)))
            continue
        parts.append(made if chosen == names else biases.Select(made, [names.index(n) for n in chosen]))
    return parts[0] if len(parts) == 1 else biases.Sum(*parts)


def _axes(given: LearningInput, names: Sequence[str], variables, ranges) -> list[Axis]:
    """Of the grid of a bias, fine enough for its widths, where the input does not say how fine."""
    axes = []
    for name in names:
        (low, high), width = ranges[name], float(given.width[name])
        bins = (given.grid or {}).get(name) or max(8, math.ceil(_SPACING[given.type] * (high - low) / width))
        axes.append(Axis(low, high, bins, variables[name].periods[0] is not None, name, variables[name].units[0]))
    return axes


def _metadynamics(given: MetadynamicsInput, axes: list[Axis]) -> WellTempered:
    widths = [float(given.width[a.name]) for a in axes]
    return WellTempered(axes, height=float(given.height), widths=widths, bias_factor=given.bias_factor)


def _opes(given: OPESInput, axes: list[Axis], whole: Input) -> OPES:
    widths, kT = [float(given.width[a.name]) for a in axes], whole.dynamics.temperature * kelvin
    return OPES(widths, barrier=float(given.barrier), kT=kT, axes=axes, bias_factor=given.bias_factor,
                explore=given.explore)  # fmt: skip


def _restraint(given: Any, variable: cvs.Variable, whole: Input) -> Any:
    kappa = float(given.force_constant)
    if isinstance(given, MovingInput):
        end = whole.schedule.blocks * whole.schedule.steps
        return biases.MovingHarmonic(
            [0, end], [float(given.start), float(given.end)], [kappa, kappa], variable.periods, stride=_stride(whole)
        )
    if given.type == "harmonic":
        return biases.Harmonic([float(given.center)], kappa, variable.periods)
    wall: Any = biases.UpperWall if given.type == "upper-wall" else biases.LowerWall
    return wall([float(given.at)], kappa)


def _stride(given: Input) -> int:
    """Steps between two updates of the bias: between hills, or at every record where there are none."""
    return given.schedule.pace or given.schedule.every


def _observables(draft: Draft, molecule: Molecule, problems: list[Problem]) -> dict[str, observing.Observable]:
    """The observables by name; what does not suit them becomes a problem."""
    found = observables_of(draft.observables, molecule.system, problems)
    if found and draft.dynamics and None not in (draft.output, draft.schedule):
        dynamics = draft.dynamics.model_copy(update={"constant_volume": 0.0})  # a wrong one is told elsewhere
        problems += observing.problems(_plan_of(replace(draft, dynamics=dynamics), {}, found), molecule)
    return found


def _plan_of(given: Any, ranges: dict[str, Any], observables: dict[str, observing.Observable]) -> Plan:
    """The numbers of the run. given: an Input, or a Draft whose dynamics, output and schedule are right."""
    dynamics, when = given.dynamics, given.schedule
    return Plan(
        kT=dynamics.temperature * kelvin,
        dt=float(dynamics.timestep),
        friction=float(dynamics.friction),
        relaxation=float(dynamics.relaxation),
        integrator=dynamics.integrator,
        walkers=dynamics.walkers,
        steps=when.steps,
        blocks=when.blocks,
        every=when.every,
        pace=_stride(given),
        frames=when.frames,
        trajectory_walkers=min(given.output.trajectory_walkers, dynamics.walkers),
        pressure=None if dynamics.pressure is None else float(dynamics.pressure),
        barostat=dynamics.barostat,
        coupling=dynamics.coupling,
        pressure_time=float(dynamics.pressure_time),
        constant_volume=float(dynamics.constant_volume),
        skin=0.1 if given.molecule.box is None else float(given.molecule.box.skin),
        recenter=True,  # the collective variables of an input know of no origin
        seed=dynamics.seed,
        minimize=dynamics.minimize,
        discard=given.output.discard,
        observables=observables,
        bins=tuple(cv.bins for cv in given.cvs.values()),
        ranges=tuple(ranges.values()),
        title=given.title or Path(given.molecule.structure).stem,
        facts=_facts(given),
    )


def _facts(given: Input) -> dict[str, Any]:
    molecule, dynamics = given.molecule, given.dynamics
    files = [Path(f).name if f.startswith("/") else f for f in molecule.forcefield or molecule.parameters or ()]
    solvents = [Path(f).stem for f in files if f.startswith("implicit/") or f.endswith("_obc.xml")]
    return {
        "molecule": Path(molecule.structure).stem,
        "force_field": ", ".join(files),
        "solvent": molecule.implicit.model if molecule.implicit else ", ".join(solvents) or _surroundings(molecule),
        "integrator": dynamics.integrator,
        "constraints": molecule.constraints,
        "precision": dynamics.precision,
    }


def _surroundings(molecule: MoleculeInput) -> str:
    if molecule.box is None:
        return "vacuum"
    return f"{molecule.solvate.model} water" if molecule.solvate else "as in the structure file"
