"""Minima, basins and barriers against published stationary points and against other algorithms."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

from metastable.core.axis import Axis
from metastable.estimate.axes import cell_index, grid
from metastable.estimate.basins import _neighbours, barrier, basins
from metastable.estimate.density import Density, density
from metastable.testing.surfaces import DoubleWell, MuellerBrown, exact_free_energy, on_plane

KT = 2.5


def exactly(f, axes, kT=KT):
    """A density without noise."""
    p = np.exp(-(f - np.nanmin(f)) / kT)
    p = np.where(np.isnan(p), 0, p) / np.nansum(p)
    return Density(axes, p, np.broadcast_to(p, (2, *p.shape)))


def test_mueller_brown_has_its_three_basins_and_barriers(x64):
    axes = (Axis(-1.5, 1.3, 140, name="x"), Axis(-0.5, 2.2, 135, name="y"))
    kT = 15.0
    f = on_plane(MuellerBrown())(*np.moveaxis(grid(axes), -1, 0))
    found = basins(exactly(f, axes, kT), kT, merge=2.0)
    assert len(found) == 3
    by_energy = np.argsort([f.ravel()[cell_index(at, axes)] for at in found.locations])
    published = np.array([[-0.558, 1.442], [0.623, 0.028], [-0.050, 0.467]])
    np.testing.assert_allclose(found.locations[by_energy], published, atol=0.03)
    a, b, c = by_energy
    assert found.barrier.value[a, c] == pytest.approx(-40.6648 + 146.6995, abs=1)  # by a grid of 0.02
    assert found.barrier.value[b, c] == pytest.approx(-72.2489 + 108.1667, abs=1)
    assert found.barrier.value[a, b] == pytest.approx(-40.6648 + 146.6995, abs=1)
    assert found.barrier.value[b, a] == pytest.approx(-40.6648 + 108.1667, abs=1)
    shares = [np.exp(-f[found.labels == i] / kT).sum() for i in range(3)]
    np.testing.assert_allclose(found.free_energy.value, -kT * np.log(np.array(shares) / shares[0]), atol=1e-9)
    np.testing.assert_allclose(found.population.value, shares / np.sum(shares))
    assert list(found.population.value) == sorted(found.population.value, reverse=True)
    joined = basins(exactly(f, axes, kT), kT, merge=9.0)  # the middle one is 8.5 deep
    assert len(joined) == 2


def test_basins_that_lie_too_high_are_left_out():
    axes = (Axis(-0.5, 3.5, 400, name="x"),)
    x = axes[0].centers
    f = 40 * np.sin(np.pi * x) ** 2 + np.interp(np.round(x), [0, 1, 2, 3], [0.0, 11 * KT, 3 * KT, 13 * KT])
    found = basins(exactly(f, axes), KT)
    np.testing.assert_allclose(found.locations[:, 0], [0, 2, 1], atol=0.05)
    assert set(found.labels[x > 2.9]) == {-1}
    assert len(basins(exactly(f, axes), KT, highest=14 * KT)) == 4


def rough(rng, axes):
    """A random periodic surface."""
    phi = 2 * np.pi * np.stack(np.meshgrid(*(np.arange(a.bins) / a.bins for a in axes), indexing="ij"))
    waves = rng.integers(-3, 4, (12, len(axes)))
    return sum(rng.normal(0, 4) * np.cos(np.tensordot(k, phi, 1) + rng.uniform(0, 7)) for k in waves)


@pytest.mark.parametrize("seed", range(5))
def test_barriers_are_those_of_the_minimum_spanning_tree(seed):
    """The lowest path between two cells runs along the tree that joins all cells by their lowest edges."""
    rng = np.random.default_rng(seed)
    axes = (Axis.angle(bins=24), Axis(0.0, 1.0, 18))
    f = rough(rng, axes)
    found = basins(exactly(f, axes), KT, merge=0.0)
    flat, near = f.ravel() - f.min() + 1, _neighbours(axes)
    i, k = np.nonzero(near >= 0)
    height = np.maximum(flat[i], flat[near[i, k]])
    tree = minimum_spanning_tree(coo_matrix((height, (i, near[i, k])), shape=(flat.size, flat.size)).tocsr())
    tree = (tree + tree.T).tocsr()
    cells = cell_index(found.locations, axes)
    minima = [c for c in range(flat.size) if all(flat[c] < flat[n] for n in near[c] if n >= 0)]
    assert sorted(cells) == minima

    def highest(start):
        best, stack = {start: flat[start]}, [start]
        while stack:
            here = stack.pop()
            for there in tree.indices[tree.indptr[here] : tree.indptr[here + 1]]:
                if there not in best:
                    best[there] = max(best[here], flat[there])
                    stack.append(there)
        return best

    for a, start in enumerate(cells[:4]):
        best = highest(start)
        expected = np.array([best[stop] for stop in cells]) - flat[start]
        np.testing.assert_allclose(found.barrier.value[a], expected, atol=1e-8)


def test_cells_drain_by_steepest_descent():
    axes = (Axis.angle(bins=30), Axis.angle("psi", bins=30))
    f = rough(np.random.default_rng(7), axes)
    found = basins(exactly(f, axes), KT, merge=0.0)
    flat, near, labels = f.ravel(), _neighbours(axes), found.labels.ravel()
    lowest = cell_index(found.locations, axes)
    for cell in range(flat.size):
        end = cell
        while True:
            down = near[end][np.argmin(flat[near[end]])]
            if flat[down] >= flat[end]:
                break
            end = down
        assert lowest[labels[cell]] == end


def test_a_basin_across_the_end_of_the_turn_is_one():
    axis = Axis.angle(bins=36)
    found = basins(exactly(10 * np.cos(axis.centers), (axis,)), KT)
    assert len(found) == 1 and abs(abs(found.locations[0, 0]) - np.pi) < 0.2
    found = basins(exactly(10 * np.cos(axis.centers), (Axis(-np.pi, np.pi, 36),)), KT)
    assert len(found) == 2
    assert found.barrier.value[0, 1] == pytest.approx(10 * (np.cos(axis.centers[18]) - np.cos(axis.centers[0])))


def test_barrier_of_a_profile_and_the_shorter_way_round():
    axis = Axis(-1.5, 1.5, 300)
    f = on_plane(DoubleWell(height=12.0, tilt=2.0))(axis.centers)
    found = barrier(exactly(f, (axis,)), KT, (-0.9,), (0.9,))
    assert found.value == pytest.approx(f[120:180].max() - f.min(), abs=1e-5)
    back = barrier(exactly(f, (axis,)), KT, (0.9,), (-0.9,))
    assert back.value == pytest.approx(f[120:180].max() - f[180:].min(), abs=1e-5)
    turn = Axis.angle(bins=360)
    f = 5 * np.cos(2 * turn.centers) + 4 * np.cos(turn.centers)  # minima near +-pi/2, tops of 9 at 0 and 1 at pi
    over = barrier(exactly(f, (turn,)), KT, (1.5,), (-1.5,))
    assert over.value == pytest.approx(1 - f.min(), abs=0.01)


def test_unsampled_cells_are_no_basin_and_no_path():
    axis = Axis(0.0, 9.0, 9)
    f = np.array([np.nan, 9.0, 0.0, 9.0, np.nan, 30.0, 5.0, 30.0, np.nan])
    found = basins(exactly(f, (axis,)), KT)
    np.testing.assert_array_equal(found.labels, [-1, 0, 0, 0, -1, 1, 1, 1, -1])
    assert np.isnan(found.barrier.value[0, 1]) and found.barrier.value[0, 0] == 0
    assert np.isnan(barrier(exactly(f, (axis,)), KT, (2.5,), (6.5,)).value)
    with pytest.raises(ValueError, match="nothing was sampled"):
        barrier(exactly(f, (axis,)), KT, (0.5,), (6.5,))
    with pytest.raises(ValueError, match="outside the axes"):
        barrier(exactly(f, (axis,)), KT, (-3.0,), (6.5,))
    with pytest.raises(ValueError, match="lie in one cell"):
        barrier(exactly(f, (axis,)), KT, (2.4,), (2.5,))


def test_noise_makes_no_minima():
    """Few samples on a fine grid: hundreds of cells are lower than their neighbours, two minima are real."""
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 0.45, (100, 64, 2))
    samples[..., 0] += np.where(rng.random((100, 64)) < 0.7, -1.5, 1.5)
    axes = (Axis.angle(), Axis.angle("psi"))
    found = basins(density(samples, axes), KT)
    assert len(found) == 2
    np.testing.assert_allclose(found.locations, [[-1.5, 0], [1.5, 0]], atol=0.6)


@pytest.mark.physics
def test_errors_of_basins_and_barriers_are_calibrated(metropolis, calibrated, x64):
    well, axis, experiments = DoubleWell(height=6.0, tilt=1.0), Axis(-1.5, 1.5, 12), 1000
    f = exact_free_energy(on_plane(well), (axis,), KT)
    exact = basins(exactly(f, (axis,)), KT)
    true = [exact.free_energy.value[1], exact.barrier.value[0, 1], exact.barrier.value[1, 0]]
    rng = np.random.default_rng(5)
    start = np.where(rng.random((64, experiments)) < 0.68, -1.0, 1.0)
    x = metropolis(lambda x: 6 * (x**2 - 1) ** 2 + x + 1e3 * (np.abs(x) > 1.5), start, KT, 600, 0.5, rng)[50:]
    z = []
    for i in range(experiments):
        found = basins(density(x[:, :, i, None], (axis,), seed=i), KT)
        climb = barrier(density(x[:, :, i, None], (axis,), seed=i), KT, (-0.9,), (0.9,))
        assert len(found) == 2 and climb.value == pytest.approx(found.barrier.value[0, 1])
        pairs = [(found.free_energy, 1), (found.barrier, (0, 1)), (found.barrier, (1, 0))]
        z.append([(e.value[at] - t) / e.error[at] for (e, at), t in zip(pairs, true, strict=True)])
    calibrated(z, slack=0.03)
