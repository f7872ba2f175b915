"""The learning loop: it reaches exact answers, repeats itself bit for bit, and compiles once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metastable.core.frame import Frame
from metastable.loops.fit import fit


class Line(eqx.Module):
    slope: jax.Array
    offset: jax.Array
    name: str = "line"
    counts: jax.Array = eqx.field(default_factory=lambda: jnp.arange(3))

    def __call__(self, x):
        return x @ self.slope + self.offset


@pytest.fixture
def line():
    return Line(jnp.zeros(2), jnp.zeros(()))


X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
Y = (X @ np.array([2.0, -1.0]) + 0.5 + 0.1 * np.random.default_rng(1).normal(size=40)).astype(np.float32)


def squares(model, batch):
    x, y = batch
    error = jax.vmap(model)(x) - y
    return jnp.mean(error**2), {"worst": jnp.max(jnp.abs(error))}


def everything(i, model):
    return X, Y


def some(i, model):
    chosen = np.random.default_rng(i).choice(len(X), 8)
    return X[chosen], Y[chosen]


def test_reaches_the_least_squares_answer(line):
    (exact, *_) = np.linalg.lstsq(np.c_[X, np.ones(len(X))].astype(float), Y.astype(float), rcond=None)
    *_, last = fit(line, squares, everything, optax.adam(0.05), 600)
    np.testing.assert_allclose([*last.model.slope, last.model.offset], exact, atol=2e-4)
    residual = Y - np.c_[X, np.ones(len(X))] @ exact
    np.testing.assert_allclose(last.loss, np.mean(residual**2), rtol=1e-4)
    assert last.aux["worst"] == pytest.approx(np.abs(residual).max(), abs=1e-3)
    assert last.step == 600


def test_one_step_is_gradient_descent(line):
    (after,) = fit(line, squares, everything, optax.sgd(0.1), 1)
    np.testing.assert_allclose(after.model.slope, 0.1 * 2 * (X * Y[:, None]).mean(0), rtol=1e-5)
    np.testing.assert_allclose(after.loss, np.mean(Y**2), rtol=1e-6)  # of the model before the step


def test_leaves_alone_what_is_not_real(line):
    *_, last = fit(line, squares, everything, optax.adam(0.05), 3)
    assert last.model.name == "line"
    np.testing.assert_array_equal(last.model.counts, jnp.arange(3))


def test_restart_is_bit_exact(line):
    optimizer = optax.adam(optax.exponential_decay(0.1, 5, 0.9))
    whole = list(fit(line, squares, some, optimizer, 12))
    again = list(fit(line, squares, some, optimizer, 12))
    rest = list(fit(line, squares, some, optimizer, 12, start=whole[4]))
    assert [f.step for f in whole] == list(range(1, 13))
    assert [f.step for f in rest] == list(range(6, 13))
    assert all(eqx.tree_equal(a, b) for a, b in zip(whole, again, strict=True))
    assert all(eqx.tree_equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    assert not eqx.tree_equal(whole[-1].model, whole[-2].model)


def test_batch_sees_the_current_model(line):
    seen = []

    def batch(i, model):
        seen.append((i, float(model.offset)))
        return X, Y

    fits = list(fit(line, squares, batch, optax.sgd(0.1), 4))
    assert seen == [(i, float(m.offset)) for i, m in enumerate([line, *(f.model for f in fits[:-1])])]


def test_steps_are_taken_on_demand(line):
    calls = []
    fits = fit(line, squares, lambda i, model: calls.append(i) or (X, Y), optax.sgd(0.1), 10**9)
    next(fits), next(fits)
    assert calls == [0, 1]


def test_compiles_once(line):
    traces = []

    def loss(model, batch):
        traces.append(1)
        return squares(model, batch)

    list(fit(line, loss, some, optax.adam(0.1), 5))
    assert len(traces) == 1


def test_complex_numbers_go_downhill():
    goal = 1 + 2j
    loss = lambda z, _: (jnp.abs(z - goal) ** 2, None)  # noqa: E731
    *_, last = fit(jnp.zeros((), complex), loss, lambda i, z: None, optax.sgd(0.1), 100)
    assert abs(last.model - goal) < 1e-5


def test_matches_forces():
    """A spring learned from forces: what force matching is."""
    frames = Frame(jax.random.normal(jax.random.key(0), (20, 2, 3)))

    class Spring(eqx.Module):
        k: jax.Array
        length: jax.Array

        def __call__(self, frame):
            return 0.5 * self.k * (jnp.linalg.norm(frame.positions[0] - frame.positions[1]) - self.length) ** 2

    forces = lambda spring, frames: jax.vmap(jax.grad(spring))(frames).positions  # noqa: E731
    truth = forces(Spring(jnp.array(3.0), jnp.array(1.2)), frames)
    loss = lambda spring, frames: (jnp.mean((forces(spring, frames) - truth) ** 2), None)  # noqa: E731
    start = Spring(jnp.array(1.0), jnp.array(1.0))
    *_, last = fit(start, loss, lambda i, model: frames, optax.adam(0.05), 500)
    np.testing.assert_allclose([last.model.k, last.model.length], [3.0, 1.2], rtol=1e-3)


def test_errors(line):
    with pytest.raises(ValueError, match="steps = -1"):
        fit(line, squares, everything, optax.sgd(0.1), -1)
    with pytest.raises(ValueError, match="nothing to learn"):
        fit({"a": 1}, squares, everything, optax.sgd(0.1), 1)
    with pytest.raises(ValueError, match=r"shape \(40,\)"):
        list(fit(line, lambda m, b: (jax.vmap(m)(b[0]), None), everything, optax.sgd(0.1), 1))
