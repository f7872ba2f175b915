"""Bonds, angles, torsions and their maps: the terms of a force field that follow the covalent bonds.

Each term has its parameters as leaves and its atoms as a static :class:`Index`. For each there is a plain
energy, a function of (positions, term), and for all but the maps a kernel for its gradient; the call of the
term joins them with :func:`with_gradient`.
"""

from functools import cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.potentials.analytic import Index, accumulate, cast, leaf, with_gradient
from metastable.potentials.geometry import (
    angles,
    cross,
    dot,
    polar,
    positive_root,
    torsion_contributions,
    torsions,
)


class HarmonicBonds(eqx.Module):
    """E = sum of k/2 (r - r0)^2. Urey-Bradley terms are the same between the ends of an angle.

    index: (bonds, 2). lengths: r0, nm. stiffness: k, kJ/mol/nm^2.
    """

    index: Index = eqx.field(static=True, converter=Index)
    lengths: Float[Array, " bonds"] = eqx.field(converter=leaf)
    stiffness: Float[Array, " bonds"] = eqx.field(converter=leaf)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _bonds(frame.positions, self)


def bonds_energy(positions: Float[Array, "atoms 3"], term: HarmonicBonds) -> Float[Array, ""]:
    """Plain energy of harmonic bonds, kJ/mol."""
    p, (i, j) = cast(term, positions.dtype), np.asarray(term.index).T
    d = positions[i] - positions[j]
    return 0.5 * jnp.sum(p.stiffness * (jnp.sqrt(dot(d, d)) - p.lengths) ** 2)


def bonds_gradient(positions: Float[Array, "atoms 3"], term: HarmonicBonds) -> Float[Array, "atoms 3"]:
    """k (r - r0) d/r on the first atom and minus that on the second.

    As k (r^2 - r0^2) / (r^2 + r0 r) d, which loses least where r is near r0: stiff bonds make most of the error that
    single precision makes in the forces.
    """
    p, (i, j) = cast(term, positions.dtype), np.asarray(term.index).T
    d = positions[i] - positions[j]
    square = dot(d, d)
    strain = (square - p.lengths * p.lengths) / (square + p.lengths * jnp.sqrt(square))
    g = (p.stiffness * strain)[:, None] * d
    return accumulate([g, -g], term.index, len(positions))


_bonds = with_gradient(bonds_energy, bonds_gradient)


class HarmonicAngles(eqx.Module):
    """E = sum of k/2 (theta - theta0)^2.

    index: (angles, 3), the apex in the middle. angles: theta0, rad. stiffness: k, kJ/mol/rad^2.
    """

    index: Index = eqx.field(static=True, converter=Index)
    angles: Float[Array, " angles"] = eqx.field(converter=leaf)
    stiffness: Float[Array, " angles"] = eqx.field(converter=leaf)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _angles(frame.positions, self)


def angles_energy(positions: Float[Array, "atoms 3"], term: HarmonicAngles) -> Float[Array, ""]:
    """Plain energy of harmonic angles, kJ/mol."""
    p = cast(term, positions.dtype)
    return 0.5 * jnp.sum(p.stiffness * (angles(positions, np.asarray(term.index)) - p.angles) ** 2)


def angles_gradient(positions: Float[Array, "atoms 3"], term: HarmonicAngles) -> Float[Array, "atoms 3"]:
    """With a, b from the apex: dtheta/da = ((a.b) a/a^2 - b) / |a x b|, and the same with a and b exchanged."""
    p, index = cast(term, positions.dtype), np.asarray(term.index)
    i, j, k = (positions[index[:, n]] for n in range(3))
    a, b = i - j, k - j
    c, ab = cross(a, b), dot(a, b)
    area = positive_root(dot(c, c))
    slope = p.stiffness * (polar(area, ab) - p.angles) / area
    ga = slope[:, None] * ((ab / dot(a, a))[:, None] * a - b)
    gb = slope[:, None] * ((ab / dot(b, b))[:, None] * b - a)
    return accumulate([ga, -ga - gb, gb], index, len(positions))


_angles = with_gradient(angles_energy, angles_gradient)


class PeriodicTorsions(eqx.Module):
    """E = sum of k (1 + cos(n phi - phase)); many terms may share their four atoms.

    index: (torsions, 4). periodicity: n. barriers: k, kJ/mol. phases: rad.
    """

    index: Index = eqx.field(static=True, converter=Index)
    periodicity: Index = eqx.field(static=True, converter=Index)
    barriers: Float[Array, " torsions"] = eqx.field(converter=leaf)
    phases: Float[Array, " torsions"] = eqx.field(converter=leaf)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _periodic(frame.positions, self)


def periodic_energy(positions: Float[Array, "atoms 3"], term: PeriodicTorsions) -> Float[Array, ""]:
    """Plain energy of periodic torsions, kJ/mol."""
    p = cast(term, positions.dtype)
    phi = torsions(positions, np.asarray(term.index)).angle
    return jnp.sum(p.barriers * (1 + jnp.cos(np.asarray(term.periodicity, positions.dtype) * phi - p.phases)))


def periodic_gradient(positions: Float[Array, "atoms 3"], term: PeriodicTorsions) -> Float[Array, "atoms 3"]:
    """Each four atoms once: the terms on them are a Fourier series in phi, whose harmonics come by recurrence.

    dE/dphi = sum over n of n (S_n cos n phi - C_n sin n phi), C_n and S_n sums of k cos and k sin of the phases.
    """
    p, n = cast(term, positions.dtype), np.asarray(term.periodicity)
    index, which = unique_torsions(term.index)
    harmonics = n.max(initial=1) + 1
    C, S = (
        accumulate([series[:, None]], n * len(index) + which, harmonics * len(index)).reshape(harmonics, len(index))
        for series in (p.barriers * jnp.cos(p.phases), p.barriers * jnp.sin(p.phases))
    )
    t = torsions(positions, index)
    cos, sin, slope = t.cos, t.sin, jnp.zeros_like(t.cos)
    for order in range(1, harmonics):
        slope += order * (S[order] * cos - C[order] * sin)
        cos, sin = cos * t.cos - sin * t.sin, sin * t.cos + cos * t.sin
    return accumulate(torsion_contributions(t, slope), index, len(positions))


@cache
def unique_torsions(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """The different torsions among index, and for each term which of them it is; i-j-k-l is l-k-j-i."""
    array = np.asarray(index)
    backwards = (array[:, 0] > array[:, 3])[:, None]
    found, which = np.unique(np.where(backwards, array[:, ::-1], array), axis=0, return_inverse=True)
    return found, which.reshape(-1).astype(np.int32)


_periodic = with_gradient(periodic_energy, periodic_gradient)


class RyckaertBellemansTorsions(eqx.Module):
    """E = sum over n of c_n cos(phi - pi)^n (Ryckaert and Bellemans, 1975, doi:10.1016/0009-2614(75)85513-8).

    index: (torsions, 4). coefficients: c_0 ... c_5, kJ/mol, (torsions, 6).
    """

    index: Index = eqx.field(static=True, converter=Index)
    coefficients: Float[Array, "torsions 6"] = eqx.field(converter=leaf)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _rb(frame.positions, self)


def rb_energy(positions: Float[Array, "atoms 3"], term: RyckaertBellemansTorsions) -> Float[Array, ""]:
    """Plain energy of Ryckaert-Bellemans torsions, kJ/mol."""
    c = cast(term.coefficients, positions.dtype)
    x = -torsions(positions, np.asarray(term.index)).cos
    return jnp.sum(_polynomial(c, x))


def rb_gradient(positions: Float[Array, "atoms 3"], term: RyckaertBellemansTorsions) -> Float[Array, "atoms 3"]:
    """dE/dphi = sin(phi) times the derivative of the polynomial at cos(phi - pi) = -cos(phi)."""
    c, index = cast(term.coefficients, positions.dtype), np.asarray(term.index)
    t = torsions(positions, index)
    slope = t.sin * _polynomial(c[:, 1:] * np.arange(1, c.shape[1], dtype=positions.dtype), -t.cos)
    return accumulate(torsion_contributions(t, slope), index, len(positions))


def _polynomial(c: Any, x: Any) -> Any:
    """Horner's rule; coefficients in rising order along the last axis of c."""
    value = c[:, -1]
    for n in reversed(range(c.shape[1] - 1)):
        value = value * x + c[:, n]
    return value


_rb = with_gradient(rb_energy, rb_gradient)


class HarmonicTorsions(eqx.Module):
    """E = sum of k (phi - phi0)^2, the improper torsions of CHARMM: note that there is no half.

    index: (torsions, 4). angles: phi0, rad. stiffness: k, kJ/mol/rad^2.
    periodic: take the difference in [-pi, pi]; else phi in (-pi, pi] minus phi0 as it is (OpenMM's charmm36.xml).
    """

    index: Index = eqx.field(static=True, converter=Index)
    angles: Float[Array, " torsions"] = eqx.field(converter=leaf)
    stiffness: Float[Array, " torsions"] = eqx.field(converter=leaf)
    periodic: bool = eqx.field(static=True, default=True)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _harmonic(frame.positions, self)


def _strain(phi: Any, p: HarmonicTorsions) -> Any:
    strain = phi - p.angles
    return strain - 2 * np.pi * jnp.round(strain / (2 * np.pi)) if p.periodic else strain


def harmonic_energy(positions: Float[Array, "atoms 3"], term: HarmonicTorsions) -> Float[Array, ""]:
    """Plain energy of harmonic torsions, kJ/mol."""
    p = cast(term, positions.dtype)
    return jnp.sum(p.stiffness * _strain(torsions(positions, np.asarray(term.index)).angle, p) ** 2)


def harmonic_gradient(positions: Float[Array, "atoms 3"], term: HarmonicTorsions) -> Float[Array, "atoms 3"]:
    """dE/dphi = 2 k (phi - phi0)."""
    p, index = cast(term, positions.dtype), np.asarray(term.index)
    t = torsions(positions, index)
    slope = 2 * p.stiffness * _strain(t.angle, p)
    return accumulate(torsion_contributions(t, slope), index, len(positions))


_harmonic = with_gradient(harmonic_energy, harmonic_gradient)


class TorsionMaps(eqx.Module):
    """CMAP: an energy that is tabulated over two torsions (MacKerell et al., 2004, doi:10.1002/jcc.20065).

    Between the points it is the periodic cubic tensor spline through them, which is OpenMM's bicubic patch with
    derivatives from periodic splines, written in B-splines: E = b(phi) . C . b(psi), where every point has a weight
    b and no look-up is needed.

    first, second: torsions, (maps, 4) each. which: the table of each pair of torsions, (maps,).
    tables: kJ/mol at angles 2 pi n / points, first torsion along rows, (tables, points, points).
    """

    first: Index = eqx.field(static=True, converter=Index)
    second: Index = eqx.field(static=True, converter=Index)
    which: Index = eqx.field(static=True, converter=Index)
    tables: Float[Array, "tables points points"] = eqx.field(converter=leaf)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        positions = jnp.asarray(frame.positions)
        points = self.tables.shape[-1]
        inverse = jnp.asarray(_spline_inverse(points), positions.dtype)
        spline = jnp.einsum("ij,tjk,lk->til", inverse, cast(self.tables, positions.dtype), inverse, precision="highest")
        row = _spline_weights(torsions(positions, np.asarray(self.first)).angle, points)
        column = _spline_weights(torsions(positions, np.asarray(self.second)).angle, points)
        patch = spline[np.asarray(self.which)]
        return jnp.sum(jnp.sum(patch * column[:, None, :], axis=2) * row)


def _spline_weights(angle: Float[Array, " maps"], points: int) -> Float[Array, "maps points"]:
    """The periodic cubic B-spline around each of the points, at an angle in rad."""
    d = angle[:, None] * (points / (2 * np.pi)) - np.arange(points, dtype=angle.dtype)
    d = jnp.abs(d - points * jnp.round(d / points))
    outside = jnp.maximum(2 - d, 0) ** 3
    return (outside - 4 * jnp.maximum(1 - d, 0) ** 3) / 6


@cache
def _spline_inverse(points: int) -> np.ndarray:
    """From values at the points to coefficients of their B-splines: each value is (c[-1] + 4 c[0] + c[1]) / 6."""
    unit = np.eye(points)
    return np.linalg.inv((np.roll(unit, 1, 0) + 4 * unit + np.roll(unit, -1, 0)) / 6)
