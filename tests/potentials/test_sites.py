"""Virtual sites: places by hand, and a potential that passes what pulls at them on to their parents."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.potentials.nonbonded import Combined, Exceptions, Nonbonded
from metastable.potentials.sites import Average, Local, Sites, WithSites
from metastable.potentials.sum import Sum
from metastable.testing.conformance import check_potential

RNG = np.random.default_rng(4)
START = 0.4 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0.2], [0.2, 1, 1], [1, 1, 1]])
START = START + 0.05 * RNG.normal(size=START.shape)  # atoms 1, 4 and 6 are sites


def sites():
    """Of every kind, one of them a parent of another."""
    return Sites((
        Average([4], [0, 2, 3], [[0.3, -0.2, 1.5]]),
        Average([1], [4, 5, 4], [[0.25, 0.0, 0.0]]),
        Local([6], [[3, 0, 5]], [[0.2, 0.5, 0.3]], [[-1, 1, 0]], [[-1, 0.5, 0.5]], [[0.05, -0.1, 0.2]]),
    ))  # fmt: skip


def potential():
    charges = np.random.default_rng(0).normal(size=7)
    none = Exceptions(np.zeros((0, 2)), [], [], [])
    return Sum({"nonbonded": Nonbonded(charges, Combined(np.full(7, 0.2), np.full(7, 0.3)), none)})


def test_places_by_hand(x64):
    x = START
    placed = eqx.filter_jit(sites().place)(jnp.asarray(x))
    a, b = x[2] - x[0], x[3] - x[0]
    out = x[0] + 0.3 * a - 0.2 * b + 1.5 * np.cross(a, b)
    np.testing.assert_allclose(placed[4], out, atol=1e-14)
    np.testing.assert_allclose(placed[1], 0.75 * out + 0.25 * x[5], atol=1e-14)
    along, across = x[0] - x[3], 0.5 * x[0] + 0.5 * x[5] - x[3]
    along, normal = along / np.linalg.norm(along), np.cross(along, across)
    axes = Rotation.align_vectors([along, normal / np.linalg.norm(normal)], [[1, 0, 0], [0, 0, 1]])[0]
    expected = 0.2 * x[3] + 0.5 * x[0] + 0.3 * x[5] + axes.apply([0.05, -0.1, 0.2])
    np.testing.assert_allclose(placed[6], expected, atol=1e-12)
    np.testing.assert_array_equal(np.delete(placed, [1, 4, 6], 0), np.delete(x, [1, 4, 6], 0))
    np.testing.assert_array_equal(np.sort(sites().index), [1, 4, 6])


def test_where_a_site_was_plays_no_part(x64):
    ours, elsewhere = WithSites(potential(), sites()), np.array(START)
    elsewhere[[1, 4, 6]] = np.nan
    value = jax.value_and_grad(lambda x: ours(Frame(x)))
    energy, gradient = value(jnp.asarray(START))
    for one, other in zip(value(jnp.asarray(elsewhere)), (energy, gradient), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.all(np.asarray(gradient)[[1, 4, 6]] == 0)
    assert energy == potential()(Frame(sites().place(jnp.asarray(START))))
    assert ours.energies(Frame(jnp.asarray(START)))["nonbonded"] == energy and list(ours.terms) == ["nonbonded"]


def test_the_contract():
    check_potential(WithSites(potential(), sites()), Frame(jnp.asarray(START)))


def test_single_precision_far_from_the_origin():
    far = START + 50.0
    placed = sites().place(jnp.asarray(far, jnp.float32))
    with jax.enable_x64(True):
        exact = sites().place(jnp.asarray(np.asarray(far, np.float32), jnp.float64))
    assert placed.dtype == jnp.float32
    np.testing.assert_allclose(placed, exact, rtol=0, atol=2 * np.spacing(np.float32(50)))


def test_derivatives_in_the_weights(x64):
    def energy(weights):
        first, *rest = sites().groups
        varied = Sites((Average(first.index, first.parents, weights), *rest))
        return WithSites(potential(), varied)(Frame(jnp.asarray(START)))

    weights, h = jnp.array([[0.3, -0.2, 1.5]]), 1e-6
    energy = jax.jit(energy)
    gradient = jax.jit(jax.grad(energy))(weights)
    for n, way in enumerate(np.eye(3)):
        up, down = (float(energy(weights + s * h * way)) for s in (1, -1))
        assert float(gradient[0, n]) == pytest.approx((up - down) / (2 * h), rel=1e-6)


def test_replicate_is_a_loop(x64):
    frames = START[..., None] + 0.02 * RNG.normal(size=(*START.shape, 3))
    gradient = jax.jit(jax.grad(lambda x: WithSites(potential(), sites())(Frame(x))))
    lifted = jax.jit(replicate(gradient))(jnp.asarray(frames))
    for n in range(3):
        np.testing.assert_allclose(lifted[..., n], gradient(jnp.asarray(frames[..., n])), atol=1e-11)


def test_no_sites():
    x = jnp.asarray(START)
    assert Sites().place(x) is x and Sites().rest(x) is x and len(Sites()) == 0 and len(Sites().index) == 0
