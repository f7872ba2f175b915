"""Search: which atoms are closer than a distance, under jit, with arrays of fixed size.

Atoms are tested in words of 32 (all against all in small systems, else the atoms of nearby cells), one bit a test, so
that a test costs a few vectorised operations and no memory; then the bits of each atom are turned into indices, one
after the other for all atoms at once, which gathers little more than it gives out.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from metastable.core.frame import Frame
from metastable.core.space import closest_components, fractional, nearest_components, reach, times

WORD = 32
"""Tests in a word."""

MOST = 2 * WORD
"""Atoms in a cell, at most: two words."""

_CELLS = 256  # that are tested together: they are to stay in the cache
_CROWD = 18  # atoms that a cell holds on average, at most
_SHRINK = 1.02  # times that a cell is too thick at first, so that a box may shrink a little


class Cells(NamedTuple):
    """A grid of cells. counts: along a, b and c. range: cells to look at on each side. room: atoms in a cell."""

    counts: tuple[int, int, int]
    range: tuple[int, int, int]
    room: int

    @property
    def layers(self) -> tuple[float, ...]:
        """How far the search looks on each side, in units of the box."""
        return tuple(n / whole for n, whole in zip(self.range, self.counts, strict=True))


class Tested(NamedTuple):
    """What a search found.

    words: the tests, 32 bits each, (words, atoms). candidate(word, bit): what a bit stands for, for all atoms at once.
    crowd: the most atoms of a cell. misfit: whether a pair may be missing, as the cells no longer suit the frame.
    """

    words: Array
    candidate: Callable[[Any, Any], Any]
    crowd: Int[Array, ""]
    misfit: Bool[Array, ""]


def heights(box: np.ndarray) -> np.ndarray:
    """The distances between opposite faces of the box, nm. On the host."""
    return 1 / np.linalg.norm(np.linalg.inv(box), axis=0)


def roomy(atoms: float) -> int:
    """The room of a cell that holds so many atoms."""
    return min(MOST, 2 * math.ceil(atoms / 2))


def cells_for(positions: np.ndarray, box: np.ndarray, distance: float, room: float) -> Cells | None:
    """A grid for so many atoms, or None where all pairs are tested faster. On the host."""
    thickness, density = heights(box), len(positions) / abs(np.linalg.det(box))
    side = min(distance, (_CROWD / density) ** (1 / 3))
    parts = max(1, round(distance / side))
    counts = np.floor(thickness / (_SHRINK * distance / parts)).astype(int)
    around = np.ceil(distance / (thickness / np.maximum(counts, 1) / _SHRINK) - 1e-9).astype(int)
    if np.any(counts < 2 * around + 1):
        return None
    f = positions @ np.linalg.inv(box)
    places = np.minimum(np.floor((f - np.floor(f)) * counts).astype(int), counts - 1)
    crowd = np.bincount(np.ravel_multi_index(tuple(places.T), counts)).max()
    mean = len(positions) / np.prod(counts)
    occupancy = roomy(max(room * crowd, room * mean + 3 * np.sqrt(mean) / 2))
    tests = np.prod(counts) * occupancy**2 * np.prod(2 * around + 1)
    if max(crowd, 1.3 * mean + 2) > MOST or tests > len(positions) ** 2:
        return None
    a, b, c = (int(x) for x in counts)
    p, q, r = (int(x) for x in around)
    return Cells((a, b, c), (p, q, r), occupancy)


def thin(layers: tuple[float, ...], box: Float[Array, "3 3"], distance: float) -> Bool[Array, ""]:
    """Whether so many boxes, or parts of one, are thinner than ``distance`` along a, b or c."""
    inverse = fractional(jnp.eye(3, dtype=box.dtype), box)
    return jnp.any(jnp.sum(inverse**2, axis=0) > (np.array(layers) / (distance * (1 - 1e-5))) ** 2)


def _place(positions, box, counts: np.ndarray) -> tuple[Int[Array, " atoms"], Float[Array, "atoms 3"]]:
    """The cell of each atom, and its place along the box vectors, 0 to 1."""
    f = fractional(positions, box)
    f = f - jnp.floor(f)
    cell = jnp.clip(jnp.floor(f * counts).astype(jnp.int32), 0, counts - 1)
    return (cell[:, 0] * counts[1] + cell[:, 1]) * counts[2] + cell[:, 2], f


def closer(d: Sequence[Array], distance: float) -> Array:
    """Whether displacements, their three components apart, are shorter than ``distance``."""
    return d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < distance**2


def packed(test: Callable[[Array], Array], bits: int, shape: tuple[int, int]) -> Array:
    """``test(bit)`` of each of so many bits, packed into words of this shape.

    In a loop: written out it runs no faster, in some shapes four times slower, and compiles ten times longer.
    """

    def one(bit, found):
        return found | jnp.where(test(bit), jnp.uint32(1) << bit.astype(jnp.uint32), np.uint32(0))

    return lax.fori_loop(0, bits, one, jnp.zeros(shape, jnp.uint32))


def search_all(frame: Frame, distance: float) -> Tested:
    """Every atom against every other, 32 at a time; of each the nearest image."""
    atoms = len(frame.positions)
    words = -(-atoms // WORD)
    x = [frame.positions[:, i] for i in range(3)]
    far = [jnp.pad(c, (0, words * WORD - atoms)).reshape(words, WORD).T for c in x]
    first = np.arange(words, dtype=np.int32)[:, None] * WORD
    own = jnp.arange(atoms, dtype=jnp.int32)

    def tested(image):
        def near(bit):
            other = first + bit
            d = image(*(a - b[bit][:, None] for a, b in zip(x, far, strict=True)))
            return closer(d, distance) & (other != own) & (other < atoms)

        return packed(near, WORD, (words, atoms))

    box = frame.box
    if box is None:
        found = tested(lambda *d: d)
    else:  # beyond the reach of a triclinic box the nearest image takes four times as long to find
        oblique = (box[1, 0] != 0) | (box[2, 0] != 0) | (box[2, 1] != 0)
        found = lax.cond(
            oblique & (distance > reach(box)),
            lambda: tested(lambda x, y, z: closest_components(x, y, z, box)),
            lambda: tested(lambda x, y, z: nearest_components(x, y, z, box)),
        )
    return Tested(found, lambda word, bit: word * WORD + bit, jnp.zeros((), jnp.int32), jnp.asarray(False))


def search_cells(frame: Frame, distance: float, cells: Cells) -> Tested:
    """The atoms of each cell against those of the cells around it."""
    assert frame.box is not None
    counts, around, room, box = np.array(cells.counts), cells.range, cells.room, frame.box
    size, atoms = int(np.prod(counts)), len(frame.positions)
    place, inside = _place(frame.positions, box, counts)
    order = jnp.argsort(place, stable=True).astype(jnp.int32)
    first = jnp.searchsorted(place[order], jnp.arange(size + 1, dtype=jnp.int32)).astype(jnp.int32)
    slot = first[:-1] + jnp.arange(room, dtype=jnp.int32)[:, None]
    filled = slot < first[1:]
    table = jnp.where(filled, order[jnp.minimum(slot, atoms - 1)], atoms)  # (room, cells)
    nowhere = jnp.full((1, 3), jnp.nan, frame.positions.dtype)
    x = jnp.concatenate([times(inside, box), nowhere])[table.reshape(-1)]
    x = [x[:, i].reshape(room, size) for i in range(3)]
    steps = np.array(list(itertools.product(*(range(-r, r + 1) for r in around))))
    cell = np.stack(np.unravel_index(np.arange(size), counts), -1) + steps[:, None]  # (steps, cells, 3), unwrapped
    turns = np.floor_divide(cell, counts)
    beside = np.ravel_multi_index(tuple(np.moveaxis(cell - turns * counts, -1, 0)), counts).astype(np.int32)
    own = ~steps.any(1)
    width = size // counts[0] * max(n for n in range(1, counts[0] + 1) if counts[0] % n == 0 and (
        n == 1 or n * counts[1] * counts[2] <= _CELLS))  # fmt: skip

    slots = np.arange(room, dtype=np.uint32)
    itself = np.where(slots // WORD == np.arange(-(-room // WORD))[:, None], np.uint32(1) << slots % WORD, np.uint32(0))
    itself = itself[..., None]  # (words of a step, room, 1)

    def slab(_, cells):
        mine, beside, turns = cells
        here = [c[:, mine] for c in x]
        return None, lax.scan(lambda _, step: (None, tests(here, *step)), None, (beside, turns, jnp.asarray(own)))[1]

    def tests(here, beside, turns, own):
        shift = times(turns.astype(box.dtype), box)
        other = [c[:, beside] + shift[:, i] for i, c in enumerate(x)]

        def near(first):
            return lambda bit: closer(
                [a - lax.dynamic_index_in_dim(b, first + bit) for a, b in zip(here, other, strict=True)], distance
            )

        found = [packed(near(k), min(WORD, room - k), (room, width)) for k in range(0, room, WORD)]
        return jnp.where(own, jnp.stack(found) & ~itself, jnp.stack(found))

    parts = size // width
    slabs = (
        jnp.arange(size, dtype=jnp.int32).reshape(parts, width),
        jnp.asarray(beside.reshape(len(steps), parts, width).swapaxes(0, 1)),
        jnp.asarray(turns.reshape(len(steps), parts, width, 3).swapaxes(0, 1), jnp.int8),
    )
    words = lax.scan(slab, None, slabs)[1]  # (slabs, steps, words of a step, room, cells of a slab)
    rank = jnp.zeros(atoms, jnp.int32).at[order].set(jnp.arange(atoms, dtype=jnp.int32) - first[place[order]])
    flat, beside = table.reshape(-1), jnp.asarray(beside.ravel())
    crowd = jnp.max(first[1:] - first[:-1])
    misfit = thin(cells.layers, box, distance) | (crowd > room)
    rows, row = len(steps) * len(itself), room * width
    mine = place // width * (rows * row) + jnp.minimum(rank, room - 1) * width + place % width
    words = words.reshape(-1)
    words = lax.map(lambda k: words[mine + k * row], jnp.arange(rows, dtype=jnp.int32))  # all at once it is transposed

    def candidate(word, bit):
        if len(itself) == 2:  # shifts: divisions would take as long as all the rest
            word, bit = word >> 1, bit + (word & 1) * WORD
        return flat[bit * size + beside[word * size + place]]

    return Tested(words, candidate, crowd, misfit)


def indices(words: Any, candidate: Callable[[Any, Any], Any], most: int):
    """(what the k-th set bit of each column stands for, -1 beyond the last; the most set bits of a column).

    words, candidate: see :class:`Tested`.
    """
    last, (size, atoms) = np.int32(len(words)), words.shape
    count = jnp.max(jnp.sum(lax.population_count(words).astype(jnp.int32), axis=0))

    def before(after, row):  # the next word that is not empty, for each word
        word, number = row
        return jnp.where(word != 0, number, after), after

    nothing = jnp.full(atoms, last, jnp.int32)
    first, following = lax.scan(before, nothing, (words, jnp.arange(size, dtype=jnp.int32)), reverse=True)
    words = jnp.concatenate([words, jnp.zeros((1, atoms), words.dtype)]).reshape(-1)
    following = jnp.concatenate([following, nothing[None]]).reshape(-1)
    column = jnp.arange(atoms, dtype=jnp.int32)

    def next_bit(carry, _):
        word, bits = carry
        lowest = bits & (~bits + np.uint32(1))
        bit = lax.population_count(lowest - np.uint32(1)).astype(jnp.int32)
        found = jnp.where(word < last, candidate(jnp.minimum(word, last - 1), jnp.minimum(bit, WORD - 1)), -1)
        rest = bits ^ lowest
        done = rest == 0
        word = jnp.where(done, following[word * atoms + column], word)
        return (word, jnp.where(done, words[word * atoms + column], rest)), found

    _, found = lax.scan(next_bit, (first, words[first * atoms + column]), None, length=most)
    return found, count
