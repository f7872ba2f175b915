"""Responses from fluctuations: distributions whose responses are known exactly, seen through correlated series."""

import numpy as np
import pytest
from scipy.stats import gamma, norm

from metastable.core.space import reduced
from metastable.core.units import bar, coulomb, kelvin
from metastable.estimate.fluctuations import (
    dielectric_constant,
    isobaric_heat_capacity,
    isochoric_heat_capacity,
    isothermal_compressibility,
    mass_density,
    thermal_expansion,
    total_dipole,
)

T, KT, PRESSURE, ATOMS = 300.0, 300 * kelvin, 50 * bar, 20
EXPERIMENTS = 500


def autoregressive(rho, shape, rng):
    x = np.empty(shape)
    x[0] = rng.normal(size=shape[1:])
    for t in range(1, len(x)):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=shape[1:])
    return x


@pytest.fixture(scope="module")
def ideal_gas():
    """Volumes of an ideal gas at constant pressure, p(V) ~ V^N exp(-p V / kT), correlated in time."""
    normal = autoregressive(0.8, (2000, 2, EXPERIMENTS), np.random.default_rng(0))
    return gamma.ppf(norm.cdf(normal), ATOMS + 1, scale=KT / PRESSURE)


@pytest.fixture(scope="module")
def energies():
    """Energies of 40 harmonic degrees of freedom: Gaussian enough, of variance 20 kT^2."""
    return autoregressive(0.9, (4000, EXPERIMENTS), np.random.default_rng(1)) * np.sqrt(20) * KT + 1e4


def agree(found, exact, calibrated):
    """Errors that tell the truth, about a value without bias."""
    values, errors = np.array([(e.value, e.error) for e in found]).T
    calibrated((values - exact) / errors, slack=0.03)
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / np.sqrt(len(found)))
    assert values.std() < 0.2 * exact


def test_compressibility_of_an_ideal_gas(ideal_gas, calibrated):
    found = [isothermal_compressibility(ideal_gas[..., i], KT) for i in range(EXPERIMENTS)]
    agree(found, bar / PRESSURE, calibrated)  # 1 / p
    assert found[0].unit == "1/bar"


def test_fluctuations_of_many_walkers_spread_as_their_errors_say(unit_spread):
    volumes = np.random.default_rng(8).gamma(1, KT / PRESSURE, (500, 400, 64))  # of an empty box: the mean matters
    unit_spread([isothermal_compressibility(v, KT) for v in volumes], bar / PRESSURE, 64)
    volumes = np.random.default_rng(8).gamma(ATOMS + 1, KT / PRESSURE, (500, 200, 64))
    unit_spread([isothermal_compressibility(v, KT) for v in volumes], bar / PRESSURE, 64)
    unit_spread([mass_density(v, 18.0) for v in volumes], 18 / 0.602214076 * PRESSURE / KT / ATOMS, 64)
    heat = (ATOMS + 1) * kelvin
    unit_spread([isobaric_heat_capacity(0 * v, v, PRESSURE, KT) for v in volumes], heat, 64)
    unit_spread([thermal_expansion(0 * v, v, PRESSURE, KT) for v in volumes], 1 / T, 64)


def test_expansion_of_an_ideal_gas(ideal_gas, calibrated):
    noise = np.random.default_rng(2).normal(0, 3, ideal_gas.shape)  # energies that do not know the volume
    found = [thermal_expansion(noise[..., i], ideal_gas[..., i], PRESSURE, KT) for i in range(EXPERIMENTS)]
    agree(found, 1 / T, calibrated)
    assert found[0].unit == "1/K"


def test_heat_capacity_of_an_ideal_gas_at_constant_pressure(ideal_gas, calibrated):
    """5/2 N k, and k more since it is not the pressure that sets the volume of one more particle."""
    nothing = np.zeros_like(ideal_gas[..., 0])
    found = [
        isobaric_heat_capacity(nothing, ideal_gas[..., i], PRESSURE, KT, degrees_of_freedom=3 * ATOMS)
        for i in range(EXPERIMENTS)
    ]
    agree(found, (5 / 2 * ATOMS + 1) * kelvin, calibrated)
    assert found[0].unit == "kJ/(mol K)"


def test_density_of_an_ideal_gas(ideal_gas, calibrated):
    """<1/V> = p / (N kT); 18 Da a particle, in SI: kg of a molecule over m^3."""
    found = [mass_density(ideal_gas[..., i], 18 * ATOMS) for i in range(EXPERIMENTS)]
    si = 18e-3 * 50e5 / (8.31446261815324 * T)  # M p / (R T)
    agree(found, si, calibrated)
    assert found[0].unit == "kg/m^3"


def test_heat_capacity_of_gaussian_energies(energies, calibrated):
    found = [isochoric_heat_capacity(energies[:, i], KT, degrees_of_freedom=40) for i in range(EXPERIMENTS)]
    agree(found, 40 * kelvin, calibrated)  # k / 2 a momentum and k / 2 a spring
    shared = isochoric_heat_capacity(energies[:, 0], KT, degrees_of_freedom=40, molecules=10)
    assert shared.value == pytest.approx(found[0].value / 10)
    assert shared.error == pytest.approx(found[0].error / 10)


def test_short_runs_have_no_bias(energies):
    """300 frames, 16 of them independent: a fluctuation about their own mean is 6 % too small."""
    short = energies[:3900].reshape(13, 300, EXPERIMENTS).swapaxes(0, 1).reshape(300, -1)
    plain = short.var(0).mean() * kelvin / KT**2
    found = np.array([isochoric_heat_capacity(x, KT, length=60).value for x in short.T])
    standard = found.std() / np.sqrt(len(found))
    assert plain < 20 * kelvin - 6 * standard
    assert found.mean() == pytest.approx(20 * kelvin, abs=4 * standard + 0.01 * 20 * kelvin)


def test_dielectric_constant_of_free_dipoles(calibrated):
    """N dipoles mu in a volume V that turn freely: epsilon = 1 + 4 pi N mu^2 / (3 V kT) / (4 pi epsilon_0)."""
    rng, mu, volume, n = np.random.default_rng(3), 0.05, 8.0, 12
    found = []
    for _ in range(EXPERIMENTS):
        directions = autoregressive(0.7, (800, 2, n, 3), rng)
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        found.append(dielectric_constant(mu * directions.sum(2), volume, KT))
    agree(found, 1 + 4 * np.pi * coulomb * n * mu**2 / (3 * volume * KT), calibrated)
    si = (0.05 * 1.602176634e-28) ** 2 * n / (3 * 8.8541878128e-12 * 8e-27 * 1.380649e-23 * T)
    assert np.mean([e.value for e in found]) == pytest.approx(1 + si, rel=0.02)
    field = dielectric_constant(mu * directions.sum(2) + np.array([1.0, 2, 3]), volume, KT)
    assert field.value == pytest.approx(found[-1].value)  # about the mean


def water(rng, frames, molecules, box):
    """Rigid waters of any direction anywhere, each atom in an image of its own; whole, and scattered."""
    shape = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
    turns = np.linalg.qr(rng.normal(size=(frames, molecules, 3, 3)))[0]
    whole = np.einsum("ai,tmij->tmaj", shape, turns) + (rng.uniform(0, 1, (frames, molecules, 1, 3)) @ box)
    whole = whole.reshape(frames, -1, 3)
    return whole, whole + rng.integers(-2, 3, whole.shape) @ box


def test_dipoles_are_those_of_whole_molecules(monkeypatch):
    rng, box = np.random.default_rng(4), reduced(np.array([[2.0, 0, 0], [0.9, 1.9, 0], [-0.8, 0.7, 1.8]]))
    whole, scattered = water(rng, 50, 16, box)
    charges = np.tile([-0.834, 0.417, 0.417], 16)
    bonds = np.concatenate([np.arange(0, 48, 3)[:, None] + pair for pair in ([0, 1], [2, 0])])
    exact = np.einsum("tai,a->ti", whole, charges)
    np.testing.assert_allclose(total_dipole(scattered, box, charges, bonds), exact, atol=1e-5)
    monkeypatch.setattr("metastable.estimate.fluctuations._ATOMS", 48 * 7)
    walkers = scattered.reshape(10, 5, 48, 3)
    boxes = np.broadcast_to(box, (10, 3, 3))
    np.testing.assert_allclose(total_dipole(walkers, boxes, charges, bonds), exact.reshape(10, 5, 3), atol=1e-5)


def test_the_dipole_of_a_chain_longer_than_the_box():
    rng, bonds = np.random.default_rng(9), np.array([[3, 1], [1, 0], [0, 4], [4, 2], [2, 5]])
    charges = rng.normal(size=6)
    charges -= charges.mean()
    whole = np.empty((20, 6, 3))
    whole[:, [3, 1, 0, 4, 2, 5]] = np.cumsum(rng.uniform(0, 0.6, (20, 6, 3)), 1)
    scattered = whole + rng.integers(-2, 3, whole.shape) * 1.3
    exact = np.einsum("tai,a->ti", whole, charges)
    np.testing.assert_allclose(total_dipole(scattered, 1.3 * np.eye(3), charges, bonds), exact, atol=1e-5)


def test_a_charged_molecule_has_no_dipole():
    x = np.zeros((3, 4, 3))
    with pytest.raises(ValueError, match=r"1 molecules are charged, the first, of atom 3, by 1 e"):
        total_dipole(x, np.eye(3), [-0.8, 0.4, 0.4, 1.0], [[0, 1], [0, 2]])
    with pytest.raises(ValueError, match="3 molecules are charged"):  # hydrogens that nothing bonds
        total_dipole(x[:, :3], np.eye(3), [-0.8, 0.4, 0.4], np.zeros((0, 2), int))


def test_water_is_that_of_mdtraj():
    """Its formulas for the dielectric constant, compressibility and density, on the same numbers."""
    import mdtraj

    rng, edges = np.random.default_rng(5), 1.5 + 0.02 * np.random.default_rng(6).normal(size=200)
    whole, _ = water(rng, 200, 16, 1.5 * np.eye(3))
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(16):
        residue = topology.add_residue("HOH", chain)
        for element in (mdtraj.element.oxygen, mdtraj.element.hydrogen, mdtraj.element.hydrogen):
            topology.add_atom(element.symbol, element, residue)
    trajectory = mdtraj.Trajectory(whole, topology)
    trajectory.unitcell_vectors = edges[:, None, None] * np.eye(3)
    charges = np.tile([-0.834, 0.417, 0.417], 16)
    bonds = np.concatenate([np.arange(0, 48, 3)[:, None] + pair for pair in ([0, 1], [0, 2])])
    boxes, volumes = trajectory.unitcell_vectors, edges**3
    dipoles = total_dipole(whole, boxes, charges, bonds)
    found = dielectric_constant(dipoles, volumes, KT, length=1).value - 1
    assert found == pytest.approx(mdtraj.static_dielectric(trajectory, charges, T) - 1, rel=0.02)  # no correction there
    kappa = isothermal_compressibility(volumes, KT, length=1)
    assert kappa.value == pytest.approx(mdtraj.isothermal_compressability_kappa_T(trajectory, T) * 200 / 199, rel=0.01)
    mass = 16 * (15.99943 + 2 * 1.007947)
    assert mass_density(volumes, mass).value == pytest.approx(np.mean(mdtraj.density(trajectory)), rel=1e-5)


def test_one_stretch_has_no_known_error():
    x = np.cumsum(np.random.default_rng(7).normal(size=100))
    assert np.isnan(isochoric_heat_capacity(x, KT).error)
    assert np.isfinite(isochoric_heat_capacity(x, KT).value)


def test_what_makes_no_sense_is_refused():
    series = np.ones((10, 2))
    with pytest.raises(ValueError, match="kT = 0"):
        isothermal_compressibility(series, 0)
    with pytest.raises(ValueError, match="one shape"):
        thermal_expansion(series, np.ones(10), 1.0, KT)
    with pytest.raises(ValueError, match=r"volume = -1\.0"):
        mass_density(-series, 18.0)
    with pytest.raises(ValueError, match="energy must be finite numbers: 20 are not"):
        isochoric_heat_capacity(series * np.nan, KT)
    with pytest.raises(ValueError, match="dipole"):
        dielectric_constant(np.ones(10), 1.0, KT)
