"""Molecules in a box: which of their images are drawn."""

from typing import Any

import numpy as np

from metastable.core.space import molecules, spanning
from metastable.estimate.transport import centers

_MANY = 10


def molecules_of(topology: Any) -> np.ndarray:
    """The number of the molecule that each atom of an ``mdtraj.Topology`` belongs to."""
    return molecules(_bonds(topology), topology.n_atoms)


def largest(group: np.ndarray) -> int:
    """The number of the molecule that has the most atoms."""
    return int(np.argmax(np.bincount(group)))


def is_liquid(group: np.ndarray) -> bool:
    """Whether no molecule has a tenth of the atoms: then there is none that the others could be seen around."""
    return int(np.bincount(group).max()) * _MANY < len(group)


def gather(traj: Any, group: np.ndarray, liquid: bool) -> None:
    """Make each molecule whole, and bring it near to the largest or, in a liquid, into the box about the origin.

    traj: an ``mdtraj.Trajectory`` with reduced boxes, changed in place. group: as :func:`molecules_of` gives it.
    """
    tree = spanning(_bonds(traj.topology), traj.n_atoms)
    if len(tree):
        traj.make_molecules_whole(inplace=True, sorted_bonds=tree.astype(np.int32))
    box = np.asarray(traj.unitcell_vectors, float)[:, None]  # (frames, 1, 3, 3)
    middles = centers(np.asarray(traj.xyz, float), np.ones(len(group)), group)
    middle = 0.5 * box.sum(2) if liquid else middles[:, largest(group), None]
    apart = middles - middle
    for k in (2, 1, 0):  # the rows of a reduced box form a triangle
        apart -= np.round(apart[..., k] / box[..., k, k])[..., None] * box[..., k, :]
    traj.xyz = (traj.xyz + (apart - middles)[:, group]).astype(np.float32)


def _bonds(topology: Any) -> np.ndarray:
    return np.array([(a.index, b.index) for a, b in topology.bonds], int).reshape(-1, 2)
