"""Curves: what is computed from one carries the errors of what it is computed from, with their correlations."""

import numpy as np
import pytest

from metastable.estimate.correlation import choose_blocks, mean
from metastable.estimate.curve import group_sums, ratio, stretch_sums


@pytest.fixture
def curve():
    """Means of five series whose errors are correlated, and the series."""
    rng = np.random.default_rng(0)
    series = rng.normal(2, 1, (400, 3, 5)) @ (np.eye(5) + 0.5) + rng.normal(size=(400, 3, 1))
    blocks = choose_blocks(400, 3, length=20)
    ones = stretch_sums(blocks, np.ones_like(series))
    return ratio(np.arange(5.0), stretch_sums(blocks, series), ones, blocks), series


def test_values_and_errors_are_those_of_means(curve):
    found, series = curve
    for i in range(5):
        exact = mean(series[..., i], length=20)
        assert found.estimate.value[i] == pytest.approx(exact.value)
        assert found.estimate.error[i] == pytest.approx(exact.error)


def test_what_is_linear_has_the_error_of_its_own_series(curve):
    found, series = curve
    coefficients = np.array([1.0, -2, 0.5, 3, -1])
    exact = mean(series @ coefficients, length=20)
    assert found.functional(coefficients, "").error == pytest.approx(exact.error)
    image = found.map(lambda y: np.cumsum(y, -1), found.x, "", "")
    assert image.estimate.error[-1] == pytest.approx(mean(series.sum(-1), length=20).error)
    between = found.at(1.25)
    assert between.error == pytest.approx(mean(0.75 * series[..., 1] + 0.25 * series[..., 2], length=20).error)
    with pytest.raises(ValueError, match="x = 5"):
        found.at(5)


def test_a_quotient_has_the_error_of_its_linearised_series(curve):
    found, series = curve
    values = found.values / found.values[2]
    quotient = found.over(2, "")
    np.testing.assert_allclose(quotient.values, values)
    for i in (0, 4):
        exact = mean((series[..., i] - values[i] * series[..., 2]) / found.values[2], length=20)
        assert quotient.estimate.error[i] == pytest.approx(exact.error)
    assert quotient.estimate.error[2] == pytest.approx(0, abs=1e-12)


def test_sums_of_stretches_are_those_of_blocks():
    rng = np.random.default_rng(1)
    for frames, walkers, length in ((103, 7, 20), (10, 600, 10)):
        blocks = choose_blocks(frames, walkers, length=length)
        values = rng.random((frames, walkers, 2))
        plain = blocks.sums(np.zeros((frames, walkers), int), 1, values[..., 1])[:, 0]
        np.testing.assert_allclose(stretch_sums(blocks, values)[:, 1], plain)
        np.testing.assert_allclose(group_sums(blocks, values[0]).sum(0), values[0].sum(0))
