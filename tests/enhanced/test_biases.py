"""Restraints, walls and sums of biases: exact energies, schedules, and what every bias must keep."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.core.replicas import replicate
from metastable.enhanced.biases import Harmonic, LowerWall, MovingHarmonic, Select, Sum, UpperWall
from metastable.enhanced.metadynamics import Hills, WellTempered

pytestmark = pytest.mark.usefixtures("x64")
TURN = 2 * math.pi


def raised(bias, seed=1):
    """The bias after two updates with three walkers."""
    for s in np.random.default_rng(seed).uniform(-2, 2, (2, 3, 2)):
        bias = update(bias, jnp.asarray(s))
    return bias


update = eqx.filter_jit(lambda bias, s: bias.update(s, 2.5))


SETTINGS = dict(height=1.2, widths=[0.4, 0.5], bias_factor=8.0)
BIASES = {
    "harmonic": lambda: Harmonic([3.0, 0.5], [20.0, 3.0], (TURN, None)),
    "moving": lambda: MovingHarmonic([0, 1, 5], [[0.0, 1.0], [1.0, 1.0], [3.0, 2.0]], [5.0, 8.0, 2.0], (TURN, None)),
    "upper wall": lambda: UpperWall([0.1, 0.2], [10.0, 3.0], exponent=3, offset=0.05, eps=0.7),
    "lower wall": lambda: LowerWall([0.1, 0.2], 4.0, exponent=4),
    "grid": lambda: WellTempered([Axis(-math.pi, math.pi, 40, True), Axis(-2.5, 2.5, 30)], **SETTINGS),
    "hills": lambda: Hills(10, periods=(TURN, None), **SETTINGS),
    "sum": lambda: Sum(Harmonic([0.0, 1.0], 2.0), Select(UpperWall([0.3], 9.0), [1])),
}


@pytest.fixture(params=BIASES)
def bias(request):
    with jax.enable_x64(True):
        return raised(BIASES[request.param]())


def test_the_gradient_is_the_derivative(bias):
    energy, slope = eqx.filter_jit(bias), eqx.filter_jit(lambda s: jax.grad(bias)(s))
    for s in np.random.default_rng(2).uniform(-2.4, 2.4, (10, 2)):
        step = 1e-5 * np.eye(2)
        numerical = [(energy(jnp.asarray(s + h)) - energy(jnp.asarray(s - h))) / 2e-5 for h in step]
        np.testing.assert_allclose(slope(jnp.asarray(s)), numerical, atol=1e-6, rtol=1e-7)


def test_compiled_replicated_and_one_by_one_agree(bias):
    s = jnp.asarray(np.random.default_rng(3).uniform(-4, 4, (7, 2)))
    alone = eqx.filter_jit(lambda bias, s: jax.value_and_grad(bias)(s))
    energies, slopes = eqx.filter_jit(replicate(lambda s: jax.value_and_grad(bias)(s)))(s.T)
    np.testing.assert_allclose(energies, [alone(bias, row)[0] for row in s], atol=1e-12)
    np.testing.assert_allclose(slopes.T, [alone(bias, row)[1] for row in s], atol=1e-12)
    with jax.disable_jit():
        np.testing.assert_allclose(energies[0], bias(s[0]), atol=1e-12)


def test_an_update_is_the_same_compiled_and_for_walkers_in_any_order(bias):
    s = jnp.asarray(np.random.default_rng(4).uniform(-2, 2, (3, 2)))
    new, shuffled = update(bias, s), update(bias, s[::-1])
    assert jax.tree.structure(new) == jax.tree.structure(bias)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(new)] == [(x.shape, x.dtype) for x in jax.tree.leaves(bias)]
    at = eqx.filter_jit(lambda bias: jax.vmap(bias)(jnp.asarray([[0.3, -0.2], [1.0, 1.5]])))
    np.testing.assert_allclose(at(shuffled), at(new), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(at(bias.update(s, 2.5)), at(new), rtol=1e-12, atol=1e-12)  # not compiled


def test_energies_follow_the_precision_of_the_cvs(bias):
    for dtype in (jnp.float32, jnp.float64):
        assert jax.eval_shape(bias, jnp.zeros(2, dtype)).dtype == dtype


def test_a_periodic_restraint_takes_the_short_way():
    bias = Harmonic([3.0], 10.0, (TURN,))
    assert float(bias(jnp.array([-3.0]))) == pytest.approx(5 * (TURN - 6) ** 2)
    assert float(jax.grad(bias)(jnp.array([-3.0]))[0]) == pytest.approx(10 * (TURN - 6))
    assert float(Harmonic([3.0], 10.0)(jnp.array([-3.0]))) == pytest.approx(5 * 36)


def test_a_moving_restraint_keeps_its_schedule():
    bias = MovingHarmonic([10, 20, 40], [1.0, 2.0, 2.0], [100.0, 100.0, 500.0], stride=5)
    seen = []
    for _ in range(10):
        seen.append((float(bias.center[0]), float(bias.kappa[0])))
        bias = bias.update(jnp.zeros((1, 1)), 2.5)
    centers = [1, 1, 1, 1.5, 2, 2, 2, 2, 2, 2]
    kappas = [100, 100, 100, 100, 100, 200, 300, 400, 500, 500]
    np.testing.assert_allclose(seen, np.stack([centers, kappas], -1))
    assert float(bias(jnp.array([2.1]))) == pytest.approx(0.5 * 500 * 0.1**2)


def test_walls_stand_on_their_own_side_only():
    upper, lower = UpperWall([1.0], 50.0), LowerWall([1.0], 50.0)
    np.testing.assert_allclose([float(upper(jnp.array([s]))) for s in (0.9, 1.0, 1.2)], [0, 0, 2])
    np.testing.assert_allclose([float(lower(jnp.array([s]))) for s in (0.8, 1.0, 1.1)], [2, 0, 0])


def test_a_selected_bias_is_raised_by_its_own_cvs():
    hills = Hills(4, height=1.0, widths=[0.1], bias_factor=10.0)
    bias = Select(hills, [1]).update(jnp.array([[5.0, 0.25]]), 2.5)
    assert float(bias(jnp.array([9.0, 0.25]))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Harmonic([0.0, 1.0], 1.0, (None,)), "1 periods for a bias on 2 CVs"),
        (lambda: MovingHarmonic([0, 0], [1.0, 2.0], 1.0), "increasing order"),
        (lambda: MovingHarmonic([0, 1], [1.0], 1.0), "1 centers"),
        (lambda: UpperWall([0.0], 1.0, exponent=0), "exponent"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
