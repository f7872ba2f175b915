"""Where a run starts: the frame of a molecule, in the precision of the run."""

from typing import Any

import jax.numpy as jnp

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs
from metastable.io.molecules import Molecule


def start_of(molecule: Molecule) -> Frame:
    """The frame of the molecule in the precision of the run."""
    positions, box = molecule.frame.positions, molecule.frame.box
    return Frame(jnp.asarray(positions, float), None if box is None else jnp.asarray(box, float))


def pairs_of(molecule: Molecule, frame: Frame, skin: float = 0.1) -> Pairs:
    """A list that suits the molecule's non-bonded energy. skin: nm."""
    nonbonded: Any = molecule.potential.terms["nonbonded"]
    return nonbonded.pairs(frame, skin)


def listed(molecule: Molecule) -> Frame:
    """The same frame with a list of its near pairs, where it is in a box."""
    frame = start_of(molecule)
    if frame.box is None:
        return frame
    return Frame(frame.positions, frame.box, pairs_of(molecule, frame))
