"""Metadynamics: the grid against the list of hills, its edges, its free energy, and reweighting."""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from metastable.core.axis import Axis
from metastable.enhanced.metadynamics import Hills, WellTempered

TORSION = Axis(-math.pi, math.pi, 60, periodic=True)
LENGTH = Axis(0.0, 3.0, 50)
KT = 2.494


@pytest.fixture(autouse=True)
def double(x64):
    return x64


raise_ = eqx.filter_jit(lambda bias, s: bias.update(s, KT))
summary = eqx.filter_jit(lambda grid: (grid.values, grid.free_energy(), grid.offset(KT)))
value_and_slope = eqx.filter_jit(lambda bias, s: jax.vmap(jax.value_and_grad(bias))(s))


def both(axes, widths, updates=4, walkers=5, bias_factor=10.0, seed=0):
    """The same walkers' hills on a grid and in a list."""
    settings = dict(height=1.5, widths=widths, bias_factor=bias_factor)
    grid = WellTempered(axes, **settings)
    hills = Hills(updates * walkers, periods=[a.period for a in axes], **settings)
    rng = np.random.default_rng(seed)
    lower, upper = [a.lower for a in axes], [a.upper for a in axes]
    for _ in range(updates):
        s = jnp.asarray(rng.uniform(lower, upper, (walkers, len(axes))))
        grid, hills = raise_(grid, s), raise_(hills, s)
    assert not hills.overflow and int(grid.outside) == 0
    return grid, hills, jnp.asarray(rng.uniform(lower, upper, (200, len(axes))))


@pytest.mark.parametrize(
    "axes, widths",
    [
        ([TORSION], [0.35]),
        ([LENGTH], [0.2]),
        ([TORSION, TORSION], [0.35, 0.4]),
        ([TORSION, LENGTH], [0.35, 0.2]),
        ([replace(TORSION, bins=30), replace(LENGTH, bins=24), replace(TORSION, bins=30)], [0.5, 0.3, 0.45]),
    ],
)
def test_the_grid_is_the_list_of_hills(axes, widths):
    grid, hills, s = both(axes, widths)
    (energy, slope), (exact, exact_slope) = (value_and_slope(bias, s) for bias in (grid, hills))
    height = float(hills.heights.max())
    assert np.abs(energy - exact).max() < 1.5e-3 * height  # at the rim of the hills, where they end with a kink
    assert np.abs(slope - exact_slope).max() < 0.03 * height / min(widths)


def test_inside_a_hill_the_grid_is_right_to_fourth_order():
    s = 1.2 + jnp.linspace(-0.4, 0.4, 101)[:, None]
    hills = raise_(Hills(1, height=1.0, widths=[0.2], bias_factor=10.0), jnp.array([[1.2]]))
    errors = []
    for bins in (32, 64):  # spacings of 0.47 and 0.23 widths
        grid = WellTempered([replace(LENGTH, bins=bins)], height=1.0, widths=[0.2], bias_factor=10.0)
        grid = raise_(grid, jnp.array([[1.2]]))
        errors.append(np.abs(value_and_slope(grid, s)[0] - value_and_slope(hills, s)[0]).max())
    assert errors[0] < 2e-3
    assert errors[0] / errors[1] > 12


def test_one_hill_is_a_stretched_gaussian_of_the_right_height():
    grid = WellTempered([LENGTH], height=1.5, widths=[0.2], bias_factor=10.0)
    once = raise_(grid, jnp.array([[1.2]]))
    twice = raise_(once, jnp.array([[1.2]]))
    floor = math.exp(-6.25)
    for away in (0.0, 0.13, 0.4, 0.7):
        hill = max(math.exp(-((away / 0.2) ** 2) / 2) - floor, 0) / (1 - floor)
        first, second = (float(bias(jnp.array([1.2 + away]))) for bias in (once, twice))
        assert first == pytest.approx(1.5 * hill, abs=2e-3)
        assert second == pytest.approx(1.5 * hill * (1 + math.exp(-1.5 / (9 * KT))), abs=4e-3)


def test_plain_metadynamics_has_hills_of_one_height():
    _, hills, _ = both([TORSION], [0.35], bias_factor=math.inf)
    np.testing.assert_allclose(hills.heights, 1.5)


def test_forces_do_not_jump_between_cells_or_at_the_seam():
    grid, _, _ = both([TORSION, LENGTH], [0.35, 0.2])
    slope = jax.jit(jax.grad(grid))
    for axis, d in ((TORSION, 0), (LENGTH, 1)):
        for point in [*axis.points[::7], axis.upper]:
            s, h = np.array([0.7, 1.3]), 1e-9 * np.eye(2)[d]
            s[d] = point
            np.testing.assert_allclose(slope(jnp.asarray(s - h)), slope(jnp.asarray(s + h)), atol=1e-6)
    one_turn = jnp.array([2 * math.pi, 0.0])
    s = jnp.array([0.4, 1.1])
    np.testing.assert_allclose(grid(s + one_turn), grid(s), rtol=1e-12)


def test_a_walker_outside_feels_the_tails_raises_no_hill_and_is_counted():
    grid = WellTempered([LENGTH], height=1.5, widths=[0.2], bias_factor=10.0)
    grid = raise_(grid, jnp.array([[2.95], [1.0]]))
    hills = raise_(Hills(2, height=1.5, widths=[0.2], bias_factor=10.0), jnp.array([[2.95], [1.0]]))
    s = jnp.array([3.01, 3.2, 3.5, 3.7, 4.0, 100.0, -0.3, -50.0])[:, None]
    got, want = value_and_slope(grid, s), value_and_slope(hills, s)
    np.testing.assert_allclose(got[0], want[0], atol=2e-3)
    np.testing.assert_allclose(got[1], want[1], atol=0.05)
    after = raise_(grid, jnp.array([[3.3], [-0.2], [3.0]]))
    assert int(after.outside) == 2
    only_inside = raise_(grid, jnp.array([[3.0]]))
    np.testing.assert_allclose(after.spline.coefficients, only_inside.spline.coefficients, atol=1e-14)


def test_a_full_list_says_so_and_keeps_what_it_has():
    hills = Hills(3, height=1.0, widths=[0.2], bias_factor=10.0)
    hills = raise_(hills, jnp.array([[0.0], [1.0]]))
    assert not hills.overflow
    full = raise_(hills, jnp.array([[2.0], [3.0]]))
    assert bool(full.overflow) and int(full.count) == 4
    np.testing.assert_allclose(full.centers[:, 0], [0, 1, 2])


def test_the_update_serves_inside_a_compiled_loop():
    grid = WellTempered([TORSION, LENGTH], height=1.0, widths=[0.35, 0.2], bias_factor=6.0)
    s = jnp.asarray(np.random.default_rng(5).uniform([-3, 0], [3, 3], (6, 4, 2)))
    looped, _ = eqx.filter_jit(lambda grid: jax.lax.scan(lambda bias, s: (bias.update(s, KT), None), grid, s))(grid)
    for row in s:
        grid = raise_(grid, row)
    np.testing.assert_allclose(looped.spline.coefficients, grid.spline.coefficients, atol=1e-12)


def test_values_free_energy_and_offset_are_those_of_the_bias():
    grid, _, _ = both([TORSION], [0.35], updates=20)
    values, free_energy, offset = summary(grid)
    v = np.asarray(value_and_slope(grid, jnp.asarray(grid.grid[0])[:, None])[0])
    np.testing.assert_allclose(values, v, atol=1e-12)
    f = -10 / 9 * v
    np.testing.assert_allclose(free_energy, f - f.min(), atol=1e-12)
    fine = np.linspace(-math.pi, math.pi, 6000, endpoint=False)
    v = np.asarray(value_and_slope(grid, jnp.asarray(fine)[:, None])[0])
    exact = KT * math.log(np.exp(10 / 9 * v / KT).sum() / np.exp(1 / 9 * v / KT).sum())
    assert float(offset) == pytest.approx(exact, abs=1e-4)


def test_values_of_a_bounded_axis_are_those_within_it():
    grid, _, _ = both([LENGTH], [0.2])
    values, _, _ = summary(grid)
    np.testing.assert_allclose(values, value_and_slope(grid, jnp.asarray(grid.grid[0])[:, None])[0], atol=1e-12)
    assert values.shape == (51,)
    assert grid.grid[0][0] == 0 and grid.grid[0][-1] == 3


@pytest.mark.parametrize(
    "axis, width, bias_factor, words",
    [
        (TORSION, 0.35, 1.0, "bias factor"),
        (TORSION, 0.15, 10.0, "at least 84 bins"),
        (TORSION, 0.95, 10.0, "longer than the period"),
        (LENGTH, 0.0, 10.0, "must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(axis, width, bias_factor, words):
    with pytest.raises(ValueError, match=words):
        WellTempered([axis], height=1.0, widths=[width], bias_factor=bias_factor)


@pytest.mark.physics
def test_it_finds_the_free_energy_of_a_double_well():
    """Walkers by Metropolis moves on U + V: -gamma/(gamma - 1) V goes to U, and so do reweighted counts."""

    def u(s):
        return 3 * KT * (s**2 - 1) ** 2 + KT * s  # barrier of some 3 kT, wells 2 kT apart

    axis = Axis(-2.2, 2.2, 80)
    walkers, moves, updates = 64, 40, 1500
    grid = WellTempered([axis], height=0.6 / walkers * 4, widths=[0.15], bias_factor=6.0)

    def move(bias, s, key):
        a, b = jax.random.split(key)
        trial = s + 0.4 * jax.random.normal(a, s.shape)
        inside = jnp.abs(trial[:, 0]) <= 2.2
        rise = u(trial[:, 0]) - u(s[:, 0]) + jax.vmap(bias)(trial) - jax.vmap(bias)(s)
        accept = inside & (jnp.log(jax.random.uniform(b, (walkers,))) < -rise / KT)
        return jnp.where(accept[:, None], trial, s)

    def update(state, key):
        bias, s = state
        s, _ = jax.lax.scan(lambda s, key: (move(bias, s, key), None), s, jax.random.split(key, moves))
        weight = (jax.vmap(bias)(s) - bias.offset(KT)) / KT
        return (bias.update(s, KT), s), (s[:, 0], weight)

    @jax.jit
    def run(grid):
        start = grid, -jnp.ones((walkers, 1))
        return jax.lax.scan(update, start, jax.random.split(jax.random.key(0), updates))

    (grid, _), (s, weight) = run(grid)
    points = np.asarray(grid.grid[0])
    inner = np.abs(points) < 1.6
    error = (np.asarray(grid.free_energy()) - u(points))[inner]
    assert np.std(error) < 0.15 * KT
    left = np.asarray(s[300:]) < 0
    w = np.exp(np.asarray(weight[300:]))
    blocks = [(w[i : i + 100] * left[i : i + 100]).sum() / w[i : i + 100].sum() for i in range(0, 1200, 100)]
    share = quad(lambda s: math.exp(-u(s) / KT), -2.2, 0)[0] / quad(lambda s: math.exp(-u(s) / KT), -2.2, 2.2)[0]
    assert np.mean(blocks) == pytest.approx(share, abs=4 * np.std(blocks) / math.sqrt(12) + 1e-3)
