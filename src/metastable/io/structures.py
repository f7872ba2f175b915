"""Structure files: where the atoms are. Read by ``openmm.app``, checked here, completed by pdbfixer when asked for."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.io.tables import plain

CLOSEST = 0.05
"""nm: atoms nearer than this lie on each other."""
WATER = ("HOH", "WAT", "SOL", "TIP3", "TIP4", "TIP5", "TP3", "TP4", "TP5", "OPC")
"""Names of residues of water."""

_READERS = {
    ".pdb": "PDBFile", ".ent": "PDBFile", ".cif": "PDBxFile", ".mmcif": "PDBxFile", ".pdbx": "PDBxFile",
    ".inpcrd": "AmberInpcrdFile", ".rst7": "AmberInpcrdFile", ".crd": "AmberInpcrdFile", ".gro": "GromacsGroFile",
}  # fmt: skip
_SHOWN = 10


class Structure(NamedTuple):
    """An openmm topology, None where the file has only coordinates; positions and box vectors, where there are, nm."""

    topology: Any
    positions: np.ndarray
    box: np.ndarray | None = None


def read_structure(path: str | Path, *, fix: bool = False, ph: float = 7.0) -> Structure:
    """The first model of a PDB, mmCIF, Amber inpcrd, CHARMM crd or GROMACS gro file.

    fix: add missing heavy atoms and hydrogens (protonation for ``ph``) with pdbfixer, reproducibly.
    Missing residues are not built and no residue is replaced or removed: these would change the molecule.

    Raises InputError with the kinds of file that can be read, or what could not be understood.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(Problem(str(path), f"'{path.suffix}' is no structure file; use one of {', '.join(_READERS)}"))
    if fix:
        if reader not in ("PDBFile", "PDBxFile"):
            raise InputError(Problem(str(path), "fix = true works on PDB and mmCIF files"))
        return _fixed(path, ph)
    from openmm import app

    try:
        with path.open() as file:
            charmm = path.suffix.lower() == ".crd" and file.readline().startswith("*")
        file = app.CharmmCrdFile(str(path)) if charmm else getattr(app, reader)(str(path))
        positions = np.array([list(p) for p in plain(file.positions)], float)
    except Exception as error:
        raise InputError(Problem(str(path), f"cannot be read: {error}")) from error
    return Structure(getattr(file, "topology", None), positions.reshape(-1, 3), _box(file))


def _box(file: Any) -> np.ndarray | None:
    """The box vectors that a file has, nm, whatever its reader calls them."""
    topology = getattr(file, "topology", None)
    vectors = topology.getPeriodicBoxVectors() if topology is not None else getattr(file, "boxVectors", None)
    if vectors is None and hasattr(file, "getPeriodicBoxVectors"):
        vectors = file.getPeriodicBoxVectors()
    return None if vectors is None else np.array([list(v) for v in plain(vectors)], float)


def _fixed(path: Path, ph: float) -> Structure:
    from openmm import Platform
    from pdbfixer import PDBFixer

    state = random.getstate()
    random.seed(0)  # OpenMM puts new hydrogens down with Python's generator before it minimises them
    try:
        reference = Platform.getPlatformByName("Reference")  # the others add in an order that varies
        fixer = PDBFixer(filename=str(path), platform=reference)
        fixer.findMissingResidues()
        fixer.missingResidues = {}
        fixer.findMissingAtoms()
        fixer.addMissingAtoms(seed=1)
        fixer.addMissingHydrogens(ph)
    except Exception as error:
        raise InputError(Problem(str(path), f"pdbfixer cannot complete it: {error}")) from error
    finally:
        random.setstate(state)
    return Structure(fixer.topology, np.array([list(p) for p in plain(fixer.positions)], float), _box(fixer))


def name_of(atom: Any) -> str:
    """An atom as people call it: 'CA of ALA 5 (chain A)'."""
    return f"{atom.name} of {name_of_residue(atom.residue)}"


def name_of_residue(residue: Any) -> str:
    """A residue as people call it: 'ALA 5 (chain A)'."""
    return f"{residue.name} {residue.id} (chain {residue.chain.id})"


def structure_problems(
    where: str, structure: Structure, *, elements: bool = True, sites: Sequence[int] = ()
) -> list[Problem]:
    """What is wrong with the atoms themselves: numbers, overlaps and, where elements are needed, elements.

    sites: virtual sites, which may lie on other atoms; those of water, which have no element, are known as such.
    """
    topology, positions, _ = structure
    atoms = list(topology.atoms()) if topology is not None else None
    places = {*sites, *(a.index for a in atoms or [] if a.element is None and a.residue.name in WATER)}
    problems = []
    if len(positions) == 0:
        return [Problem(where, "has no atoms")]
    if not np.all(np.isfinite(positions)):
        lost = int(np.argmin(np.all(np.isfinite(positions), axis=1)))
        return [Problem(where, f"the position of atom {lost + 1} is not a number")]
    if atoms is not None and elements:
        unknown = [a for a in atoms if a.element is None and a.index not in places]
        problems += [
            Problem(where, f"atom {a.index + 1}, {name_of(a)}, has no known element: write it in columns 77-78")
            for a in unknown[:_SHOWN]
        ]
        kinds = {a.element.symbol for a in atoms if a.element is not None}
        if "C" in kinds and "H" not in kinds:
            problems.append(Problem(where, "has no hydrogens, which the force field needs: add them with fix = true"))
    return problems + _overlaps(where, positions, atoms, places)


def _overlaps(where: str, positions: np.ndarray, atoms: list[Any] | None, sites: set[int]) -> list[Problem]:
    from scipy.spatial import KDTree

    pairs = sorted(pair for pair in KDTree(positions).query_pairs(CLOSEST) if not sites.intersection(pair))
    problems = []
    for i, j in pairs[:_SHOWN]:
        distance = np.linalg.norm(positions[i] - positions[j])
        names = f"{i + 1} and {j + 1}"
        if atoms is not None:
            names += f", {name_of(atoms[i])} and {name_of(atoms[j])},"
        problems.append(
            Problem(where, f"atoms {names} overlap: {distance:.3f} nm apart, at least {CLOSEST} nm is needed")
        )
    if len(pairs) > _SHOWN:
        problems.append(Problem(where, f"... and {len(pairs) - _SHOWN} more pairs of atoms that overlap"))
    return problems
