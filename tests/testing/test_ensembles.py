"""The ratio test: right slopes and right errors of samples whose ratio is known, and what it must not let pass."""

import numpy as np
import pytest

from metastable.testing.ensembles import check_ratio, ratio_slope


def correlated(random, mean, width, frames, walkers, memory):
    """Normal samples with the correlation memory^t."""
    x = random.normal(size=(frames, walkers))
    for t in range(1, frames):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * x[t]
    return mean + width * x


def test_gamma_distributions():
    """Kinetic energies at two temperatures: Gamma(k, kT), whose ratio is exponential exactly."""
    random = np.random.default_rng(1)
    cold, hot = random.gamma(20.0, 2.0, 20000), random.gamma(20.0, 2.8, 15000)
    slope = ratio_slope(cold, hot)
    assert abs(slope.value - (1 / 2.0 - 1 / 2.8)) < 3 * slope.error
    assert slope.error < 0.03 * slope.value
    assert abs(check_ratio(cold, hot, 1 / 2.0 - 1 / 2.8)) < 3


@pytest.mark.parametrize("frames, walkers, memory", [(2000, 1, 0.0), (4000, 1, 0.9), (150, 80, 0.95)])
def test_the_error_is_that_of_repetitions(frames, walkers, memory):
    """Normals of one width: the slope is the difference of the means over the variance. Of correlated samples too."""
    found = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        pair = [correlated(random, mean, 2.0, frames, walkers, memory) for mean in (0.0, 5.0)]
        slope = ratio_slope(*pair)
        found.append((slope.value, slope.error))
    values, errors = np.transpose(found)
    assert abs(np.mean(values) - 5 / 4) < 4 * np.std(values) / np.sqrt(60) + 0.02 * 5 / 4
    assert 0.7 < np.mean(errors) / np.std(values) < 1.4


def test_a_wrong_distribution_is_found():
    """The width of a thermostat that scales its fluctuations by 0.8 and keeps the mean, as weak coupling does."""
    random = np.random.default_rng(2)
    right = [random.gamma(20.0, kT, 20000) for kT in (2.0, 2.8)]
    wrong = [np.mean(x) + 0.8 * (x - np.mean(x)) for x in right]
    with pytest.raises(AssertionError, match="errors off"):
        check_ratio(*wrong, 1 / 2.0 - 1 / 2.8)


def test_a_test_that_could_not_fail_is_none():
    random = np.random.default_rng(3)
    with pytest.raises(AssertionError, match="too uncertain"):
        check_ratio(random.gamma(20.0, 2.0, 300), random.gamma(20.0, 2.1, 300), 1 / 2.0 - 1 / 2.1)


@pytest.mark.parametrize(
    "first, second, message",
    [
        (np.arange(100.0), np.arange(200.0, 300.0), "do not overlap"),
        (np.ones(100), np.arange(100.0), "vary"),
        (np.full(100, np.nan), np.arange(100.0), "finite"),
        (np.linspace(0, 3, 100), np.linspace(1, 4, 100), "independent stretches"),
    ],
)
def test_what_cannot_be_tested(first, second, message):
    with pytest.raises(ValueError, match=message):
        ratio_slope(first, second)
