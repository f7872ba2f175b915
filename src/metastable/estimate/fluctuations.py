"""Densities and response functions from a run in equilibrium: what fluctuates tells how it would respond.

The formulas: Allen and Tildesley (2017), Computer Simulation of Liquids, 2nd ed., section 2.5. Every series is (time,)
or (time, walkers). A fluctuation about the mean of the run is too small by the variance of that mean; it is added
back, from the same blocks of time that give the errors.
"""

import jax
import numpy as np
from jaxtyping import Float, Int

from metastable.core import space
from metastable.core.units import bar, coulomb, kelvin, kg_m3
from metastable.estimate.boxes import of_frames
from metastable.estimate.correlation import choose_blocks, mean
from metastable.estimate.curve import ratio, stretch_sums
from metastable.estimate.estimate import Estimate

_NEUTRAL = 1e-4  # e: the charge of a molecule that is rounding
_ATOMS = 2**20  # positions in one compiled call


def mass_density(volume: Float[np.ndarray, "time *walkers"], mass: float, *, length: int | None = None) -> Estimate:
    """The mean of M / V, kg/m^3. volume: nm^3. mass: of all that is in the box, Da. length: of a block, frames."""
    (volume,) = _series(volume=volume)
    return mean(mass / volume[..., 0] / kg_m3, length=length, unit="kg/m^3")


def isochoric_heat_capacity(
    energy: Float[np.ndarray, "time *walkers"],
    kT: float,
    *,
    degrees_of_freedom: int = 0,
    molecules: int = 1,
    length: int | None = None,
) -> Estimate:
    """C_V = (<E^2> - <E>^2) / (k T^2) of a run at constant volume and temperature, kJ/(mol K).

    energy: total, kJ/mol; or potential, and then ``degrees_of_freedom`` f gives the momenta's share, f k / 2, exactly.
    molecules: among whom the heat capacity is shared; 1 for that of the box. length: of a block of time, frames.
    """
    (energy,) = _series(energy=energy)
    return _heat_capacity(energy, _positive("kT", kT), degrees_of_freedom, molecules, length)


def isobaric_heat_capacity(
    energy: Float[np.ndarray, "time *walkers"],
    volume: Float[np.ndarray, "time *walkers"],
    pressure: float,
    kT: float,
    *,
    degrees_of_freedom: int = 0,
    molecules: int = 1,
    length: int | None = None,
) -> Estimate:
    """C_p = (<H^2> - <H>^2) / (k T^2), H = E + p V, of a run at constant pressure and temperature, kJ/(mol K).

    volume: nm^3. pressure: the one that was applied, kJ/(mol nm^3), e.g. ``1 * bar``.
    Otherwise as :func:`isochoric_heat_capacity`.
    """
    energy, volume = _series(energy=energy, volume=volume)
    return _heat_capacity(energy + pressure * volume, _positive("kT", kT), degrees_of_freedom, molecules, length)


def isothermal_compressibility(
    volume: Float[np.ndarray, "time *walkers"], kT: float, *, length: int | None = None
) -> Estimate:
    """kappa = (<V^2> - <V>^2) / (kT <V>) of a run at constant pressure and temperature, 1/bar. volume: nm^3."""
    (volume,) = _series(volume=volume)
    return _fluctuation(volume, volume, volume, bar / _positive("kT", kT), "1/bar", length)


def thermal_expansion(
    energy: Float[np.ndarray, "time *walkers"],
    volume: Float[np.ndarray, "time *walkers"],
    pressure: float,
    kT: float,
    *,
    length: int | None = None,
) -> Estimate:
    """alpha = (<V H> - <V> <H>) / (k T^2 <V>), H = E + p V, of a run at constant pressure and temperature, 1/K.

    energy: total or potential, kJ/mol: the momenta do not know of the volume. volume: nm^3. pressure: kJ/(mol nm^3).
    """
    energy, volume = _series(energy=energy, volume=volume)
    scale = kelvin / _positive("kT", kT) ** 2
    return _fluctuation(volume, energy + pressure * volume, volume, scale, "1/K", length)


def dielectric_constant(
    dipole: Float[np.ndarray, "time *walkers 3"],
    volume: Float[np.ndarray, "time *walkers"] | float,
    kT: float,
    *,
    length: int | None = None,
) -> Estimate:
    """epsilon = 1 + 4 pi / (3 kT <V>) (<M^2> - <M>^2) / (4 pi epsilon_0), of a liquid that has no direction.

    For the electrostatics of Ewald sums, with a conductor around (tin foil): Neumann (1983),
    doi:10.1080/00268978300102721; with a truncated interaction or a reaction field it is another formula.

    dipole: of the box, e nm, from :func:`total_dipole`. volume: nm^3, one number or a series.
    """
    dipole = np.asarray(dipole, float)
    if dipole.ndim < 2 or dipole.shape[-1] != 3:
        raise ValueError(f"dipole {dipole.shape} must be (time, 3) or (time, walkers, 3)")
    volumes = np.broadcast_to(np.asarray(volume, float), dipole.shape[:-1])
    x, y, z, volumes = _series(x=dipole[..., 0], y=dipole[..., 1], z=dipole[..., 2], volume=volumes)
    dipole = np.concatenate([x, y, z], -1)
    scale = 4 * np.pi * coulomb / (3 * _positive("kT", kT))
    found = _fluctuation(dipole, dipole, volumes, scale, "", length)
    return Estimate(1 + found.value, found.error)


def total_dipole(
    positions: Float[np.ndarray, "time *walkers atoms 3"],
    box: Float[np.ndarray, "*time_walkers 3 3"],
    charges: Float[np.ndarray, " atoms"],
    bonds: Int[np.ndarray, "bonds 2"],
) -> Float[np.ndarray, "time *walkers 3"]:
    """The dipole of the box, e nm: that of its molecules, each made whole.

    M = sum over bonds of (charge beyond the bond) nearest(r_child - r_parent), which is sum_i q_i r_i for neutral
    molecules, wherever the border of the box cuts them and whatever image they are.

    bonds: pairs of atoms, that of a virtual site with its parent among them. box: reduced, nm, one or one a frame.
    Raises ValueError where a molecule has a net charge: its dipole depends on the origin, and jumps with its image;
    the fluctuation of such a dipole is a conductivity, not a dielectric constant.
    """
    tree, weights = charges_beyond(charges, bonds)
    batch = positions.shape[:-2]
    boxes = of_frames(box, batch)
    dipole, times = np.empty((*batch, 3)), max(1, _ATOMS // int(np.prod(positions.shape[1:-1])))
    for t in range(0, batch[0], times):
        some = np.asarray(positions[t : t + times])
        flat = (some[..., tree[:, 1], :] - some[..., tree[:, 0], :]).reshape(-1, len(tree), 3)
        bond = _nearest(flat, boxes[t : t + times].reshape(-1, 3, 3).astype(some.dtype))
        dipole[t : t + times] = np.einsum("fbi,b->fi", np.asarray(bond, float), weights).reshape(*some.shape[:-2], 3)
    return dipole


def charges_beyond(
    charges: Float[np.ndarray, " atoms"], bonds: Int[np.ndarray, "bonds 2"]
) -> tuple[Int[np.ndarray, "links 2"], Float[np.ndarray, " links"]]:
    """A tree of bonds for each molecule, rows (parent, child), and the charge on the child's side of each, e.

    Summed over the tree, charge times r_child - r_parent is the dipole: see :func:`total_dipole`, also for what it
    raises.
    """
    tree = space.spanning(np.asarray(bonds, int), len(charges))
    beyond = np.array(charges, float)
    for parent, child in tree[::-1].tolist():
        beyond[parent] += beyond[child]
    roots = np.setdiff1d(np.arange(len(beyond)), tree[:, 1])
    charged = roots[np.abs(beyond[roots]) > _NEUTRAL]
    if len(charged):
        raise ValueError(
            f"{len(charged)} molecules are charged, the first, of atom {charged[0]}, by {beyond[charged[0]]:.4g} e: a "
            "dielectric constant needs neutral molecules; leave ions out, and bond virtual sites to their parents"
        )
    return tree, beyond[tree[:, 1]]


_nearest = jax.jit(jax.vmap(space.nearest))


def _heat_capacity(energy, kT, degrees_of_freedom, molecules, length) -> Estimate:
    scale = kelvin / (kT**2 * _positive("molecules", molecules))
    found = _fluctuation(energy, energy, np.ones_like(energy), scale, "kJ/(mol K)", length)
    return Estimate(found.value + degrees_of_freedom * kelvin / (2 * molecules), found.error, found.unit)


def _fluctuation(first, second, per, scale, unit, length) -> Estimate:
    """scale sum_i cov(first_i, second_i) / <per>, with its linearised error; (time, walkers, components)."""
    products = np.sum((first - first.mean((0, 1))) * (second - second.mean((0, 1))), -1, keepdims=True)
    series = np.concatenate([first, second, products, per], -1)
    blocks = choose_blocks(series.shape[0], series.shape[1], series - series.mean((0, 1)), length)
    counts = stretch_sums(blocks, np.ones_like(series))
    means = ratio(np.arange(series.shape[-1]), stretch_sums(blocks, series), counts, blocks)
    n, moved = first.shape[-1], means.deviations
    covariance = means.values[-2] + np.nan_to_num(np.sum(moved[:, :n] * moved[:, n : 2 * n]))
    value = covariance / means.values[-1]
    error = np.sqrt(np.sum((moved[:, -2] - value * moved[:, -1]) ** 2)) / means.values[-1]
    return Estimate(float(scale * value), float(scale * error), unit)


def _series(**given) -> list[Float[np.ndarray, "time walkers 1"]]:
    """Series of one shape, and finite."""
    series = {name: np.asarray(values, float) for name, values in given.items()}
    shapes = {name: values.shape for name, values in series.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) not in (1, 2) or not shape[0] for shape in shapes.values()):
        raise ValueError(f"series must be (time,) or (time, walkers) and of one shape: {shapes}")
    for name, values in series.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite numbers: {np.count_nonzero(~np.isfinite(values))} are not")
    if "volume" in series and not np.all(series["volume"] > 0):
        raise ValueError(f"volume = {series['volume'].min()} nm^3 must be above 0")
    return [values.reshape(len(values), -1, 1) for values in series.values()]


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} = {value} must be above 0")
    return value
