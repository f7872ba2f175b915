"""Lennard-Jones and Coulomb between all pairs of atoms, without a cutoff and without a box.

Parameters are kept an atom (or a type), so that a derivative in the charge of an atom means what it says;
:meth:`Nonbonded.pairs` combines them into matrices over all pairs of atoms, which is all that a kernel needs.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.units import coulomb
from metastable.potentials.analytic import Index, cast, leaf, with_gradient
from metastable.potentials.sweep import sweep


class PairMatrices(NamedTuple):
    """E_ij = charge / r + repulsion / r^12 - dispersion / r^6; symmetric, zero on the diagonal.

    charge: kJ nm/mol, 1/(4 pi epsilon0) included. repulsion: kJ nm^12/mol. dispersion: kJ nm^6/mol.
    """

    charge: Float[Array, "atoms atoms"]
    repulsion: Float[Array, "atoms atoms"]
    dispersion: Float[Array, "atoms atoms"]


class Uniform(eqx.Module):
    """Lennard-Jones of a fluid of one kind of atom. sigma: nm. epsilon: kJ/mol."""

    sigma: Float[Array, ""] = eqx.field(converter=leaf)
    epsilon: Float[Array, ""] = eqx.field(converter=leaf)

    def features(self, atoms: int) -> tuple:
        """What a pair needs of each of its atoms: nothing."""
        return ()

    def pair(self, one, other):
        """Repulsion and dispersion of pairs from the features of their atoms."""
        return _coefficients(self.sigma, self.epsilon)


class Combined(eqx.Module):
    """Lennard-Jones from atoms by Lorentz and Berthelot: sigma_ij arithmetic, epsilon_ij geometric mean.

    sigma: nm. epsilon: kJ/mol.
    """

    sigma: Float[Array, " atoms"] = eqx.field(converter=leaf)
    epsilon: Float[Array, " atoms"] = eqx.field(converter=leaf)

    def features(self, atoms: int) -> tuple:
        """What a pair needs of each of its atoms: half its sigma, and 2 sqrt(epsilon)."""
        return 0.5 * self.sigma, 2 * _root(self.epsilon)

    def pair(self, one, other):
        """Repulsion and dispersion of pairs from the features of their atoms."""
        sigma6 = (one[0] + other[0]) ** 6
        dispersion = one[1] * other[1] * sigma6
        return dispersion * sigma6, dispersion

    def coefficients(self) -> tuple[Float[Array, "atoms atoms"], Float[Array, "atoms atoms"]]:
        """Repulsion 4 epsilon sigma^12 and dispersion 4 epsilon sigma^6 of all pairs."""
        root = _root(self.epsilon)
        sigma = 0.5 * (self.sigma[:, None] + self.sigma[None, :])
        return _coefficients(sigma, root[:, None] * root[None, :])


class Geometric(eqx.Module):
    """Lennard-Jones whose coefficients are products of one number an atom (GROMACS' rules 1 and 3).

    repulsion: square root of the coefficient of r^-12 of an atom with itself. dispersion: of r^-6.
    """

    repulsion: Float[Array, " atoms"] = eqx.field(converter=leaf)
    dispersion: Float[Array, " atoms"] = eqx.field(converter=leaf)

    def features(self, atoms: int) -> tuple:
        """What a pair needs of each of its atoms: its two numbers."""
        return self.repulsion, self.dispersion

    def pair(self, one, other):
        """Repulsion and dispersion of pairs from the features of their atoms."""
        return one[0] * other[0], one[1] * other[1]

    def coefficients(self) -> tuple[Float[Array, "atoms atoms"], Float[Array, "atoms atoms"]]:
        """Repulsion and dispersion of all pairs."""
        return (self.repulsion[:, None] * self.repulsion, self.dispersion[:, None] * self.dispersion)


class Tabulated(eqx.Module):
    """Lennard-Jones from a table over pairs of types, as CHARMM's NBFIX needs it.

    types: the type of each atom, (atoms,). repulsion, dispersion: coefficients of r^-12 and r^-6, (types, types).
    """

    types: Index = eqx.field(static=True, converter=Index)
    repulsion: Float[Array, "types types"] = eqx.field(converter=leaf)
    dispersion: Float[Array, "types types"] = eqx.field(converter=leaf)

    def features(self, atoms: int) -> tuple:
        """What a pair needs of each of its atoms: its type."""
        return (np.asarray(self.types),)

    def pair(self, one, other):
        """Repulsion and dispersion of pairs from the features of their atoms."""
        place = one[0] * len(self.repulsion) + other[0]
        return self.repulsion.ravel()[place], self.dispersion.ravel()[place]

    def coefficients(self) -> tuple[Float[Array, "atoms atoms"], Float[Array, "atoms atoms"]]:
        """Repulsion and dispersion of all pairs."""
        t = np.asarray(self.types)
        return self.repulsion[t][:, t], self.dispersion[t][:, t]


class Exceptions(eqx.Module):
    """Pairs with parameters of their own in place of the combined ones: excluded (all zero) and 1-4 pairs.

    index: (pairs, 2). charges: products of charges, e^2. sigma: nm. epsilon: kJ/mol.
    """

    index: Index = eqx.field(static=True, converter=Index)
    charges: Float[Array, " pairs"] = eqx.field(converter=leaf)
    sigma: Float[Array, " pairs"] = eqx.field(converter=leaf)
    epsilon: Float[Array, " pairs"] = eqx.field(converter=leaf)


class Nonbonded(eqx.Module):
    """E = sum over pairs of q_i q_j / (4 pi epsilon0 r) + 4 epsilon ((sigma/r)^12 - (sigma/r)^6).

    charges: e. lennard_jones: how pairs get their coefficients. exceptions: the pairs that are different.
    """

    charges: Float[Array, " atoms"] = eqx.field(converter=leaf)
    lennard_jones: Combined | Geometric | Tabulated
    exceptions: Exceptions

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _nonbonded(frame.positions, cast(self, frame.positions.dtype).pairs())

    def pairs(self) -> PairMatrices:
        """The parameters of all pairs of atoms, exceptions put in. Depends on no position."""
        special, (i, j) = self.exceptions, np.asarray(self.exceptions.index).T
        number = np.full((len(self.charges),) * 2, -1)  # of the exception that a pair is; one more is the diagonal
        number[i, j] = number[j, i] = np.arange(len(i))
        np.fill_diagonal(number, len(i))
        own = (coulomb * special.charges, *_coefficients(special.sigma, special.epsilon))
        combined = (coulomb * self.charges[:, None] * self.charges, *self.lennard_jones.coefficients())
        return PairMatrices(*(
            jnp.where(number < 0, c, jnp.append(o, 0)[number]) for c, o in zip(combined, own, strict=True)
        ))  # fmt: skip


def pairs_energy(positions: Float[Array, "atoms 3"], pairs: PairMatrices) -> Float[Array, ""]:
    """Plain energy of all pairs, kJ/mol: every pair twice and halved, the diagonal kept away from r = 0."""
    d = positions[:, None, :] - positions[None, :, :]
    inverse2 = 1 / (jnp.sum(d * d, axis=-1) + np.eye(len(positions), dtype=positions.dtype))
    inverse6 = inverse2**3
    energy = pairs.charge * jnp.sqrt(inverse2) + (pairs.repulsion * inverse6 - pairs.dispersion) * inverse6
    return 0.5 * jnp.sum(energy)


def pairs_gradient(positions: Float[Array, "atoms 3"], pairs: PairMatrices) -> Float[Array, "atoms 3"]:
    """Each pair once: r dE/dr = -charge/r - 12 repulsion/r^12 + 6 dispersion/r^6."""

    def virial(r2, _first, _second, of_pair):
        charge, repulsion, dispersion = of_pair
        inverse = lax.rsqrt(r2)
        inverse6 = (inverse * inverse) ** 3
        return (dispersion - repulsion * inverse6) * inverse6 - charge * inverse, (), ()

    return sweep(virial, positions, (), (pairs.charge, 12 * pairs.repulsion, 6 * pairs.dispersion))[0]


_nonbonded = with_gradient(pairs_energy, pairs_gradient)


def _coefficients(sigma, epsilon):
    sigma6 = sigma**6
    return 4 * epsilon * sigma6**2, 4 * epsilon * sigma6


def _root(x):
    """Square root with derivative 0 at 0, where many hydrogens are: the true one is infinite, and its product NaN."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)
