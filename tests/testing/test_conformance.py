"""The battery lets through what keeps its contract, and stops each way of breaking it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.testing.conformance import check_bias, check_cv, check_potential, check_sampler

FRAME = Frame(jnp.array([[0.0, 0.1, 0.2], [0.5, -0.1, 0.0], [0.2, 0.6, -0.3]]))


def length(frame):
    return jnp.sqrt(jnp.sum((frame.positions[0] - frame.positions[1]) ** 2))


class Spring(eqx.Module):
    k: jax.Array | float = 7.0

    def __call__(self, frame):
        return jnp.asarray(self.k, frame.positions.dtype) * length(frame) ** 2


@jax.custom_jvp
def lying(x):
    return jnp.sum((x[0] - x[1]) ** 2)


lying.defjvp(lambda p, t: (lying(*p), 1.001 * jax.jvp(lambda x: jnp.sum((x[0] - x[1]) ** 2), p, t)[1]))


@jax.custom_jvp
def lying_twice(x):
    return jnp.sum((x[0] - x[1]) ** 4)


def frozen_slope(p, t):
    d = jax.lax.stop_gradient(p[0][0] - p[0][1])
    return lying_twice(*p), 4 * jnp.sum(d**3 * (t[0][0] - t[0][1]))


lying_twice.defjvp(frozen_slope)


def test_a_good_potential_passes():
    check_potential(Spring(), FRAME, exchangeable=[(0, 1)])


@pytest.mark.parametrize(
    ("potential", "message"),
    [
        (lambda frame: length(frame)[None], "must be a scalar"),
        (lambda frame: lying(frame.positions), "finite difference"),
        (lambda frame: lying_twice(frame.positions), "finite difference"),
        (lambda frame: length(frame) + frame.positions[0, 0] ** 2, "translation"),
        (lambda frame: jnp.sum((frame.positions[0] - frame.positions[1]) ** 2 * jnp.arange(3)), "rotation"),
        (lambda frame: length(frame) + jnp.zeros(()), "double precision"),
        (lambda frame: length(frame) / 0, "finite"),
        (lambda frame: length(frame) * np.random.default_rng().normal(), "differ"),
    ],
)
def test_a_bad_potential_is_stopped(potential, message):
    with jax.enable_x64(True), pytest.raises(AssertionError, match=message):
        check_potential(potential, FRAME)


def test_atoms_that_may_not_be_exchanged_are_found():
    with pytest.raises(AssertionError, match="exchange of atoms 0 and 2"):
        check_potential(Spring(), FRAME, exchangeable=[(0, 2)])


def test_a_good_cv_passes():
    check_cv(lambda frame: length(frame)[None], FRAME)


def test_a_cv_is_a_vector():
    with pytest.raises(AssertionError, match="must be a vector"):
        check_cv(length, FRAME)


class Hill(eqx.Module):
    height: jax.Array

    def __call__(self, s):
        return self.height.astype(s.dtype) * jnp.exp(-jnp.sum(s**2))

    def update(self, s, kT):
        return Hill(self.height + jnp.mean(s) * kT)


class Growing(Hill):
    def update(self, s, kT):
        return Growing(jnp.concatenate([jnp.atleast_1d(self.height)] * 2).sum(keepdims=True))


class Kinked(Hill):
    def __call__(self, s):
        return super().__call__(jax.lax.stop_gradient(s)) + super().__call__(s)


S = np.array([[0.1, 0.7], [0.3, -0.4]])


def test_a_good_bias_passes():
    check_bias(Hill(jnp.array(2.0)), S)


@pytest.mark.parametrize(("bias", "message"), [(Growing, "scalar"), (Kinked, "finite difference")])
def test_a_bad_bias_is_stopped(bias, message):
    with pytest.raises(AssertionError, match=message):
        check_bias(bias(jnp.array(2.0)), S)


class Walk(eqx.Module):
    width: jax.Array | float = 0.1

    def init(self, key, frame):
        return frame.positions

    def step(self, key, x):
        return x + jnp.asarray(self.width, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


class Widening(Walk):
    def step(self, key, x):
        return x + self.width * jax.random.normal(key, x.shape, float)


class Growth(Walk):
    def step(self, key, x):
        return jnp.concatenate([x, x])


class Deaf(Walk):
    def step(self, key, x):
        return 0.9 * x


class Diverging(Walk):
    def step(self, key, x):
        return super().step(key, x) / jnp.zeros((), x.dtype)


CALLS = []


class Counting(Walk):
    def step(self, key, x):
        CALLS.append(1)
        return super().step(key, x) + len(CALLS)


class Rounded(Walk):
    def step(self, key, x):
        return super().step(key, jnp.round(x, 1)) + 0.01 * x


def test_a_good_sampler_passes():
    check_sampler(Walk(), FRAME)
    check_sampler(Deaf(), FRAME, random=False)
    check_sampler(Rounded(), FRAME, differentiable=False)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Widening(), "keep shapes and precision"),
        (Growth(), "keep shapes and precision"),
        (Deaf(), "another key"),
        (Diverging(), "finite"),
        (Counting(), "differ"),
    ],
)
def test_a_bad_sampler_is_stopped(sampler, message):
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler, FRAME)


def test_a_derivative_that_is_not_the_flow_is_stopped():
    class Stopped(Walk):
        def step(self, key, x):
            return super().step(key, jax.lax.stop_gradient(x)) + 0.1 * x

    with pytest.raises(AssertionError, match="finite difference"):
        check_sampler(Stopped(), FRAME)


class Tagged(Spring):
    tag: object = eqx.field(static=True, default_factory=object)


def test_static_fields_that_are_never_equal_are_found():
    with pytest.raises(AssertionError, match="compiled again"):
        check_potential(Tagged(), FRAME)
