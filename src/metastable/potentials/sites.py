"""Virtual sites: atoms without mass whose places follow from those of others, their parents.

The energy is a function of the parents alone, E(x) = U(place(x)). Its gradient hands what pulls at a site on to the
parents by the chain rule, and leaves none on the site.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.potentials.analytic import Index, leaf


class Average(eqx.Module):
    """Sites at r1 + a (r2 - r1) + b (r3 - r1) + c (r2 - r1) x (r3 - r1), nm.

    With c = 0 the weighted averages of two or three parents, otherwise out of their plane.

    index: the sites, (sites,). parents: (sites, 3); for two of them the third is any, with b = 0.
    weights: a, b, and c in 1/nm, (sites, 3).
    """

    index: Index = eqx.field(static=True, converter=Index)
    parents: Index = eqx.field(static=True, converter=lambda parents: Index(parents, 3))
    weights: Float[Array, "sites 3"] = eqx.field(converter=leaf)

    def __call__(self, positions: Float[Array, "atoms 3"]) -> Float[Array, "sites 3"]:
        """Where the sites belong, nm."""
        first, second, third = (positions[column] for column in np.asarray(self.parents).T)
        a, b, c = jnp.asarray(self.weights, positions.dtype).T[..., None]
        one, two = second - first, third - first
        return first + a * one + b * two + c * _cross(one, two)


class Local(eqx.Module):
    """Sites at fixed coordinates in axes that the parents carry, nm.

    The axes are x along sum_j u_j r_j, z along x cross sum_j v_j r_j, and y = z cross x, from the origin sum_j w_j r_j.
    The weights w of a site add up to 1, u and v to 0.

    index: the sites, (sites,). parents: (sites, k). origin, along, across: w, u and v, (sites, k).
    coordinates: nm, (sites, 3).
    """

    index: Index = eqx.field(static=True, converter=Index)
    parents: Index = eqx.field(static=True, converter=Index)
    origin: Float[Array, "sites k"] = eqx.field(converter=leaf)
    along: Float[Array, "sites k"] = eqx.field(converter=leaf)
    across: Float[Array, "sites k"] = eqx.field(converter=leaf)
    coordinates: Float[Array, "sites 3"] = eqx.field(converter=leaf)

    def __call__(self, positions: Float[Array, "atoms 3"]) -> Float[Array, "sites 3"]:
        """Where the sites belong, nm."""
        first, *others = (positions[column] for column in np.asarray(self.parents).T)
        arms = [other - first for other in others]

        def combined(weights):
            columns = jnp.asarray(weights, positions.dtype).T[1:, :, None]
            return sum((w * arm for w, arm in zip(columns, arms, strict=True)), start=jnp.zeros_like(first))

        x = _unit(combined(self.along))
        z = _unit(_cross(x, combined(self.across)))
        px, py, pz = jnp.asarray(self.coordinates, positions.dtype).T[..., None]
        return first + combined(self.origin) + px * x + py * _cross(z, x) + pz * z


class Sites(eqx.Module):
    """The virtual sites of a system.

    groups: of sites of one kind, each to be placed after those that its parents are among.
    """

    groups: tuple[Average | Local, ...] = ()

    def __len__(self) -> int:
        return sum(len(group.index) for group in self.groups)

    @property
    def index(self) -> np.ndarray:
        """The atoms that are sites, (sites,)."""
        return np.concatenate([np.zeros(0, int), *(np.asarray(group.index) for group in self.groups)]).astype(int)

    def place(self, positions: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """The positions, nm, with every site where its parents say; where it was plays no part."""
        for group in self.groups:
            rows = np.arange(len(positions))
            rows[np.asarray(group.index)] = len(positions) + np.arange(len(group.index))
            positions = jnp.concatenate([positions, group(positions)])[rows]
        return positions

    def replace(self, values: Float[Array, "atoms 3"], others: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """The values of the atoms that are no sites, and the others of the sites."""
        if not self.groups:
            return values
        return jnp.where(np.isin(np.arange(len(values)), self.index)[:, None], others, values)

    def rest(self, momenta: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """The momenta with those of the sites zero."""
        return self.replace(momenta, jnp.zeros_like(momenta))


class WithSites(eqx.Module):
    """A potential of all atoms as one of those that are no sites: E(x) = U(place(x)), kJ/mol.

    potential: of a frame whose sites are in their places.
    """

    potential: Any
    sites: Sites

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return self.potential(self.placed(frame))

    @property
    def terms(self) -> dict[str, Any]:
        """Those of the potential, which is a :class:`~metastable.potentials.sum.Sum`."""
        return self.potential.terms

    def energies(self, frame: Frame) -> dict[str, Float[Array, ""]]:
        """Energy of each term of the potential, kJ/mol, by name."""
        return self.potential.energies(self.placed(frame))

    def placed(self, frame: Frame) -> Frame:
        """The frame with its sites where their parents say: what is a function of it pulls at the parents."""
        return frame.at(self.sites.place(frame.positions))


def _cross(a, b):
    x, y, z = (a[:, i] for i in range(3))
    u, v, w = (b[:, i] for i in range(3))
    return jnp.stack([y * w - z * v, z * u - x * w, x * v - y * u], -1)


def _unit(a):
    return a / jnp.sqrt(a[:, :1] ** 2 + a[:, 1:2] ** 2 + a[:, 2:] ** 2)
