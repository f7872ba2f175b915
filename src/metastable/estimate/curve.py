"""Curve: many numbers from one run, whose errors belong together."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from metastable.estimate.correlation import LEAST, Blocks
from metastable.estimate.estimate import Estimate


@dataclass(frozen=True)
class Curve:
    """A function on a grid, and by how much each stretch of the run moves it.

    x: the grid, in ``x_unit``, (points,). values: in ``unit``, (points,).
    deviations: what each stretch, one walker over one block of time, adds to the difference between the values and
        the truth, to first order; error^2 is the sum of their squares. NaN where there are too few stretches.
        (stretches, points). What is computed from the curve gets its error from these, correlations included.
    blocks: what the stretches are.
    """

    x: Float[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]
    deviations: Float[np.ndarray, "stretches points"]
    blocks: Blocks
    x_unit: str = ""
    unit: str = ""

    @property
    def estimate(self) -> Estimate:
        """The values with their errors."""
        return Estimate(self.values, _error(self.deviations), self.unit)

    def __len__(self) -> int:
        return len(self.x)

    def at(self, x: float) -> Estimate:
        """The value at one place, interpolated on a straight line. Raises ValueError off the grid."""
        rounding = 1e-9 * (self.x[-1] - self.x[0])
        if not self.x[0] - rounding <= x <= self.x[-1] + rounding:
            raise ValueError(f"x = {x} {self.x_unit} must lie from {self.x[0]:g} to {self.x[-1]:g}")
        return self.functional(np.array([np.interp(x, self.x, unit) for unit in np.eye(len(self))]), self.unit)

    def functional(self, coefficients: Float[np.ndarray, " points"], unit: str) -> Estimate:
        """The sum of coefficients times values."""
        return Estimate(float(self.values @ coefficients), float(_error(self.deviations @ coefficients)), unit)

    def map(
        self, linear: Callable[[np.ndarray], np.ndarray], x: Float[np.ndarray, " images"], x_unit: str, unit: str
    ) -> "Curve":
        """The image under a linear map, which acts on the last axis: an integral, a Fourier transform."""
        return Curve(x, linear(self.values), linear(self.deviations), self.blocks, x_unit, unit)

    def over(self, index: int, unit: str) -> "Curve":
        """The curve divided by its value at one place, which has an error too."""
        scale, moved = self.values[index], self.deviations[:, index : index + 1]
        values = self.values / scale
        return replace(self, values=values, deviations=(self.deviations - values * moved) / scale, unit=unit)


def ratio(
    x: Float[np.ndarray, " points"],
    sums: Float[np.ndarray, "stretches points"],
    weights: Float[np.ndarray, "stretches points"],
    blocks: Blocks,
    x_unit: str = "",
    unit: str = "",
) -> Curve:
    """sum_u S_u / sum_u W_u over stretches u, with the deviations sqrt(n / (n - 1)) (S_u - m W_u) / sum_u W_u.

    The ratio estimator of :func:`metastable.estimate.correlation.mean`, at every point.
    """
    n, total = len(sums), weights.sum(0)
    values = sums.sum(0) / total
    scale = np.sqrt(n / (n - 1)) if n >= LEAST else np.nan
    return Curve(x, values, scale * (sums - values * weights) / total, blocks, x_unit, unit)


def stretch_sums(
    blocks: Blocks, values: Float[np.ndarray, "time walkers points"]
) -> Float[np.ndarray, "stretches points"]:
    """The sum over the frames of each stretch."""
    starts = np.arange(blocks.per_walker) * blocks.length
    sums = group_sums(blocks, np.moveaxis(np.add.reduceat(values, starts, axis=0), 1, 0))
    return sums.reshape(blocks.count, -1)


def group_sums(blocks: Blocks, values: Float[np.ndarray, "walkers *rest"]) -> Float[np.ndarray, "groups *rest"]:
    """The sum over the walkers of each group."""
    group = np.arange(blocks.walkers) * blocks.groups // blocks.walkers
    return np.add.reduceat(values, np.searchsorted(group, np.arange(blocks.groups)), axis=0)


def _error(deviations):
    return np.sqrt(np.sum(deviations**2, axis=0))
