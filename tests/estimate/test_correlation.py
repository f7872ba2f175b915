"""Correlation times, blocks and errors of means, on processes whose answers are known."""

import numpy as np
import pytest

from metastable.estimate.correlation import (
    blocking,
    choose_blocks,
    mean,
    resample,
    statistical_inefficiency,
    subsample,
)


def autoregressive(rho, shape, rng):
    """x_t = rho x_(t-1) + noise, unit variance, stationary from the start: g = (1 + rho) / (1 - rho)."""
    x = np.empty(shape)
    x[0] = rng.normal(size=shape[1:])
    for t in range(1, len(x)):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=shape[1:])
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_statistical_inefficiency_of_an_autoregressive_process(rho):
    x = autoregressive(rho, (20000, 20), np.random.default_rng(0))
    exact = (1 + rho) / (1 - rho)
    assert statistical_inefficiency(x) == pytest.approx(exact, rel=0.06)  # 400,000 / g samples, cut at some g
    assert np.mean([statistical_inefficiency(c) for c in x.T]) == pytest.approx(exact, rel=0.1)


def test_walkers_stuck_in_different_places_count_as_long_correlation():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 0.1, (1000, 2)) + np.array([-1.0, 1.0])
    assert statistical_inefficiency(x) > 900
    assert max(statistical_inefficiency(c) for c in x.T) < 3


def test_constant_and_short_series_are_themselves():
    assert statistical_inefficiency(np.ones(100)) == 1
    assert statistical_inefficiency(np.ones(1)) == 1


def test_subsampled_frames_are_nearly_uncorrelated():
    x = autoregressive(0.9, (40000, 1), np.random.default_rng(2))[:, 0]
    kept = x[subsample(x)]
    assert 40000 / len(kept) == pytest.approx(19, abs=3)
    assert np.corrcoef(kept[:-1], kept[1:])[0, 1] == pytest.approx(0.9**19, abs=4 / np.sqrt(len(kept)))


def test_sums_of_stretches_are_those_of_a_plain_loop():
    rng = np.random.default_rng(3)
    index, weights = rng.integers(-1, 5, (103, 7)), rng.random((103, 7))
    blocks = choose_blocks(103, 7, length=20)
    assert (blocks.per_walker, blocks.count) == (5, 35)
    plain = np.zeros((35, 5))
    for t in range(103):
        for w in range(7):
            if index[t, w] >= 0:
                plain[w * 5 + min(t // 20, 4), index[t, w]] += weights[t, w]
    np.testing.assert_allclose(blocks.sums(index, 5, weights), plain)


def test_blocks_are_whole_walkers_where_there_are_many_and_long_enough_where_few():
    rng = np.random.default_rng(4)
    assert choose_blocks(1000, 64).count == 64
    assert choose_blocks(1000, 5000).count == 512
    x = autoregressive(0.9, (4000, 4, 1), rng)
    few = choose_blocks(4000, 4, x)
    assert few.length == 4000 // 16 and few.length >= 8 * few.inefficiency
    slow = choose_blocks(1000, 4, autoregressive(0.99, (1000, 4, 1), rng))
    assert slow.length >= 300  # g = 199, poorly known: 2 or 3 blocks, or whole walkers
    with pytest.raises(ValueError, match="block length = 2000"):
        choose_blocks(1000, 4, length=2000)


@pytest.mark.parametrize("count", [4, 5, 100])
def test_resampling_has_the_variance_of_the_mean_without_bias(count):
    drawn = resample(count, 40000, seed=0)
    x = np.random.default_rng(5).normal(size=count)
    means = drawn @ x / count
    assert means.mean() == pytest.approx(x.mean(), abs=5 * means.std() / np.sqrt(40000))
    np.testing.assert_allclose(drawn.sum(1), count)
    assert means.var() == pytest.approx(x.var(ddof=1) / count, rel=0.05)
    assert np.isnan(resample(1, 10, 0)).all() and np.isnan(resample(3, 10, 0)).all()


@pytest.mark.parametrize(("frames", "walkers", "rho"), [(40, 64, 0.9), (1200, 4, 0.8), (6000, 1, 0.8)])
def test_errors_of_means_are_calibrated(calibrated, frames, walkers, rho):
    x = autoregressive(rho, (frames, walkers, 1000), np.random.default_rng(6))
    found = [mean(x[..., i]) for i in range(1000)]
    calibrated([e.value / e.error for e in found], slack=0.03)


def test_short_runs_have_no_error_that_is_far_too_small():
    """Of 20 correlation times: of few stretches Student's distribution is wide, but a z of 10 is not to be."""
    x = autoregressive(0.9, (400, 1, 1000), np.random.default_rng(10))
    z = np.array([e.value / e.error for e in (mean(x[..., i]) for i in range(1000))])
    assert np.isfinite(z).sum() > 500
    assert np.mean(np.abs(z[np.isfinite(z)]) > 3) < 0.08 and np.nanmax(np.abs(z)) < 15


def test_errors_of_weighted_means_are_calibrated(calibrated):
    rng = np.random.default_rng(7)
    x = autoregressive(0.8, (500, 16, 1000), rng)  # weights exp(x / 2) make the mean 1/2
    found = [mean(x[..., i], x[..., i] / 2) for i in range(1000)]
    calibrated([(e.value - 0.5) / e.error for e in found], slack=0.03)


def test_the_mean_of_one_short_walker_has_no_known_error():
    x = autoregressive(0.999, (200, 1), np.random.default_rng(8))
    assert np.isnan(mean(x).error)
    assert np.isnan(blocking(np.cumsum(np.ones(64)))[0].error)


def test_blocking_reaches_the_exact_error_and_is_calibrated(calibrated):
    x = autoregressive(0.8, (2**12, 1000), np.random.default_rng(9))
    found = [blocking(column)[0] for column in x.T]
    exact = np.sqrt(9 / 2**12)
    assert np.mean([e.error for e in found]) == pytest.approx(exact, rel=0.08)
    calibrated([e.value / e.error for e in found], slack=0.03)
    table = blocking(x[:, 0])[1]
    assert table[0, 1] == pytest.approx(1 / 2**6, rel=0.15)  # the naive error, three times too small
    with pytest.raises(ValueError, match="at least 4"):
        blocking(np.zeros(3))
