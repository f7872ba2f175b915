"""Images: neighbours in a cell so small that an atom sees several images of others, and of itself.

So it is in crystals. There is no shortest box, and no nearest image: a neighbour is an atom and the integer vector of
the image that is meant. All atoms are tested against all images in so many boxes on each side.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from metastable.core.frame import Frame
from metastable.core.search import WORD, Tested, closer, heights, packed, thin
from metastable.core.space import fractional, times

_SHRINK = 1.03  # times that the box may shrink along any direction before more boxes must be looked at


class Images(NamedTuple):
    """How many boxes to look at on each side, along a, b and c."""

    range: tuple[int, int, int]


def images_for(box: np.ndarray, distance: float) -> Images:
    """The boxes to look at for neighbours within ``distance``, nm. On the host."""
    a, b, c = (int(n) for n in np.ceil(_SHRINK * distance / heights(box)))
    return Images((a, b, c))


def search_images(frame: Frame, distance: float, images: Images) -> Tested:
    """Every atom against every image of each, 32 at a time; :func:`decoded` tells what a candidate is."""
    assert frame.box is not None
    box, atoms, rows = frame.box, len(frame.positions), _rows(len(frame.positions))
    turns = _turns(frame)
    inside = frame.positions - times(turns.astype(box.dtype), box)
    steps = _steps(images)
    x = [inside[:, i] for i in range(3)]
    far = [jnp.pad(c, (0, rows * WORD - atoms)).reshape(rows, WORD) for c in x]
    number = np.arange(rows * WORD, dtype=np.int32).reshape(rows, WORD)
    own = jnp.arange(atoms, dtype=jnp.int32)

    def tested(_, step):
        shift = times(step.astype(box.dtype), box)
        home = jnp.all(step == 0)

        def near(bit):
            d = [lax.dynamic_index_in_dim(b, bit, 1) + shift[i] - x[i] for i, b in enumerate(far)]
            other = lax.dynamic_index_in_dim(jnp.asarray(number), bit, 1)
            return closer(d, distance) & (other < atoms) & ~(home & (other == own))

        return None, packed(near, WORD, (rows, atoms))

    words = lax.scan(tested, None, jnp.asarray(steps))[1].reshape(-1, atoms)
    misfit = thin(images.range, box, distance)
    return Tested(words, lambda word, bit: word * WORD + bit, jnp.zeros((), jnp.int32), misfit)


def decoded(
    found: Int[Array, "most atoms"], frame: Frame, images: Images
) -> tuple[Int[Array, "most atoms"], Int[Array, "most atoms 3"]]:
    """Index and shift of what :func:`search_images` found; the atom itself, unshifted, where that is -1.

    The neighbour is at positions[index] + shift @ box.
    """
    atoms, own = len(frame.positions), jnp.arange(len(frame.positions), dtype=jnp.int32)
    step, index = jnp.divmod(jnp.maximum(found, 0), _rows(atoms) * WORD)
    turns, there = _turns(frame), found >= 0
    index = jnp.where(there, index, own)
    shift = jnp.asarray(_steps(images))[step] - turns[index] + turns[own]
    return index, jnp.where(there[..., None], shift, 0)


def _rows(atoms: int) -> int:
    return -(-atoms // WORD)


def _steps(images: Images) -> np.ndarray:
    """The boxes that are looked at, (boxes, 3)."""
    return np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in images.range), indexing="ij"), -1).reshape(-1, 3)


def _turns(frame: Frame) -> Int[Array, "atoms 3"]:
    """The box that each atom is in. Kept as it is: worked out twice, rounding might differ at the border of a box."""
    assert frame.box is not None
    return lax.optimization_barrier(jnp.floor(fractional(frame.positions, frame.box)).astype(jnp.int32))
