"""Sums over near pairs: any function of a distance, with a cutoff, from the list that a frame carries.

A law is the energy of a pair, kJ/mol: law(r2, one, other, shared), elementwise in the squared distance r2, nm^2, and in
the features of its two atoms, which are tuples of arrays with an entry an atom; shared holds what all pairs have in
common. Forces follow from the derivative of the law in r2. Each atom gathers its own neighbours, so that nothing is
scattered; each pair is seen from both ends.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, partners
from metastable.core.space import nearest_components
from metastable.potentials.analytic import Index, cast, leaf, with_gradient

Law = Callable[[Any, Any, Any, Any], Any]

ATOMS = 2048
"""The neighbours of so many atoms are looked at together: their terms stay in the cache."""

_TERMS, _LEAST, _MOST = 8192, 8, 64
"""So many terms at once, if that takes neither fewer nor more neighbours: XLA is ten times slower with half of them."""


class PairPotential(eqx.Module):
    """E = sum over pairs closer than ``cutoff`` of law(r2, one, other, parameters), kJ/mol.

    law: see the module; it must go to 0 at the cutoff where energies are to be conserved.
    features: arrays with an entry an atom, a tuple. parameters: what all pairs share.
    cutoff: nm. excluded: pairs that do not count, (pairs, 2).
    """

    law: Law = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)
    features: tuple[Float[Array, " atoms"], ...] = eqx.field(default=(), converter=lambda f: tuple(map(leaf, f)))
    parameters: Any = eqx.field(default=(), converter=lambda parameters: jax.tree.map(leaf, parameters))
    excluded: Index = eqx.field(static=True, default=(), converter=lambda index: Index(index, 2))

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        one = cast(self, frame.positions.dtype)
        return near_sum(self.law, frame, self.cutoff, one.features, one.parameters, self.excluded)


def near_sum(law: Law, frame: Frame, cutoff: float, features: Any, shared: Any, excluded: Any = ()) -> Float[Array, ""]:
    """The sum of a law over all pairs closer than ``cutoff``, kJ/mol; see :class:`PairPotential`.

    The list must have been made with the same ``excluded``. Where the frame carries none, all pairs are looked at.
    Raises ValueError where the list is too short-sighted.
    """
    listed, features = _listed(frame, cutoff, excluded), jax.tree.map(jnp.asarray, features)
    return _joined(law, cutoff)(frame.positions, (frame.box, listed, features, shared))


class Near(NamedTuple):
    """The neighbours of each atom within a cutoff: every pair from both ends.

    index: the neighbour. vectors: from the atom to it, nm, (3, most, atoms). squared: their squared lengths, nm^2.
    mask: whether there is such a neighbour, closer than the cutoff; where not, squared is cutoff^2.
    """

    index: Int[Array, "most atoms"]
    vectors: Float[Array, "3 most atoms"]
    squared: Float[Array, "most atoms"]
    mask: Bool[Array, "most atoms"]


def displacements(frame: Frame, cutoff: float, excluded: Any = ()) -> Near:
    """What each atom sees within ``cutoff``, nm, for any potential: differentiable in the positions and in the box.

    From the list that the frame carries, of nearest images or of all images; or from all pairs where it carries none,
    where the box must then be at least twice the cutoff. excluded: pairs that do not count, (pairs, 2); a list must
    have been made with the same. A function of them that is to be smooth must go to 0 at the cutoff.

    Raises ValueError where the list is too short-sighted.
    """
    listed = _listed(frame, cutoff, excluded)
    own = jnp.arange(len(frame.positions), dtype=jnp.int32)
    d, squared, mask = _apart(frame.positions, frame.positions, frame.box, own, listed, cutoff)
    return Near(listed.index, -jnp.stack(d), squared, mask)


class _Listed(NamedTuple):
    """index and shift as :class:`~metastable.core.pairs.Pairs` has them."""

    index: Int[Array, "most atoms"]
    shift: Int[Array, "most atoms 3"] | None


def _listed(frame: Frame, cutoff: float, excluded: Any) -> _Listed:
    """The neighbours of each atom from the list of the frame, or all others; itself where it has fewer."""
    if isinstance(frame.pairs, Pairs):
        if frame.pairs.cutoff < cutoff:
            raise ValueError(
                f"the list of pairs goes to {frame.pairs.cutoff:g} nm, and a potential needs {cutoff:g} nm: allocate "
                "it with the largest cutoff"
            )
        if len(excluded) and not len(frame.pairs.excluded):
            raise ValueError(
                f"the list of pairs excludes none, and a potential excludes {len(excluded)}: allocate it with them, "
                "allocate(..., excluded=...)"
            )
        return _Listed(frame.pairs.index, frame.pairs.shift)
    atoms = len(frame.positions)
    own = jnp.arange(atoms, dtype=jnp.int32)
    index = (own + jnp.arange(1, max(atoms, 2), dtype=jnp.int32)[:, None]) % atoms
    for partner in partners(excluded, atoms):
        index = jnp.where(index == partner, own, index)
    return _Listed(index, None)


def _apart(here, positions, box, own, listed: _Listed, cutoff: float):
    """The components of atom - neighbour; their square, cutoff^2 where there is none; and whether there is one."""
    index, shift = listed
    d = [here[:, i] - _taken(positions[:, i], index) for i in range(3)]
    there = index != own
    if shift is not None:
        there = there | jnp.any(shift != 0, -1)
        turns = shift.astype(positions.dtype)
        d = [c - sum(turns[..., k] * box[k, i] for k in range(i, 3)) for i, c in enumerate(d)]
    elif box is not None:
        d = nearest_components(*d, box)
    r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    near = (r2 < cutoff**2) & there
    return d, jnp.where(near, r2, cutoff**2), near


def _taken(x, index):
    """x[index] for indices that are in bounds, without the care that jnp takes of others: a tenth of the time."""
    one = lax.GatherDimensionNumbers((), (0,), (0,))
    return lax.gather(x, index[..., None], one, (1,), mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def _joined(law: Law, cutoff: float):
    """Plain energy and gradient kernel of a law; parameters are (box, listed, features, shared)."""

    def energy(positions, parameters):
        box, listed, features, shared = parameters
        _, r2, near = _apart(positions, positions, box, jnp.arange(len(positions)), listed, cutoff)
        pairs = law(r2, features, jax.tree.map(lambda f: _taken(f, listed.index), features), shared)
        return 0.5 * jnp.sum(jnp.sum(jnp.where(near, pairs, 0), 0))

    def gradient(positions, parameters):
        box, listed, features, shared = parameters
        own, blocks = _blocks(listed, len(positions))

        def of_part(_, part):
            own, blocks = part
            here, one = positions[own], jax.tree.map(lambda f: f[own], features)

            def add(total, block):
                d, r2, near = _apart(here, positions, box, own, block, cutoff)
                other = jax.tree.map(lambda f: _taken(f, block.index), features)
                slope = jax.jvp(lambda r2: law(r2, one, other, shared), [r2], [jnp.ones_like(r2)])[1]
                weight = jnp.where(near, 2 * slope, 0)
                return [t + jnp.sum(weight * c, 0) for t, c in zip(total, d, strict=True)], None

            total, _ = lax.scan(add, [jnp.zeros(len(own), positions.dtype)] * 3, blocks)
            return None, jnp.stack(total, -1)

        forces = lax.scan(of_part, None, (own, blocks))[1]
        return forces.reshape(-1, 3)[: len(positions)]

    return with_gradient(energy, gradient)


def _blocks(listed: _Listed, atoms: int):
    """The atoms in parts, (parts, width), and their neighbours in blocks, (parts, blocks, rows, width).

    How the neighbours are shared out does not depend on the capacity of the list, so that sums round alike.
    """
    parts = -(-atoms // ATOMS)
    width = -(-atoms // parts)
    rows = min(_MOST, max(_LEAST, -(-_TERMS // width // 8) * 8))
    blocks = -(-len(listed.index) // rows)
    own = jnp.minimum(jnp.arange(parts * width, dtype=listed.index.dtype), atoms - 1)
    index = jnp.concatenate([listed.index, jnp.broadcast_to(own[:atoms], (blocks * rows - len(listed.index), atoms))])
    index = jnp.pad(index, ((0, 0), (0, parts * width - atoms)), constant_values=atoms - 1)
    shift = listed.shift
    if shift is not None:
        shift = jnp.pad(shift, ((0, blocks * rows - len(shift)), (0, parts * width - atoms), (0, 0)))
        shift = shift.reshape(blocks, rows, parts, width, 3).transpose(2, 0, 1, 3, 4)
    index = index.reshape(blocks, rows, parts, width).transpose(2, 0, 1, 3)
    return own.reshape(parts, width), _Listed(index, shift)
