"""A probability density as a sum of few Gaussian kernels, which merge where they come close: compressed kernel density
estimation, as OPES keeps it.

A kernel is a truncated Gaussian, height max(exp(-d^2 / 2) - exp(-cutoff^2 / 2), 0), d^2 = sum ((s - center) / width)^2.
A new one whose center lies within ``threshold`` widths of another is merged into it: heights add, and mean and variance
are those of the two together; what comes of it may merge again.

Sodkomkham et al. (2016), doi:10.1016/j.knosys.2016.04.021; Invernizzi, Parrinello (2020),
doi:10.1021/acs.jpclett.0c00497.
"""

from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from metastable.cvs.variable import wrap


class Kernels(eqx.Module):
    """So many kernels, of which the first ``count`` are in use.

    centers, widths: in the units of the CVs, (capacity, cvs). heights: (capacity,). overflow: whether, for want of
    room, kernels were merged that are farther apart than the threshold. cutoff, threshold: in widths.
    """

    centers: Float[Array, "capacity cvs"]
    widths: Float[Array, "capacity cvs"]
    heights: Float[Array, " capacity"]
    count: Int[Array, ""]
    overflow: Bool[Array, ""]
    cutoff: Float[Array, ""]
    threshold: float = eqx.field(static=True)
    recursive: bool = eqx.field(static=True)
    periods: tuple[float | None, ...] = eqx.field(static=True)

    def __init__(
        self,
        capacity: int,
        periods: Sequence[float | None],
        cutoff: float,
        threshold: float = 1.0,
        recursive: bool = True,
    ):
        """recursive: whether what came of a merger may merge again."""
        self.periods, self.threshold, self.recursive = tuple(periods), float(threshold), recursive
        self.centers, self.widths = jnp.zeros((capacity, len(self.periods))), jnp.ones((capacity, len(self.periods)))
        self.heights, self.cutoff = jnp.zeros(capacity), jnp.asarray(cutoff, float)
        self.count, self.overflow = jnp.zeros((), jnp.int32), jnp.asarray(False)

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        """The sum of the kernels at s."""
        return jnp.sum(self._each(s))

    def _each(self, s):
        apart = wrap(s - self.centers.astype(s.dtype), self.periods) / self.widths.astype(s.dtype)
        cutoff = self.cutoff.astype(s.dtype)
        bells = jnp.exp(-jnp.sum(apart**2, -1) / 2) - jnp.exp(-(cutoff**2) / 2)
        return self.heights.astype(s.dtype) * jnp.maximum(bells, 0)  # those that are not in use have no height

    def on_grid(self, places: Sequence[Float[Array, " points"]]) -> Float[Array, "..."]:
        """The sum of the kernels at all points of a grid; its axes."""
        shape = tuple(len(p) for p in places)

        def add(k, total):
            bell = jnp.ones((), self.heights.dtype)
            for d, points in enumerate(places):
                apart = wrap((jnp.asarray(points, bell.dtype) - self.centers[k, d])[:, None], [self.periods[d]])[:, 0]
                bell = bell[..., None] * jnp.exp(-((apart / self.widths[k, d]) ** 2) / 2)
            return total + self.heights[k] * jnp.maximum(bell - jnp.exp(-(self.cutoff**2) / 2), 0)

        return lax.fori_loop(0, self.count, add, jnp.zeros(shape, self.heights.dtype))

    def overlap(self) -> Float[Array, ""]:
        """The sum of the kernels at the center of each, summed up."""
        return lax.fori_loop(0, self.count, lambda k, total: total + self(self.centers[k]), jnp.zeros_like(self.cutoff))

    def add(self, center: Float[Array, " cvs"], widths: Float[Array, " cvs"], height: Float[Array, ""]) -> Self:
        """With one kernel more, or merged into another."""
        capacity = len(self.heights)
        near, square = self._nearest(center, jnp.asarray(-1))
        full = self.count >= capacity
        merges = (square < self.threshold**2) | full
        place = jnp.where(merges, near, jnp.minimum(self.count, capacity - 1))
        new = self._put(place, *_merged(self, near, center, widths, height, merges))
        new = eqx.tree_at(
            lambda k: (k.count, k.overflow), new,
            (self.count + ~merges, self.overflow | (full & (square >= self.threshold**2))),
        )  # fmt: skip
        return new._settled(near, merges) if self.recursive else new

    def _nearest(self, center, but):
        """The kernel whose center is nearest in its own widths, and that distance squared; ``but`` does not count."""
        apart = wrap(center - self.centers, self.periods) / self.widths
        square = jnp.sum(apart**2, -1)
        number = jnp.arange(len(square))
        square = jnp.where((number < self.count) & (number != but), square, jnp.inf)
        return jnp.argmin(square), jnp.min(square)

    def _put(self, place, center, widths, height) -> Self:
        return eqx.tree_at(
            lambda k: (k.centers, k.widths, k.heights), self,
            (self.centers.at[place].set(center), self.widths.at[place].set(widths),
             self.heights.at[place].set(height)),
        )  # fmt: skip

    def _settled(self, place, changed) -> Self:
        """Where the kernel at ``place`` has changed: merged with others, until none is near."""

        def near(state):
            kernels, place, changed = state
            _, square = kernels._nearest(kernels.centers[place], place)
            return changed & (square < kernels.threshold**2)

        def merge(state):
            kernels, giver, changed = state
            taker, _ = kernels._nearest(kernels.centers[giver], giver)
            parts = kernels.centers[giver], kernels.widths[giver], kernels.heights[giver]
            kernels = kernels._put(taker, *_merged(kernels, taker, *parts, True))
            last = kernels.count - 1  # takes the place of the one that is no more
            moved = kernels.centers[last], kernels.widths[last], kernels.heights[last]
            kernels = kernels._put(giver, *moved)
            kernels = kernels._put(last, moved[0], jnp.ones_like(moved[1]), jnp.zeros_like(moved[2]))
            taker = jnp.where(taker == last, giver, taker)
            return eqx.tree_at(lambda k: k.count, kernels, last), taker, changed

        return lax.while_loop(near, merge, (self, place, jnp.asarray(changed)))[0]


def _merged(kernels: Kernels, near, center, widths, height, merges):
    """Center, widths and height of a kernel merged with the one that is ``near``; the kernel itself where it is not."""
    mine, other = kernels.heights[near], kernels.centers[near]
    total = mine + height
    shift = wrap(center - other, kernels.periods)  # so that periods do not matter
    mean = height * shift / total
    variance = (mine * kernels.widths[near] ** 2 + height * (widths**2 + shift**2)) / total - mean**2
    pick = lambda new, old: jnp.where(merges, new, old)  # noqa: E731
    return (
        pick(wrap(other + mean, kernels.periods), center),
        pick(jnp.sqrt(variance), widths),
        pick(total, height),
    )
