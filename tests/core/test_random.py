"""The generator of the noise: its distribution out to the tails, and independence along everything it is indexed by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metastable.core import random
from metastable.core.random import normal, spread, threefry_normal
from metastable.core.replicas import replicate

COUNT = 66  # deviates of one key, as for a peptide of 22 atoms


def _many(keys, dtype=jnp.float32):
    return np.asarray(jax.jit(jax.vmap(lambda key: normal(key, (COUNT,), dtype)))(keys), float)


@pytest.fixture(scope="module")
def tables():
    """Deviates (keys, counters) for the ways in which keys come about."""
    seeds = jnp.arange(30000, dtype=jnp.uint32)
    return {
        "steps": _many(jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(seeds)),
        "seeds": _many(jax.vmap(jax.random.key)(seeds)),
        "replicas": _many(spread(jax.random.key(5), len(seeds))),
        "split": _many(jax.random.split(jax.random.key(6), len(seeds))),
    }


WAYS = ("steps", "seeds", "replicas", "split")


@pytest.mark.parametrize("way", WAYS)
def test_moments_to_fourth_order(tables, way):
    z = tables[way].ravel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - moment) < 4.5 * np.sqrt(variance / z.size), power


@pytest.mark.parametrize("way", WAYS)
def test_distribution_function(tables, way):
    assert stats.kstest(tables[way].ravel()[:500_000], "norm").pvalue > 1e-4


def test_tails_to_five_sigma():
    z = np.asarray(jax.jit(lambda key: normal(key, (2**24,)))(jax.random.key(8)))
    for limit in (2.0, 3.0, 3.5, 4.0, 4.5, 5.0):
        for tail in (z > limit, z < -limit):
            expected = z.size * stats.norm.sf(limit)
            assert abs(np.count_nonzero(tail) - expected) < 4.5 * np.sqrt(expected), limit


@pytest.mark.parametrize("way", WAYS)
def test_no_correlation_between_counters_of_a_key(tables, way):
    z = tables[way]
    for values in (z, z**2):
        correlation = np.corrcoef(values.T) * np.sqrt(len(z)) - np.eye(COUNT) * np.sqrt(len(z))
        assert np.abs(correlation).max() < 5.2  # the largest of 2,145 normal deviates: p = 4e-4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lag", [1, 2, 64, 256])
def test_no_correlation_between_consecutive_keys(tables, way, lag):
    z = tables[way]
    for values, variance in ((z, 1), (z**2 - 1, 2), (z**3, 15)):
        product = np.mean(values[lag:] * values[:-lag])
        assert abs(product) < 4.5 * variance / np.sqrt(values[lag:].size)


@pytest.mark.parametrize("way", WAYS)
def test_pairs_fill_the_square(tables, way):
    u = stats.norm.cdf(tables[way])
    neighbours = {"counters": (u[:, :-1], u[:, 1:]), "keys": (u[:-1], u[1:]), "halves": (u[:, :33], u[:, 33:])}
    for first, second in neighbours.values():
        counts = np.histogram2d(first.ravel(), second.ravel(), bins=64, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_sums_over_a_key_are_chi_square(tables):
    """What the kinetic energy that the noise brings to one replica in one step looks like."""
    for z in tables.values():
        assert stats.kstest(np.sum(z**2, axis=1), stats.chi2(COUNT).cdf).pvalue > 1e-4


def test_double_precision(x64):
    z = np.asarray(normal(jax.random.key(1), (1_000_000,), jnp.float64))
    assert z.dtype == np.float64
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert len(np.unique(z)) == z.size  # single precision would repeat
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - moment) < 4.5 * np.sqrt(variance / z.size), power


def test_sine_is_that_of_numpy():
    f = np.linspace(-0.5, 0.5, 1001)
    assert np.allclose(f * random._polynomial(random._SINE, f * f), np.sin(np.pi * f), rtol=0, atol=1e-15)


@pytest.mark.parametrize("word", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_bits_give_infinity(monkeypatch, x64, word, dtype):
    monkeypatch.setattr(random, "_words", lambda key, size, count: [jnp.full(size, word, jnp.uint32)] * count)
    z = normal(jax.random.key(0), (3,), jnp.dtype(dtype))
    assert z.dtype == dtype
    assert np.all(np.abs(z) < 9.6)


def test_replicate_and_shape():
    keys = spread(jax.random.key(2), 5)
    lifted = replicate(lambda key: normal(key, (4, 3)))(keys)
    assert lifted.shape == (4, 3, 5)
    for i, key in enumerate(keys):
        assert np.allclose(lifted[..., i], normal(key, (4, 3)), rtol=1e-5, atol=1e-6)
    assert normal(keys[0]).shape == ()


def test_spread_gives_distinct_keys():
    words = np.asarray(jax.random.key_data(spread(jax.random.key(7), 100_000)), np.uint64)
    assert len(np.unique(words[:, 0] << np.uint64(32) | words[:, 1])) == 100_000
    bits = np.unpackbits(words.astype(np.uint32).view(np.uint8).reshape(100_000, -1), axis=1)
    assert np.abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(100_000)


def test_threefry_is_jax():
    key = jax.random.key(4)
    assert np.array_equal(threefry_normal(key, (5,)), jax.random.normal(key, (5,)))
