"""Motion: against plain loops, Brownian motion, Ornstein-Uhlenbeck velocities, oscillators and a known liquid."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import erfc

from metastable.core.space import reduced
from metastable.core.units import inverse_cm, kelvin, pascal_second
from metastable.estimate.estimate import Estimate
from metastable.estimate.transport import (
    centers,
    diffusion,
    green_kubo,
    mean_squared_displacement,
    of_infinite_box,
    spectrum,
    unwrapped,
    velocity_autocorrelation,
)


def ornstein_uhlenbeck(rng, frames, shape, dt, friction, variance):
    """Velocities and positions of a free Langevin particle, exactly: their joint distribution over a step."""
    decay = np.exp(-friction * dt)
    lost = (1 - decay) / friction
    covariance = variance * np.array(
        [
            [1 - decay**2, friction * lost**2],
            [friction * lost**2, 2 * dt / friction - 2 * lost / friction - lost**2],
        ]
    )
    noise = rng.normal(size=(frames, *shape, 2)) @ np.linalg.cholesky(covariance).T
    v, x = np.empty((2, frames, *shape))
    v[0], x[0] = rng.normal(0, np.sqrt(variance), shape), 0
    for t in range(1, frames):
        v[t] = decay * v[t - 1] + noise[t, ..., 0]
        x[t] = x[t - 1] + lost * v[t - 1] + noise[t, ..., 1]
    return v, x


@pytest.mark.parametrize("length", [None, 7, 45])
@pytest.mark.parametrize("walkers", [1, 2, 600])
def test_all_lags_are_those_of_plain_loops(length, walkers, monkeypatch):
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(60, walkers, 3, 3)), 0).astype(np.float32)
    masses = np.array([1.0, 16, 35])
    monkeypatch.setattr("metastable.estimate.transport._SAMPLES", 1)  # a particle at a time
    msd = mean_squared_displacement(x, 0.1, limit=1.5, length=length)
    vacf = velocity_autocorrelation(x, 0.1, limit=1.5, length=length)
    weighed = velocity_autocorrelation(x, 0.1, masses, limit=1.5, length=length)
    np.testing.assert_allclose(msd.x, 0.1 * np.arange(16))
    x = x.astype(float)
    pairs = [(x[: 60 - k], x[k:]) for k in range(16)]
    np.testing.assert_allclose(msd.values, [((a - b) ** 2).sum(-1).mean() for a, b in pairs], atol=1e-10)
    np.testing.assert_allclose(vacf.values, [(a * b).sum(-1).mean() for a, b in pairs])
    np.testing.assert_allclose(weighed.values, [((a * b).sum(-1) * masses).mean() for a, b in pairs])


def test_errors_are_those_of_the_mean_over_each_block():
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=(64, 2, 3, 3)), 0)
    msd = mean_squared_displacement(x, 1.0, limit=5, length=10)
    bounds = list(pairwise([0, 10, 20, 30, 40, 64]))  # what is left over joins the last block
    for lag in range(6):
        y = ((x[lag:] - x[: 64 - lag]) ** 2).sum((-1, -2))
        parts = [y[a:b, w] for a, b in bounds for w in range(2)]
        sums, counts = np.array([(part.sum(), 3 * len(part)) for part in parts]).T
        error = np.sqrt(10 / 9 * np.sum((sums - msd.values[lag] * counts) ** 2)) / counts.sum()
        assert msd.estimate.error[lag] == pytest.approx(error, abs=1e-12)


def test_brownian_motion_diffuses_as_it_should(calibrated):
    """Five particles of one box and one walker: nothing but time to tell the error from."""
    rng, d, dt = np.random.default_rng(2), 0.5, 0.1
    found, end = [], []
    for _ in range(500):
        x = np.cumsum(rng.normal(0, np.sqrt(2 * d * dt), (2000, 5, 3)), 0)
        msd = mean_squared_displacement(x, dt, limit=2.5)  # blocks shorter than that would know too little
        found.append(diffusion(msd, (0.5, 2.5)))
        end.append(msd.at(2.5))
    assert msd.blocks.walkers == 1 and msd.blocks.length > 80
    calibrated([(e.value - d) / e.error for e in found], slack=0.03)
    calibrated([(e.value - 15 * d) / e.error for e in end], slack=0.03)
    values = np.array([e.value for e in found])
    assert values.mean() == pytest.approx(d, abs=4 * values.std() / np.sqrt(500))
    assert np.mean([e.error for e in found]) == pytest.approx(values.std(), rel=0.15)


def test_the_slope_is_that_of_a_fit_and_far_places_do_no_harm():
    x = np.cumsum(np.random.default_rng(12).normal(size=(400, 5, 3)), 0)
    msd = mean_squared_displacement(x, 0.5, limit=10)
    chosen = slice(4, 17)
    slope = np.polyfit(msd.x[chosen], msd.values[chosen], 1, w=msd.x[chosen] ** -1.5)[0]  # it squares its weights
    assert diffusion(msd, (2.0, 8.0)).value == pytest.approx(slope / 6)
    fine = mean_squared_displacement(x, 0.1, limit=0.7)  # 3 * 0.1 is a little more than 0.3, in binary
    assert diffusion(fine, (0.1, 0.3)).value == diffusion(fine, (0.09, 0.31)).value
    assert fine.at(0.7 + 1e-15).value == fine.values[7]
    np.testing.assert_allclose(mean_squared_displacement(x + 1e6, 0.5, limit=10).values, msd.values, atol=1e-7)


def test_the_diffusion_of_many_walkers_spreads_as_its_errors_say(unit_spread):
    rng, d = np.random.default_rng(11), 0.5
    steps = rng.normal(0, np.sqrt(2 * d), (500, 100, 64, 2, 3))
    curves = [mean_squared_displacement(np.cumsum(x, 0), 1.0, limit=10) for x in steps]
    unit_spread([diffusion(msd, (1, 10)) for msd in curves], d, 64)


def test_the_error_sees_that_particles_move_together(calibrated):
    """Particles that a common flow carries: taken as independent, they would give an error that is too small."""
    rng = np.random.default_rng(3)
    z = []
    for _ in range(500):
        steps = rng.normal(size=(1000, 2, 10, 3)) + 0.7 * rng.normal(size=(1000, 2, 1, 3))
        d = diffusion(mean_squared_displacement(np.cumsum(steps, 0), 1.0, limit=6), (1, 6))
        z.append((d.value - 1.49 / 2) / d.error)
    calibrated(z, slack=0.03)


def test_langevin_velocities_decay_and_diffuse(calibrated):
    """C = 3 v^2 exp(-g t), D = v^2 / g by both routes, and the displacement from ballistic to diffusive."""
    rng, friction, variance, dt = np.random.default_rng(4), 2.0, 0.7, 0.05
    v, x = ornstein_uhlenbeck(rng, 2000, (500, 3, 3), dt, friction, variance)
    decay, integral, displaced, einstein = [], [], [], []
    for i in range(500):
        vacf = velocity_autocorrelation(v[:, i], dt, limit=4.0)
        t = vacf.x
        decay.append((vacf.values - 3 * variance * np.exp(-friction * t))[::10] / vacf.estimate.error[::10])
        d = green_kubo(vacf).at(4.0)
        integral.append((d.value, d.error))
        msd = mean_squared_displacement(x[:, i], dt, limit=1.5)
        t = msd.x
        exact = 6 * variance / friction * (t - (1 - np.exp(-friction * t)) / friction)
        displaced.append((msd.values - exact)[5::5] / msd.estimate.error[5::5])
        einstein.append(diffusion(mean_squared_displacement(x[:, i], dt, limit=4.0), (2.0, 4.0)))
    calibrated(decay, slack=0.03)
    calibrated(displaced, slack=0.04)
    trapezoids = friction * dt / 2 / np.tanh(friction * dt / 2)
    exact = variance / friction * (trapezoids - np.exp(-friction * 4))
    value, error = np.array(integral).T
    calibrated((value - exact) / error, slack=0.03)
    assert value.mean() == pytest.approx(exact, abs=4 * value.std() / np.sqrt(500))
    slopes = np.array([d.value for d in einstein])
    assert slopes.mean() == pytest.approx(variance / friction, abs=0.01 + 4 * slopes.std() / np.sqrt(500))
    assert slopes.std() / np.sqrt(500) < 0.02


def test_the_spectrum_of_friction_is_a_lorentzian_and_its_start_the_diffusion():
    rng, friction, variance, dt, mass = np.random.default_rng(5), 20.0, 0.15, 0.004, 16.0
    v, _ = ornstein_uhlenbeck(rng, 4000, (16, 40, 3), dt, friction, variance)
    vacf = velocity_autocorrelation(v, dt, np.full(40, mass), limit=1.0)
    assert vacf.values[0] == pytest.approx(3 * mass * variance, rel=0.02)
    states = spectrum(vacf)
    t, w = vacf.x, 2 * np.pi * inverse_cm * states.x
    window = np.cos(np.pi / 2 * t / t[-1]) ** 2
    exact = [4 * inverse_cm * np.trapezoid(window * np.exp(-friction * t) * np.cos(k * t), t) for k in w]
    z = ((states.values - exact) / states.estimate.error)[:40]
    assert np.mean(z**2) == pytest.approx(1, abs=0.8)  # neighbours are correlated
    lorentz = 4 * inverse_cm * friction / (friction**2 + w[:40] ** 2)
    np.testing.assert_allclose(states.values[:40], lorentz, atol=0.03 * lorentz[0])
    d = green_kubo(velocity_autocorrelation(v, dt, limit=1.0)).at(1.0)
    assert states.values[0] == pytest.approx(4 * inverse_cm * d.value / variance, rel=0.02)
    assert np.trapezoid(states.values, states.x) == pytest.approx(1, abs=1e-9)


def test_oscillators_give_lines_at_their_wavenumbers():
    """A hydrogen at 3,000 and an oxygen at 800 per cm, in equilibrium: by mass they count alike."""
    rng, kT, dt = np.random.default_rng(6), 2.5, 0.002
    masses, lines = np.array([1.0, 16.0]), np.array([3000.0, 800.0])
    omega = 2 * np.pi * inverse_cm * lines
    assert 1 / (inverse_cm * 3000) == pytest.approx(1e7 / 3000 / 2.99792458e5)  # ps a period, from the speed of light
    t = dt * np.arange(3000)[:, None, None, None]
    cosine, sine = rng.normal(size=(2, 100, 2, 3)) * np.sqrt(kT / masses)[:, None]
    v = cosine * np.cos(omega[:, None] * t) + sine * np.sin(omega[:, None] * t)
    x = (cosine * np.sin(omega[:, None] * t) - sine * np.cos(omega[:, None] * t)) / omega[:, None]
    states = spectrum(velocity_autocorrelation(v, dt, masses, limit=2.0))
    for line in lines:
        near = np.abs(states.x - line) < 60
        assert states.x[near][np.argmax(states.values[near])] == pytest.approx(line, abs=states.x[1])
        share = np.trapezoid(np.where(near, states.values, 0), states.x)
        assert share == pytest.approx(0.5, abs=0.15)  # 300 amplitudes: 4 standard errors
        half = near & (states.values > states.values[near].max() / 2)
        assert np.sum(half) * states.x[1] == pytest.approx(1 / (inverse_cm * 2.0), rel=0.4)
    msd = mean_squared_displacement(x[:, :, :1], dt, limit=0.02)
    z = (msd.values - 6 * kT / omega[0] ** 2 * (1 - np.cos(omega[0] * msd.x)))[1:] / msd.estimate.error[1:]
    assert np.abs(z).max() < 4


def test_a_cube_of_images_holds_back_by_the_wigner_constant():
    """Yeh and Hummer's xi is the potential of a lattice of charges in their own background, by Ewald's sum."""
    n = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3), -1).reshape(-1, 3)
    n = n[np.any(n != 0, 1)]
    r, a = np.linalg.norm(n, axis=1), 2.0
    xi = (
        2 * a / np.sqrt(np.pi)
        + np.pi / a**2
        - np.sum(erfc(a * r) / r)
        - np.sum(np.exp(-((np.pi * r / a) ** 2)) / (np.pi * r**2))
    )
    si = xi * 1.380649e-23 * 300 / (6 * np.pi * 0.85e-3 * 3e-9)  # m^2/s, of water in 3 nm
    found = of_infinite_box(Estimate(2e-3, 1e-4, "nm^2/ps"), 300 * kelvin, 0.85e-3 * pascal_second, 3.0)
    assert (found.value - 2e-3) * 1e-6 == pytest.approx(si, rel=1e-6)
    assert (found.error, found.unit) == (1e-4, "nm^2/ps")
    thick = Estimate(0.85e-3 * pascal_second, 0.085e-3 * pascal_second)
    with_error = of_infinite_box(Estimate(2e-3, 1e-4), 300 * kelvin, thick, 3.0)
    assert with_error.error == pytest.approx(np.hypot(1e-4, 0.1 * si * 1e6))
    with pytest.raises(ValueError, match="edge = 0"):
        of_infinite_box(Estimate(1.0, 0.1), 2.5, 1.0, 0)


def test_wrapped_paths_are_unwrapped():
    """In a triclinic box, with whatever image is given; by walkers with boxes of their own."""
    rng = np.random.default_rng(7)
    box = np.stack([reduced(np.array([[3.0, 0, 0], [1.2, 2.8, 0], [-1.1, 1.0, 2.7]])) * s for s in (1, 1.5)])
    x = np.cumsum(rng.normal(0, 0.15, (500, 2, 6, 3)), 0)
    images = rng.integers(-2, 3, x.shape) @ box
    found = unwrapped(x + images.reshape(x.shape), np.broadcast_to(box, (500, 2, 3, 3)))
    np.testing.assert_allclose(found - found[0], x - x[0], atol=1e-9)
    one = unwrapped((x + images.reshape(x.shape))[:, 1], box[1])
    np.testing.assert_allclose(one - one[0], (x - x[0])[:, 1], atol=1e-9)


def test_diffusion_survives_a_box_that_breathes():
    """Atoms that diffuse in a box whose edge fluctuates: far images would be moved by the box itself."""
    rng, d, dt = np.random.default_rng(8), 0.02, 1.0
    edges = 3 + 0.05 * np.sin(np.arange(4000) / 3)
    s = rng.uniform(0, 3, (40, 3)) / edges[0]
    path = np.empty((4000, 40, 3))
    for t, edge in enumerate(edges):
        s = s + rng.normal(0, np.sqrt(2 * d * dt), s.shape) / edge
        path[t] = (s % 1) * edge
    box = edges[:, None, None] * np.eye(3)
    found = diffusion(mean_squared_displacement(unwrapped(path, box), dt, limit=40), (10, 40))
    assert abs(found.value - d) < 4 * found.error + 0.02 * d
    assert found.error < 0.05 * d


def test_centres_are_weighed_by_mass():
    rng = np.random.default_rng(9)
    x, masses, label = rng.normal(size=(5, 2, 6, 3)), rng.uniform(1, 16, 6), np.array([1, 0, 1, 2, 0, 1])
    found = centers(x, masses, label)
    for m in range(3):
        np.testing.assert_allclose(found[:, :, m], np.average(x[:, :, label == m], axis=2, weights=masses[label == m]))


def test_what_cannot_be_told_is_refused():
    x = np.random.default_rng(10).normal(size=(100, 2, 3))
    with pytest.raises(ValueError, match=r"limit = 99\.0 ps must lie between one frame, 1.0 ps, and the run, 99 ps"):
        mean_squared_displacement(x, 1.0, limit=99.0)
    with pytest.raises(ValueError, match="holds 1 of the lags"):
        diffusion(mean_squared_displacement(x, 1.0, limit=5.0), (5.0, 9.0))
    with pytest.raises(ValueError, match=r"must be \(time, particles, 3\)"):
        mean_squared_displacement(x[:, 0], 1.0)
    with pytest.raises(ValueError, match="finite"):
        velocity_autocorrelation(x * np.nan, 1.0)
    with pytest.raises(ValueError, match="masses"):
        velocity_autocorrelation(x, 1.0, np.ones(3))
    with pytest.raises(ValueError, match="kJ/mol"):
        green_kubo(velocity_autocorrelation(x, 1.0, np.ones(2)))


@pytest.mark.physics
def test_the_velocities_of_the_lennard_jones_liquid_are_those_of_another_code(data, liquid):
    """Velocities from OpenMM, the autocorrelation that others publish; diffusion by both routes."""
    exact = np.loadtxt(data / "lj_rdf_vacf/LJ_data/vacf_rho0.845_T1.0_dt0.01.csv", delimiter=",").ravel()
    exact = exact[np.isfinite(exact)]  # the last ten are not
    x, v, _ = liquid
    vacf = velocity_autocorrelation(v, 0.01, limit=1.5)
    normal = vacf.over(0, "")
    known = exact / exact[0]
    away = np.abs(normal.values[: len(known)] - known)
    assert len(known) == 50 and away.max() < 0.03, away.max()
    kubo = green_kubo(vacf).at(1.5)
    einstein = diffusion(mean_squared_displacement(x, 0.01, limit=2.0), (1.0, 2.0))
    assert abs(kubo.value - einstein.value) < 4 * np.hypot(kubo.error, einstein.error)
    assert kubo.error < 0.1 * kubo.value and einstein.error < 0.1 * einstein.value
