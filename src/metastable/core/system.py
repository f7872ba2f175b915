"""System: what does not move."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Topology:
    """Names and bonds, for people and for file formats. Host data: nothing here is traced.

    atom_names, residue_names, residue_ids, chain_ids: one entry an atom.
    bonds: pairs of atom indices, (bonds, 2).
    """

    atom_names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_ids: tuple[str, ...]
    chain_ids: tuple[str, ...]
    bonds: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))

    def __len__(self) -> int:
        return len(self.atom_names)


@dataclass(frozen=True)
class System:
    """The atoms: element numbers, masses, charges and names.

    numbers: atomic numbers, 0 for a particle that is no element, (atoms,).
    masses: Da, (atoms,). charges: e, (atoms,).
    constraints: pairs of atoms held at a fixed distance, (constraints, 2); lengths: nm, (constraints,).
    sites: what puts atoms without mass where others say, :class:`metastable.potentials.sites.Sites`; None without any.
    """

    numbers: np.ndarray
    masses: np.ndarray
    charges: np.ndarray
    topology: Topology
    constraints: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sites: Any = None

    def __post_init__(self):
        atoms = len(self.topology)
        for name in ("numbers", "masses", "charges"):
            if len(getattr(self, name)) != atoms:
                raise ValueError(f"System.{name} has {len(getattr(self, name))} entries, the topology {atoms} atoms")

    def __len__(self) -> int:
        return len(self.topology)

    @property
    def degrees_of_freedom(self) -> int:
        """3 a particle with mass, less one a constraint of any such."""
        moving = np.asarray(self.masses) > 0
        constraints = np.asarray(self.constraints, int).reshape(-1, 2)
        return 3 * int(np.count_nonzero(moving)) - int(np.count_nonzero(moving[constraints].any(-1)))
