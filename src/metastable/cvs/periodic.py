"""The shortest image of a vector in a periodic box of any shape."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from metastable.core.space import times

_NEIGHBOURS = [(i, j, k) for i in (0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)]
_TRIALS = 150


def minimum_image(delta: Float[Array, "*n 3"], box: Float[Array, "3 3"] | None) -> Float[Array, "*n 3"]:
    """The shortest periodic image of each vector, nm; the vector itself where there is no box.

    box: nm, rows are its vectors; it may be triclinic and need not be reduced. The derivatives are those of the
    image chosen, also with respect to the box.
    """
    if box is None:
        return delta
    box = reduced(box)
    return delta - times(nearest_images(delta, box), box)


def reduced(box: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Three shortest vectors of the lattice of a box: its Minkowski reduction, as Semaev (2001),
    doi:10.1007/3-540-44670-2_13, has it. Each vector is shortened by whole multiples of the others, until none can be.
    """

    def shorten(state):
        rows, calm, count = state
        first = _shortened(*rows)
        calm = jnp.where(jnp.all(first[3:] == rows[0][3:]), calm + 1, 0)
        return (rows[1], rows[2], first), calm, count + 1

    marked = jnp.concatenate([lax.stop_gradient(box), jnp.eye(3, dtype=box.dtype)], 1)  # each vector, and what it is of
    start = (marked[0], marked[1], marked[2]), jnp.asarray(0), jnp.asarray(0)
    rows, _, _ = lax.while_loop(lambda state: (state[1] < 3) & (state[2] < _TRIALS), shorten, start)
    return times(jnp.stack(rows)[:, 3:], box)


def _shortened(row, *others):
    for other in others:
        row = row - jnp.round(_dot(row, other) / _dot(other, other)) * other
    for i in (-1, 1):
        for j in (-1, 1):
            trial = row + i * others[0] + j * others[1]
            row = jnp.where(_dot(trial, trial) < (1 - 1e-5) * _dot(row, row), trial, row)
    return row


def _dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def nearest_images(delta: Float[Array, "*n 3"], box: Float[Array, "3 3"]) -> Float[Array, "*n 3"]:
    """How many of each vector of a reduced box to take off for the shortest image. It has no derivatives."""
    delta, box = lax.stop_gradient((delta, box))
    normals = [cross(box[1], box[2]), cross(box[2], box[0]), cross(box[0], box[1])]
    volume = _dot(box[0], normals[0])
    x, y, z = (delta[..., i] for i in range(3))
    images = jnp.stack([jnp.round((x * n[0] + y * n[1] + z * n[2]) / volume) for n in normals], -1)
    rest = delta - times(images, box)
    x, y, z = (rest[..., i] for i in range(3))
    steps = jnp.asarray(_NEIGHBOURS, delta.dtype)  # gone through one by one: together they would not stay in the cache

    def compare(k, state):
        best, code = state
        shift = times(steps[k], box)
        along = x * shift[0] + y * shift[1] + z * shift[2]
        gain = 2 * jnp.abs(along) - _dot(shift, shift)  # how much shorter rest - shift or rest + shift is, squared
        step = 9 * steps[k, 0] + 3 * steps[k, 1] + steps[k, 2]
        return jnp.maximum(gain, best), jnp.where(gain > best, jnp.where(along > 0, step, -step), code)

    _, code = lax.fori_loop(0, len(_NEIGHBOURS), compare, (jnp.zeros_like(x), jnp.zeros_like(x)))
    i = jnp.round(code / 9)
    j = jnp.round((code - 9 * i) / 3)
    return images + jnp.stack([i, j, code - 9 * i - 3 * j], -1)


def cross(u: Float[Array, "*n 3"], v: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """The vector product along the last axis."""
    (a, b, c), (d, e, f) = ([w[..., i] for i in range(3)] for w in (u, v))
    return jnp.stack([b * f - c * e, c * d - a * f, a * e - b * d], -1)
