"""Vectors, angles and torsions between atoms, in forms whose derivatives have no needless singularity."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def dot(a: Float[Array, "... 3"], b: Float[Array, "... 3"]) -> Float[Array, "..."]:
    """Scalar products along the last axis."""
    return jnp.sum(a * b, axis=-1)


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
    return jnp.arctan2(positive_root(dot(c, c)), dot(a, b))


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
    A, B = cross(F, G), cross(H, G)
    tiny = float(np.sqrt(jnp.finfo(positions.dtype).tiny))
    A2, B2 = jnp.maximum(dot(A, A), tiny), jnp.maximum(dot(B, B), tiny)
    length = positive_root(dot(G, G))
    scale = 1 / (jnp.sqrt(A2) * jnp.sqrt(B2))
    return Torsion(F, G, H, A, B, A2, B2, length, dot(A, B) * scale, -length * dot(F, B) * scale)


def torsion_contributions(t: Torsion, slope: Float[Array, " torsions"]) -> Float[Array, "torsions 4 3"]:
    """dE/dpositions of the four atoms, from slope = dE/dangle (Blondel and Karplus 1996, eq. 27)."""
    outer_i = (-slope * t.length / t.A2)[:, None] * t.A
    outer_l = (slope * t.length / t.B2)[:, None] * t.B
    inner = (slope * dot(t.F, t.G) / (t.A2 * t.length))[:, None] * t.A
    inner -= (slope * dot(t.H, t.G) / (t.B2 * t.length))[:, None] * t.B
    return jnp.stack([outer_i, inner - outer_i, -inner - outer_l, outer_l], axis=1)
