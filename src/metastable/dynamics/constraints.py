"""Constraints of a system: rigid water by SETTLE, other fixed bonds by clusters, virtual sites put in their places."""

from typing import Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.system import System
from metastable.dynamics.clusters import Clusters, components
from metastable.dynamics.settle import Settle
from metastable.potentials.sites import Sites


class Unconstrained(eqx.Module):
    """No constraint: gives back what it is given."""

    def positions(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """``new`` itself."""
        return new

    def moves(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """Zeros."""
        return jnp.zeros_like(new)

    def momenta(
        self, momenta: Float[Array, "atoms 3"], frame: Frame, masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """``momenta`` themselves."""
        return momenta


class Constraints(eqx.Module):
    """All that the dynamics of a system keeps; make it with :meth:`from_system`.

    waters: rigid triangles, solved in closed form. clusters: all other fixed distances, iterated. sites: atoms without
    mass that follow others; ``positions`` puts them in their places, ``momenta`` makes theirs zero.
    """

    waters: Settle
    clusters: Clusters
    sites: Sites

    @classmethod
    def from_system(
        cls,
        system: System,
        masses: Float[Array, " atoms"] | None = None,
        positions: Float[Array, "atoms 3"] | None = None,
    ) -> Self:
        """The constraints and sites of a system.

        Three constraints that form a triangle by themselves, with two equal sides between equal masses, are a rigid
        water.

        masses: Da, where they differ from the system's. positions: nm, a geometry with usual bond angles; needed
        only where more than four constraints hang together. Both only decide how fast large clusters converge.

        Raises ValueError where a length is not positive, where a triangle cannot close, or where ``positions`` are
        needed and not given.
        """
        pairs, lengths = np.asarray(system.constraints, int), np.asarray(system.lengths, float)
        weights = np.asarray(system.masses if masses is None else masses, float)
        if np.any(lengths <= 0):
            raise ValueError(f"constraint lengths must be positive; the least is {lengths.min()} nm")
        taken, waters = _waters(pairs, lengths, weights)
        rest = np.setdiff1d(np.arange(len(pairs)), taken)
        clusters = Clusters.from_pairs(pairs[rest], lengths[rest], weights, positions)
        return cls(waters, clusters, system.sites or Sites())

    def __len__(self) -> int:
        """How many constraints and sites there are: 0 where nothing is to be kept."""
        return 3 * len(self.waters) + len(self.clusters) + len(self.sites)

    def positions(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """``new``, moved along the constraint vectors of ``old`` until the constraints hold, and its sites placed."""
        new = self.waters.positions(new, old, masses)  # these and the clusters have no atom in common
        return self.sites.place(self.clusters.positions(new, old, masses))

    def moves(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """What ``positions`` adds to ``new``, nm, to more digits than their difference has."""
        moves = [held.moves(new, old, masses) for held in (self.waters, self.clusters) if len(held)]
        moved = sum(moves, start=jnp.zeros_like(new)) if len(moves) != 1 else moves[0]
        return self.sites.replace(moved, self.sites.place(new + moved) - new)

    def momenta(
        self, momenta: Float[Array, "atoms 3"], frame: Frame, masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """The momenta, or any forces, without what would change the lengths of the constraints, Da nm/ps."""
        momenta = self.waters.momenta(momenta, frame, masses)
        return self.sites.rest(self.clusters.momenta(momenta, frame, masses))

    def residual(self, positions: Float[Array, "*batch atoms 3"]) -> Float[Array, "*batch"]:
        """The largest relative error of a constraint, max_k | |r_k| / d_k - 1 |, of each frame."""
        errors = jnp.abs(jnp.concatenate([c.stretch(positions) for c in (self.waters, self.clusters)], -1) - 1)
        finite = jnp.all(jnp.isfinite(errors), axis=-1)  # the maximum alone can lose a NaN
        return jnp.where(finite, jnp.max(errors, axis=-1, initial=0), jnp.nan)


def _waters(pairs, lengths, masses) -> tuple[np.ndarray, Settle]:
    """The numbers of the constraints that belong to rigid waters, and these."""
    threes = [m for m in components(pairs, len(masses)) if len(m) == 3]
    constraints = np.array(threes, int).reshape(-1, 3)
    ends = np.sort(pairs[constraints].reshape(-1, 6), -1)
    closed = np.all(ends[:, ::2] == ends[:, 1::2], -1)
    constraints, corners = constraints[closed], ends[closed, ::2]
    found = np.zeros(len(corners), bool)
    atoms, legs, bases = np.zeros_like(corners), np.zeros(len(corners)), np.zeros(len(corners))
    for apex in range(3):
        o, one, two = np.roll(corners, -apex, 1).T
        facing = ~np.any(pairs[constraints] == o[:, None, None], -1)  # the constraint that the oxygen has no part in
        base = lengths[constraints][facing]
        leg, other = lengths[constraints][~facing].reshape(-1, 2).T
        mine = ~found & np.isclose(leg, other, 1e-9, 0) & (masses[one] == masses[two]) & (masses[[o, one]].min(0) > 0)
        if np.any(mine & (base >= 2 * leg)):
            n = int(np.argmax(mine & (base >= 2 * leg)))
            raise ValueError(f"constraints of {leg[n]}, {leg[n]} and {base[n]} nm form no triangle: {corners[n]}")
        atoms[mine], legs[mine], bases[mine] = np.stack([o, one, two], 1)[mine], leg[mine], base[mine]
        found |= mine
    return constraints[found].ravel(), Settle(atoms[found], legs[found], bases[found])
