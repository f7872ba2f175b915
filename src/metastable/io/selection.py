"""Atoms by words: MDTraj's selection language on the topology of a system."""

import re
from typing import Any

from metastable.core.system import System


def select_atoms(text: str, system: System) -> tuple[int, ...]:
    """The indices, from 0, of the atoms that a selection names, such as ``water and name O`` or ``element Na``.

    The language is that of McGibbon et al. (2015), MDTraj, doi:10.1016/j.bpj.2015.08.015; ``resid`` and ``index`` count
    from 0, ``resSeq`` is the number in the file.

    Raises ValueError where the text is no selection, or names no atom.
    """
    try:
        found = _topology(system).select(text)
    except (ValueError, TypeError, AttributeError, KeyError, SyntaxError) as error:
        raise ValueError(f"'{text}' is no selection of MDTraj, such as 'water and name O' or 'element Na'") from error
    if not len(found):
        raise ValueError(f"'{text}' matches no atom of the {len(system)}")
    return tuple(found.tolist())


def _topology(system: System) -> Any:
    """As an ``mdtraj.Topology``. A residue number that is none, as with insertion codes, counts by its digits."""
    import mdtraj
    from mdtraj.core.element import Element, virtual_site

    names, made = system.topology, mdtraj.Topology()
    chain: Any = None
    residue: Any = None
    before: tuple[str, str, str] | None = None
    for i, name in enumerate(names.atom_names):
        here = (names.chain_ids[i], names.residue_ids[i], names.residue_names[i])
        if before is None or here[0] != before[0]:
            chain, residue = made.add_chain(here[0]), None
        if residue is None or here != before:
            number = re.search(r"-?\d+", here[1])
            residue = made.add_residue(here[2], chain, resSeq=int(number[0]) if number else None)
        z = int(system.numbers[i])
        made.add_atom(name, Element.getByAtomicNumber(z) if z else virtual_site, residue)
        before = here
    atoms = list(made.atoms)
    for i, j in names.bonds.tolist():
        made.add_bond(atoms[i], atoms[j])
    return made
