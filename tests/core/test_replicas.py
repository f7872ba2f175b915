"""``replicate`` means what a loop over the replicas means: the same numbers, derivatives and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from metastable.core.replicas import last, leading, replicate

REPLICAS = 4
PAIRS = np.array([[0, 1], [2, 3], [6, 1]])


def raw(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def loop(function, *arguments, shared=()):
    """The oracle: one replica after the other, stacked last."""
    one = jax.jit(function)

    def call(r):
        return one(*(a if i in shared else jax.tree.map(lambda x: x[..., r], a) for i, a in enumerate(arguments)))

    return jax.tree.map(lambda *xs: jnp.stack(xs, -1), *map(call, range(REPLICAS)))


def agree(function, *arguments, shared=(), rtol=1e-11, atol=1e-11):
    expected = loop(function, *arguments, shared=shared)
    lifted = replicate(function, shared=shared)
    found = jax.jit(lifted)(*arguments)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(raw(x), raw(y), rtol=rtol, atol=atol)


@pytest.fixture(autouse=True)
def double(x64):
    """Double precision, so that the tolerances can be tight."""


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (7, 3, REPLICAS))


def pair_energy(x):
    d = x[PAIRS[:, 0]] - x[PAIRS[:, 1]]
    return jnp.sum(jnp.linalg.norm(d, axis=-1) ** 3) + jnp.sum(jnp.cos(x) @ jnp.ones((3, 4)))


ELEMENTWISE = {
    "mixed ranks": lambda x: x * x[:, 0][:, None] + x[0] - x[2, 1],
    "scalars": lambda x: 2.0 * x[0, 0] + 1,
    "integers": lambda x: (x * 10).astype(int) // 3 % 2 + jnp.arange(3),
    "booleans": lambda x: (x > 0) & ~(x > 1) | (x < x[0]),
    "select, predicate of its own": lambda x: jnp.where(x > 0, x, jnp.exp(x)),
    "select, one predicate": lambda x: jnp.where(x[0, 0] > 0, x, 0.0),
    "select, common predicate": lambda x: jnp.where(jnp.arange(3) > 1, x, 1.0),
    "select, of many": lambda x: jnp.select([x > 1, x > 0], [x, -x], 3.0),
    "clip, own bounds": lambda x: jnp.clip(x, x[0, 0] - 1, x[0, 0] + 1),
    "clip, one own bound": lambda x: lax.clamp(-0.1, x, jnp.abs(x[0, 0])),
    "special functions": lambda x: jax.scipy.special.erf(x) + jax.nn.softplus(x) + jnp.sinc(x) + jnp.arctan2(x, x[0]),
    "powers": lambda x: jnp.abs(x) ** 2.5 + x**3 + jnp.abs(x) ** x,
    "complex": lambda x: jnp.abs(jnp.exp(1j * x) + x[0]) ** 2,
    "nothing of the replica": lambda x: (jnp.arange(3.0), 1.0, jnp.float32(2)),
    "the argument itself": lambda x: {"x": x, "y": (x, None)},
}
SHAPES = {
    "reductions": lambda x: (x.sum(0), x.max(), x.prod(1), x.min((0, 1)), (x > 0).any(0), (x > 0).all(), x.std(0)),
    "arg reductions": lambda x: (jnp.argmax(x, 0), jnp.argmin(x, -1), jnp.argmax(x)),
    "cumulative": lambda x: (jnp.cumsum(x, 0), jnp.cumprod(x, -1), lax.cummax(x, 0, reverse=True)),
    "sorting": lambda x: (jnp.sort(x, 0), jnp.argsort(x, -1), jnp.sort(x.ravel()), jnp.median(x, 0)),
    "sorting by keys": lambda x: lax.sort((x[:, 0], x[:, 1], jnp.arange(7)), num_keys=2),
    "top k": lambda x: lax.top_k(x.T, 2),
    "reshaping": lambda x: (x.reshape(21)[3:9], x.T, x[None], x.reshape(3, 7, 1).squeeze(), x[::-1], x[1:6:2]),
    "joining": lambda x: (jnp.concatenate([x, x[:1], jnp.ones((1, 3))]), jnp.stack([x[0], x[1]]), jnp.tile(x, 2)),
    "splitting": lambda x: jnp.split(x, [2, 5]),
    "rolling and padding": lambda x: (jnp.roll(x, 2, 0), jnp.pad(x, ((1, 0), (0, 2))), jnp.pad(x, 1, mode="edge")),
    "padding with its own": lambda x: lax.pad(x, x[0, 0], ((1, 1, 0), (0, 0, 1))),
    "triangles": lambda x: x.T @ x * jnp.tril(jnp.ones((3, 3))) + jnp.eye(3) + jnp.diag(x[0]),
    "windows": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 1), (1, 1), "VALID"),
    "convolution": lambda x: jnp.convolve(x[:, 0], x[:3, 1]),
    "fourier": lambda x: jnp.fft.rfft(x, axis=0),
}  # fmt: skip
INDEXING = {
    "gather, constant": lambda x: x[PAIRS],
    "gather, own": lambda x: x[jnp.argsort(x[:, 0])],
    "gather, own and scalar": lambda x: x[jnp.argmax(x[:, 0])],
    "gather, from a constant": lambda x: jnp.arange(10.0)[jnp.clip((x * 3).astype(int), 0, 9)],
    "gather, two axes": lambda x: x[jnp.array([0, 2]), jnp.array([1, 1])],
    "gather, fill": lambda x: x.at[jnp.array([1, 99])].get(mode="fill", fill_value=7.0),
    "take along axis": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 0), 0),
    "slice, own start": lambda x: lax.dynamic_slice(x, (jnp.argmax(x[:, 0]), 0), (2, 3)),
    "slice, common start": lambda x: lax.dynamic_slice(x, (jnp.array(3), jnp.array(0)), (2, 3)),
    "update, own start": lambda x: lax.dynamic_update_slice(x, x[:1], (jnp.argmax(x[:, 0]), 0)),
    "update, common start": lambda x: lax.dynamic_update_slice(jnp.zeros((7, 3)), x[:1], (jnp.array(2), jnp.array(0))),
    "scatter, constant": lambda x: x.at[PAIRS[:, 0]].add(1.0).at[2].set(x[0]).at[1].mul(x[4]).at[0].min(x[3]),
    "scatter, into a constant": lambda x: jnp.zeros((7, 3)).at[PAIRS].add(x[PAIRS] ** 2),
    "scatter, own": lambda x: x.at[jnp.argsort(x[:, 0])[:2]].add(2.0),
    "segment sums": lambda x: jax.ops.segment_sum(x, jnp.array([0, 0, 1, 1, 2, 2, 2]), 3),
    "histogram": lambda x: jnp.histogram(x, bins=5, range=(-2, 2))[0],
    "interpolation": lambda x: jnp.interp(x, jnp.linspace(-2, 2, 9), jnp.arange(9.0) ** 2),
    "interpolation, own table": lambda x: jnp.interp(0.3, jnp.sort(x[:, 0]), x[:, 1]),
}
PRODUCTS = {
    "own by own": lambda x: x.T @ x,
    "own by constant": lambda x: x @ jnp.arange(6.0).reshape(3, 2),
    "constant by own": lambda x: jnp.arange(14.0).reshape(2, 7) @ x,
    "vectors": lambda x: jnp.cross(x[0], x[1]) * jnp.dot(x[1], x[2]) + jnp.outer(x[0], x[1]),
    "batch dimensions": lambda x: jnp.einsum("ai,ai->a", x, x**2),
    "batch dimensions and a constant": lambda x: jnp.einsum("ai,aij->aj", x, jnp.arange(63.0).reshape(7, 3, 3)),
    "a constant with batch dimensions": lambda x: jnp.einsum("aij,ai->ja", jnp.arange(63.0).reshape(7, 3, 3), x),
    "contracting two axes": lambda x: jnp.tensordot(jnp.arange(42.0).reshape(2, 7, 3), x, 2),
    "three factors": lambda x: jnp.einsum("ai,bi,cj->abcj", x, x[:2], jnp.ones((2, 3))),
    "narrow operands, wide sum": lambda x: lax.dot_general(
        x.astype(jnp.bfloat16), x.astype(jnp.bfloat16), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    ),
}
ALGEBRA = {
    "svd": lambda x: jnp.linalg.svd(x, compute_uv=False),
    "eigh": lambda x: jnp.linalg.eigh(x.T @ x)[0],
    "solve": lambda x: jnp.linalg.solve(x.T @ x + jnp.eye(3), x[0]),
    "solve, constant matrix": lambda x: jnp.linalg.solve(jnp.diag(jnp.arange(1.0, 4)), x[0]),
    "cholesky": lambda x: jnp.linalg.cholesky(x.T @ x + jnp.eye(3)),
    "determinant and inverse": lambda x: (jnp.linalg.det(x[:3]), jnp.linalg.inv(x.T @ x), jnp.linalg.slogdet(x[:3])),
    "norms": lambda x: (jnp.linalg.norm(x), jnp.linalg.norm(x, axis=-1), jnp.linalg.norm(x, 1, 0)),
}
CONTROL = {
    "fori": lambda x: lax.fori_loop(0, 4, lambda i, y: y * 1.1 + i, x),
    "fori, carry that becomes its own": lambda x: lax.fori_loop(0, 4, lambda i, y: y + x[0, 0], 0.0),
    "fori, own bound": lambda x: lax.fori_loop(0, jnp.argmax(x[:, 0]), lambda i, y: y * 1.1 + i, x),
    "scan": lambda x: lax.scan(lambda c, row: (c + row.sum(), c * row), 0.0, x),
    "scan, reversed": lambda x: lax.scan(lambda c, row: (c * 0.5 + row, c), x[0], x, reverse=True, unroll=2),
    "scan, slow widening": lambda x: lax.scan(lambda c, _: ((c[1], c[2], x[0, 0]), c[0]), (0.0, 1.0, 2.0), length=4),
    "scan, common rows": lambda x: lax.scan(lambda c, i: (c * i, (i, c.sum())), x, jnp.arange(3.0)),
    "nested scans": lambda x: lax.scan(
        lambda c, row: (lax.fori_loop(0, 2, lambda i, y: jnp.sin(y) + row, c), None), x[0], x
    )[0],
    "while, own stop": lambda x: lax.while_loop(lambda y: y.sum() < 100, lambda y: y * 1.5 + 0.1, jnp.abs(x)),
    "while, own stop and a common counter": lambda x: lax.while_loop(
        lambda s: s[0].sum() < 50, lambda s: (s[0] * 1.5 + 0.1, s[1] + 1), (jnp.abs(x), 0)
    ),
    "while, common stop": lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.1), (0, x)),
    "while, nothing of its own": lambda x: lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0) + x[0, 0],
    "cond, own": lambda x: lax.cond(x[0, 0] > 0, lambda y: y * 2, lambda y: -y, x),
    "cond, common": lambda x: lax.cond(jnp.arange(3).sum() > 2, lambda y: y * 2, lambda y: -y, x),
    "cond, own predicate alone": lambda x: lax.cond(x[0, 0] > 0, lambda: 1.0, lambda: 2.0),
    "switch, own": lambda x: lax.switch((x[0, 0] * 3).astype(int), [jnp.sin, jnp.cos, lambda y: y**2], x),
    "switch, common": lambda x: lax.switch(jnp.array(7), [jnp.sin, jnp.cos, lambda y: y**2], x),
    "by platform": lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
    "map": lambda x: lax.map(lambda row: row @ row, x),
    "vmap inside": lambda x: jax.vmap(lambda row: jnp.outer(row, x[0]))(x),
    "jit inside": lambda x: jax.jit(lambda y, z: y + z)(x, jnp.ones(3)),
    "checkpoint inside": lambda x: jax.checkpoint(lambda y: jnp.sin(y).sum())(x),
}
DERIVATIVES = {
    "gradient": jax.grad(pair_energy),
    "hessian": jax.hessian(lambda x: jnp.sum(jnp.sin(x[:2]) * x[1:3] ** 2)),
    "forward": lambda x: jax.jvp(pair_energy, (x,), (jnp.ones_like(x),)),
    "jacobian": jax.jacrev(lambda x: jnp.linalg.svd(x, compute_uv=False)),
    "gradient through a scan": jax.grad(lambda x: lax.scan(lambda c, r: (jnp.tanh(c + r), None), x[0], x)[0].sum()),
}
GROUPS = (ELEMENTWISE, SHAPES, INDEXING, PRODUCTS, ALGEBRA, CONTROL, DERIVATIVES)
CASES = {name: function for group in GROUPS for name, function in group.items()}


@pytest.mark.parametrize("name", CASES)
def test_means_a_loop_over_replicas(name, x):
    agree(CASES[name], x)


@pytest.mark.parametrize(
    "name", ["scalars", "powers", "special functions", "own by own", "scan", "cond, own", "gradient"]
)
@pytest.mark.parametrize("double_precision", [False, True])
def test_single_precision_stays_single(name, double_precision, x):
    with jax.enable_x64(double_precision):
        agree(CASES[name], jnp.asarray(x, jnp.float32), rtol=2e-5, atol=1e-5)


def test_random_numbers_are_those_of_each_key(x):
    keys = jax.random.split(jax.random.key(3), REPLICAS)

    def draw(key, x):
        key, other = jax.random.split(key)
        noise = jax.random.normal(key, x.shape) + jax.random.uniform(jax.random.fold_in(other, 5))
        chosen = jax.random.choice(other, 7, (3,), replace=False)
        return key, noise + x, chosen, jax.random.permutation(key, x)

    agree(draw, keys, x)
    agree(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), x)
    agree(lambda k: jax.random.key_data(lax.fori_loop(0, 3, lambda i, k: jax.random.fold_in(k, i), k)), keys)
    agree(lambda k, x: jnp.where(x[0, 0] > 0, k, jax.random.key(9)), keys, x)


def test_shared_arguments_carry_no_axis(x):
    weights = {"a": jnp.arange(7.0), "b": jnp.ones((3, 3))}
    agree(lambda w, x: x * w["a"][:, None] + x @ w["b"], weights, x, shared=(0,))
    agree(lambda x, w: (w["b"], x.sum()), x, weights, shared=(1,))


def test_shared_python_number_does_not_widen(x):
    found = replicate(lambda x, a: x * a, shared=(1,))(jnp.asarray(x, jnp.float32), 2.0)
    assert found.dtype == jnp.float32


def test_numpy_arguments_without_jit(x):
    np.testing.assert_allclose(replicate(pair_energy)(np.asarray(x)), loop(pair_energy, x), rtol=1e-12)


def test_captured_tracers(x):
    @jax.jit
    def outer(a, x):
        return replicate(lambda x: x * a[:, None] + lax.fori_loop(0, 2, lambda i, y: y * a[0], x))(x)

    a = jnp.arange(1.0, 8)
    np.testing.assert_allclose(outer(a, x), x * a[:, None, None] + x * a[0] ** 2)
    slope = jax.grad(lambda a: outer(a, x).sum())(a)
    np.testing.assert_allclose(slope[1:], x.sum((1, 2))[1:], rtol=1e-12)


@pytest.mark.parametrize("name", ["mixed ranks", "own by own", "scan", "cond, own", "gradient", "svd"])
def test_differentiates(name, x):
    """The derivative of the lifted function is that of the loop: in both directions, and again."""
    lifted = replicate(CASES[name])
    scalar = lambda f: lambda x: sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(f(x)))  # noqa: E731
    found, expected = jax.grad(scalar(lifted))(x), jax.grad(scalar(lambda x: loop(CASES[name], x)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    if name == "own by own":
        check_grads(lifted, (x,), order=2, rtol=1e-5, atol=1e-5)


def test_derivative_of_shared_parameters_sums_over_replicas(x):
    def mean(a):
        return replicate(lambda a, x: jnp.sum(jnp.sin(a * x)), shared=(0,))(a, x).mean()

    check_grads(mean, (1.3,), order=2)


def odd_slope():
    """A function whose custom derivative is not its own: 10 x instead of 2 x."""

    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvp(lambda p, t: (square(p[0]), 10 * p[0] * t[0]))
    return square


def odd_pullback():
    """The same for the reverse mode, with a residual and a parameter."""

    @jax.custom_vjp
    def square(a, x):
        return a * x**2

    square.defvjp(lambda a, x: (square(a, x), (a, x)), lambda r, ct: (7 * ct.sum(), 10 * r[0] * r[1] * ct))
    return square


def test_custom_derivatives_survive(x):
    f, g = odd_slope(), odd_pullback()
    agree(f, x)
    agree(jax.grad(lambda x: f(x).sum()), x)
    agree(lambda x: g(2.0, x), x)
    agree(jax.grad(lambda x: g(2.0, x).sum()), x)
    np.testing.assert_allclose(jax.grad(lambda x: replicate(f)(x).sum())(x), 10 * x)
    np.testing.assert_allclose(jax.jvp(replicate(f), (x,), (jnp.ones_like(x),))[1], 10 * x)
    lifted = replicate(g, shared=(0,))
    by_a, by_x = jax.grad(lambda a, x: lifted(a, x).sum(), (0, 1))(2.0, x)
    np.testing.assert_allclose(by_x, 20 * x)
    np.testing.assert_allclose(by_a, 7 * x.size)
    scanned = lambda x: lax.scan(lambda c, _: (f(c), None), x, length=2)[0].sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(lambda x: replicate(scanned)(x).sum())(x), 100 * x**3, rtol=1e-12)


def test_custom_derivative_with_integer_arguments(x):
    @jax.custom_vjp
    def pick(i, x):
        return x[i]

    pick.defvjp(lambda i, x: (x[i], (i, x)), lambda r, ct: (None, jnp.zeros_like(r[1]).at[r[0]].set(3 * ct)))
    found = jax.grad(lambda x: replicate(lambda x: pick(2, x))(x).sum())(x)
    np.testing.assert_allclose(found, jnp.zeros_like(x).at[2].set(3))


def test_derivatives_of_what_does_not_vary_are_not_taken(x):
    """A shared parameter that is not asked for costs nothing: its symbolic zero reaches the rule."""
    asked = []

    @jax.custom_jvp
    def scale(a, x):
        return a * x

    def rule(primals, tangents):
        asked.append([type(t).__name__ == "SymbolicZero" for t in tangents])
        return scale(*primals), primals[0] * tangents[1]

    scale.defjvp(rule, symbolic_zeros=True)
    found = jax.grad(lambda x: replicate(scale, shared=(0,))(2.0, x).sum())(x)
    np.testing.assert_allclose(found, 2 * jnp.ones_like(x))
    assert asked and all(zeros == [True, False] for zeros in asked)


def test_custom_derivative_with_integer_results(x):
    @jax.custom_jvp
    def largest(x):
        return x.max(), x.argmax()

    largest.defjvp(lambda p, t: (largest(*p), (5 * t[0].sum(), np.zeros((), jax.dtypes.float0))))
    found, where = jax.jvp(replicate(largest), (x,), (jnp.ones_like(x),))[1]
    np.testing.assert_allclose(found, 5 * 21 * np.ones(REPLICAS))
    assert where.dtype == jax.dtypes.float0


def test_checkpoint_survives(x):
    """What was to be recomputed in the backward pass still is: no sine is kept."""
    lifted = replicate(jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)).sum()))
    text = str(jax.make_jaxpr(jax.grad(lambda x: lifted(x).sum()))(x))
    assert "checkpoint" in text or "remat" in text


@settings(max_examples=12, derandomize=True, deadline=None)
@given(st.data())
def test_products_of_any_shape(data):
    """Any einsum of two operands, of which one or both are the replica's own."""
    sizes = {"a": 2, "b": 3, "c": 1, "d": 2}
    left, right = (data.draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=3)) for _ in "lr")
    out = data.draw(st.lists(st.sampled_from(sorted({*left, *right}) or [""]), unique=True)) if left or right else []
    spec = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    own = data.draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1))
        x, y = (
            jax.random.normal(k, (*(sizes[i] for i in side), *([REPLICAS] if b else [])))
            for k, side, b in zip(keys, (left, right), own, strict=True)
        )
        agree(lambda x, y: jnp.einsum(spec, x, y), x, y, shared=tuple(i for i in (0, 1) if not own[i]))


@settings(max_examples=12, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=3), st.data())
def test_gathers_of_any_shape(shape, data):
    """Indexing with any mixture of integers, slices, constant and own arrays."""
    index = [
        data.draw(st.sampled_from([0, slice(None), slice(None, None, -1), None, np.array([0, -1]), "own"]))
        for _ in shape
    ]
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(2), (*shape, REPLICAS))
        own = jnp.asarray(np.arange(2 * REPLICAS).reshape(2, REPLICAS) % 3)
        agree(lambda x, own: x[tuple(own if isinstance(i, str) else i for i in index)], x, own)


def test_layouts_are_inverse(x):
    tree = {"x": x, "y": (x[0], None)}
    assert leading(tree)["x"].shape == (REPLICAS, 7, 3)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, last(leading(tree)), tree))


def test_errors(x):
    with pytest.raises(ValueError, match=r"last axes must agree"):
        replicate(lambda x, y: x)(x, x[..., :2])
    with pytest.raises(ValueError, match="last axes must agree"):
        replicate(lambda x: x, shared=(0,))(x)
    with pytest.raises(ValueError, match="shared"):
        replicate(lambda x, a: x * a)(x, 2.0)
