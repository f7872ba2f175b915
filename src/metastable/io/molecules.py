"""Molecules: a system, where its atoms are, and what they feel."""

from typing import Any, NamedTuple

import numpy as np

from metastable.core.errors import InputError
from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.io.forcefield import terms
from metastable.potentials.sum import Sum


class Molecule(NamedTuple):
    """What a force field makes of a structure.

    system: atoms and constraints. frame: the start, nm. potential: kJ/mol, with its terms by name.
    """

    system: System
    frame: Frame
    potential: Sum


def from_openmm(system: Any, topology: Any, positions: Any) -> Molecule:
    """Turn an ``openmm.System`` into a molecule: every force becomes a term, every constraint a constraint.

    positions: an OpenMM quantity, or nm, (atoms, 3).

    Raises InputError, naming each force that is not understood, or atoms that do not fit together.
    """
    from openmm import unit

    in_nm = positions.value_in_unit(unit.nanometer) if unit.is_quantity(positions) else positions
    in_nm = np.asarray([list(p) for p in in_nm], float)
    atoms = system.getNumParticles()
    if not atoms == topology.getNumAtoms() == len(in_nm):
        raise InputError(
            f"the system has {atoms} particles, the topology {topology.getNumAtoms()} atoms and there are "
            f"{len(in_nm)} positions: they must be of the same molecule"
        )
    potential = Sum(terms(system))
    nonbonded = potential.terms.get("nonbonded")
    rows = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    return Molecule(
        System(
            numbers=np.array([a.element.atomic_number if a.element else 0 for a in topology.atoms()]),
            masses=np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(atoms)]),
            charges=np.zeros(atoms) if nonbonded is None else np.array(nonbonded.charges),
            topology=_topology(topology),
            constraints=np.array([r[:2] for r in rows], int).reshape(-1, 2),
            lengths=np.array([r[2].value_in_unit(unit.nanometer) for r in rows], float),
        ),
        Frame(in_nm),
        potential,
    )


def _topology(topology: Any) -> Topology:
    atoms = list(topology.atoms())
    return Topology(
        atom_names=tuple(a.name for a in atoms),
        residue_names=tuple(a.residue.name for a in atoms),
        residue_ids=tuple(str(a.residue.id) for a in atoms),
        chain_ids=tuple(str(a.residue.chain.id) for a in atoms),
        bonds=np.array([[b[0].index, b[1].index] for b in topology.bonds()], int).reshape(-1, 2),
    )
