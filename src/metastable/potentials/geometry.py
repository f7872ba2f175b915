"""Vectors, angles and torsions between atoms, in forms whose derivatives have no needless singularity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def dot(a: Float[Array, "... 3"], b: Float[Array, "... 3"]) -> Float[Array, "..."]:
    """Scalar products along the last axis, written out: XLA makes a ``reduce`` a scalar loop on a CPU."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def cross(a: Float[Array, "... 3"], b: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Vector products along the last axis."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return jnp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def positive_root(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root kept above zero, so that it can be divided by and differentiated where its argument vanishes."""
    return jnp.sqrt(jnp.maximum(square, float(np.sqrt(jnp.finfo(square.dtype).tiny))))


def angles(positions: Float[Array, "atoms 3"], index: np.ndarray) -> Float[Array, " angles"]:
    """Angles i-j-k, rad in [0, pi]: atan2(|a x b|, a . b) with a, b from the middle atom. index: (angles, 3)."""
    i, j, k = (positions[index[:, n]] for n in range(3))
    a, b = i - j, k - j
    c = cross(a, b)
    return polar(positive_root(dot(c, c)), dot(a, b))


def polar(y: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """atan2(y, x) for y >= 0, rad in [0, pi].

    In single precision a polynomial with an error of 2e-8 rad, five times as fast as XLA's (Abramowitz and Stegun
    1964, eq. 4.4.49; on [0, 1], the rest by symmetry); in double ``jnp.arctan2``.
    """
    if x.dtype != jnp.float32:
        return jnp.arctan2(y, x)
    return _polar(y, x)


@jax.custom_jvp
def _polar(y, x):
    size = jnp.abs(x)
    t = jnp.minimum(size, y) / jnp.maximum(size, y)
    square = t * t
    value = jnp.full_like(t, 0.0028662257)
    for c in (-0.0161657367, 0.0429096138, -0.0752896400, 0.1065626393, -0.1420889944, 0.1999355085, -0.3333314528, 1):
        value = value * square + c
    value = value * t
    value = jnp.where(y > size, np.pi / 2 - value, value)
    return jnp.where(x < 0, np.pi - value, value)


@_polar.defjvp
def _polar_jvp(primals, tangents):
    (y, x), (dy, dx) = primals, tangents
    return _polar(y, x), (x * dy - y * dx) / (x * x + y * y)


class Torsion(NamedTuple):
    """What a torsion i-j-k-l is made of (Blondel and Karplus, 1996, doi:10.1002/(SICI)1096-987X(19960715)17:9
    <1132::AID-JCC5>3.0.CO;2-T): F = i - j, G = j - k, H = l - k, A = F x G, B = H x G; cos and sin of the angle,
    whose sign is IUPAC's.
    """

    F: Float[Array, "torsions 3"]
    G: Float[Array, "torsions 3"]
    H: Float[Array, "torsions 3"]
    A: Float[Array, "torsions 3"]
    B: Float[Array, "torsions 3"]
    A2: Float[Array, " torsions"]
    B2: Float[Array, " torsions"]
    length: Float[Array, " torsions"]
    cos: Float[Array, " torsions"]
    sin: Float[Array, " torsions"]

    @property
    def angle(self) -> Float[Array, " torsions"]:
        """rad in (-pi, pi]."""
        return jnp.arctan2(self.sin, self.cos)


def torsions(positions: Float[Array, "atoms 3"], index: np.ndarray) -> Torsion:
    """The torsions i-j-k-l of index, (torsions, 4). Their parts stay finite where three atoms are in line."""
    i, j, k, l = (positions[index[:, n]] for n in range(4))  # noqa: E741
    F, G, H = i - j, j - k, l - k
    A, B = lax.optimization_barrier((cross(F, G), cross(H, G)))  # else XLA works them out again for each use
    tiny = float(np.sqrt(jnp.finfo(positions.dtype).tiny))
    A2, B2 = jnp.maximum(dot(A, A), tiny), jnp.maximum(dot(B, B), tiny)
    length = positive_root(dot(G, G))
    scale = 1 / (jnp.sqrt(A2) * jnp.sqrt(B2))
    return Torsion(F, G, H, A, B, A2, B2, length, dot(A, B) * scale, -length * dot(F, B) * scale)


def torsion_contributions(t: Torsion, slope: Float[Array, " torsions"]) -> list[Float[Array, "torsions 3"]]:
    """dE/dpositions of the four atoms, from slope = dE/dangle (Blondel and Karplus 1996, eq. 27)."""
    outer_i = (-slope * t.length / t.A2)[:, None] * t.A
    outer_l = (slope * t.length / t.B2)[:, None] * t.B
    inner = (slope * dot(t.F, t.G) / (t.A2 * t.length))[:, None] * t.A
    inner -= (slope * dot(t.H, t.G) / (t.B2 * t.length))[:, None] * t.B
    return [outer_i, inner - outer_i, -inner - outer_l, outer_l]
