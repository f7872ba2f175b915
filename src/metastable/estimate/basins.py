"""Minima of a free energy surface, the basins that drain into them, and the barriers between."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

from metastable.core.axis import Axis
from metastable.estimate.axes import grid
from metastable.estimate.density import Density, free_energy
from metastable.estimate.estimate import Estimate, log_ratio


@dataclass(frozen=True)
class Basins:
    """The basins of a surface, most populated first.

    labels: the basin of every cell, -1 where nothing was sampled and in basins that lie too high, (*bins).
    locations: the center of the lowest cell of each, in the units of the axes.
    free_energy: -kT ln(P_i / P_0) of whole basins against the first, kJ/mol. population: P_i.
    barrier: [i, j] from the lowest cell of i to the highest cell of the lowest path to j, kJ/mol: zero on the
        diagonal, NaN where every path crosses cells that were never sampled.
    """

    labels: Int[np.ndarray, "*bins"]
    locations: Float[np.ndarray, "basins cvs"]
    free_energy: Estimate
    population: Estimate
    barrier: Estimate

    def __len__(self) -> int:
        return len(self.locations)


HIGHEST = 12.0
"""kT above the most populated basin: others, six of a million frames at best, are mostly noise."""


def basins(density: Density, kT: float, *, merge: float | None = None, highest: float | None = None) -> Basins:
    """Find the minima of F = -kT ln p and give every cell the one to which it drains.

    Cells are flooded from the lowest up; where two lakes meet they become one if the shallower is less deep
    than ``merge`` (kJ/mol; kT where None), or than twice the error of its depth; the depth of an island among
    unsampled cells is up to its own highest cell. Basins that lie more than ``highest`` (kJ/mol; 12 kT where None)
    above the most populated one are left out. Watershed by flooding: Vincent and Soille (1991),
    doi:10.1109/34.87344. The cells of basins and of barriers are those of the
    whole data, the errors those of their populations over resamples.
    """
    merge = kT if merge is None else merge
    surface = free_energy(density, kT)
    f, error = surface.value.ravel(), np.nan_to_num(surface.error.ravel(), nan=0.0)
    labels, saddles = _watershed(f, error, density.axes, merge)

    p, drawn = density.probability.ravel(), density.resamples.reshape(len(density.resamples), -1)
    lakes = np.unique(labels)
    member = (labels[:, None] == lakes).astype(float)
    order = np.argsort(-(p @ member), kind="stable")
    highest = HIGHEST * kT if highest is None else highest
    order = order[(p @ member)[order] >= (p @ member).max() * np.exp(-highest / kT)]
    lakes, member = lakes[order], member[:, order]
    whole, whole_drawn = p @ member, drawn @ member
    every = drawn.sum(1, keepdims=True)
    name = np.full(len(f), -1)
    name[lakes] = np.arange(len(lakes))
    labels = np.where(np.isnan(f), -1, name[labels]).reshape(density.probability.shape)
    saddle = np.array([[i if i == j else saddles[min(i, j), max(i, j)] for j in lakes] for i in lakes])
    low = np.broadcast_to(lakes[:, None], saddle.shape)
    return Basins(
        labels,
        grid(density.axes).reshape(-1, len(density.axes))[lakes],
        log_ratio(whole, whole[0], whole_drawn, whole_drawn[:, :1], kT),
        Estimate(whole, np.std(whole_drawn - whole * every, axis=0)),
        log_ratio(p[saddle], p[low], drawn[:, saddle], drawn[:, low], kT),
    )


def barrier(density: Density, kT: float, start: tuple[float, ...], stop: tuple[float, ...]) -> Estimate:
    """How far to climb from the minimum around ``start`` on the lowest path to ``stop``, kJ/mol.

    start, stop: points in CV space, on sampled cells. The lowest path is the one whose highest cell is lowest;
    what is climbed from is the lowest cell that can be reached from start below that height. NaN where every
    path crosses cells that were never sampled. Serves profiles and surfaces. Single cells are noisy, and the lowest
    of them are picked: prefer bins with many samples to a kernel, which lowers barriers and raises minima.
    """
    p, drawn = density.probability.ravel(), density.resamples.reshape(len(density.resamples), -1)
    first, last = (_cell(point, density.axes) for point in (start, stop))
    for point, cell in ((start, first), (stop, last)):
        if not p[cell] > 0:
            raise ValueError(f"nothing was sampled at {point}: give a point inside a basin")
    if first == last:
        raise ValueError(f"start = {start} and stop = {stop} lie in one cell: the barrier between them is not defined")
    f = -np.log(np.maximum(p, 1e-300))
    lakes = _Sets(len(f))
    for cell, wet in _flood(f, density.axes):
        lakes.add(cell)
        for neighbour in wet:
            meeting = {lakes.root(cell), lakes.root(neighbour)}
            low = lakes.root(first)
            if len(meeting) == 2 and meeting == {low, lakes.root(last)}:
                return log_ratio(p[cell], p[low], drawn[:, cell], drawn[:, low], kT)
            lakes.join(*meeting)
    raise AssertionError("a flooded grid is one lake")


def _cell(point, axes: tuple[Axis, ...]) -> int:
    index = [int(axis.index(np.asarray(s, float).reshape(1))[0]) for axis, s in zip(axes, point, strict=True)]
    if min(index) < 0:
        raise ValueError(f"the point {point} lies outside the axes")
    return int(np.ravel_multi_index(index, [axis.bins for axis in axes]))


class _Sets:
    """Disjoint sets of cells, each named by the cell that was added to it first: its lowest, when flooding."""

    def __init__(self, cells: int):
        self.parent = [-1] * cells
        self.age = [0] * cells
        self.count = 0

    def add(self, cell: int):
        self.parent[cell], self.age[cell] = cell, self.count
        self.count += 1

    def root(self, cell: int) -> int:
        """The name of the set, -1 for a cell that was not added."""
        parent = self.parent
        if parent[cell] < 0:
            return -1
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    def join(self, *roots: int) -> int:
        oldest = min(roots, key=self.age.__getitem__)
        for root in roots:
            self.parent[root] = oldest
        return oldest


def _flood(f: Float[np.ndarray, " cells"], axes: tuple[Axis, ...]) -> Iterator[tuple[int, list[int]]]:
    """The cells from the lowest up, each with its neighbours that are flooded already, lowest first."""
    order = np.argsort(f, kind="stable")
    rank = np.empty(len(f), int)
    rank[order] = np.arange(len(f))
    near = _neighbours(axes)
    near_rank = np.where(near >= 0, rank[near], len(f))
    near = np.take_along_axis(near, np.argsort(near_rank, axis=1), 1)
    wet = np.sum(near_rank < rank[:, None], axis=1)
    for cell in order.tolist():
        yield cell, near[cell, : wet[cell]].tolist()


def _neighbours(axes: tuple[Axis, ...]) -> Int[np.ndarray, "cells neighbours"]:
    """The cells that touch each cell, by a corner too; -1 beyond the end of a non-periodic axis."""
    shape = tuple(axis.bins for axis in axes)
    here = np.indices(shape).reshape(len(axes), -1)
    columns = []
    for step in product((-1, 0, 1), repeat=len(axes)):
        if not any(step):
            continue
        there = here + np.array(step)[:, None]
        inside = np.ones(here.shape[1], bool)
        for i, axis in enumerate(axes):
            if axis.periodic:
                there[i] %= axis.bins
            else:
                inside &= (there[i] >= 0) & (there[i] < axis.bins)
        columns.append(np.where(inside, np.ravel_multi_index(tuple(there), shape, mode="clip"), -1))
    return np.stack(columns, 1)


def _watershed(f, error, axes: tuple[Axis, ...], merge: float):
    """(the lowest cell of the basin of every cell, {(basin, other basin): the cell where their lakes met})."""
    lakes, shores = _Sets(len(f)), _Sets(len(f))
    label, members, saddles, top = np.arange(len(f)), {}, {}, {}
    for cell, wet in _flood(f, axes):  # unsampled cells, NaN, come last
        lakes.add(cell)
        shores.add(cell)
        if not wet:
            members[cell], top[cell] = [cell], cell
            continue
        label[cell] = label[wet[0]]
        lake = lakes.join(lakes.root(wet[0]), cell)
        if np.isfinite(f[cell]):
            top[lake] = cell
        for neighbour in wet[1:]:
            a, b = lakes.root(cell), lakes.root(neighbour)
            if a == b:
                continue
            saddles |= {(min(i, j), max(i, j)): cell for i, j in product(members[a], members[b])}
            joined = members.pop(a) + members.pop(b)
            deep, shallow = sorted((shores.root(int(label[c])) for c in (cell, neighbour)), key=lakes.age.__getitem__)
            rim = cell if np.isfinite(f[cell]) else top[lakes.root(shallow)]
            if not f[rim] - f[shallow] > max(merge, 2 * np.hypot(error[rim], error[shallow])):
                joined.remove(shallow)
                shores.join(deep, shallow)
            lake = lakes.join(a, b)
            members[lake], top[lake] = joined, max(top[a], top[b], key=lambda c: (np.isfinite(f[c]), f[c]))
    return np.array([shores.root(int(i)) for i in label]), saddles
