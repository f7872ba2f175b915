"""Densities: exact histograms, kernels that lose nothing, and errors that tell the truth."""

import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.estimate.density import (
    Density,
    density,
    free_energy,
    population,
    region_difference,
    smooth,
    state_difference,
)
from metastable.testing.surfaces import DoubleWell, exact_free_energy, on_plane

KT = 2.5


def test_a_weighted_histogram_is_numpys():
    rng = np.random.default_rng(0)
    samples, log_w = rng.normal(0, 1, (500, 70, 2)), rng.normal(0, 1, (500, 70))
    axes = (Axis(-2, 2, 7), Axis(-1, 3, 5))
    found = density(samples.astype(np.float32), axes, log_w)
    flat = samples.astype(np.float32).astype(float).reshape(-1, 2)
    plain, _ = np.histogramdd(flat, [axis.edges for axis in axes], weights=np.exp(log_w).ravel())
    np.testing.assert_allclose(found.probability, plain / plain.sum())
    np.testing.assert_allclose(found.resamples.mean(0), found.probability, atol=5 * found.resamples.std(0).max() / 14)


def test_weights_of_any_height_and_none_at_all():
    samples = np.array([0.1, 0.1, 0.6, 0.6]).reshape(2, 2, 1)
    log_w = np.array([[5000.0, 5000.0], [5000.0 + np.log(2), -np.inf]])
    np.testing.assert_allclose(density(samples, (Axis(0, 1, 2),), log_w).probability, [0.5, 0.5])


def test_free_energy_is_zero_at_its_lowest_and_nan_where_unsampled():
    samples = np.array([0.1, 0.4, 0.4, 0.9]).reshape(1, 4, 1)
    f = free_energy(density(samples, (Axis(0, 1.2, 4),)), KT)
    np.testing.assert_allclose(f.value, [KT * np.log(2), 0, np.nan, KT * np.log(2)])
    assert np.isnan(f.error[2]) and np.isfinite(f.error[[0, 1, 3]]).all()


def test_errors_of_independent_samples_are_binomial():
    """var ln p = (1 - p) / (n p) for n independent samples of one walker each."""
    rng = np.random.default_rng(1)
    samples = rng.choice([0.5, 1.5, 2.5], p=[0.7, 0.2, 0.1], size=(40, 400))[..., None]
    found = density(samples, (Axis(0, 3, 3),), resamples=2000)
    p = found.probability
    np.testing.assert_allclose(free_energy(found, KT).error, KT * np.sqrt((1 - p) / (16000 * p)), rtol=0.1)
    first = population(found, np.array([True, False, False]))
    assert first.error == pytest.approx(np.sqrt(p[0] * (1 - p[0]) / 16000), rel=0.1)


def test_a_kernel_is_the_density_estimate_and_loses_nothing():
    axes = (Axis.angle(bins=50), Axis(0.0, 2.0, 40))
    rng = np.random.default_rng(2)
    cells = rng.random((3, 50, 40))
    out = smooth(cells, axes, (0.3, 0.2))
    np.testing.assert_allclose(out.sum((1, 2)), cells.sum((1, 2)))
    np.testing.assert_allclose(smooth(np.ones((50, 40)), axes, (0.3, 0.2)), 1)  # flat stays flat, also at the ends
    point = np.zeros((50, 40))
    point[1, 20] = 1
    out = smooth(point, axes, (0.3, 0.1))
    d = np.angle(np.exp(1j * (axes[0].centers - axes[0].centers[1])))
    np.testing.assert_allclose(out.sum(1) / out.sum(1).max(), np.exp(-((d / 0.3) ** 2) / 2), atol=1e-6)
    d = axes[1].centers - axes[1].centers[20]
    np.testing.assert_allclose(out.sum(0) / out.sum(0).max(), np.exp(-((d / 0.1) ** 2) / 2), atol=1e-6)


def test_a_kernel_lowers_the_noise_of_a_profile():
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 1, (100, 64, 1))
    axis = Axis(-2.0, 2.0, 80)
    raw, kernel = (free_energy(density(samples, (axis,), bandwidth=b), KT) for b in (None, (0.15,)))
    inside = np.abs(axis.centers) < 1.5  # of the ends, where a reflected slope is flattened
    exact = KT * axis.centers**2 / 2
    assert np.std((kernel.value - exact)[inside]) < np.std((raw.value - exact)[inside]) / 2
    assert np.nanmedian(kernel.error) < np.nanmedian(raw.error) / 2


@pytest.mark.parametrize(("walkers", "steps", "length"), [(64, 400, None), (6, 6000, None), (6, 6000, 500)])
@pytest.mark.physics
def test_profiles_and_differences_are_calibrated(metropolis, calibrated, walkers, steps, length):
    """A tilted double well, crossed many times: many short walkers, few long ones, and with weights of a bias."""
    well = DoubleWell(height=6.0, tilt=1.0)
    axis = Axis(-1.5, 1.5, 20)
    exact = exact_free_energy(on_plane(well), (axis,), KT)

    def energy(x):
        return 6 * (x**2 - 1) ** 2 + 1 * x + bias(x)

    def bias(x):
        return 3 * np.exp(-((x + 1) ** 2) / 0.1)

    rng, experiments = np.random.default_rng(4), 1000
    start = np.where(rng.random((walkers, experiments)) < 0.68, -1.0, 1.0)
    x = metropolis(energy, start, KT, steps, 0.5, rng)[steps // 10 :]
    z, z_difference = [], []
    inside = exact - exact.min() < 4.5 * KT
    p = np.exp(-exact / KT)
    true = -KT * np.log(p[axis.centers > 0].sum() / p[axis.centers < 0].sum())
    for i in range(experiments):
        s = x[:, :, i]
        s = np.where(np.abs(s) < 1.5, s, np.sign(s) * 9)
        found = density(s[..., None], (axis,), bias(s) / KT, length=length, seed=i)
        f = free_energy(found, KT)
        z.append(((-KT * np.log(found.probability) - exact) / f.error)[inside])
        differences = (
            state_difference((s > 0) & (s < 1.5), (s < 0) & (s > -1.5), KT, bias(s) / KT, length=length, seed=i),
            region_difference(found, KT, axis.centers > 0, axis.centers < 0),
        )
        assert differences[0].value == pytest.approx(differences[1].value)
        z_difference.append([(d.value - true) / d.error for d in differences])
    calibrated(z, slack=0.03)
    calibrated(z_difference, slack=0.03)


def test_one_stretch_has_no_known_error():
    f = free_energy(density(np.zeros((50, 1, 1)), (Axis(-1, 1, 3),), length=50), KT)
    assert f.value[1] == 0 and np.isnan(f.error).all()


def test_bad_input_is_refused():
    samples, axes = np.zeros((5, 4, 1)), (Axis(-1, 1, 3),)
    with pytest.raises(ValueError, match=r"must be \(time, walkers, cvs\)"):
        density(samples[..., 0], axes)
    with pytest.raises(ValueError, match="the grid: widen"):
        density(samples + 5, axes)
    with pytest.raises(ValueError, match="must be finite"):
        density(samples, axes, np.full((5, 4), np.nan))
    with pytest.raises(ValueError, match="times and walkers"):
        density(samples, axes, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="one entry an axis"):
        density(samples, axes, bandwidth=(0.1, 0.1))
    with pytest.raises(ValueError, match="bandwidth = 0"):
        density(samples, axes, bandwidth=(0.0,))
    with pytest.raises(ValueError, match="20 frames lie in both"):
        state_difference(samples[..., 0] == 0, samples[..., 0] == 0, KT)


def test_regions_of_a_density_of_no_noise():
    p = np.array([0.5, 0.1, 0.4])
    exact = Density((Axis(0, 3, 3),), p, np.tile(p, (2, 1)))
    found = region_difference(exact, KT, np.array([0, 0, 1], bool), np.array([1, 0, 0], bool))
    assert (float(found.value), float(found.error)) == (pytest.approx(-KT * np.log(0.8)), 0.0)
