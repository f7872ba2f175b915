"""From a structure and the files of a force field to an ``openmm.System``, with errors that say what to do."""

import difflib
import random
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.core.space import reduced
from metastable.io.rules import Box, Rules, Solvate
from metastable.io.structures import WATER, Structure, name_of_residue
from metastable.io.tables import plain

_UNKNOWN = "is not in the force field"


def file_problems(where: str, paths: Sequence[str | Path]) -> list[Problem]:
    """Which of the files are not there."""
    return [Problem(where, f"there is no file '{p}'{_nearest_file(Path(p))}") for p in paths if not Path(p).exists()]


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor a folder '{path.parent}')"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], 1)
    return f"; did you mean '{path.parent / near[0]}'?" if near else ""


def xml_problems(files: Sequence[str]) -> list[Problem]:
    """Which force field files are neither here nor among OpenMM's own."""
    from openmm import app

    folder = Path(app.__file__).parent / "data"
    own = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.xml"))
    return [
        Problem("forcefield", f"there is no file '{f}', here or among OpenMM's own{_nearest_name(f, own)}")
        for f in files
        if not Path(f).is_file() and f not in own
    ]


def _nearest_name(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return f"; did you mean '{near[0]}'?" if near else f": {', '.join(names)}"


def system_from_xml(structure: Structure, files: Sequence[str], rules: Rules) -> tuple[Any, Structure]:
    """(``openmm.System``, structure) from force field XML files, which may carry Python that OpenMM runs: trust them.

    The structure gets the virtual sites that the force field wants and it lacks, as those of four-site water.

    Raises InputError with every residue that is unknown or incomplete, or with what OpenMM said.
    """
    from openmm import app

    files, options = list(files), rules.options()
    if rules.implicit is not None:
        options |= rules.implicit.options()
        own = f"implicit/{rules.implicit.model.lower()}.xml"
        others = [f for f in files if f.startswith("implicit/") or f.endswith("_obc.xml")]
        files += [] if others else [own]
        if others and others != [own]:
            raise InputError(Problem("implicit.model", f"'{rules.implicit.model}' contradicts the file {others[0]}"))
    try:
        forcefield = app.ForceField(*files)
    except Exception as error:
        raise InputError(Problem("forcefield", f"cannot be read: {error}")) from error
    try:
        structure = _with_water(_boxed(structure, rules.box), forcefield, rules.solvate)
        _needs_box(structure, rules.box)
        structure = _with_sites(structure, forcefield)
        return _finished(forcefield.createSystem(structure.topology, **options), rules.box, structure), structure
    except InputError:
        raise
    except Exception as error:
        problems = _residue_problems(forcefield, structure.topology, str(error))
        raise InputError(*(problems or [Problem("forcefield", str(error))])) from error


def _boxed(structure: Structure, box: Box | None) -> Structure:
    """The structure with the box that the rules give, or its own; without any where there is to be none."""
    vectors = None if box is None else structure.box if box.vectors is None else np.array(box.vectors, float)
    if vectors is not None:
        try:
            vectors = reduced(vectors)
        except ValueError as error:
            raise InputError(Problem("box", str(error))) from error
    if structure.topology is not None:
        structure.topology.setPeriodicBoxVectors(None if vectors is None else [tuple(v) for v in vectors])
    return structure._replace(box=vectors)


def _with_water(structure: Structure, forcefield: Any, water: Solvate | None) -> Structure:
    from openmm import app, unit

    if water is None:
        return structure
    units: Any = unit
    state = random.getstate()
    random.seed(0)  # OpenMM draws the waters that become ions with Python's generator
    modeller = app.Modeller(structure.topology, structure.positions)
    try:
        modeller.addSolvent(forcefield, model=water.model, padding=water.padding, boxShape=water.shape,
                            ionicStrength=water.salt * units.molar)  # fmt: skip
    finally:
        random.setstate(state)
    vectors = reduced(np.array([list(v) for v in plain(modeller.topology.getPeriodicBoxVectors())], float))
    return Structure(modeller.topology, np.array([list(p) for p in plain(modeller.positions)], float), vectors)


def _needs_box(structure: Structure, box: Box | None) -> None:
    if box is not None and structure.box is None:
        raise InputError(Problem("box", "the structure file has no box: give box.vectors, or solvate the molecule"))


def _finished(system: Any, box: Box | None, structure: Structure) -> Any:
    """The system with the box of the structure and what the readers of openmm.app do not take as options."""
    if box is None or structure.box is None:
        return system
    system.setDefaultPeriodicBoxVectors(*structure.box)
    for force in system.getForces():
        kind = type(force).__name__
        if kind == "NonbondedForce":
            force.setEwaldErrorTolerance(box.tolerance)
            force.setUseDispersionCorrection(box.tail)
        if kind == "CustomNonbondedForce":
            force.setUseLongRangeCorrection(box.tail)
        if kind in ("NonbondedForce", "CustomNonbondedForce"):
            force.setUseSwitchingFunction(box.switch is not None)
            force.setSwitchingDistance(box.switch or 0.0)
    return system


def _with_sites(structure: Structure, forcefield: Any) -> Structure:
    from openmm import app

    if not any(template.virtualSites for template in forcefield._templates.values()):
        return structure
    modeller = app.Modeller(structure.topology, structure.positions)
    try:
        modeller.addExtraParticles(forcefield)
    except ValueError:  # a residue without a template, which createSystem names
        return structure
    positions = np.array([list(p) for p in plain(modeller.positions)], float)
    return Structure(modeller.topology, positions, structure.box)


def _residue_problems(forcefield: Any, topology: Any, message: str) -> list[Problem]:
    """Each residue that has no template and why; ends of chains, which patches may mend, only if OpenMM names them."""
    named = re.match(r"No template found for residue (\d+)", message)
    if named is None:
        return []
    names = {t: {a.name: _symbol(a) for a in template.atoms} for t, template in forcefield._templates.items()}
    reasons: dict[str, list[str]] = {}
    for residue in forcefield.getUnmatchedResidues(topology):
        chain = list(residue.chain.residues())
        patched = bool(forcefield._patches) and residue in (chain[0], chain[-1])
        if (patched and residue.index != int(named[1])) or _lacks_only_sites(residue, names.values()):
            continue
        reasons.setdefault(_why_unmatched(residue, names), []).append(name_of_residue(residue))
    if any(why.startswith(_UNKNOWN) for why in reasons):  # whose bonds nobody knows: its neighbours are not to blame
        reasons = {why: found for why, found in reasons.items() if "other bonds" not in why}
    return [Problem("structure", f"residue {_abridged(found)} {why}") for why, found in reasons.items()]


def _lacks_only_sites(residue: Any, templates: Iterable[dict[str, str]]) -> bool:
    """Whether a template has the atoms of the residue, and others that have no element."""
    have = {a.name for a in residue.atoms()}
    return any(have < t.keys() and not any(t[name] for name in t.keys() - have) for t in templates)


def _abridged(names: list[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (f" (and {len(names) - shown} more)" if len(names) > shown else "")


def _why_unmatched(residue: Any, templates: dict[str, dict[str, str]]) -> str:
    if residue.name in WATER:
        return "is water: remove it, or add a water model to the force field files (amber14/tip3p.xml)"
    candidates = [t for t in templates if t in (residue.name, f"N{residue.name}", f"C{residue.name}")]
    candidates += {"HIS": [t for t in ("HID", "HIE", "HIP", "HSD", "HSE", "HSP") if t in templates]}.get(
        residue.name, []
    )
    if not candidates:
        near = difflib.get_close_matches(residue.name, templates, 3, 0.5)
        return _UNKNOWN + (f"; the nearest names are {', '.join(near)}" if near else "")
    have = {a.name: _symbol(a) for a in residue.atoms()}
    best = min(candidates, key=lambda t: len(templates[t].keys() ^ have.keys()))
    lack, extra = _surplus(templates[best], have), _surplus(have, templates[best])
    if not lack and not extra:
        return f"has the atoms of {best} but other bonds: is the chain broken, or a neighbour missing?"
    parts = [f"lacks {', '.join(lack)}"] * bool(lack) + [f"has {', '.join(extra)} too many"] * bool(extra)
    cure = ": add missing atoms with fix = true" if lack else ""
    return f"does not match the template {best}: it {' and '.join(parts)}{cure}"


def _symbol(atom: Any) -> str:
    return atom.element.symbol if atom.element is not None else ""


def _surplus(these: dict[str, str], those: dict[str, str]) -> list[str]:
    """Atoms of these that those lack, of elements of which those have fewer: names alone may just be other names."""
    fewer = Counter(these.values()) - Counter(those.values())
    return sorted(name for name, symbol in these.items() if symbol in fewer and name not in those)


def system_from_parameters(structure: Structure, files: Sequence[str], rules: Rules) -> tuple[Any, Any]:
    """(``openmm.System``, topology) from an Amber prmtop, a CHARMM psf with its parameter files, or a GROMACS top.

    For GROMACS a second entry may be the folder that its includes are in.

    Raises InputError with what OpenMM said, or where the numbers of atoms differ.
    """
    from openmm import app

    structure = _boxed(structure, rules.box)
    _needs_box(structure, rules.box)
    first, rest = str(files[0]), [str(f) for f in files[1:]]
    options, implicit = rules.options(), rules.implicit
    solvent = {} if implicit is None else {"implicitSolvent": getattr(app, implicit.model), **implicit.options()}
    try:
        kind = _kind(Path(first))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Non-optimal GB parameters")
            if kind == "amber":
                file = app.AmberPrmtopFile(first)
                system = file.createSystem(**options, **solvent)
            elif kind == "charmm":
                file = app.CharmmPsfFile(first)
                parameters = app.CharmmParameterSet(*rest)
                system = file.createSystem(parameters, flexibleConstraints=False, **options, **solvent)
            elif implicit is None:
                file = app.GromacsTopFile(first, includeDir=rest[0] if rest else None)
                system = file.createSystem(**options)
            else:
                raise InputError(Problem("implicit", "is not available for a GROMACS top: use XML, prmtop or psf"))
    except InputError:
        raise
    except Exception as error:
        raise InputError(Problem("parameters", f"{', '.join(map(str, files))}: {error}")) from error
    if len(structure.positions) != system.getNumParticles():
        raise InputError(Problem("structure", f"has {len(structure.positions)} atoms, but {first} describes "
                                 f"{system.getNumParticles()}: they must be of the same molecule"))  # fmt: skip
    return _finished(system, rules.box, structure), file.topology


def _kind(path: Path) -> str:
    """By its end, and for 'top', which Amber and GROMACS both use, by how it begins."""
    if path.suffix.lower() == ".psf":
        return "charmm"
    with path.open() as file:
        start = file.read(8)
    if start.startswith("%VERSION"):
        return "amber"
    if path.suffix.lower() == ".top":
        return "gromacs"
    raise InputError(Problem("parameters", f"'{path}' is no Amber prmtop, CHARMM psf or GROMACS top"))
