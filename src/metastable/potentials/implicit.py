"""Implicit solvent by generalised Born radii: HCT, OBC1, OBC2, GBn and GBn2, with salt and a surface term.

One class holds them all, for they differ in what is done to one integral of each atom:

    rho_i = R_i - offset,   s_j = scale_j rho_j
    I_i   = sum over j of H(r_ij, rho_i, s_j)  (+ the necks between pairs, GBn and GBn2)
    1/B_i = 1/rho_i - I_i                                                       HCT
    1/B_i = 1/rho_i - tanh(alpha psi - beta psi^2 + gamma psi^3)/R_i, psi = rho_i I_i   the others
    E     = -1/2 sum over i, j of (1/eps_in - exp(-kappa f)/eps_out) q_i q_j / (4 pi epsilon0 f)
            + tension sum over i of (R_i + probe)^2 (R_i/B_i)^6,
    f^2   = r^2 + B_i B_j exp(-r^2 / (4 B_i B_j)),  f = B_i where i = j.

Hawkins, Cramer and Truhlar 1995, doi:10.1016/0009-2614(95)01082-K (HCT, H); Onufriev, Bashford and Case 2004,
doi:10.1002/prot.20033 (OBC1, OBC2); Mongan et al. 2007, doi:10.1021/ct600085e (GBn); Nguyen, Roe and Simmerling 2013,
doi:10.1021/ct3010485 (GBn2); Schaefer, Bartels and Karplus 1998, doi:10.1006/jmbi.1998.2172 (surface, "ACE").
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.units import coulomb
from metastable.potentials.analytic import Index, cast


class Rescaling(eqx.Module):
    """The coefficients of psi, psi^2 and psi^3 in the tanh that keeps radii of buried atoms finite; no unit."""

    alpha: Float[Array, " atoms"]
    beta: Float[Array, " atoms"]
    gamma: Float[Array, " atoms"]


class Neck(eqx.Module):
    """The solvent-free neck between two atoms: scale m / (1 + 100 (r - d)^2 + 3e5 (r - d)^6) for r < R_i + R_j + cut.

    types: the class of radius of each atom, (atoms,). distance: d, nm, and depth: m, 1/nm, (types, types), the row
    for the atom whose integral it is. scale: no unit. cut: nm.
    """

    types: Index = eqx.field(static=True)
    distance: Float[Array, "types types"]
    depth: Float[Array, "types types"]
    scale: Float[Array, ""]
    cut: float = eqx.field(static=True)


class GeneralizedBorn(eqx.Module):
    """Generalised Born solvation; the equations stand at the top of this module.

    charges: e. radii: R, nm. scales: no unit. rescaling: None for HCT. neck: None but for GBn and GBn2.
    solute, solvent: relative permittivities. tension: kJ/mol/nm^2, 4 pi included, None for no surface term.
    kappa: inverse Debye length, 1/nm, None without salt. offset, probe: nm.
    coulomb: 1/(4 pi epsilon0), kJ nm/(mol e^2); force fields differ in its seventh digit.
    inside: an atom wholly inside the sphere of another adds 1/rho_i - 1/(s_j - r) to its integral, as OpenMM's
    GBSAOBCForce has it and its custom forces do not.
    """

    charges: Float[Array, " atoms"]
    radii: Float[Array, " atoms"]
    scales: Float[Array, " atoms"]
    rescaling: Rescaling | None
    neck: Neck | None
    solute: Float[Array, ""]
    solvent: Float[Array, ""]
    tension: Float[Array, ""] | None = None
    kappa: Float[Array, ""] | None = None
    offset: float = eqx.field(static=True, default=0.009)
    probe: float = eqx.field(static=True, default=0.14)
    coulomb: float = eqx.field(static=True, default=coulomb)
    inside: bool = eqx.field(static=True, default=False)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return solvation_energy(frame.positions, self)


def solvation_energy(positions: Float[Array, "atoms 3"], solvent: GeneralizedBorn) -> Float[Array, ""]:
    """Plain energy, kJ/mol, of all pairs, twice and halved, the diagonal being the self energies."""
    p = cast(solvent, positions.dtype)
    d = positions[:, None, :] - positions[None, :, :]
    r2 = jnp.sum(d * d, axis=-1)
    born = born_radii(r2, p)
    product = born[:, None] * born
    f = jnp.sqrt(r2 + product * jnp.exp(-r2 / (4 * product)))
    screening = 1 / p.solvent if p.kappa is None else jnp.exp(-p.kappa * f) / p.solvent
    charges = p.charges[:, None] * p.charges
    energy = -0.5 * p.coulomb * jnp.sum((1 / p.solute - screening) * charges / f)
    if p.tension is not None:
        energy += p.tension * jnp.sum((p.radii + p.probe) ** 2 * (p.radii / born) ** 6)
    return energy


def born_radii(r2: Float[Array, "atoms atoms"], p: GeneralizedBorn) -> Float[Array, " atoms"]:
    """Born radii B, nm, from the squared distances, nm^2, of all pairs."""
    itself = np.eye(len(p.radii), dtype=bool)
    r = jnp.sqrt(jnp.where(itself, 1, r2))
    rho = p.radii - p.offset
    pairs = _overlap(r, rho[:, None], (p.scales * rho)[None, :], p.inside)
    if p.neck is not None:
        pairs += _necks(r, p.radii[:, None] + p.radii, p.neck)
    integral = jnp.sum(jnp.where(itself, 0, pairs), axis=1)
    if p.rescaling is None:
        return 1 / (1 / rho - integral)
    c, psi = p.rescaling, rho * integral
    return 1 / (1 / rho - jnp.tanh(psi * (c.alpha - psi * (c.beta - psi * c.gamma))) / p.radii)


def _overlap(r, rho, s, inside):
    """H of Hawkins, Cramer and Truhlar: 1/r^4 over the part of a sphere s at distance r that is outside of rho.

    Zero where r + s <= rho: there U is put equal to L, which makes it so, derivatives included.
    """
    L = jnp.maximum(rho, jnp.abs(r - s))
    U = jnp.where(r + s > rho, r + s, L)
    value = 0.5 * (1 / L - 1 / U + 0.25 * (r - s * s / r) * (1 / U**2 - 1 / L**2) + 0.5 * jnp.log(L / U) / r)
    return value + jnp.where(rho < s - r, 1 / rho - 1 / L, 0) if inside else value


def _necks(r, contact, neck):
    t = np.asarray(neck.types)
    x2 = (r - neck.distance[t][:, t]) ** 2
    return jnp.where(r < contact + neck.cut, neck.scale * neck.depth[t][:, t] / (1 + 100 * x2 + 3e5 * x2**3), 0)
