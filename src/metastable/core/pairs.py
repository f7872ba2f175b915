"""Pairs: which atoms are near one another, kept for some steps.

A list is allocated once, on the host, by :func:`allocate`, with room for so many neighbours an atom; it is made anew
under jit by :meth:`Pairs.update`. Where the room does not suffice, or an atom moved farther between two looks than the
skin allows, ``overflow`` is set and stays set: the host reads it between blocks, allocates more (:func:`enlarged`), and
repeats the block.

Each atom has at most one image within the cutoff of any other, and the nearest is meant; or, in cells of crystals, a
list holds images: see :mod:`metastable.core.images`.
"""

import dataclasses
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from metastable.core.frame import Frame
from metastable.core.images import Images, decoded, images_for, search_images
from metastable.core.search import MOST, Cells, cells_for, indices, roomy, search_all, search_cells, thin
from metastable.core.space import fractional, times

_ROOM = 1.1  # capacities over what the first frame needs


class Pairs(eqx.Module):
    """The neighbours of each atom: every pair twice, none that is excluded.

    index: the k-th neighbour of each atom, the atom itself where it has fewer, (most, atoms).
    shift: where a list holds images, the box that the neighbour is in: it is at positions[index] + shift @ box, and
    an atom with shift 0 is not its own neighbour, (most, atoms, 3). None: the nearest image is meant.
    reference: where the atoms were when the list was made, nm. box: the box then; None where space is not periodic.
    count: the most neighbours that an atom had. crowd: the most atoms that a cell of the search had.
    updates: how often the list was made.
    overflow: whether a pair may be missing: for want of room, because an atom moved too far in a step, or because the
    box shrank too much.
    cutoff, skin: nm. The list holds all pairs that are closer than ``cutoff`` for as long as it is not stale.
    grid: how to search: in cells, in images, or among all.
    """

    index: Int[Array, "most atoms"]
    shift: Int[Array, "most atoms 3"] | None
    reference: Float[Array, "atoms 3"]
    box: Float[Array, "3 3"] | None
    excluded: Int[Array, "excluded atoms"]
    count: Int[Array, ""]
    crowd: Int[Array, ""]
    updates: Int[Array, ""]
    overflow: Bool[Array, ""]
    cutoff: float = eqx.field(static=True)
    skin: float = eqx.field(static=True)
    grid: Cells | Images | None = eqx.field(static=True)

    def stale(self, frame: Frame, margin: Float[Array, ""] | float = 0.0) -> Bool[Array, ""]:
        """Whether a pair closer than ``cutoff`` may be missing, if each atom goes ``margin`` (nm) farther.

        Two atoms come closer by the ways of both, where the box strains by that as well: the reference is strained
        with it, and a pair beyond cutoff + skin comes closer by at most the strain times that distance.
        """
        reference, slack = self.reference, jnp.asarray(self.skin, frame.positions.dtype)
        if self.box is not None and frame.box is not None:
            reference = times(fractional(reference, self.box), frame.box)
            # Frobenius' norm bounds the length of any strained vector
            strain = jnp.sqrt(jnp.sum(_strain(self.box, frame.box) ** 2))
            slack = slack - strain * (self.cutoff + self.skin)
        way = jnp.sqrt(jnp.max(jnp.sum((frame.positions - reference) ** 2, -1)))
        return ~(2 * (way + margin) <= slack)  # also where it is not a number

    def update(self, frame: Frame) -> Self:
        """The list of the frame, made anew."""
        distance, own = self.cutoff + self.skin, jnp.arange(len(frame.positions), dtype=jnp.int32)
        if isinstance(self.grid, Cells):
            tested = search_cells(frame, distance, self.grid)
        elif isinstance(self.grid, Images):
            tested = search_images(frame, distance, self.grid)
        else:
            tested = search_all(frame, distance)
        found, count = indices(tested.words, tested.candidate, len(self.index))
        shift, overflow = None, self.overflow | tested.misfit | (count > len(self.index))
        if isinstance(self.grid, Images):
            found, shift = decoded(found, frame, self.grid)
        else:
            found = jnp.where(found < 0, own, found)
            if frame.box is not None:
                overflow = overflow | (jnp.min(jnp.diagonal(frame.box)) < 2 * self.cutoff * (1 - 1e-6))
        for partner in self.excluded:
            found = jnp.where(found == partner, own, found)
        count, crowd = jnp.maximum(count, self.count), jnp.maximum(tested.crowd, self.crowd)
        new = (found, shift, frame.positions, frame.box, count, crowd, self.updates + 1, overflow)
        names = ("index", "shift", "reference", "box", "count", "crowd", "updates", "overflow")
        return dataclasses.replace(self, **dict(zip(names, new, strict=True)))


def allocate(
    frame: Frame,
    cutoff: float,
    skin: float = 0.1,
    *,
    excluded: Any = (),
    room: float = _ROOM,
    most: int | None = None,
    images: bool = False,
) -> Pairs:
    """A list for a frame, with capacities that suffice for ``room`` times what the frame needs. On the host.

    cutoff, skin: nm. excluded: pairs of atoms that are to be in no list, (pairs, 2). most: neighbours an atom, where
    the guess from the frame is not wanted. images: whether an atom may see several images of another, and its own.

    Raises ValueError where the box is smaller than twice the cutoff and ``images`` is not asked for, or numbers make
    no sense.
    """
    atoms, left_out = len(frame.positions), partners(excluded, len(frame.positions))
    if not (cutoff > 0 and skin >= 0):
        raise ValueError(f"cutoff = {cutoff} nm must be positive and skin = {skin} nm not negative")
    if images and (frame.box is None or len(left_out)):
        raise ValueError("a list of images needs a box, and excludes no pairs: leave out images=True")
    positions = jnp.asarray(frame.positions)
    here = Frame(positions, None if frame.box is None else jnp.asarray(frame.box, positions.dtype))
    if frame.box is not None and not images:
        box = np.asarray(frame.box, float)
        check_box(box, cutoff)
        if np.any(box[np.tril_indices(3, -1)]):  # farther away the nearest image of a triclinic box is not certain
            skin = min(skin, float(np.min(np.diagonal(box))) - cutoff)
    nothing, none = jnp.zeros((0, atoms), jnp.int32), jnp.zeros((), jnp.int32)
    trial = Pairs(
        nothing, jnp.zeros((0, atoms, 3), jnp.int32) if images else None, positions, here.box, jnp.asarray(left_out),
        none, none, none, jnp.asarray(False), float(cutoff), float(skin), _grid(here, cutoff + skin, room, images)
    )  # fmt: skip
    if most is None:
        most = int(np.ceil(room * int(_update(_sized(trial, 1), here).count))) + 4
    return _update(_sized(trial, most), here)


def enlarged(pairs: Pairs, after: Pairs, room: float = 1.25) -> Pairs:
    """The list made anew, of the frame that it was made of, with room for what ``after`` needed. On the host.

    after: what became of the list in a block that overflowed. room: times that.
    Neighbours are kept in the same order whatever the room, so that sums over them round alike. Only where the box
    shrank too much, or a cell cannot hold its atoms, the search changes, and where nothing was too small an atom moved
    too far in a step: then the skin becomes wider.

    Raises ValueError where the box became smaller than twice the cutoff, or positions are not finite.
    """
    if not np.isfinite(np.asarray(after.reference)).all():
        raise ValueError("a list of pairs met positions that are not finite: shorten the time step, or minimise first")
    images, distance, grid = isinstance(pairs.grid, Images), pairs.cutoff + pairs.skin, pairs.grid
    if after.box is not None and not images:
        check_box(np.asarray(after.box, float), after.cutoff)
    if isinstance(grid, Cells) and int(after.crowd) > grid.room:
        grid = grid._replace(room=roomy(room * int(after.crowd)))
    layers = grid.layers if isinstance(grid, Cells) else grid.range if isinstance(grid, Images) else None
    if (
        layers is not None
        and after.box is not None
        and (bool(thin(layers, after.box, distance)) or int(after.crowd) > MOST)
    ):
        grid = _grid(Frame(after.reference, after.box), distance, room, images)
    most = int(after.count) if int(after.count) <= len(pairs.index) else int(room * int(after.count)) + 1
    grown = dataclasses.replace(_sized(pairs, max(most, len(pairs.index))), grid=grid)
    if bool(after.overflow) and grid == pairs.grid and len(grown.index) == len(pairs.index):
        return _wider(pairs, max(1.5 * pairs.skin, 0.1 * pairs.cutoff), room)
    grown = dataclasses.replace(grown, overflow=jnp.asarray(False), updates=pairs.updates - 1)
    return _update(grown, Frame(pairs.reference, pairs.box))


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
            f"must be at least {2 * cutoff:g} nm; enlarge the box, take a cutoff of at most {least / 2:.4g} nm, or, in "
            "the cell of a crystal, allocate(..., images=True)"
        )


def _strain(old, new):
    """new = old (1 + strain), of triangular boxes."""
    return fractional(jnp.eye(3, dtype=old.dtype), old) @ new - jnp.eye(3, dtype=old.dtype)


def _wider(pairs: Pairs, skin: float, room: float) -> Pairs:
    """The list with a wider skin, and a search that lets the box shrink by a tenth."""
    excluded = [(i, j) for row in pairs.excluded.tolist() for i, j in enumerate(row) if i < j]
    frame, images = Frame(pairs.reference, pairs.box), isinstance(pairs.grid, Images)
    new = allocate(frame, pairs.cutoff, skin, excluded=excluded, room=room, images=images)
    if skin > pairs.cutoff or new.skin <= pairs.skin:
        raise ValueError(
            f"atoms move farther in a step than half of the skin, {pairs.skin:.4g} nm, and with a cutoff of "
            f"{pairs.cutoff:g} nm it cannot be wider: shorten the time step, minimise first, or enlarge the box"
        )
    grid = _grid(frame, 1.1 * (new.cutoff + new.skin), room, images)
    return _update(dataclasses.replace(new, grid=grid, updates=pairs.updates - 1), frame)


def _grid(frame: Frame, distance: float, room: float, images: bool) -> Cells | Images | None:
    """How to search a frame."""
    if frame.box is None:
        return None
    positions, box = np.asarray(frame.positions, float), np.asarray(frame.box, float)
    return images_for(box, distance) if images else cells_for(positions, box, distance, room)


def _sized(pairs: Pairs, most: int) -> Pairs:
    """An empty list with room for so many neighbours an atom, or some more."""
    atoms = len(pairs.reference)
    most = max(1, -(-most // 8) * 8)
    most = most if isinstance(pairs.grid, Images) else max(1, min(atoms - 1, most))
    index = jnp.tile(jnp.arange(atoms, dtype=jnp.int32), (most, 1))
    shift = None if pairs.shift is None else jnp.zeros((most, atoms, 3), jnp.int32)
    return dataclasses.replace(pairs, index=index, shift=shift)


_update = eqx.filter_jit(Pairs.update)
