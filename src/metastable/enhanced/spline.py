"""Smooth functions of one, two or three collective variables, kept on a grid: what biases are made of.

Between the points a function is a tensor-product cubic B-spline, so that forces are continuous and exact derivatives
of the energy. Its coefficients come from values at the points by a five-point filter, with an error of fourth order in
the spacing.
"""

import math
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from metastable.core.axis import Axis


class Spline(eqx.Module):
    """A function on a grid, zero at first.

    An axis that is not periodic continues, unseen, on both sides; beyond that the function is what it is at the end.

    axes: 1 to 3. margins: points that an axis continues by. coefficients: of the spline, one a point.
    """

    axes: tuple[Axis, ...] = eqx.field(static=True)
    margins: tuple[int, ...] = eqx.field(static=True)
    coefficients: Float[Array, "..."]

    def __init__(self, axes: Sequence[Axis], reach: Sequence[float]):
        """reach: how far an axis that is not periodic continues, in the units of the CVs."""
        self.axes = tuple(axes)
        if not 1 <= len(self.axes) <= 3:
            raise ValueError(f"a grid has 1, 2 or 3 axes, not {len(self.axes)}")
        self.margins = tuple(
            0 if a.periodic else math.ceil(r / a.spacing) + 4 for a, r in zip(self.axes, reach, strict=True)
        )
        self.coefficients = jnp.zeros([len(a.points) + 2 * m for a, m in zip(self.axes, self.margins, strict=True)])

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        weights, indices = [], [0]
        for axis, margin, size, x in zip(self.axes, self.margins, self.coefficients.shape, s, strict=True):
            x = (x - axis.lower) / axis.spacing + margin
            x = x - size * jnp.floor(x / size) if axis.periodic else jnp.clip(x, 1, size - 3)
            cell = lax.stop_gradient(jnp.minimum(jnp.floor(x), size - 1))
            weights.append(_weights(x - cell))
            points = _around(cell.astype(jnp.int32), size)
            indices = [i * size + point for i in indices for point in points]
        terms = list(self.coefficients.ravel()[jnp.stack(indices)].astype(s.dtype))
        for a, b, c, d in reversed(weights):  # written out, it is one loop over the replicas: three times as fast
            terms = [
                a * v[0] + b * v[1] + c * v[2] + d * v[3] for v in zip(*(terms[i::4] for i in range(4)), strict=True)
            ]
        return terms[0]

    def at(self, s: Float[Array, "walkers cvs"]) -> Float[Array, " walkers"]:
        """The function at many places, from a table of spline weights an axis: it compiles in a fifth of the time."""
        tables = []
        for axis, margin, size, x in zip(self.axes, self.margins, self.coefficients.shape, s.T, strict=True):
            x = (x - axis.lower) / axis.spacing + margin
            apart = (x if axis.periodic else jnp.clip(x, 1, size - 3)) - jnp.arange(size)[:, None]
            apart = jnp.abs(apart - size * jnp.round(apart / size) if axis.periodic else apart)
            tables.append(jnp.where(apart < 1, 2 / 3 - apart**2 + apart**3 / 2, jnp.maximum(2 - apart, 0) ** 3 / 6))
        *tables, last = tables
        values = jnp.matmul(self.coefficients.astype(s.dtype), last, precision="highest")  # (..., walkers)
        for table in reversed(tables):
            values = jnp.sum(values * table, axis=-2)
        return values

    @property
    def places(self) -> tuple[np.ndarray, ...]:
        """Where the coefficients stand, margins included, one array an axis."""
        sizes = zip(self.axes, self.margins, self.coefficients.shape, strict=True)
        return tuple(a.lower + a.spacing * (np.arange(size) - m) for a, m, size in sizes)

    @property
    def values(self) -> Float[Array, "..."]:
        """The function at the points of the axes."""
        values = self.coefficients
        for d, (axis, margin) in enumerate(zip(self.axes, self.margins, strict=True)):
            values = (jnp.roll(values, 1, d) + 4 * values + jnp.roll(values, -1, d)) / 6
            values = lax.slice_in_dim(values, margin, margin + len(axis.points), axis=d)
        return values

    def through(self, values: Float[Array, "..."]) -> Self:
        """The spline through values at all ``places``."""
        return self._with(_filtered(values.astype(self.coefficients.dtype)))

    def plus(self, values: Float[Array, "..."]) -> Self:
        """The sum with the spline through values at all ``places``."""
        return self._with(self.coefficients + _filtered(values.astype(self.coefficients.dtype)))

    def outside(self, s: Float[Array, "walkers cvs"]) -> Bool[Array, " walkers"]:
        """Whether a place is beyond the end of an axis."""
        beyond = [(x < a.lower) | (x > a.upper) for a, x in zip(self.axes, s.T, strict=True) if not a.periodic]
        return sum(beyond, jnp.zeros(len(s), bool))

    def _with(self, coefficients) -> Self:
        return eqx.tree_at(lambda spline: spline.coefficients, self, coefficients)


def _filtered(values):
    """The spline's coefficients for given values: 1 - D/6 + D^2/36 on each axis, D the second difference."""
    for d in range(values.ndim):
        second = _second_difference(values, d)
        values = values - second / 6 + _second_difference(second, d) / 36
    return values


def _second_difference(values, axis: int):
    return jnp.roll(values, 1, axis) - 2 * values + jnp.roll(values, -1, axis)


def _weights(t):
    """The four cubic B-splines that are not 0 at t in 0...1."""
    u = 1 - t
    return u**3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (4 - 6 * u**2 + 3 * u**3) / 6, t**3 / 6


def _around(cell, size: int):
    """The four points around a cell of an axis, whose ends are joined."""
    steps = (cell - 1, cell, cell + 1, cell + 2)
    return [jnp.where(i < 0, i + size, jnp.where(i >= size, i - size, i)) for i in steps]
