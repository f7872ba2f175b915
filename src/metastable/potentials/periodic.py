"""Lennard-Jones and Coulomb in a periodic box: cutoffs, reaction field, Ewald sums.

Beyond the cutoff Lennard-Jones is left out, switched off, or shifted, and its tail may be added on average; Coulomb is
screened by a reaction field, or completed by a sum over the reciprocal lattice. Exceptions, as 1-4 pairs are, have
parameters of their own and no cutoff.
"""

import math
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, allocate
from metastable.core.space import nearest, volume
from metastable.core.units import coulomb
from metastable.potentials.analytic import Index, accumulate, cast, leaf, with_gradient
from metastable.potentials.ewald import Ewald, Excluded
from metastable.potentials.near import near_sum
from metastable.potentials.nonbonded import Combined, Exceptions, Geometric, Tabulated, Uniform
from metastable.potentials.pme import PME


class Coulomb(Protocol):
    """How charges farther apart than the cutoff are treated."""

    def near(self, r2: Any, inverse: Any, cutoff: float) -> Any:
        """The energy of unit charges in units of coulomb, within the cutoff; inverse = 1/r, 1/nm."""
        ...

    def far(self, charges: Float[Array, " atoms"], pairs: Index, frame: Frame) -> Float[Array, ""]:
        """All else, kJ/mol: pairs are those that the near part leaves out."""
        ...


class ReactionField(eqx.Module):
    """1/r + k r^2 - c: beyond the cutoff lies a continuum of this dielectric constant.

    k = (eps - 1) / (2 eps + 1) / rc^3, c = 3 eps / (2 eps + 1) / rc.

    Tironi, Sperb, Smith, van Gunsteren 1995, doi:10.1063/1.469273.
    """

    dielectric: Float[Array, ""] = eqx.field(converter=leaf, default=78.3)

    def near(self, r2, inverse, cutoff):
        """1/r + k r^2 - c, 1/nm. r2: r^2, nm^2. inverse: 1/r, 1/nm. cutoff: nm."""
        eps = self.dielectric
        return inverse + (eps - 1) / (2 * eps + 1) / cutoff**3 * r2 - 3 * eps / (2 * eps + 1) / cutoff

    def far(self, charges, pairs, frame):
        """Nothing: 0 kJ/mol."""
        return jnp.zeros((), frame.positions.dtype)


class MeshEwald(eqx.Module):
    """Ewald's sum with its reciprocal part on a mesh: :class:`~metastable.potentials.pme.PME`.

    alpha: 1/nm. grid: points along each box vector. order: of the splines.
    """

    alpha: Float[Array, ""] = eqx.field(converter=leaf)
    grid: tuple[int, int, int] = eqx.field(static=True)
    order: int = eqx.field(static=True, default=5)

    def near(self, r2, inverse, cutoff):
        """erfc(alpha r) / r, 1/nm. r2: r^2, nm^2. inverse: 1/r, 1/nm. The cutoff does not enter."""
        return screened(self.alpha, r2, inverse)

    def far(self, charges, pairs, frame):
        """The reciprocal sum on the mesh, kJ/mol, less that of the pairs that the near part leaves out, (pairs, 2)."""
        mesh = PME(charges, self.alpha, self.grid, self.order)(frame)
        return mesh + Excluded(charges, self.alpha, pairs)(frame) if len(pairs) else mesh


class PlainEwald(eqx.Module):
    """Ewald's sum, term by term: :class:`~metastable.potentials.ewald.Ewald`. Slow, and an oracle.

    alpha: 1/nm. kmax: the largest integer of the wave vectors along each box vector.
    """

    alpha: Float[Array, ""] = eqx.field(converter=leaf)
    kmax: tuple[int, int, int] = eqx.field(static=True)

    def near(self, r2, inverse, cutoff):
        """erfc(alpha r) / r, 1/nm. r2: r^2, nm^2. inverse: 1/r, 1/nm. The cutoff does not enter."""
        return screened(self.alpha, r2, inverse)

    def far(self, charges, pairs, frame):
        """The reciprocal sum, kJ/mol, less that of the pairs that the near part leaves out, (pairs, 2)."""
        waves = Ewald(charges, self.alpha, self.kmax)(frame)
        return waves + Excluded(charges, self.alpha, pairs)(frame) if len(pairs) else waves


_ERFC = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)  # in powers of 1 / (1 + 0.3275911 x)


def screened(alpha, r2, inverse):
    """erfc(alpha r) / r; in single precision by a rational form of error 1.5e-7, which costs a half.

    Abramowitz, Stegun 1964, Handbook of Mathematical Functions, 7.1.26.
    """
    x = alpha * r2 * inverse
    if r2.dtype == jnp.float64:
        return lax.erfc(x) * inverse
    t = 1 / (1 + 0.3275911 * x)
    series = jnp.zeros_like(t)
    for coefficient in reversed(_ERFC):
        series = (series + coefficient) * t
    return series * jnp.exp(-x * x) * inverse


class Periodic(eqx.Module):
    """Lennard-Jones and Coulomb between the near pairs of a periodic system, and what lies beyond the cutoff.

    charges: e. lennard_jones: how pairs get their coefficients. exceptions: pairs that are excluded or different.
    coulomb: a :class:`Coulomb`, or None where there are no charges. cutoff: nm.
    switch: nm, where Lennard-Jones begins to be switched off, by 1 - 10 x^3 + 15 x^4 - 6 x^5; None for a sharp end.
    shift: take off the value at the cutoff, so that the energy ends there at 0.
    tail: add the mean energy of what is beyond the cutoff, where all is as likely as on average.
    """

    charges: Float[Array, " atoms"] = eqx.field(converter=leaf)
    lennard_jones: Uniform | Combined | Geometric | Tabulated
    exceptions: Exceptions
    coulomb: Any
    cutoff: float = eqx.field(static=True)
    switch: float | None = eqx.field(static=True, default=None)
    shift: bool = eqx.field(static=True, default=False)
    tail: bool = eqx.field(static=True, default=False)
    kinds: Index = eqx.field(static=True, init=False)

    def __post_init__(self):
        if self.switch is not None and not 0 < self.switch < self.cutoff:
            raise ValueError(f"switch = {self.switch} nm must lie between 0 and the cutoff, {self.cutoff} nm")
        atoms = len(self.charges)
        features = [np.zeros(atoms), *(np.asarray(f, float) for f in self.lennard_jones.features(atoms))]
        self.kinds = Index(np.unique(features, axis=1, return_inverse=True)[1].reshape(-1))

    def pairs(self, frame: Frame, skin: float = 0.1, **capacity: Any) -> Pairs:
        """A list of pairs that suits this potential: see :func:`metastable.core.pairs.allocate`."""
        return allocate(frame, self.cutoff, skin, excluded=np.asarray(self.exceptions.index), **capacity)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        if frame.box is None:
            raise ValueError("a periodic potential needs a box, and the frame has none: give Frame(positions, box)")
        one = cast(self, frame.positions.dtype)
        form, atoms = one.lennard_jones, len(one.charges)
        features = (jnp.asarray(one.charges), *map(jnp.asarray, form.features(atoms)))
        energy = near_sum(one._law(), frame, self.cutoff, features, (one.coulomb, form), self.exceptions.index)
        energy = energy + one._exceptions(frame)
        if self.coulomb is not None:
            energy = energy + one.coulomb.far(one.charges, self.exceptions.index, frame)
        return energy + one._tail(frame) if self.tail else energy

    def _law(self):
        """The energy of a near pair."""

        def law(r2, one, other, shared):
            charge, form = shared
            inverse = lax.rsqrt(r2)
            energy = self._dispersion(r2, *form.pair(one[1:], other[1:]))
            if charge is None:
                return energy
            return energy + coulomb * one[0] * other[0] * charge.near(r2, inverse, self.cutoff)

        return law

    def _dispersion(self, r2, repulsion, dispersion):
        """Lennard-Jones of a pair as it is cut off."""
        inverse6 = (1 / r2) ** 3
        energy = (repulsion * inverse6 - dispersion) * inverse6
        if self.shift:
            energy = energy - (repulsion / self.cutoff**6 - dispersion) / self.cutoff**6
        return energy if self.switch is None else energy * self._switched(jnp.sqrt(r2))

    def _switched(self, r):
        """The factor that takes Lennard-Jones from 1 at ``switch`` to 0 at the cutoff."""
        assert self.switch is not None
        x = jnp.maximum(r - self.switch, 0) / (self.cutoff - self.switch)
        return 1 - x**3 * (10 - 15 * x + 6 * x**2)

    def _exceptions(self, frame):
        special = self.exceptions
        own = (coulomb * special.charges, *_coefficients(special.sigma, special.epsilon))
        return _special(special.index)(frame.positions, (frame.box, own))

    def _tail(self, frame):
        """N^2 / 2V int u(r) 4 pi r^2 dr of what cutoff, switch and shift leave out, u averaged over kinds of pairs.

        Pairs are counted as OpenMM counts them, N (N + 1) / 2, each kind with itself. Where the end is sharp the
        derivative with respect to the box has a part that the energy has not, 2 pi / 3 N^2 / V^2 cutoff^3 u(cutoff) in
        the pressure: what pairs that cross the cutoff as the box breathes give on average, and no force knows of.
        Frenkel, Smit 2002, doi:10.1016/B978-0-12-267351-1.X5000-7, section 3.2.2.
        """
        kinds = np.asarray(self.kinds)
        n = np.bincount(kinds).astype(float)

        def of_kind(feature):  # the mean of alike ones, so that each atom has its share of a derivative
            if jnp.issubdtype(jnp.result_type(feature), jnp.integer):
                return jnp.asarray(feature)[np.unique(kinds, return_index=True)[1]]
            return jnp.zeros(len(n), feature.dtype).at[kinds].add(feature) / n.astype(feature.dtype)

        one = [of_kind(jnp.asarray(f))[:, None] for f in self.lennard_jones.features(len(self.charges))]
        repulsion, dispersion = self.lennard_jones.pair(one, [f.T for f in one])
        share = np.where(np.eye(len(n)), n * (n + 1), n[:, None] * n) / (n.sum() * (n.sum() + 1))
        a, b = jnp.sum(share * repulsion), jnp.sum(share * dispersion)
        beyond = a / (9 * self.cutoff**9) - b / (3 * self.cutoff**3)
        at_end, inside = (a / self.cutoff**6 - b) / self.cutoff**6, self.cutoff**3 / 3
        if self.switch is not None:
            nodes, weights = np.polynomial.legendre.leggauss(24)
            r = (self.cutoff - self.switch) / 2 * (nodes + 1) + self.switch
            weights = weights * (self.cutoff - self.switch) / 2 * r**2
            beyond = beyond + jnp.sum(weights * (1 - self._switched(r)) * (a / r**6 - b) / r**6)
            inside = self.switch**3 / 3 + np.sum(weights * self._switched(r))
        if self.shift:
            beyond = beyond + at_end * inside
        density = 2 * math.pi * len(self.charges) ** 2 / volume(frame.box)
        if self.switch is not None or self.shift:
            return density * beyond
        return density * beyond + (density - lax.stop_gradient(density)) * at_end * inside


def _coefficients(sigma, epsilon):
    sigma6 = sigma**6
    return 4 * epsilon * sigma6**2, 4 * epsilon * sigma6


def _special(index: Index):
    """Plain energy and gradient of the exceptions, which know no cutoff; parameters are (box, (q, A, B))."""
    i, j = np.asarray(index).T

    def law(r2, charge, repulsion, dispersion):
        inverse6 = (1 / r2) ** 3
        return charge * lax.rsqrt(r2) + (repulsion * inverse6 - dispersion) * inverse6

    def apart(positions, box):
        d = nearest(positions[i] - positions[j], box)
        return d, jnp.sum(d * d, -1)

    def energy(positions, parameters):
        box, own = parameters
        return jnp.sum(law(apart(positions, box)[1], *own))

    def gradient(positions, parameters):
        box, own = parameters
        d, r2 = apart(positions, box)
        slope = jax.jvp(lambda r2: law(r2, *own), [r2], [jnp.ones_like(r2)])[1]
        pull = 2 * slope[:, None] * d
        return accumulate([pull, -pull], np.asarray(index), len(positions))

    return with_gradient(energy, gradient)
