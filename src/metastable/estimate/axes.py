"""Samples on the grid that axes span."""

import numpy as np
from jaxtyping import Float, Int

from metastable.core.axis import Axis


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
        turn = 2 * np.pi * (s - axis.lower) / axis.length
        parts += [np.cos(turn), np.sin(turn)] if axis.periodic else [s]
    return np.stack(parts, -1)
