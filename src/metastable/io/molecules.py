"""Molecules: a system, where its atoms are, and what they feel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.core.frame import Frame
from metastable.core.pairs import check_box
from metastable.core.space import reduced, spanning, whole
from metastable.core.system import System, Topology
from metastable.io.forcefield import box_vectors, terms
from metastable.io.parameters import file_problems, system_from_parameters, system_from_xml, xml_problems
from metastable.io.rules import Box, Implicit, Rules, Solvate
from metastable.io.sites import sites_of
from metastable.io.structures import name_of, read_structure, structure_problems
from metastable.io.tables import number, plain
from metastable.potentials.nonbonded import Nonbonded
from metastable.potentials.periodic import Periodic
from metastable.potentials.sites import WithSites
from metastable.potentials.sum import Sum


class Molecule(NamedTuple):
    """What a force field makes of a structure.

    system: atoms, constraints and virtual sites. frame: the start, nm. potential: kJ/mol, with its terms by name; a
    WithSites where there are virtual sites.
    """

    system: System
    frame: Frame
    potential: Sum | WithSites


def load_molecule(
    structure: str | Path,
    forcefield: str | Sequence[str] = ("amber14-all.xml",),
    *,
    parameters: str | Path | Sequence[str | Path] | None = None,
    implicit: Implicit | str | None = None,
    constraints: str = "none",
    hydrogen_mass: float | None = None,
    fix: bool = False,
    ph: float = 7.0,
    box: Box | None = None,
    solvate: Solvate | None = None,
) -> Molecule:
    """Read a molecule and give it a force field, in vacuum, implicit solvent or a box, through ``openmm.app``.

    structure: PDB, mmCIF, Amber inpcrd, CHARMM crd or GROMACS gro.
    forcefield: XML files, OpenMM's own by name; passed over where ``parameters`` is given.
    parameters: instead of XML an Amber prmtop, a CHARMM psf and its parameter files, or a GROMACS top (and,
    second, the folder of its includes).
    implicit: a model by name, or with its settings; None where the XML files say it, or for vacuum.
    constraints: none, hydrogen-bonds, all-bonds or hydrogen-angles.
    hydrogen_mass: Da, taken from the heavy atom that a hydrogen is bound to; None for its own.
    fix: add missing atoms and hydrogens, protonated for ``ph``, with pdbfixer.
    box: make space periodic. solvate: fill the box with water and ions; the force field must know them.

    Raises InputError with all the problems found: missing files, unknown names, atoms that overlap, missing
    hydrogens, residues that are unknown or incomplete, forces that are not supported.
    """
    implicit = Implicit(implicit) if isinstance(implicit, str) else implicit
    rules = Rules(constraints, hydrogen_mass, implicit, box, solvate)
    xml = [forcefield] if isinstance(forcefield, str) else [str(f) for f in forcefield]
    given = [parameters] if isinstance(parameters, str | Path) else list(parameters or [])
    problems = [*file_problems("structure", [structure]), *file_problems("parameters", given), *rules.problems()]
    problems += [] if given else xml_problems(xml)
    if given and fix:
        problems.append(Problem("fix", "adds atoms that the parameter files do not know: complete the structure first"))
    if given and solvate is not None:
        problems.append(Problem("solvate", "adds water that the parameter files do not know: use XML force fields"))
    if problems:
        raise InputError(*problems)
    start = read_structure(structure, fix=fix, ph=ph)
    if start.topology is None and not given:
        raise InputError(Problem("structure", f"{structure} has coordinates only: give parameters, or a PDB file"))
    if given:
        system, topology = system_from_parameters(start, [str(p) for p in given], rules)
        sites = [i for i in range(system.getNumParticles()) if system.isVirtualSite(i)]
        problems = structure_problems(str(structure), start, elements=False, sites=sites)
    else:
        problems = structure_problems(str(structure), start)
    if problems:
        raise InputError(*problems)
    if not given:
        system, start = system_from_xml(start, xml, rules)
        topology = start.topology
    return from_openmm(system, topology, start.positions)


def from_openmm(system: Any, topology: Any, positions: Any) -> Molecule:
    """Turn an ``openmm.System`` into a molecule: every force becomes a term, every constraint a constraint.

    Virtual sites are put in their places, and what pulls at them pulls at their parents.

    positions: an OpenMM quantity, or nm, (atoms, 3).

    Raises InputError, naming each force that is not understood, each virtual site that lacks its parents, or atoms
    that do not fit together.
    """
    in_nm: Any = np.array([list(p) for p in plain(positions)], float)
    atoms = system.getNumParticles()
    if not atoms == topology.getNumAtoms() == len(in_nm):
        raise InputError(
            f"the system has {atoms} particles, the topology {topology.getNumAtoms()} atoms and there are "
            f"{len(in_nm)} positions: they must be of the same molecule"
        )
    potential: Sum | WithSites = Sum(terms(system))
    sites = sites_of(system)
    lost = [a for a in topology.atoms() if a.element is None and number(system.getParticleMass(a.index)) == 0]
    problems = [
        Problem(f"particle {a.index}", f"{name_of(a)} has no mass, no element and no parents: make it a virtual site")
        for a in lost
        if not system.isVirtualSite(a.index)
    ]
    if problems:
        raise InputError(*problems[:10])
    nonbonded = potential.terms.get("nonbonded")
    vectors: Any = None
    if isinstance(nonbonded, Periodic):
        in_nm, vectors = _in_box(system, topology, in_nm, nonbonded)
    if sites is not None:
        potential = WithSites(potential, sites)
        with jax.enable_x64(True):
            in_nm = np.array(sites.place(jnp.asarray(in_nm)))
    rows = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    return Molecule(
        System(
            numbers=np.array([a.element.atomic_number if a.element else 0 for a in topology.atoms()]),
            masses=np.array([number(system.getParticleMass(i)) for i in range(atoms)]),
            charges=np.array(nonbonded.charges) if isinstance(nonbonded, Nonbonded | Periodic) else np.zeros(atoms),
            topology=topology_of(topology),
            constraints=np.array([r[:2] for r in rows], int).reshape(-1, 2),
            lengths=np.array([number(r[2]) for r in rows]),
            sites=sites,
        ),
        Frame(in_nm, vectors),
        potential,
    )


def _in_box(system: Any, topology: Any, positions: np.ndarray, nonbonded: Periodic) -> tuple[np.ndarray, np.ndarray]:
    """Positions with whole molecules, and the reduced box. Raises InputError where the box is too small."""
    try:
        vectors = reduced(box_vectors(system))
        check_box(vectors, nonbonded.cutoff)
    except ValueError as error:
        raise InputError(Problem("box", str(error))) from error
    bonds = [(b[0].index, b[1].index) for b in topology.bonds()]
    bonds += [tuple(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())]
    with jax.enable_x64(True):
        together = whole(jnp.asarray(positions), jnp.asarray(vectors), spanning(np.array(bonds), len(positions)))
        return np.array(together), vectors


def topology_of(topology: Any) -> Topology:
    """The names and bonds of an ``openmm.app.Topology``."""
    atoms = list(topology.atoms())
    return Topology(
        atom_names=tuple(a.name for a in atoms),
        residue_names=tuple(a.residue.name for a in atoms),
        residue_ids=tuple(str(a.residue.id) for a in atoms),
        chain_ids=tuple(str(a.residue.chain.id) for a in atoms),
        bonds=np.array([[b[0].index, b[1].index] for b in topology.bonds()], int).reshape(-1, 2),
    )
