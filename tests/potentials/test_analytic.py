"""Energies joined with a gradient kernel; sums over atoms without a scatter; sums of terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.potentials import analytic
from metastable.potentials.analytic import Index, accumulate, cast, with_gradient
from metastable.potentials.bonded import HarmonicBonds
from metastable.potentials.sum import Sum


def energy(x, p):
    return jnp.sum(p["k"] * jnp.sin(x) ** 3) + jnp.sum(p["c"]) * jnp.sum(x**2)


def gradient(x, p):
    return 3 * p["k"] * jnp.sin(x) ** 2 * jnp.cos(x) + 2 * jnp.sum(p["c"]) * x


joined = with_gradient(energy, gradient)


@pytest.fixture
def point(x64):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(4, 3))), {"k": jnp.asarray(rng.normal(size=(4, 3))), "c": jnp.ones(2)}


def test_the_kernel_is_what_is_differentiated(x64):
    marked = with_gradient(lambda x, p: jnp.sum(x**2), lambda x, p: jnp.full_like(x, 7.0))
    np.testing.assert_array_equal(jax.grad(marked)(jnp.ones((2, 3)), 1.0), np.full((2, 3), 7.0))


def test_all_derivatives_are_those_of_the_plain_energy(point):
    x, p = point
    np.testing.assert_allclose(joined(x, p), energy(x, p))
    for argument in (0, 1, (0, 1)):
        ours, plain = (jax.jit(jax.grad(f, argument))(x, p) for f in (joined, energy))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), ours, plain)
    np.testing.assert_allclose(*(jax.jit(jax.hessian(f))(x, p) for f in (joined, energy)), atol=1e-12)
    ours, plain = (jax.jit(jax.jacfwd(jax.grad(f), 1))(x, p) for f in (joined, energy))  # of forces, in parameters
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, plain)
    ours, plain = (jax.jit(jax.jacrev(jax.grad(f, 1)))(x, p) for f in (joined, energy))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, plain)
    tangent = jax.tree.map(jnp.ones_like, (x, p))
    np.testing.assert_allclose(
        jax.jvp(joined, (x, p), tangent)[1], jax.jvp(energy, (x, p), tangent)[1], rtol=1e-13
    )  # fmt: skip


def test_the_plain_energy_is_not_differentiated_where_no_parameter_varies(point):
    forbidden = jax.custom_jvp(lambda x: jnp.sum(x))

    @forbidden.defjvp
    def refuse(primals, tangents):
        raise AssertionError("differentiated")

    x, p = point
    joined = with_gradient(lambda x, p: forbidden(x) + jnp.sum(p["c"]), gradient)
    assert np.all(np.isfinite(jax.grad(joined)(x, p)))


@pytest.mark.parametrize("unrolled", [0, 128])
@pytest.mark.parametrize("terms, k, atoms", [(7, 2, 5), (40, 4, 9), (1, 3, 30)])
def test_accumulate_adds_as_a_loop_does(x64, monkeypatch, terms, k, atoms, unrolled):
    monkeypatch.setattr(analytic, "UNROLLED", unrolled)
    rng = np.random.default_rng(0)
    index, contributions = rng.integers(0, atoms, (terms, k)), rng.normal(size=(terms, k, 3))
    wanted = np.zeros((atoms, 3))
    np.add.at(wanted, index, contributions)
    np.testing.assert_allclose(
        accumulate(list(jnp.asarray(contributions).swapaxes(0, 1)), Index(index), atoms), wanted, atol=1e-13
    )


def test_an_index_is_equal_by_value_and_cannot_change():
    a, b = Index([[0, 1], [2, 3]]), Index([0, 1, 2, 3], 2)
    assert a == b and hash(a) == hash(b) and a != Index([[0, 1], [3, 2]]) and len(a) == 2
    with pytest.raises(ValueError, match="read-only"):
        a.array[0] = 1


def test_cast_leaves_integers_alone():
    out = cast({"a": np.ones(2), "n": np.arange(2)}, np.float32)
    assert out["a"].dtype == np.float32 and out["n"].dtype == np.arange(2).dtype


def test_sum_adds_its_terms_and_tells_them_apart():
    bond = HarmonicBonds([[0, 1]], [0.1], [100.0])
    frame = Frame(jnp.array([[0.0, 0, 0], [0.3, 0, 0]]))
    potential = Sum({"bond": bond, "constant": lambda frame: jnp.float32(5.0)})
    assert float(potential(frame)) == pytest.approx(0.5 * 100 * 0.2**2 + 5)
    assert {k: pytest.approx(float(v)) for k, v in potential.energies(frame).items()} == {"bond": 2.0, "constant": 5.0}
    with pytest.raises(ValueError, match="at least one"):
        Sum({})
