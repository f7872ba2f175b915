"""Radial distribution functions: how many atoms lie at a distance from an atom, against an ideal gas."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metastable.core import space
from metastable.estimate.boxes import of_frames
from metastable.estimate.correlation import choose_blocks
from metastable.estimate.curve import Curve, ratio, stretch_sums

_PAIRS = 2**29  # counted in one compiled call: a count stays within 32 bits
_ATOMS = 2**20  # positions in one compiled call
_COARSE = 8  # groups of bins whose correlation in time is looked at


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) of the middle of each bin, and the mean number of neighbours within the end of each bin, r in nm."""

    g: Curve
    coordination: Curve


class _Pairing(NamedTuple):
    """Which pairs are counted: first[i] with second[(i + k) % m] for k from ``start`` to ``stop``, row after row.

    same: one group in both places; then a pair that is met counts for i, j and for j, i.
    molecules: of the atoms of each group.
    """

    first: np.ndarray
    second: np.ndarray
    molecules: tuple[np.ndarray, np.ndarray]
    same: bool
    start: int
    stop: int
    ordered: int  # pairs i, j and j, i


def radial_distribution(
    positions: Float[np.ndarray, "time *walkers atoms 3"],
    box: Float[np.ndarray, "*time_walkers 3 3"],
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " m"] | None = None,
    *,
    limit: float | None = None,
    bins: int = 200,
    molecules: Int[np.ndarray, " atoms"] | None = None,
    length: int | None = None,
) -> RadialDistribution:
    """g(r) of the atoms ``second`` around the atoms ``first``, of the same atoms among themselves where None.

    g = sum_t n_t(r) / sum_t P v(r) / V_t: n_t the pairs of atoms i in first, j in second, i != j, in the shell of
    volume v; P their number at any distance (N (N - 1) in a group), so that g is 1 for an ideal gas, however few the
    atoms and whatever the box does. Allen and Tildesley (2017), Computer Simulation of Liquids, section 2.6.

    positions: nm, wrapped or not; indexed one frame after the other, so that a file may stand for an array.
    box: nm, reduced triclinic, one for all frames or one a frame, (3, 3), (time, 3, 3) or (time, walkers, 3, 3).
    limit: the largest distance, nm; that within which nearest images are right, in every frame, where None.
    molecules: the molecule of every atom, for pairs within a molecule to be left out, of P too.
    length: of a block of time, frames; chosen from the correlation of n_t where None.
    Raises ValueError where the limit is out of reach of the box, or no pair is left.

    The work is that of all pairs, some 6 ns each on one core.
    """
    if bins < 1:
        raise ValueError(f"bins = {bins} must be at least 1")
    atoms = positions.shape[-2]
    boxes = of_frames(box, positions.shape[:-2]).reshape(positions.shape[0], -1, 3, 3)
    limit = _limit(boxes, limit)
    pairing = _pairing(first, second, molecules, atoms)
    counts = _counts(positions, boxes, pairing, limit, bins)
    g, neighbours = _normalised(counts, boxes, pairing, limit, length, len(first))
    return RadialDistribution(g, neighbours)


def _limit(boxes, limit) -> float:
    reach = np.diagonal(boxes, axis1=-2, axis2=-1).min() / 2
    if limit is not None and not 0 < limit <= reach:
        raise ValueError(
            f"limit = {limit} nm must lie between 0 and {reach:.4g} nm, half of the shortest side that the box has "
            "in any frame: beyond it an atom has more than one nearest image"
        )
    return float(reach if limit is None else limit)


def _pairing(first, second, molecules, atoms) -> _Pairing:
    molecules = np.arange(atoms) if molecules is None else np.unique(molecules, return_inverse=True)[1]
    if molecules.shape != (atoms,):
        raise ValueError(f"molecules {molecules.shape} must name the molecule of each of the {atoms} atoms")
    first = _group(first, atoms)
    second = first if second is None else _group(second, atoms)
    same = np.array_equal(first, second)
    one, other = (first, second) if len(first) <= len(second) else (second, first)
    a, b = molecules[one].astype(np.int32), molecules[other].astype(np.int32)
    excluded = np.bincount(a, minlength=atoms) @ np.bincount(b, minlength=atoms)
    ordered = len(one) * len(other) - int(excluded)
    if ordered <= 0:
        raise ValueError(f"groups of {len(first)} and {len(second)} atoms have no pair of different molecules")
    start, stop = (1, len(one) // 2 + 1) if same else (0, len(other))
    return _Pairing(one, other, (a, b), same, start, stop, ordered)


def _group(atoms_of_group, atoms) -> Int[np.ndarray, " n"]:
    given = np.asarray(atoms_of_group, int)
    group = np.unique(given)
    if not given.size or len(group) != given.size or group[0] < 0 or group[-1] >= atoms:
        raise ValueError(f"a group of {given.size} atoms must name some, each once, by numbers from 0 to {atoms - 1}")
    return group


def _counts(positions, boxes, pairing: _Pairing, limit, bins) -> Int[np.ndarray, "time walkers bins"]:
    """Ordered pairs in each bin. Small frames share a call, the pairs of a huge one are spread over several."""
    times, walkers = boxes.shape[:2]
    frames = max(1, _ATOMS // (walkers * positions.shape[-2]))
    rows = max(1, _PAIRS // len(pairing.first))
    counts = np.zeros((times * walkers, bins), np.int64)
    for t in range(0, times, frames):
        some = np.asarray(positions[t : t + frames]).reshape(-1, positions.shape[-2], 3)
        if not np.isfinite(some).all():
            raise ValueError(f"positions of frames {t} to {min(t + frames, times) - 1} are not all finite numbers")
        part = slice(t * walkers, t * walkers + len(some))
        x, y = (np.swapaxes(some[:, group], 1, 2) for group in (pairing.first, pairing.second))
        box = boxes[t : t + frames].reshape(-1, 3, 3).astype(some.dtype)
        for k in range(pairing.start, pairing.stop, rows):
            stop = min(k + rows, pairing.stop)
            counts[part] += _histograms(x, y, box, *pairing.molecules, k, stop, limit, bins, pairing.same)
    return counts.reshape(times, walkers, bins)


@partial(jax.jit, static_argnames=("bins", "same"))
def _histograms(x, y, box, of_x, of_y, start, stop, limit, bins, same):
    return jax.lax.map(lambda f: _histogram(f[0], f[1], f[2], of_x, of_y, start, stop, limit, bins, same), (x, y, box))


def _histogram(
    x: Float[Array, "3 n"], y: Float[Array, "3 m"], box, of_x, of_y, start, stop, limit, bins, same
) -> Int[Array, " bins"]:
    """Ordered pairs x[i], y[(i + k) % m], start <= k < stop, of one frame: a row is a contiguous piece of y, y."""
    n, y, of_y = x.shape[1], jnp.concatenate([y, y], 1), jnp.concatenate([of_y, of_y])

    def add(k, counts):
        d = x - jax.lax.dynamic_slice(y, (0, k), x.shape)
        dx, dy, dz = space.nearest_components(d[0], d[1], d[2], box)
        place = jnp.minimum(jnp.sqrt(dx * dx + dy * dy + dz * dz) * (bins / limit), bins).astype(jnp.int32)
        kept = jnp.where(of_x != jax.lax.dynamic_slice(of_y, (k,), (n,)), place, bins)
        ways = jnp.where(2 * k < n, 2, 1) if same else 1  # halfway round a group, its pairs are met from both ends
        return counts.at[kept].add(ways, mode="promise_in_bounds")

    return jax.lax.fori_loop(start, stop, add, jnp.zeros(bins + 1, jnp.int32))[:bins]


def _normalised(counts, boxes, pairing: _Pairing, limit, length, centres) -> tuple[Curve, Curve]:
    bins = counts.shape[-1]
    edges = np.linspace(0, limit, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    volumes = np.prod(np.diagonal(boxes, axis1=-2, axis2=-1), -1, keepdims=True)
    density = pairing.ordered / volumes  # of pairs, (time, walkers, 1)
    residual = counts - counts.sum((0, 1)) / density.sum() * density
    coarse = np.stack([part.sum(-1) for part in np.array_split(residual, min(bins, _COARSE), -1)], -1)
    blocks = choose_blocks(counts.shape[0], counts.shape[1], coarse, length)
    sums = stretch_sums(blocks, counts)
    g = ratio((edges[1:] + edges[:-1]) / 2, sums, stretch_sums(blocks, density) * shells, blocks, "nm")
    frames = stretch_sums(blocks, np.full(density.shape, float(centres)))
    return g, ratio(edges[1:], np.cumsum(sums, -1), np.broadcast_to(frames, sums.shape), blocks, "nm")
