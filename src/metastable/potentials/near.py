"""Sums over near pairs: any function of a distance, with a cutoff, from the list that a frame carries.

A law is the energy of a pair, kJ/mol: law(r2, one, other, shared), elementwise in the squared distance r2, nm^2, and in
the features of its two atoms, which are tuples of arrays with an entry an atom; shared holds what all pairs have in
common. Forces follow from the derivative of the law in r2. Each atom gathers its own neighbours, so that nothing is
scattered; each pair is seen from both ends.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, partners
from metastable.core.space import nearest_components
from metastable.potentials.analytic import Index, cast, leaf, with_gradient

Law = Callable[[Any, Any, Any, Any], Any]

ROWS = 8
ATOMS = 2048
"""So many neighbours of so many atoms are looked at together: their terms stay in the cache."""


class PairPotential(eqx.Module):
    """E = sum over pairs closer than ``cutoff`` of law(r2, one, other, parameters), kJ/mol.

    law: see the module; it must go to 0 at the cutoff where energies are to be conserved.
    features: arrays with an entry an atom, a tuple. parameters: what all pairs share.
    cutoff: nm. excluded: pairs that do not count, (pairs, 2).
    """

    law: Law = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)
    features: tuple[Float[Array, " atoms"], ...] = eqx.field(default=(), converter=lambda f: tuple(map(leaf, f)))
    parameters: Any = ()
    excluded: Index = eqx.field(static=True, default=(), converter=lambda index: Index(index, 2))

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        one = cast(self, frame.positions.dtype)
        return near_sum(self.law, frame, self.cutoff, one.features, one.parameters, self.excluded)


def near_sum(law: Law, frame: Frame, cutoff: float, features: Any, shared: Any, excluded: Any = ()) -> Float[Array, ""]:
    """The sum of a law over all pairs closer than ``cutoff``, kJ/mol; see :class:`PairPotential`.

    The list must have been made with the same ``excluded``. Where the frame carries none, all pairs are looked at.
    Raises ValueError where the list is too short-sighted.
    """
    return _joined(law, cutoff)(frame.positions, (frame.box, neighbours(frame, cutoff, excluded), features, shared))


def neighbours(frame: Frame, cutoff: float, excluded: Any = ()) -> Int[Array, "most atoms"]:
    """The neighbours of each atom from the list of the frame, or all others; itself where it has fewer."""
    if isinstance(frame.pairs, Pairs):
        if frame.pairs.cutoff < cutoff:
            raise ValueError(
                f"the list of pairs goes to {frame.pairs.cutoff:g} nm, and a potential needs {cutoff:g} nm: allocate "
                "it with the largest cutoff"
            )
        return frame.pairs.index
    atoms = len(frame.positions)
    own = jnp.arange(atoms, dtype=jnp.int32)
    index = (own + jnp.arange(1, max(atoms, 2), dtype=jnp.int32)[:, None]) % atoms
    for partner in partners(excluded, atoms):
        index = jnp.where(index == partner, own, index)
    return index


def _joined(law: Law, cutoff: float):
    """Plain energy and gradient kernel of a law; parameters are (box, index, features, shared)."""

    def squared(here, positions, box, own, index):
        d = [here[:, i] - positions[:, i][index] for i in range(3)]
        d = d if box is None else nearest_components(*d, box)
        r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        near = (r2 < cutoff**2) & (index != own)
        return d, jnp.where(near, r2, cutoff**2), near

    def energy(positions, parameters):
        box, index, features, shared = parameters
        _, r2, near = squared(positions, positions, box, jnp.arange(len(positions)), index)
        pairs = law(r2, features, jax.tree.map(lambda f: f[index], features), shared)
        return 0.5 * jnp.sum(jnp.sum(jnp.where(near, pairs, 0), 0))

    def gradient(positions, parameters):
        box, index, features, shared = parameters
        atoms = len(positions)
        parts = -(-atoms // ATOMS)
        width, rows = -(-atoms // parts), -(-len(index) // ROWS)
        own = jnp.minimum(jnp.arange(parts * width, dtype=index.dtype), atoms - 1)
        index = jnp.concatenate([index, jnp.broadcast_to(own[:atoms], (rows * ROWS - len(index), atoms))])
        index = jnp.pad(index, ((0, 0), (0, parts * width - atoms)), constant_values=atoms - 1)

        def of_part(_, part):
            own, index = part
            here, one = positions[own], jax.tree.map(lambda f: f[own], features)

            def add(total, index):
                d, r2, near = squared(here, positions, box, own, index)
                other = jax.tree.map(lambda f: f[index], features)
                slope = jax.jvp(lambda r2: law(r2, one, other, shared), [r2], [jnp.ones_like(r2)])[1]
                weight = jnp.where(near, 2 * slope, 0)
                return [t + jnp.sum(weight * c, 0) for t, c in zip(total, d, strict=True)], None

            total, _ = lax.scan(add, [jnp.zeros(width, positions.dtype)] * 3, index)
            return None, jnp.stack(total, -1)

        blocks = index.reshape(rows, ROWS, parts, width).transpose(2, 0, 1, 3)
        forces = lax.scan(of_part, None, (own.reshape(parts, width), blocks))[1]
        return forces.reshape(-1, 3)[:atoms]

    return with_gradient(energy, gradient)
