"""The whole landscape at once, on a turn of two angles with a known answer."""

import time

import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.estimate.axes import cell_index, grid
from metastable.estimate.density import density, free_energy, state_difference
from metastable.estimate.landscape import converge, landscape
from metastable.estimate.weights import effective_size

KT = 2.5
AXES = (Axis.angle("phi"), Axis.angle("psi"))


def wells(phi, psi):
    """Three minima: near (-1.5, 1), (-1.5, -1) and (1.2, 0)."""
    out = 0
    for depth, a, b in ((14, -1.5, 1.0), (12, -1.5, -1.0), (9, 1.2, 0.0)):
        out = out - depth * np.exp(1.5 * (np.cos(phi - a) + np.cos(psi - b) - 2) / 0.4)
    return out


def draw(shape, rng, temperature=2.0):
    """Independent samples at twice kT, and the weights that bring them to kT."""
    flat = wells(*np.moveaxis(grid(AXES), -1, 0)).ravel()
    p = np.exp(-flat / (temperature * KT))
    cell = rng.choice(flat.size, p=p / p.sum(), size=shape)
    return grid(AXES).reshape(-1, 2)[cell].astype(np.float32), -(flat[cell] / KT) * (1 - 1 / temperature)


def test_a_landscape_knows_its_minima_and_their_errors():
    samples, log_w = draw((2000, 64), np.random.default_rng(0))
    found = landscape(samples, log_w, AXES, KT)
    exact = wells(*np.moveaxis(grid(AXES), -1, 0))
    p = np.exp(-exact / KT) / np.exp(-exact / KT).sum()
    assert len(found.basins) == 3
    np.testing.assert_allclose(found.basins.locations, [[-1.5, 1], [-1.5, -1], [1.2, 0]], atol=0.25)
    shares = np.array([p[found.basins.labels == i].sum() for i in range(3)])
    z = (found.basins.population.value - shares) / found.basins.population.error
    assert np.abs(z).max() < 4
    z = (found.basins.free_energy.value + KT * np.log(shares / shares[0]))[1:] / found.basins.free_energy.error[1:]
    assert np.abs(z).max() < 4
    z = (-KT * np.log(found.density.probability) + KT * np.log(p)) / found.free_energy.error
    assert np.mean(np.abs(z) < 1) == pytest.approx(0.683, abs=0.03)
    np.testing.assert_allclose(found.free_energy.value, free_energy(density(samples, AXES, log_w), KT).value)
    assert found.effective_size == pytest.approx(effective_size(log_w))
    assert found.blocks.count == 64


def test_convergence_ends_at_the_whole_run_and_its_errors_shrink():
    samples, log_w = draw((2000, 64), np.random.default_rng(1))
    found = landscape(samples, log_w, AXES, KT, fractions=(0.05, 0.2, 1.0))
    rows = found.convergence.estimate
    assert found.convergence.fractions == (0.05, 0.2, 1.0) and rows.value.shape == (3, 3)
    np.testing.assert_allclose(rows.value[-1], found.basins.free_energy.value)
    np.testing.assert_allclose(rows.error[-1], found.basins.free_energy.error)
    np.testing.assert_allclose(rows.error[0, 1:] / rows.error[-1, 1:], np.sqrt(20), rtol=0.4)


def test_convergence_of_any_estimate():
    samples, log_w = draw((1000, 64), np.random.default_rng(2))
    right = samples[..., 0] > 0
    found = converge(lambda a, b, w: state_difference(a, b, KT, w), right, ~right, log_w, fractions=(0.1, 1.0))
    whole = state_difference(right, ~right, KT, log_w)
    assert found.estimate.value[-1] == whole.value and found.estimate.error[-1] == whole.error
    with pytest.raises(ValueError, match="above 0"):
        converge(lambda a: whole, right, fractions=(0.0, 1.0))


def test_a_state_not_yet_seen_is_not_a_number():
    samples, log_w = draw((1000, 64), np.random.default_rng(3))
    late = samples[..., 0] > 0
    late[500:] = False
    samples[late] = [-1.5, 1.0]
    rows = landscape(samples, log_w, AXES, KT).convergence.estimate
    assert np.isnan(rows.value[0, 2]) and np.isfinite(rows.value[-1, 2])


def test_unweighted_and_smoothed():
    samples, _ = draw((400, 64), np.random.default_rng(4), temperature=1.0)
    found = landscape(samples, None, AXES, KT, bandwidth=(0.15, 0.15))
    assert found.effective_size == pytest.approx(400 * 64)
    assert len(found.basins) == 3 and np.isfinite(found.free_energy.value).all()
    index = cell_index(samples, AXES)
    assert found.basins.labels.ravel()[index].min() >= 0


def test_200_resamples_of_a_surface_cost_little():
    samples, log_w = draw((10000, 64), np.random.default_rng(5))
    start = time.process_time()
    landscape(samples, log_w, AXES, KT, resamples=200)
    assert time.process_time() - start < 2.0
