"""SETTLE: rigid water of three sites, put back on its lengths in closed form.

Miyamoto, Kollman 1992, doi:10.1002/jcc.540130805. Here in vectors in place of their frames: a water is its
altitude s, from the oxygen to the middle of the hydrogens, and its base d, from the second hydrogen to the first. The
forces of the constraints lie in the plane of the old triangle and turn it about no axis normal to that plane. So the
new triangle keeps its heights above the old plane, which fix its two tilts (their phi and psi), and is turned in the
plane by the angle (their theta) that keeps the angular momentum about the normal. All is relative to the oxygen, so
that single precision keeps the lengths to its last digits, wherever the water is.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.dynamics.state import inverse
from metastable.potentials.analytic import Index, leaf


class Settle(eqx.Module):
    """Rigid waters, or any isosceles triangles of atoms of which the two at the base have equal masses.

    Gives what :class:`~metastable.dynamics.clusters.Clusters` converges to, exactly, and in half the time.

    waters: oxygen and two hydrogens of each, (waters, 3). legs: O-H, nm, (waters,). bases: H-H, nm, (waters,).
    """

    waters: Index = eqx.field(static=True, converter=lambda index: Index(index, 3))
    legs: Float[Array, " waters"] = eqx.field(converter=leaf)
    bases: Float[Array, " waters"] = eqx.field(converter=leaf)

    def __len__(self) -> int:
        return len(self.waters)

    def positions(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """``new``, moved by forces along the sides of the triangles of ``old`` until their lengths hold, nm."""
        return new + self.moves(new, old, masses) if len(self) else new

    def moves(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """What ``positions`` adds to ``new``, nm."""
        if not len(self):
            return jnp.zeros_like(new)
        masses = jnp.asarray(masses, new.dtype)
        legs, bases = jnp.asarray(self.legs, new.dtype), jnp.asarray(self.bases, new.dtype)
        share = self._masses(masses)[2]
        moves = _settle(*self._sides(old), *self._sides(new), share, legs, bases)
        return self._spread(*moves, share, jnp.ones_like(masses))

    def momenta(
        self, momenta: Float[Array, "atoms 3"], frame: Frame, masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """The momenta, or any forces, without what would change the lengths, Da nm/ps."""
        if not len(self):
            return momenta
        masses = jnp.asarray(masses, momenta.dtype)
        altitude, base, share = self._masses(masses)
        velocities = momenta * inverse(masses)[:, None]
        changes = _project(*self._sides(frame.positions), *self._sides(velocities), altitude, base)
        return momenta + self._spread(*changes, share, masses)

    def stretch(self, positions: Float[Array, "*batch atoms 3"]) -> Float[Array, "*batch constraints"]:
        """The length of every side over what it should be."""
        o, one, two = np.asarray(self.waters).T
        pairs = ((one, o, self.legs), (two, o, self.legs), (one, two, self.bases))
        return jnp.concatenate([
            jnp.linalg.norm(positions[..., i, :] - positions[..., j, :], axis=-1) / jnp.asarray(length, positions.dtype)
            for i, j, length in pairs
        ], -1)  # fmt: skip

    def _sides(self, x):
        """Altitude and base of each water, (3, waters)."""
        o, one, two = (x[column].T for column in np.asarray(self.waters).T)
        return ((one - o) + (two - o)) / 2, one - two

    def _masses(self, masses):
        """The reduced masses of altitude and base, Da, and the hydrogens' share of the mass of a water."""
        o, h = (masses[column] for column in np.asarray(self.waters).T[:2])
        share = 2 * h / (o + 2 * h)
        return o * share, h / 2, share

    def _spread(self, s, d, share, weights):
        """Changes of altitudes and bases as changes of the atoms, centres of mass kept, times ``weights``."""
        atoms, index = len(weights), np.asarray(self.waters)
        place = np.full(atoms, index.size)
        place[index.T.ravel()] = np.arange(index.size)
        rows = [-share * s, (1 - share) * s + d / 2, (1 - share) * s - d / 2, jnp.zeros((3, 1), s.dtype)]
        return weights[:, None] * jnp.concatenate(rows, 1).T[place]


def _settle(s0, d0, s, d, share, legs, bases):
    """The changes of altitude s and base d that put the triangle on its lengths, in the plane of (s0, d0)."""
    half = bases / 2
    height = jnp.sqrt((legs - half) * (legs + half))
    x = -_unit(d0)
    y = -_unit(s0 - _dot(s0, x) * x)
    z = _cross(x, y)
    sx, sy, sz, dx, dy, dz = (_dot(v, axis) for v in (s, d) for axis in (x, y, z))
    sin_tilt = -sz / height
    tilted = height * jnp.sqrt(1 - sin_tilt**2)  # the altitude as the old plane sees it
    sin_roll = dz * height / (bases * tilted)
    across, skew = half * jnp.sqrt(1 - sin_roll**2), half * sin_roll * sin_tilt  # and half the base
    # the angle of the turn: a sin + b cos = c, from the angular momentum about the normal
    lever = 2 * (1 - share)
    s0x, s0y, d0x = _dot(s0, x), _dot(s0, y), _dot(d0, x)
    a = -across * d0x - lever * tilted * s0y
    b = -lever * tilted * s0x - skew * d0x
    c = lever * (s0x * sy - s0y * sx) + d0x * dy / 2
    sin = (a * c - b * jnp.sqrt(a * a + b * b - c * c)) / (a * a + b * b)
    cos = jnp.sqrt(1 - sin**2)
    change_s = (tilted * sin - sx) * x - (tilted * cos + sy) * y
    change_d = (2 * (skew * sin - across * cos) - dx) * x - (2 * (skew * cos + across * sin) + dy) * y
    return change_s, change_d


def _project(s, d, s_rate, d_rate, altitude, base):
    """The changes of the rates of s and d after which s.s' = 0, d.d' = 0 and s.d' + d.s' = 0: the lengths rest."""
    per_s, per_d, sd = 1 / _dot(s, s), 1 / _dot(d, d), _dot(s, d)  # sd is 0, but for rounding
    first, second, third = _dot(s, s_rate), _dot(d, d_rate), _dot(s, d_rate) + _dot(d, s_rate)
    stiff = 1 / (per_s * base) + 1 / (per_d * altitude) - sd**2 * (per_d / base + per_s / altitude)
    both = (third - sd * (first * per_s + second * per_d)) / stiff
    along_s, along_d = (first - sd * both / altitude) * per_s, (second - sd * both / base) * per_d
    return -along_s * s - both / altitude * d, -along_d * d - both / base * s


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b):
    return jnp.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _unit(a):
    return a * lax.rsqrt(_dot(a, a))
