"""Parts of a list of pairs: each pair once, or the pairs of chosen atoms alone.

They are for use within an energy, on the list that the frame carries; the list itself always has all pairs twice, from
which sums over the neighbours of an atom need no scatter.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool

from metastable.core.pairs import Pairs


def half(pairs: Pairs) -> Pairs:
    """The list with each pair once: at the atom of the lower number or, of an atom and its own images, one of two."""
    own = jnp.arange(pairs.index.shape[1], dtype=pairs.index.dtype)
    keep = pairs.index > own
    if pairs.shift is not None:
        a, b, c = (pairs.shift[..., k] for k in range(3))
        ahead = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
        keep = keep | ((pairs.index == own) & ahead)
    return _masked(pairs, keep)


def between(pairs: Pairs, first: Bool[Array, " atoms"], second: Bool[Array, " atoms"]) -> Pairs:
    """The list with the neighbours in ``second`` of the atoms in ``first``; the others have none.

    For the pairs of two types of atoms. first, second: whether an atom belongs to either.
    """
    return _masked(pairs, jnp.asarray(first) & jnp.asarray(second)[pairs.index])


def _masked(pairs: Pairs, keep: Bool[Array, "most atoms"]) -> Pairs:
    own = jnp.arange(pairs.index.shape[1], dtype=pairs.index.dtype)
    shift = None if pairs.shift is None else jnp.where(keep[..., None], pairs.shift, 0)
    return dataclasses.replace(pairs, index=jnp.where(keep, pairs.index, own), shift=shift)
