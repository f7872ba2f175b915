"""Pairs: which atoms are near one another, kept for some steps.

A list is allocated once, on the host, by :func:`allocate`, with room for so many neighbours an atom; it is made anew
under jit by :meth:`Pairs.update`. Where the room does not suffice, or an atom moved farther between two looks than the
skin allows, ``overflow`` is set and stays set: the host reads it between blocks, allocates more, and repeats the block.

How a list is made: atoms are tested in words of 32 (all against all in small systems, else the atoms of nearby
cells), one bit a test, so that a test costs a few vectorised operations and no memory; then the bits of each atom are
turned into indices, one after the other for all atoms at once, which gathers little more than it gives out.
"""

import itertools
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from metastable.core.frame import Frame
from metastable.core.space import fractional, nearest_components, reach

_WORD = 32  # tests in a word
_ROOM = 1.1  # capacities over what the first frame needs
_CELLS = 256  # that are tested together: they are to stay in the cache
_CROWD = 18  # atoms that a cell holds on average, at most


class Cells(NamedTuple):
    """A grid of cells. counts: along a, b and c. range: cells to look at on each side. room: atoms in a cell."""

    counts: tuple[int, int, int]
    range: tuple[int, int, int]
    room: int


class Pairs(eqx.Module):
    """The neighbours of each atom: every pair twice, none that is excluded.

    index: the k-th neighbour of each atom, the atom itself where it has fewer, (most, atoms).
    reference: where the atoms were when the list was made, nm. box: the box then; None where space is not periodic.
    count: the most neighbours that an atom had. updates: how often the list was made.
    overflow: whether a pair may be missing, for want of room or because an atom moved too far in a step.
    cutoff, skin: nm. The list holds all pairs that are closer than ``cutoff`` for as long as it is not stale.
    """

    index: Int[Array, "most atoms"]
    reference: Float[Array, "atoms 3"]
    box: Float[Array, "3 3"] | None
    excluded: Int[Array, "excluded atoms"]
    count: Int[Array, ""]
    updates: Int[Array, ""]
    overflow: Bool[Array, ""]
    cutoff: float = eqx.field(static=True)
    skin: float = eqx.field(static=True)
    cells: Cells | None = eqx.field(static=True)

    def stale(self, frame: Frame, margin: Float[Array, ""] | float = 0.0) -> Bool[Array, ""]:
        """Whether a pair closer than ``cutoff`` may be missing, if each atom goes ``margin`` (nm) farther.

        Two atoms come closer by the ways of both, where the box strains by that as well: the reference is strained
        with it, and a pair beyond cutoff + skin comes closer by at most the strain times that distance.
        """
        reference, slack = self.reference, jnp.asarray(self.skin, frame.positions.dtype)
        if self.box is not None and frame.box is not None:
            reference = fractional(reference, self.box) @ frame.box
            strain = jnp.max(jnp.sum(jnp.abs(_strain(self.box, frame.box)), axis=1))
            slack = slack - strain * (self.cutoff + self.skin)
        way = jnp.sqrt(jnp.max(jnp.sum((frame.positions - reference) ** 2, -1)))
        return ~(2 * (way + margin) <= slack)  # also where it is not a number

    def update(self, frame: Frame) -> Self:
        """The list of the frame, made anew."""
        words, base = _tested(self, frame)
        most, atoms = self.index.shape
        found, count = _indices(words, base, most)
        found = jnp.where(found < 0, jnp.arange(atoms, dtype=jnp.int32), found)
        for partner in self.excluded:
            found = jnp.where(found == partner, jnp.arange(atoms, dtype=jnp.int32), found)
        overflow = self.overflow | (count > most)
        if self.cells is not None:
            overflow = overflow | _misfit(self, frame)
        new = (found, frame.positions, frame.box, jnp.maximum(count, self.count), self.updates + 1, overflow)
        places = lambda p: (p.index, p.reference, p.box, p.count, p.updates, p.overflow)  # noqa: E731
        return eqx.tree_at(places, self, new, is_leaf=lambda x: x is None)


def allocate(
    frame: Frame, cutoff: float, skin: float = 0.1, *, excluded: Any = (), room: float = _ROOM, most: int | None = None
) -> Pairs:
    """A list for a frame, with capacities that suffice for ``room`` times what the frame needs. On the host.

    cutoff, skin: nm. excluded: pairs of atoms that are to be in no list, (pairs, 2). most: neighbours an atom, where
    the guess from the frame is not wanted.

    Raises ValueError where the box is smaller than twice the cutoff, or numbers make no sense.
    """
    atoms = len(frame.positions)
    if not (cutoff > 0 and skin >= 0):
        raise ValueError(f"cutoff = {cutoff} nm must be positive and skin = {skin} nm not negative")
    box = None if frame.box is None else np.asarray(frame.box, float)
    if box is not None:
        check_box(box, cutoff)
        if np.any(box[np.tril_indices(3, -1)]):  # beyond the reach of a triclinic box no distance is certain
            skin = min(skin, float(reach(jnp.asarray(box))) - cutoff)
    positions = jnp.asarray(frame.positions)
    box = None if box is None else jnp.asarray(box, positions.dtype)
    none = jnp.zeros((), jnp.int32)
    left_out = jnp.asarray(partners(excluded, atoms))
    cells = None if box is None else _cells(np.asarray(positions, float), np.asarray(box, float), cutoff + skin, room)
    start = jnp.arange(atoms, dtype=jnp.int32)[None]
    trial = Pairs(start, positions, box, left_out, none, none, jnp.asarray(False), float(cutoff), float(skin), cells)
    here = Frame(positions, box)
    if most is None:
        most = int(np.ceil(room * int(eqx.filter_jit(Pairs.update)(trial, here).count))) + 4
    most = max(1, min(atoms - 1, -(-most // 8) * 8))
    return eqx.filter_jit(Pairs.update)(eqx.tree_at(lambda p: p.index, trial, jnp.tile(start, (most, 1))), here)


def partners(pairs: Any, atoms: int) -> Int[np.ndarray, "most atoms"]:
    """The partners of each atom among ``pairs``, (pairs, 2), the atom itself where it has fewer. On the host."""
    found: list[list[int]] = [[] for _ in range(atoms)]
    for i, j in np.asarray(pairs, int).reshape(-1, 2).tolist():
        found[i].append(j)
        found[j].append(i)
    most = max(map(len, found), default=0)
    return np.array([row + [i] * (most - len(row)) for i, row in enumerate(found)], np.int32).reshape(atoms, most).T


def kept(frame: Frame, margin: Float[Array, ""] | float = 0.0) -> Frame:
    """The frame with its list made anew where that is stale, or would be if each atom went ``margin`` (nm) farther.

    A frame without a list is given back as it is.
    """
    if not isinstance(frame.pairs, Pairs):
        return frame
    old, fixed = eqx.partition(frame.pairs, eqx.is_array)

    def update(old):
        return eqx.filter(eqx.combine(old, fixed).update(frame), eqx.is_array)

    new = lax.cond(frame.pairs.stale(frame, margin), update, lambda old: old, old)
    return Frame(frame.positions, frame.box, eqx.combine(new, fixed))


def check_box(box: Float[np.ndarray, "3 3"], cutoff: float) -> None:
    """Raise ValueError where an atom would see two images of another, or of itself, within the cutoff."""
    least = float(np.min(np.diagonal(box)))
    if least / 2 < cutoff:
        raise ValueError(
            f"the box is too small for a cutoff of {cutoff:g} nm: its shortest diagonal entry is {least:.4g} nm, and "
            f"must be at least {2 * cutoff:g} nm; enlarge the box, or take a cutoff of at most {least / 2:.4g} nm"
        )


def _strain(old, new):
    """new = old (1 + strain), of triangular boxes."""
    return fractional(jnp.eye(3, dtype=old.dtype), old) @ new - jnp.eye(3, dtype=old.dtype)


def _heights(box: np.ndarray) -> np.ndarray:
    """The distances between opposite faces of the box."""
    return 1 / np.linalg.norm(np.linalg.inv(box), axis=0)


def _cells(positions: np.ndarray, box: np.ndarray, distance: float, room: float) -> Cells | None:
    """A grid for so many atoms, or None where all pairs are tested faster."""
    heights, density = _heights(box), len(positions) / abs(np.linalg.det(box))
    side = min(distance, (_CROWD / density) ** (1 / 3))
    parts = max(1, round(distance / side))
    counts = np.floor(heights / (distance / parts) * (1 - 1e-4)).astype(int)
    around = np.ceil(distance / (heights / np.maximum(counts, 1)) - 1e-9).astype(int)
    if np.any(counts < 2 * around + 1):
        return None
    f = positions @ np.linalg.inv(box)
    places = np.minimum(np.floor((f - np.floor(f)) * counts).astype(int), counts - 1)
    crowd = np.bincount(np.ravel_multi_index(tuple(places.T), counts)).max()
    mean = len(positions) / np.prod(counts)
    occupancy = min(_WORD, 2 * int(np.ceil(max(room * crowd, room * mean + 3 * np.sqrt(mean) / 2) / 2)))
    tests = np.prod(counts) * occupancy**2 * np.prod(2 * around + 1)
    if max(crowd, 1.3 * mean + 2) > _WORD or tests > len(positions) ** 2:
        return None
    a, b, c = (int(x) for x in counts)
    p, q, r = (int(x) for x in around)
    return Cells((a, b, c), (p, q, r), occupancy)


def _misfit(pairs: Pairs, frame: Frame) -> Bool[Array, ""]:
    """Whether the grid no longer fits: a cell is too full, or the box shrank so far that cells are too thin."""
    assert pairs.cells is not None and frame.box is not None
    counts = np.array(pairs.cells.counts)
    inverse = fractional(jnp.eye(3, dtype=frame.box.dtype), frame.box)
    thickness = 1 / jnp.sqrt(jnp.sum(inverse**2, axis=0)) / counts
    thin = jnp.any(thickness * np.array(pairs.cells.range) < (pairs.cutoff + pairs.skin) * (1 - 1e-5))
    place, _ = _place(frame.positions, frame.box, counts)
    held = jnp.zeros(int(np.prod(counts)), jnp.int32).at[place].add(1)
    return thin | (jnp.max(held) > pairs.cells.room)


def _place(positions, box, counts: np.ndarray) -> tuple[Int[Array, " atoms"], Float[Array, "atoms 3"]]:
    """The cell of each atom, and its place along the box vectors, 0 to 1."""
    f = fractional(positions, box)
    f = f - jnp.floor(f)
    cell = jnp.clip(jnp.floor(f * counts).astype(jnp.int32), 0, counts - 1)
    return (cell[:, 0] * counts[1] + cell[:, 1]) * counts[2] + cell[:, 2], f


def _tested(pairs: Pairs, frame: Frame):
    """Words of tests, and the candidates that they stand for: (words, atoms) of 32 bits; see :func:`_indices`."""
    return _all(pairs, frame) if pairs.cells is None else _near(pairs, frame)


def _all(pairs: Pairs, frame: Frame):
    """Every atom against every other, 32 at a time."""
    atoms = len(frame.positions)
    words = -(-atoms // _WORD)
    x = [frame.positions[:, i] for i in range(3)]
    far = [jnp.pad(c, (0, words * _WORD - atoms)).reshape(words, _WORD) for c in x]
    number = np.arange(words * _WORD, dtype=np.int32).reshape(words, _WORD)
    square = (pairs.cutoff + pairs.skin) ** 2
    found = jnp.zeros((words, atoms), jnp.uint32)
    own = jnp.arange(atoms, dtype=jnp.int32)
    for bit in range(_WORD):
        other = number[:, bit, None]
        d = [a - b[:, bit, None] for a, b in zip(x, far, strict=True)]
        d = d if frame.box is None else nearest_components(*d, frame.box)
        near = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < square) & (other != own) & (other < atoms)
        found = found | jnp.where(near, np.uint32(1 << bit), np.uint32(0))
    return found, lambda word, bit: word * _WORD + bit


def _near(pairs: Pairs, frame: Frame):
    """The atoms of each cell against those of the cells around it."""
    assert pairs.cells is not None and frame.box is not None
    counts, around, room, box = np.array(pairs.cells.counts), pairs.cells.range, pairs.cells.room, frame.box
    size, atoms = int(np.prod(counts)), len(frame.positions)
    place, inside = _place(frame.positions, box, counts)
    order = jnp.argsort(place, stable=True).astype(jnp.int32)
    first = jnp.searchsorted(place[order], jnp.arange(size + 1, dtype=jnp.int32)).astype(jnp.int32)
    slot = first[:-1] + jnp.arange(room, dtype=jnp.int32)[:, None]
    filled = slot < first[1:]
    table = jnp.where(filled, order[jnp.minimum(slot, atoms - 1)], atoms)  # (room, cells)
    nowhere = jnp.full((1, 3), jnp.nan, frame.positions.dtype)
    x = jnp.concatenate([inside @ box, nowhere])[table.reshape(-1)]
    x = [x[:, i].reshape(room, size) for i in range(3)]
    square = (pairs.cutoff + pairs.skin) ** 2
    steps = np.array(list(itertools.product(*(range(-r, r + 1) for r in around))))
    cell = np.stack(np.unravel_index(np.arange(size), counts), -1) + steps[:, None]  # (steps, cells, 3), unwrapped
    turns = np.floor_divide(cell, counts)
    beside = np.ravel_multi_index(tuple(np.moveaxis(cell - turns * counts, -1, 0)), counts).astype(np.int32)
    own = ~steps.any(1)
    width = size // counts[0] * max(n for n in range(1, counts[0] + 1) if counts[0] % n == 0 and (
        n == 1 or n * counts[1] * counts[2] <= _CELLS))  # fmt: skip

    def slab(_, cells):
        mine, beside, turns = cells
        here = [c[:, mine] for c in x]
        return None, lax.scan(lambda _, step: (None, tests(here, *step)), None, (beside, turns, jnp.asarray(own)))[1]

    def tests(here, beside, turns, own):
        shift = turns.astype(box.dtype) @ box
        other = [c[:, beside] + shift[:, i] for i, c in enumerate(x)]

        def one(bit, found):  # a loop, for all of them written out are four times slower
            d = [a - lax.dynamic_index_in_dim(b, bit) for a, b in zip(here, other, strict=True)]
            near = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < square
            return found | jnp.where(near, jnp.uint32(1) << bit.astype(jnp.uint32), np.uint32(0))

        found = lax.fori_loop(0, room, one, jnp.zeros((room, width), jnp.uint32))
        itself = (np.uint32(1) << np.arange(room, dtype=np.uint32))[:, None]
        return jnp.where(own, found & ~itself, found)

    parts = size // width
    slabs = (
        jnp.arange(size, dtype=jnp.int32).reshape(parts, width),
        jnp.asarray(beside.reshape(len(steps), parts, width).swapaxes(0, 1)),
        jnp.asarray(turns.reshape(len(steps), parts, width, 3).swapaxes(0, 1), jnp.int8),
    )
    words = lax.scan(slab, None, slabs)[1]  # (slabs, steps, room, cells of a slab)
    words = jnp.moveaxis(words, 0, 2)  # (steps, room, slabs, cells of a slab)
    rank = jnp.zeros(atoms, jnp.int32).at[order].set(jnp.arange(atoms, dtype=jnp.int32) - first[place[order]])
    mine = jnp.minimum(rank, room - 1) * size + place
    flat, beside = table.reshape(-1), jnp.asarray(beside.ravel())
    return words.reshape(len(steps), -1)[:, mine], lambda word, bit: flat[bit * size + beside[word * size + place]]


def _indices(words, candidate, most: int):
    """(index of the k-th set bit of each column as an atom, -1 beyond the last; the most set bits of a column).

    words: (words, atoms). candidate(word, bit): the atom that a bit of a word stands for, for all columns at once.
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
        found = jnp.where(word < last, candidate(jnp.minimum(word, last - 1), jnp.minimum(bit, _WORD - 1)), -1)
        rest = bits ^ lowest
        done = rest == 0
        word = jnp.where(done, following[word * atoms + column], word)
        return (word, jnp.where(done, words[word * atoms + column], rest)), found

    _, found = lax.scan(next_bit, (first, words[first * atoms + column]), None, length=most)
    return found, count
