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
doi:10.1021/ct3010485 (GBn2); Schaefer, Bartels and Karplus 1998, doi:10.1006/jmbi.1998.2172 (surface, "ACE", of which
this is the form by Ponder that OpenMM has: the sixth power of R_i/B_i, not the first).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.units import coulomb
from metastable.potentials.analytic import Index, cast, leaf, with_gradient
from metastable.potentials.sweep import sweep


class Rescaling(eqx.Module):
    """The coefficients of psi, psi^2 and psi^3 in the tanh that keeps radii of buried atoms finite; no unit."""

    alpha: Float[Array, " atoms"] = eqx.field(converter=leaf)
    beta: Float[Array, " atoms"] = eqx.field(converter=leaf)
    gamma: Float[Array, " atoms"] = eqx.field(converter=leaf)


class Neck(eqx.Module):
    """The solvent-free neck between two atoms: scale m / (1 + 100 (r - d)^2 + 3e5 (r - d)^6) for r < R_i + R_j + cut.

    types: the class of radius of each atom, (atoms,). distance: d, nm, and depth: m, 1/nm, (types, types), the row
    for the atom whose integral it is. scale: no unit. cut: nm.
    """

    types: Index = eqx.field(static=True, converter=Index)
    distance: Float[Array, "types types"] = eqx.field(converter=leaf)
    depth: Float[Array, "types types"] = eqx.field(converter=leaf)
    scale: Float[Array, ""] = eqx.field(converter=leaf)
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

    charges: Float[Array, " atoms"] = eqx.field(converter=leaf)
    radii: Float[Array, " atoms"] = eqx.field(converter=leaf)
    scales: Float[Array, " atoms"] = eqx.field(converter=leaf)
    rescaling: Rescaling | None
    neck: Neck | None
    solute: Float[Array, ""] = eqx.field(converter=leaf)
    solvent: Float[Array, ""] = eqx.field(converter=leaf)
    tension: Float[Array, ""] | None = eqx.field(converter=leaf, default=None)
    kappa: Float[Array, ""] | None = eqx.field(converter=leaf, default=None)
    offset: float = eqx.field(static=True, default=0.009)
    probe: float = eqx.field(static=True, default=0.14)
    coulomb: float = eqx.field(static=True, default=coulomb)
    inside: bool = eqx.field(static=True, default=False)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        return _solvation(frame.positions, self)


def solvation_energy(positions: Float[Array, "atoms 3"], solvent: GeneralizedBorn) -> Float[Array, ""]:
    """Plain energy, kJ/mol, of all pairs, twice and halved, the diagonal being the self energies."""
    p = cast(solvent, positions.dtype)
    d = positions[:, None, :] - positions[None, :, :]
    r2 = jnp.sum(d * d, axis=-1)
    born = born_radii(r2, p)
    product = born[:, None] * born
    f = jnp.sqrt(r2 + product * jnp.exp(-r2 / (4 * product)))
    apart = 1 - np.eye(len(born), dtype=born.dtype)
    pairs = 0.5 * jnp.sum(apart * p.charges[:, None] * p.charges * _screened(f, p))
    return pairs + jnp.sum(_own_energies(born, p))


def _screened(f, p):
    """-(1/eps_in - exp(-kappa f)/eps_out) / (4 pi epsilon0 f), the energy of two unit charges."""
    screening = 1 / p.solvent if p.kappa is None else jnp.exp(-p.kappa * f) / p.solvent
    return p.coulomb * (screening - 1 / p.solute) / f


def _screened_slope(f2, p):
    """The derivative of ``_screened`` in f^2."""
    inverse = lax.rsqrt(f2)
    screening = 1 / p.solvent if p.kappa is None else jnp.exp(-p.kappa * f2 * inverse) / p.solvent
    decline = (screening - 1 / p.solute) * inverse + (0 if p.kappa is None else p.kappa * screening)
    return -0.5 * p.coulomb * decline * inverse**2


def _own_energies(born, p):
    """What each atom adds by itself: the self energy, and its surface."""
    own = 0.5 * p.charges**2 * _screened(born, p)
    return own if p.tension is None else own + p.tension * (p.radii + p.probe) ** 2 * (p.radii / born) ** 6


def born_radii(r2: Float[Array, "atoms atoms"], p: GeneralizedBorn) -> Float[Array, " atoms"]:
    """Born radii B, nm, from the squared distances, nm^2, of all pairs."""
    itself = np.eye(len(p.radii), dtype=bool)
    r = jnp.sqrt(jnp.where(itself, 1, r2))
    rho = p.radii - p.offset
    pairs = _overlap(r, rho[:, None], (p.scales * rho)[None, :], p.inside)
    if p.neck is not None:
        pairs += _neck(r, *_neck_tables(p), p.neck.scale)
    return _radii(jnp.sum(jnp.where(itself, 0, pairs), axis=1), p)


def _radii(integral, p):
    """Born radii from the integrals, nm."""
    rho = p.radii - p.offset
    if p.rescaling is None:
        return 1 / (1 / rho - integral)
    c, psi = p.rescaling, rho * integral
    return 1 / (1 / rho - jnp.tanh(psi * (c.alpha - psi * (c.beta - psi * c.gamma))) / p.radii)


def _overlap(r, rho, s, inside):
    """H of Hawkins, Cramer and Truhlar: 1/r^4 over the part of a sphere s at distance r that is outside of rho,

        H = (1/L - 1/U)/2 + (r - s^2/r) (1/U^2 - 1/L^2)/8 + ln(L/U)/(4 r),  L = max(rho, |r - s|),  U = r + s,

    with few divisions. Zero where r + s <= rho: there U is put equal to L, which makes it so, derivatives included.
    """
    L, U = _bounds(r, rho, s)
    product = L * U
    slab = (U - L) * (r * product - 0.25 * (r * r - s * s) * (U + L)) / (product * product)
    value = (0.5 * slab + 0.25 * jnp.log(L / U)) / r
    return value + jnp.where(rho < s - r, 1 / rho - 1 / L, 0) if inside else value


def _bounds(r, rho, s):
    L = jnp.maximum(rho, jnp.abs(r - s))
    return L, jnp.where(r + s > rho, r + s, L)


def _neck(r, distance, depth, reach, scale):
    x2 = (r - distance) ** 2
    return jnp.where(r < reach, scale * depth / (1 + 100 * x2 + 3e5 * x2**3), 0)


def _neck_tables(p):
    """Distance, depth and reach of the necks of all pairs, (atoms, atoms); a row is an atom's own integral."""
    t = np.asarray(p.neck.types)
    return p.neck.distance[t][:, t], p.neck.depth[t][:, t], p.radii[:, None] + p.radii + p.neck.cut


def solvation_gradient(positions: Float[Array, "atoms 3"], solvent: GeneralizedBorn) -> Float[Array, "atoms 3"]:
    """Three sweeps over the pairs: the integrals; the energy, in r and in B; the integrals again, in r.

    dE/dx = dE/dx at constant B + sum over i of (dE/dB_i) (dB_i/dI_i) dI_i/dx.
    """
    p = cast(solvent, positions.dtype)
    rho = p.radii - p.offset
    spheres, necks = (rho, p.scales * rho), ()
    if p.neck is not None:
        distance, depth, reach = _neck_tables(p)
        necks = (distance, depth, distance.T, depth.T, reach)

    def integrals(r2, first, second, necks):
        r = jnp.sqrt(r2)
        mine, yours = _overlap(r, first[0], second[1], p.inside), _overlap(r, second[0], first[1], p.inside)
        if necks:
            mine += _neck(r, necks[0], necks[1], necks[4], p.neck.scale)
            yours += _neck(r, necks[2], necks[3], necks[4], p.neck.scale)
        return None, [mine], [yours]

    def energy(r2, first, second, _):
        exponent = r2 * (first[1] * second[1])
        product, decay = first[0] * second[0], jnp.exp(-exponent)
        slope = first[2] * second[2] * _screened_slope(r2 + product * decay, p)
        in_product = slope * decay * (1 + exponent)
        return 2 * r2 * slope * (1 - decay / 4), [in_product * second[0]], [in_product * first[0]]

    def chain(r2, first, second, necks):
        r = jnp.sqrt(r2)
        mine = _overlap_virial(r, first[0], second[1], p.inside)
        yours = _overlap_virial(r, second[0], first[1], p.inside)
        if necks:
            mine += _neck_virial(r, necks[0], necks[1], necks[4], p.neck.scale)
            yours += _neck_virial(r, necks[2], necks[3], necks[4], p.neck.scale)
        return first[2] * mine + second[2] * yours, (), ()

    (integral,) = sweep(integrals, positions, spheres, necks, sums=1, gradient=False)[1]
    born, per_integral = jax.jvp(lambda x: _radii(x, p), (integral,), (jnp.ones_like(integral),))
    direct, (in_born,) = sweep(energy, positions, (born, 0.5 / born, p.charges), sums=1)
    in_born += jax.jvp(lambda x: _own_energies(x, p), (born,), (jnp.ones_like(born),))[1]
    indirect, _ = sweep(chain, positions, (*spheres, in_born * per_integral), necks)
    return direct + indirect


def _overlap_virial(r, rho, s, inside):
    """r dH/dr. H does not change with L and U where these change with r, but for L of a sphere that reaches past
    the far side of atom i (s - r > rho), whose 1/L^2 the term for atoms inside takes away again.
    """
    L, U = _bounds(r, rho, s)
    product = L * U
    slab = (r * r + s * s) * (U - L) * (U + L) / (product * product)
    slope = -(0.125 * slab + 0.25 * jnp.log(L / U)) / r
    return slope if inside else slope + jnp.where(s - r > rho, r / (L * L), 0)


def _neck_virial(r, distance, depth, reach, scale):
    return r * jax.jvp(lambda r: _neck(r, distance, depth, reach, scale), (r,), (jnp.ones_like(r),))[1]


_solvation = with_gradient(solvation_energy, solvation_gradient)
