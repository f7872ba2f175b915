"""Umbrella windows over a barrier of nine kT: exact answer, honest errors; WHAM by its own iteration."""

import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.estimate.basins import barrier
from metastable.estimate.density import free_energy, region_difference
from metastable.estimate.umbrella import umbrella, wham
from metastable.testing.surfaces import exact_free_energy

KT, K, WINDOWS = 2.5, 150.0, np.linspace(-1.5, 1.5, 13)
AXIS = Axis(-1.3, 1.3, 26)


def well(x):
    return 22 * (x**2 - 1) ** 2 + 2 * x


def windows(metropolis, rng, experiments, steps=1500):
    """(steps, windows, experiments), correlated, from equilibrated starts."""
    center = WINDOWS[:, None] * np.ones((1, experiments))
    x = metropolis(lambda x: well(x) + K / 2 * (x - center) ** 2, center, KT, steps + 100, 0.15, rng)
    return x[100:]


def join(x, **options):
    """Of one experiment, (steps, windows)."""
    bias = K / 2 * (x.T.ravel() - WINDOWS[:, None]) ** 2
    return umbrella(list(x.T[..., None]), bias, (AXIS,), KT, **options)


def test_windows_join_to_the_exact_profile(metropolis):
    found = join(windows(metropolis, np.random.default_rng(0), 1)[..., 0])
    exact = exact_free_energy(well, (AXIS,), KT)
    f = free_energy(found.density, KT)
    z = (-KT * np.log(found.density.probability) - exact) / f.error
    assert np.abs(z).max() < 5 and f.error.max() < 1.5
    up = barrier(found.density, KT, (-1.0,), (1.0,))
    assert abs(up.value - (exact[11:15].max() - exact.min())) < 4 * up.error
    z = found.free_energy.value[1:] - np.array([_exact_f(c) - _exact_f(WINDOWS[0]) for c in WINDOWS[1:]])
    assert np.abs(z / found.free_energy.error[1:]).max() < 5
    assert (found.inefficiency > 1.5).all()
    np.testing.assert_allclose(found.density.resamples.sum(1), 1)


def _exact_f(center):
    x = np.linspace(-3, 3, 20001)
    return -np.log(np.exp(-(well(x) + K / 2 * (x - center) ** 2) / KT).sum())


@pytest.mark.physics
def test_errors_from_windows_are_calibrated(metropolis, calibrated):
    experiments = 200
    x = windows(metropolis, np.random.default_rng(1), experiments, 3000)[::5]
    exact = exact_free_energy(well, (AXIS,), KT)
    p, right = np.exp(-exact / KT), AXIS.centers > 0
    true = -KT * np.log(p[right].sum() / p[~right].sum())
    z, z_difference = [], []
    for i in range(experiments):
        found = join(x[..., i], resamples=50, seed=i)
        f, d = free_energy(found.density, KT), region_difference(found.density, KT, right, ~right)
        z.append((-KT * np.log(found.density.probability) - exact) / f.error)
        z_difference.append((d.value - true) / d.error)
    calibrated(z, slack=0.04)
    assert np.std(z_difference) == pytest.approx(1, abs=4 / np.sqrt(2 * experiments) + 0.05)


def test_trajectories_may_share_a_window(metropolis):
    x = windows(metropolis, np.random.default_rng(2), 1)[..., 0]
    halves = np.concatenate([x[:750], x[750:]], 1)
    bias = K / 2 * (halves.T.ravel() - WINDOWS[:, None]) ** 2
    both = umbrella(list(halves.T[..., None]), bias, (AXIS,), KT, window=[*range(13), *range(13)])
    np.testing.assert_allclose(both.density.probability, join(x).density.probability, rtol=1e-6)


def test_wham_is_its_own_iteration_and_mbar_of_fine_bins(metropolis):
    x = windows(metropolis, np.random.default_rng(3), 1)[..., 0]
    fine = Axis(-2.0, 2.0, 2000)
    n = np.stack([np.histogram(column, fine.edges)[0] for column in x.T]).astype(float)
    bias = K / 2 * (fine.centers - WINDOWS[:, None]) ** 2
    p, f = wham(n, bias, KT)
    for _ in range(3):  # the published iteration stands still at the solution
        p_new = n.sum(0) / (n.sum(1) @ np.exp(f[:, None] - bias / KT))
        f_new = -np.log(np.exp(-bias / KT) @ p_new)
        np.testing.assert_allclose(f_new - f_new[0], f, atol=1e-7)
        np.testing.assert_allclose(p_new / p_new.sum(), p, atol=1e-9)
    np.testing.assert_allclose(f, join(x).mbar.f, atol=0.01)
    with pytest.raises(ValueError, match="must agree"):
        wham(n, bias[:, 1:], KT)


def test_bad_windows_are_refused():
    x = np.random.default_rng(4).normal(0, 1, (100, 2))
    bias = np.zeros((2, 200))
    with pytest.raises(ValueError, match=r"windows \[1\] of 2 have no samples"):
        umbrella(list(x.T[..., None]), bias, (AXIS,), KT, window=[0, 0])
    with pytest.raises(ValueError, match="of 200 samples"):
        umbrella(list(x.T[..., None]), bias[:, 1:], (AXIS,), KT)
    with pytest.raises(ValueError, match="into 1 blocks"):
        umbrella(list(x.T[..., None]), bias, (AXIS,), KT, length=100)
    with pytest.raises(ValueError, match="widen the axes"):
        umbrella(list(x.T[..., None]), bias, (Axis(50, 60, 3),), KT)
