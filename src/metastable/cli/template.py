"""``init``: an input with every key, its default and what it means, written from the models themselves."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from metastable.cli.models import (
    CV_TYPES,
    OBSERVABLE_TYPES,
    DynamicsInput,
    MetadynamicsInput,
    MoleculeInput,
    OutputInput,
    Section,
)
from metastable.cli.quantities import written
from metastable.cli.selection import name_of
from metastable.cli.toml import write_value
from metastable.core.errors import InputError, Problem
from metastable.core.system import Topology

_EXAMPLE = {"phi": ("ACE1:C", "ALA2:N", "ALA2:CA", "ALA2:C"), "psi": ("ALA2:N", "ALA2:CA", "ALA2:C", "NME3:N")}
_COLUMN = 44
_MOST = 2  # torsions that are biased; the others are proposed


def template(structure: Path | None = None, folder: Path = Path()) -> str:
    """The text of an input. structure: a PDB or mmCIF file, whose torsions are proposed as collective variables.

    folder: where the input will be, for paths in it are taken from there.

    Raises InputError where the file cannot be read, or has no torsion to propose.
    """
    torsions, fix, name = dict(_EXAMPLE), False, "molecule.pdb"
    if structure is not None:
        topology, fix = _read(structure)
        torsions, name = propose(topology), os.path.relpath(structure, folder)
        if not torsions:
            message = "has no torsion of four heavy atoms to propose: write the CVs yourself, from 'metastable init'"
            raise InputError(Problem(str(structure), message))
    biased, others = dict(list(torsions.items())[:_MOST]), dict(list(torsions.items())[_MOST:])
    dynamics = {"temperature": "300 K", "timestep": "2 fs", "duration": "10 ns", "walkers": 64}
    bias = {
        "type": "metadynamics", "height": "0.05 kJ/mol", "width": dict.fromkeys(biased, "20 deg"), "bias_factor": 10,
        "pace": "0.4 ps",
    }  # fmt: skip
    molecule = {"structure": name, "forcefield": ["amber14/protein.ff14SB.xml"]} | ({"fix": True} if fix else {})
    parts = [
        "# An input of Metastable. Lines that begin with '# ' and a key are defaults: change them where you wish.\n"
        "# Every quantity has a unit. Atoms are numbers, the first of the file being 1, or names such as 'ALA2:CA'.\n",
        'recipe = "metadynamics"' + _comment(22, "metadynamics, opes, or dynamics for neither"),
        _table("molecule", MoleculeInput, molecule),
        _table("dynamics", DynamicsInput, dynamics),
        "\n# Collective variables: " + ", ".join(CV_TYPES) + ".",
        *(_table(f"cv.{n}", CV_TYPES["torsion"], {"type": "torsion", "atoms": list(a)}, every=False)
          for n, a in biased.items()),
        *("\n" + "\n".join(f"# {line}" for line in (f"[cv.{n}]", 'type = "torsion"', f"atoms = {write_value(list(a))}"))
          for n, a in others.items()),
        _table("bias", MetadynamicsInput, bias),
        "\n# Observables of a liquid, with recipe = \"dynamics\" and without [bias]:\n#   "
        + ", ".join(OBSERVABLE_TYPES) + ".",
        *("#     " + line for line in ("[observable.oxygens]", 'type = "rdf"', "first = \"water and name O\"")),
        _table("output", OutputInput, {}),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def propose(topology: Topology) -> dict[str, tuple[str, ...]]:
    """Torsions by name: phi and psi of each residue of a protein, else those about single bonds between heavy atoms."""
    places: dict[tuple[str, str], dict[str, int]] = {}
    for i in range(len(topology)):
        places.setdefault((topology.chain_ids[i], topology.residue_ids[i]), {})[topology.atom_names[i]] = i
    found: dict[str, tuple[int, ...]] = {}
    residues = list(places.items())
    inner = [r for r in residues if {"N", "CA", "C"} <= r[1].keys()]
    for ((chain, _), before), ((same, number), atoms) in pairwise(residues):
        if chain == same and "C" in before and {"N", "CA", "C"} <= atoms.keys():
            found[f"phi{number}"] = before["C"], atoms["N"], atoms["CA"], atoms["C"]
    for ((chain, number), atoms), ((same, _), after) in pairwise(residues):
        if chain == same and "N" in after and {"N", "CA", "C"} <= atoms.keys():
            found[f"psi{number}"] = atoms["N"], atoms["CA"], atoms["C"], after["N"]
    if len(inner) == 1:
        found = {name[:3]: atoms for name, atoms in found.items()}
    found = found or {f"torsion{k + 1}": atoms for k, atoms in enumerate(_about_bonds(topology))}
    order = sorted(found, key=lambda name: (int(name[3:] or 0), name)) if "phi" in "".join(found) else list(found)
    return {name: tuple(name_of(i, topology) for i in found[name]) for name in order}


def _about_bonds(topology: Topology) -> list[tuple[int, ...]]:
    heavy = [i for i, name in enumerate(topology.atom_names) if not name.lstrip("0123456789").startswith("H")]
    near: dict[int, list[int]] = {i: [] for i in heavy}
    for i, j in topology.bonds.tolist():
        if i in near and j in near:
            near[i].append(j)
            near[j].append(i)
    found = []
    for b in heavy:
        for c in sorted(near[b]):
            ends = [x for x in sorted(near[b]) if x != c], [x for x in sorted(near[c]) if x != b]
            if b < c and ends[0] and ends[1] and ends[0][0] != ends[1][0]:
                found.append((ends[0][0], b, c, ends[1][0]))
    return found


def _read(structure: Path) -> tuple[Topology, bool]:
    """The names of the atoms, and whether hydrogens are missing."""
    from metastable.io.molecules import topology_of
    from metastable.io.structures import read_structure

    if not structure.exists():
        raise InputError(Problem(str(structure), "there is no such file"))
    topology = read_structure(structure).topology
    if topology is None:
        raise InputError(Problem(str(structure), "has no names of atoms: give a PDB or mmCIF file"))
    names = [a.element.symbol for a in topology.atoms() if a.element is not None]
    return topology_of(topology), "H" not in names


def _table(name: str, model: type[Section], values: dict[str, Any], *, every: bool = True) -> str:
    """A table: the values given, and, as comments, the defaults of all other keys."""
    title = (model.__doc__ or "").strip().splitlines()[0]
    lines = [f"\n# {title}", f"[{name}]"]
    for key, field in model.model_fields.items():
        if key in values:
            line = f"{key} = {write_value(values[key])}"
        elif every:
            default = written(field.get_default())
            line = f"# {key} = {'...' if default is None else write_value(default)}"
        else:
            continue
        lines.append(line + _comment(len(line), field.description))
    return "\n".join(lines)


def _comment(used: int, text: str | None) -> str:
    return f"{' ' * max(2, _COLUMN - used)}# {text}" if text else ""
