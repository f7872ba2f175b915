"""Atoms by their numbers and names, as the input gives them."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metastable.cli.models import GROUPS
from metastable.core.errors import Problem
from metastable.core.system import System, Topology

_NAME = re.compile(r"(?:(?P<chain>[^:]+):)?(?P<residue>[^:]+):(?P<atom>[^:]+)")
_BACKBONE = ("N", "CA", "C", "O")


def select(atom: int | str, topology: Topology) -> int:
    """The index, from 0, of one atom: its number in the file, the first being 1, or ``[chain:]residue:name``.

    The residue is a name, a number or both: ``ALA2:CA``, ``2:CA``, ``ALA:CA``, ``A:ALA2:CA``.
    Raises ValueError where there is no such atom, or more than one.
    """
    if isinstance(atom, int):
        if not 1 <= atom <= len(topology):
            raise ValueError(f"atom {atom} is out of range: the structure has {len(topology)} atoms, counted from 1")
        return atom - 1
    found = _NAME.fullmatch(atom.strip())
    if found is None:
        raise ValueError(f"'{atom}' is no atom: write residue:name, such as 'ALA2:CA', or chain:residue:name")
    hits = [
        i for i in range(len(topology))
        if topology.atom_names[i] == found["atom"] and found["residue"] in _residue_names(topology, i)
        and found["chain"] in (None, topology.chain_ids[i])
    ]  # fmt: skip
    if len(hits) == 1:
        return hits[0]
    if not hits:
        names = [name_of(i, topology) for i in range(len(topology))]
        near = difflib.get_close_matches(atom.split(":", found["chain"] is not None)[-1], names, 1, 0.5)
        raise ValueError(f"there is no atom '{atom}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    shown = ", ".join(f"'{topology.chain_ids[i]}:{name_of(i, topology)}'" for i in hits[:4])
    raise ValueError(f"'{atom}' is {len(hits)} atoms: say which, {shown}{', ...' if len(hits) > 4 else ''}")


def select_group(group: str | Sequence[int | str], system: System) -> tuple[int, ...]:
    """The indices of a group: all, heavy, backbone, alpha, a selection of MDTraj, or a list of atoms.

    Raises ValueError where it is none of these, or has no atom.
    """
    topology = system.topology
    if not isinstance(group, str):
        return tuple(select(atom, topology) for atom in group)
    if group not in GROUPS:
        return _select_text(group, system)
    names = np.array(topology.atom_names)
    mask = {
        "all": np.ones(len(topology), bool),
        "heavy": system.numbers > 1,
        "backbone": np.isin(names, _BACKBONE) & (system.numbers > 1),
        "alpha": (names == "CA") & (system.numbers == 6),
    }[group]
    if not mask.any():
        raise ValueError(f"the structure has no atom that is '{group}'")
    return tuple(np.flatnonzero(mask).tolist())


def _select_text(text: str, system: System) -> tuple[int, ...]:
    from metastable.io.selection import select_atoms

    try:
        return select_atoms(text, system)
    except ValueError as error:
        near = difflib.get_close_matches(text.lower(), GROUPS, 1, 0.6)
        raise ValueError(f"{error}" + (f"; did you mean '{near[0]}'?" if near else "")) from error


def name_of(i: int, topology: Topology) -> str:
    """An atom as ``select`` takes it, e.g. ``ALA2:CA``."""
    return f"{topology.residue_names[i]}{topology.residue_ids[i]}:{topology.atom_names[i]}"


def _residue_names(topology: Topology, i: int) -> tuple[str, str, str]:
    name, number = topology.residue_names[i], topology.residue_ids[i]
    return name, number, name + number


def chosen(
    words: Any, choose: Callable[[Any], tuple[int, ...]], where: str, problems: list[Problem]
) -> tuple[int, ...]:
    """The atoms that ``choose`` finds for words of an input; none, and a problem, where there are none or one twice."""
    try:
        found = choose(words)
    except ValueError as error:
        problems.append(Problem(where, str(error)))
        return ()
    if len(set(found)) < len(found):
        problems.append(Problem(where, f"{words} names an atom twice"))
    return found
