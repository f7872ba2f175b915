"""Axis: how a collective variable is cut into bins."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Axis:
    """Equal bins between two ends, in the unit of the collective variable.

    periodic: the ends are the same place, and every value is wrapped between them. Otherwise what
    lies outside the ends is left out of the histogram.
    """

    lower: float
    upper: float
    bins: int
    periodic: bool = False
    name: str = "s"
    unit: str = ""

    def __post_init__(self):
        if not (np.isfinite([self.lower, self.upper]).all() and self.lower < self.upper):
            raise ValueError(f"Axis {self.name}: lower = {self.lower} must lie below upper = {self.upper}")
        if self.bins < 1:
            raise ValueError(f"Axis {self.name}: bins = {self.bins} must be at least 1")

    @classmethod
    def angle(cls, name: str = "phi", bins: int = 60) -> "Axis":
        """A full turn from -pi to pi, rad."""
        return cls(-np.pi, np.pi, bins, True, name, "rad")

    @property
    def width(self) -> float:
        """Of one bin."""
        return (self.upper - self.lower) / self.bins

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        return np.linspace(self.lower, self.upper, self.bins + 1)

    @property
    def centers(self) -> Float[np.ndarray, " bins"]:
        return self.lower + self.width * (np.arange(self.bins) + 0.5)

    def index(self, s: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The bin of each value; -1 outside a non-periodic axis. Raises ValueError for values that are not finite."""
        s = np.asarray(s, float)
        if not np.isfinite(s).all():
            raise ValueError(f"Axis {self.name}: {np.size(s) - np.isfinite(s).sum()} samples are not finite numbers")
        k = np.floor((s - self.lower) / self.width).astype(np.int32)
        if self.periodic:
            return k % self.bins
        k = np.where(s == self.upper, self.bins - 1, k)
        return np.where((k >= 0) & (k < self.bins), k, -1)


def grid(axes: tuple[Axis, ...]) -> Float[np.ndarray, "*bins cvs"]:
    """The centers of all bins of a grid."""
    return np.stack(np.meshgrid(*(axis.centers for axis in axes), indexing="ij"), -1)


def cell_index(samples: Float[np.ndarray, "*batch cvs"], axes: tuple[Axis, ...]) -> Int[np.ndarray, "*batch"]:
    """The flat (C order) grid cell of each sample, -1 outside. Raises ValueError where cvs and axes disagree."""
    samples = np.asarray(samples)
    if samples.shape[-1] != len(axes):
        raise ValueError(f"samples carry {samples.shape[-1]} collective variables, the grid {len(axes)} axes")
    cell, inside = np.zeros(samples.shape[:-1], np.int32), np.ones(samples.shape[:-1], bool)
    for i, axis in enumerate(axes):
        k = axis.index(samples[..., i])
        inside &= k >= 0
        cell = cell * axis.bins + k
    return np.where(inside, cell, -1)


def straighten(samples: Float[np.ndarray, "*batch cvs"], axes: tuple[Axis, ...]) -> Float[np.ndarray, "*batch parts"]:
    """The CVs as numbers that may be averaged: cosine and sine of the turn along a periodic axis."""
    parts = []
    for i, axis in enumerate(axes):
        s = np.asarray(samples[..., i], float)
        turn = 2 * np.pi * (s - axis.lower) / (axis.upper - axis.lower)
        parts += [np.cos(turn), np.sin(turn)] if axis.periodic else [s]
    return np.stack(parts, -1)
