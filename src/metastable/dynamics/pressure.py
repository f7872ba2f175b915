"""The pressure, from the derivative of the energy with respect to a strain that moves whole molecules.

A strain S, a lower triangular matrix, takes the box to box S and the centre of mass X of each molecule to X S; its
atoms move along as one piece, so that bonds and constraints feel nothing and need no virial of their own. Molecules
must be whole: their atoms next to one another, not brought into the box one by one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.contracts import Potential
from metastable.core.frame import Frame
from metastable.core.space import times, volume
from metastable.potentials.analytic import UNROLLED, Index


def molecular(groups: Any) -> Index | None:
    """The molecule of each atom as modules keep it: numbers from 0 without a gap; None where each atom is one.

    Raises ValueError where a number is left out.
    """
    if groups is None or isinstance(groups, Index):
        return groups
    found, expected = np.unique(np.asarray(groups, int)), len(np.unique(groups))
    if np.ndim(groups) != 1 or not np.array_equal(found, np.arange(expected)):
        raise ValueError(
            f"groups: the molecule of each atom, numbered from 0 to {expected - 1} without a gap, not of shape "
            f"{np.shape(groups)} with the numbers {found[:10].tolist()}; core.space.molecules makes them from bonds"
        )
    return Index(groups)


def count(groups: Index | None, atoms: int) -> int:
    """How many molecules."""
    return atoms if groups is None else int(np.max(groups.array)) + 1


def summed(values: Float[Array, "atoms n"], groups: Index | None) -> Float[Array, "groups n"]:
    """The sum over the atoms of each molecule; molecules of one size are gathered together, without a scatter."""
    if groups is None:
        return values
    label = groups.array
    order, counts = np.argsort(label, kind="stable"), np.bincount(label)
    first = np.cumsum(counts) - counts
    parts, molecules = [], []
    for size in np.unique(counts):
        alike = np.flatnonzero(counts == size)
        table = order[first[alike][:, None] + np.arange(size)]
        parts.append(_rows(values, table))
        molecules.append(alike)
    return jnp.concatenate(parts)[np.argsort(np.concatenate(molecules))]


def centres(
    positions: Float[Array, "atoms 3"], masses: Float[Array, " atoms"], groups: Index | None
) -> Float[Array, "atoms 3"]:
    """The centre of mass of the molecule that each atom belongs to, nm."""
    return positions if groups is None else _centres(positions, masses, groups)[groups.array]


def strained(frame: Frame, strain: Float[Array, "3 3"], masses: Float[Array, " atoms"], groups: Any = None) -> Frame:
    """The frame after a strain: x + X (S - 1) for an atom of a molecule with its centre at X, and box S.

    strain: S, lower triangular, as boxes are. masses: Da. groups: the molecule of each atom; None: each is one.
    """
    change = strain - jnp.eye(3, dtype=strain.dtype)
    masses = jnp.asarray(masses, frame.positions.dtype)
    positions = frame.positions + times(centres(frame.positions, masses, molecular(groups)), change)
    box = None if frame.box is None else frame.box + times(frame.box, change)
    return type(frame)(positions, box, frame.pairs)


def strained_momenta(
    momenta: Float[Array, "atoms 3"], inverse: Float[Array, "3 3"], masses: Float[Array, " atoms"], groups: Any = None
) -> Float[Array, "atoms 3"]:
    """The momenta after a strain: those P of the centres go to P S^-T, so that phase space keeps its volume.

    inverse: S^-1. The velocity of each molecule changes as a whole.
    """
    change, groups = inverse.T - jnp.eye(3, dtype=inverse.dtype), molecular(groups)
    if groups is None:
        return momenta + times(momenta, change)
    masses = jnp.asarray(masses, momenta.dtype)
    total = summed(jnp.concatenate([momenta, masses[:, None]], 1), groups)
    velocity = times(total[:, :3], change) / total[:, 3:]
    return momenta + masses[:, None] * velocity[groups.array]


def virial(
    potential: Potential, frame: Frame, masses: Float[Array, " atoms"], groups: Any = None
) -> Float[Array, "3 3"]:
    """The molecular virial, -dU/dS at S = 1, kJ/mol: symmetric, and positive where the system pushes outwards.

    Of an unsymmetric one, as single frames of molecules with a torque have it, this is the lower triangle twice:
    what a strain does that keeps the box lower triangular. potential: one that is right for any box.
    masses: Da, (atoms,). groups: the molecule of each atom, host array, (atoms,); None: each atom is one.
    """
    dtype = frame.positions.dtype
    groups = molecular(groups)
    one = jnp.eye(3, dtype=dtype)
    slope = jax.grad(lambda strain: potential(strained(frame, strain, masses, groups)))(one)
    return _mirrored(-slope)


def pressure_tensor(
    potential: Potential,
    frame: Frame,
    momenta: Float[Array, "atoms 3"],
    masses: Float[Array, " atoms"],
    groups: Any = None,
) -> Float[Array, "3 3"]:
    """(sum over molecules of P P^T / M - dU/dS) / V, kJ/mol/nm^3; divide by ``units.bar`` for bar.

    P, M: momentum and mass of a molecule. The other arguments are those of :func:`virial`; mirrored as it is.
    The average of the first term is N kT / V on the diagonal, N the number of molecules, N - 1 where the total momentum
    is held at zero. Allen, Tildesley 2017, doi:10.1093/oso/9780198803195.001.0001, section 2.4.

    Raises ValueError where the frame has no box.
    """
    if frame.box is None:
        raise ValueError("pressure: the frame has no box, hence no volume; give it one")
    groups = molecular(groups)
    masses = jnp.asarray(masses, momenta.dtype)
    total = summed(jnp.concatenate([momenta, masses[:, None]], 1), groups)
    momentum, mass = total[:, :3], jnp.where(total[:, 3:] > 0, total[:, 3:], 1)
    kinetic = jnp.stack([jnp.sum(momentum * momentum[:, k : k + 1] / mass, 0) for k in range(3)])
    return (kinetic + virial(potential, frame, masses, groups)) / volume(frame.box)


def pressure(
    potential: Potential,
    frame: Frame,
    momenta: Float[Array, "atoms 3"],
    masses: Float[Array, " atoms"],
    groups: Any = None,
) -> Float[Array, ""]:
    """A third of the trace of :func:`pressure_tensor`, whose arguments it has, kJ/mol/nm^3."""
    return jnp.trace(pressure_tensor(potential, frame, momenta, masses, groups)) / 3


def _centres(positions, masses, groups):
    """Of each molecule, from its atoms' distances to the first one: far from the origin nothing is lost."""
    first = np.unique(groups.array, return_index=True)[1]
    origin = positions[first]
    moments = masses[:, None] * (positions - origin[groups.array])
    total = summed(jnp.concatenate([moments, masses[:, None]], 1), groups)
    return origin + total[:, :3] / total[:, 3:]


def _rows(values, table):
    """The sums of the rows that a table names: written out where they are few."""
    if table.shape[1] > UNROLLED:
        return values[table].sum(1)
    first, *rest = (values[column] for column in table.T)
    return sum(rest, start=first)


def _mirrored(matrix):
    lower = jnp.tril(matrix)
    return lower + jnp.tril(matrix, -1).T
