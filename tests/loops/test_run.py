"""The sampling loop: what its records hold, what a block depends on, and that a restart repeats it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.loops.run import run, stream


class Walk(eqx.Module):
    """x <- decay x + width * noise: an autoregressive walk with a known distribution."""

    decay: float | jax.Array = 0.9
    width: float | jax.Array = 0.3

    def init(self, key, frame):
        return frame.positions

    def step(self, key, x):
        return self.decay * x + self.width * jax.random.normal(key, x.shape)


class Clock(eqx.Module):
    """A walk that counts its steps, to see which are recorded."""

    def init(self, key, frame):
        return jnp.zeros((), int)

    def step(self, key, n):
        return n + 1


KEY = jax.random.key(7)
START = Walk().init(KEY, Frame(jnp.ones((2, 3))))


def test_takes_the_steps_one_by_one():
    """Against a plain Python loop over the contract: step i uses fold_in(key, i)."""
    expected = []
    x = START
    for i in range(6):
        x = Walk().step(jax.random.fold_in(KEY, i), x)
        expected.append(x)
    state, records = run(KEY, Walk(), START, 6, every=1, observe=lambda x: x)
    np.testing.assert_allclose(records, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state, records[-1])


@pytest.mark.parametrize("every", [1, 3, 12])
def test_records_after_each_stretch(every):
    state, records = run(KEY, Clock(), jnp.array(0), 12, every=every, observe=lambda n: {"n": n, "x": jnp.ones((4, 2))})
    np.testing.assert_array_equal(records["n"], np.arange(every, 13, every))
    assert records["x"].shape == (12 // every, 4, 2)
    assert state == 12


def test_records_once_where_nothing_is_said():
    assert run(KEY, Clock(), jnp.array(0), 12, observe=lambda n: n)[1].shape == (1,)
    assert run(KEY, Clock(), jnp.array(0), 12)[1] is None


def test_how_often_it_records_changes_no_step():
    a, b = (run(KEY, Walk(), START, 12, every=every)[0] for every in (1, 6))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("every", [0, -1, 5, 13])
def test_refuses_what_does_not_divide(every):
    with pytest.raises(ValueError, match=rf"every = {every} must be at least 1 and divide steps = 12"):
        run(KEY, Clock(), jnp.array(0), 12, every=every)


def test_restarted_stream_repeats_every_bit():
    arguments = dict(every=2, observe=lambda x: x)
    whole = list(stream(KEY, Walk(), START, 5, 4, **arguments))
    rest = list(stream(KEY, Walk(), whole[1].state, 5, 4, first=2, **arguments))
    assert [b.index for b in whole] == [0, 1, 2, 3, 4]
    assert [b.index for b in rest] == [2, 3, 4]
    assert all(eqx.tree_equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_block_depends_on_key_index_and_state_alone():
    blocks = list(stream(KEY, Walk(), START, 3, 4))
    (alone,) = stream(KEY, Walk(), blocks[0].state, 2, 4, first=1)
    assert eqx.tree_equal(alone, blocks[1])
    (other_index,) = stream(KEY, Walk(), blocks[0].state, 3, 4, first=2)
    (other_key,) = stream(jax.random.key(8), Walk(), blocks[0].state, 2, 4, first=1)
    assert not np.array_equal(other_index.state, alone.state)
    assert not np.array_equal(other_key.state, alone.state)


def test_no_two_steps_share_their_noise():
    blocks = stream(KEY, Walk(decay=0.0), START, 6, 8, every=1, observe=lambda x: x)
    noise = np.concatenate([b.records for b in blocks]).reshape(48, -1)
    assert len(np.unique(noise)) == noise.size


def test_stream_runs_on_demand():
    blocks = stream(KEY, Clock(), jnp.array(0), 10**9, 4)
    assert [next(blocks).state, next(blocks).state] == [4, 8]


def test_every_block_is_compiled_once():
    traces = []

    class Counted(Clock):
        def step(self, key, n):
            traces.append(1)
            return n + 1

    sampler = Counted()
    list(stream(KEY, sampler, jnp.array(0), 4, 6, every=2))
    assert len(traces) == 1


def test_knobs_are_not_compiled_in():
    traces = []

    class Counted(Walk):
        def step(self, key, x):
            traces.append(1)
            return super().step(key, x)

    for width in (0.1, 0.2):
        run(KEY, Counted(width=jnp.array(width)), START, 4)
    assert len(traces) == 1


def test_distribution_of_the_walk(x64):
    """Variance width^2 / (1 - decay^2), correlation decay: the noise is fresh at each step."""
    start = jnp.zeros(500)
    _, x = run(KEY, Walk(), start, 1200, every=1, observe=lambda x: x)
    x = np.asarray(x)[200:]
    variance = 0.3**2 / (1 - 0.9**2)
    chains = x.var(0)
    assert x.var() == pytest.approx(variance, abs=4 * chains.std() / np.sqrt(500))
    lagged = (x[1:] * x[:-1]).mean(0) / variance
    assert lagged.mean() == pytest.approx(0.9, abs=4 * lagged.std() / np.sqrt(500))


def test_derivative_of_an_average(x64):
    """With respect to a knob and to the start, against central differences."""

    @jax.jit
    def average(decay, start):
        _, x = run(KEY, Walk(decay=decay), start * jnp.ones((2, 3)), 40, every=4, observe=lambda x: jnp.sum(x**2))
        return jnp.mean(x)

    point, h = np.array([0.9, 1.0]), 1e-5
    for direction in np.eye(2):
        difference = float(average(*(point + h * direction)) - average(*(point - h * direction))) / (2 * h)
        reverse = np.array(jax.grad(average, (0, 1))(*point)) @ direction
        _, forward = jax.jvp(average, tuple(point), tuple(direction))
        assert (reverse, forward) == (pytest.approx(difference, rel=1e-7), pytest.approx(difference, rel=1e-7))


def test_maps_over_a_ladder_of_knobs():
    widths = jnp.array([0.1, 0.2, 0.4])
    states = jax.vmap(lambda width: run(KEY, Walk(width=width), START, 5)[0])(widths)
    for width, state in zip(widths, states, strict=True):
        np.testing.assert_allclose(run(KEY, Walk(width=width), START, 5)[0], state, rtol=1e-6)
