"""The contract battery: does a potential, a CV, a bias or a sampler keep its contract?

One call in a test of yours checks what the rest of the package relies on::

    def test_my_potential():
        check_potential(MyPotential(2.0), frame)

Each check raises AssertionError and says what differs by how much. The checks run in double precision, whatever the
setting of the process; ``rtol`` is theirs. They cannot tell whether the formula is the one that you meant.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from metastable.core.compiling import filter_jit_tiny
from metastable.core.contracts import CV, Bias, Potential, Sampler
from metastable.core.frame import Frame
from metastable.core.replicas import last, leading, replicate
from metastable.loops.run import run

KEY = jax.random.key(20)
REPLICAS = 3
SYMMETRIES = ("translation", "rotation")


def check_potential(
    potential: Potential,
    frame: Frame,
    *,
    symmetries: Sequence[str] = SYMMETRIES,
    exchangeable: Sequence[tuple[int, int]] = (),
    rtol: float = 1e-6,
):
    """A scalar of the positions' precision, with right first and second derivatives, compiled, lifted and traced once.

    frame: one where the energy is smooth. symmetries: which of "translation" and "rotation" leave the energy as it is.
    exchangeable: pairs of atoms whose exchange does so too. rtol: of the comparison with finite differences.
    """
    with jax.enable_x64(True):
        frame = _double(frame)
        _expect(jnp.shape(potential(frame)) == (), f"an energy must be a scalar, not of shape {potential(frame).shape}")
        _check_function(potential, frame, symmetries, exchangeable, rtol)


def check_cv(
    cv: CV,
    frame: Frame,
    *,
    symmetries: Sequence[str] = SYMMETRIES,
    exchangeable: Sequence[tuple[int, int]] = (),
    rtol: float = 1e-6,
):
    """A vector of the positions' precision, and all that :func:`check_potential` asks of an energy."""
    with jax.enable_x64(True):
        frame = _double(frame)
        _expect(jnp.ndim(cv(frame)) == 1, f"CVs must be a vector, also where there is one, not {cv(frame)!r}")
        _check_function(cv, frame, symmetries, exchangeable, rtol)


def check_bias(bias: Bias, s: Float[Array, "walkers cvs"], kT: float = 2.5, *, rtol: float = 1e-6):
    """An energy with a right gradient, that stays what it is, in shape and precision, when it is updated.

    s: CVs of some walkers, where the energy is smooth. kT: kJ/mol.
    """
    with jax.enable_x64(True):
        s, bias, kT_ = jnp.asarray(s, float), _double(bias), jnp.asarray(kT, float)
        for current in (bias, bias.update(s, kT_)):
            _expect(jnp.shape(current(s[0])) == (), f"an energy must be a scalar, not of shape {current(s[0]).shape}")
            _expect_precision(jax.eval_shape(current, _single(s[0])))
            _check_derivatives(current, s[0], rtol)
            _check_lifted(current, s[:REPLICAS])
        _expect_same_form("update", eqx.filter_eval_shape(lambda: bias), eqx.filter_eval_shape(bias.update, s, kT_))
        _check_one_trace(bias, lambda bias: bias.update(s, kT_))


def check_sampler(
    sampler: Sampler,
    frame: Frame,
    *,
    steps: int = 3,
    random: bool = True,
    differentiable: bool = True,
    lifts: bool = True,
    rtol: float = 1e-6,
):
    """A step of one form that depends on (key, state) alone: compiled, lifted to replicas, scanned, differentiated.

    random: whether another key gives another step. differentiable: whether the derivative of a step with
    respect to the state is that of finite differences. lifts: False for samplers that hold replicas themselves.
    """
    with jax.enable_x64(True):
        given, frame, sampler = sampler, _double(frame), _double(sampler)
        init, step = _jit(sampler.init), _jit(sampler.step)
        state = init(KEY, frame)
        _expect_same_form("step", jax.eval_shape(lambda: state), jax.eval_shape(sampler.step, KEY, state))
        _expect_finite("init", state)
        after = step(KEY, state)
        _expect_finite("step", after)
        _expect(_identical(after, step(KEY, state)), "the same key and state must give the same step, bit for bit")
        if random:
            others = (step(key, state) for key in jax.random.split(jax.random.key(21), 300))
            _expect(any(not _identical(after, other) for other in others), "another key must give another step")
        _check_scan(sampler, step, state, steps)
        _check_one_trace(sampler, lambda sampler: sampler.step(KEY, state))
        if lifts:
            keys = jax.random.split(KEY, REPLICAS)
            states = _stack([init(key, frame) for key in keys])
            _check_lifted(lambda both: sampler.step(*both), (keys, states), lambda both: step(*both))
        if differentiable:
            _check_flow(sampler, after, rtol)
        mixed = sampler if lifts else given  # ensembles may hold a bias, whose precision is its own
        single = jax.eval_shape(mixed.init, KEY, _single(frame))
        _expect_precision(single)
        _expect_same_form("step in single precision", single, jax.eval_shape(mixed.step, KEY, single))


def _check_function(function, frame, symmetries, exchangeable, rtol):
    """What potentials and CVs have in common: a smooth function of a frame."""

    def at(positions):
        return function(frame.at(positions))

    value = function(frame)
    _expect_finite("value", value)
    _expect_precision(eqx.filter_eval_shape(_double(function), _single(frame)))
    compiled = _check_derivatives(at, frame.positions, rtol, orders=2)
    _expect_close("jit and no jit", compiled(frame.positions)[0], value, 1e-9)
    batch = frame.positions + 1e-3 * jax.random.normal(KEY, (REPLICAS, *frame.positions.shape))
    _check_lifted(at, batch)
    _check_one_trace(function, lambda function: function(frame))
    whole = _jit(function)
    for name in symmetries:
        _expect_close(f"before and after {name}", whole(_MOVES[name](frame)), value, 1e-9)
    for i, j in exchangeable:
        order = np.arange(len(frame.positions))
        order[[i, j]] = j, i
        moved = Frame(frame.positions[order], frame.box)
        _expect_close(f"before and after exchange of atoms {i} and {j}", whole(moved), value, 1e-9)


def _check_derivatives(function: Callable, x: Any, rtol: float, orders: int = 1) -> Callable:
    """Derivatives along a random direction, in both modes, and of second order, against central differences.

    Gives back the compiled function of x: (value, gradient of the value's weighted sum, ...).
    """
    direction = jax.random.normal(jax.random.key(22), jnp.shape(x))
    weights = jax.random.normal(jax.random.key(23), jax.eval_shape(function, x).shape)

    def gradient(x):
        return jax.vjp(function, x)[1](weights)[0]

    @_jit
    def probe(x):
        value, forward = jax.jvp(function, (x,), (direction,))
        slope, curvature = jax.jvp(gradient, (x,), (direction,)) if orders == 2 else (gradient(x), None)
        return value, slope, forward, curvature

    h = 1e-5 * max(1.0, float(jnp.max(jnp.abs(x)))) / float(jnp.linalg.norm(direction))
    value, slope, forward, curvature = probe(x)
    above, below = probe(x + h * direction), probe(x - h * direction)
    difference, bend = ((above[k] - below[k]) / (2 * h) for k in (0, 1))
    scale = 1e-2 * float(jnp.max(jnp.abs(value)))  # what rounding leaves of a difference
    _expect_close("forward derivative and finite difference", forward, difference, rtol, scale)
    along, expected = jnp.vdot(slope, direction), jnp.vdot(weights, difference)
    _expect_close("reverse derivative and finite difference", along, expected, rtol, scale)
    if orders == 2:
        scale = 1e-2 * float(jnp.max(jnp.abs(slope)))
        _expect_close("second derivative and finite difference of the first", curvature, bend, rtol, scale)
    return probe


def _check_lifted(function: Callable, batch: Any, one: Callable | None = None):
    """vmap and replicate mean a loop over the leading axis. one: the function compiled, where that is at hand."""
    one = _jit(function) if one is None else one
    looped = _stack([one(jax.tree.map(lambda x: x[i], batch)) for i in range(len(jax.tree.leaves(batch)[0]))])
    mapped, replicated = _jit(lambda batch: (jax.vmap(function)(batch), replicate(function)(last(batch))))(batch)
    _expect_close("vmap and a loop", mapped, looped, 1e-8)
    _expect_close("replicate and a loop", leading(replicated), looped, 1e-8)


def _check_one_trace(module: Any, use: Callable):
    """The same module built twice shares one compilation, whatever the numbers in its arrays."""
    traces = []

    @eqx.filter_jit
    def traced(module):
        traces.append(1)
        return use(module)

    functions = {id(x): x for x in jax.tree.leaves(module) if not eqx.is_array(x)}  # these are not copied
    traced.lower(module)
    traced.lower(copy.deepcopy(module, functions))
    _expect(len(traces) == 1, "a copy of it is compiled again: its static fields must be equal where their values are")


def _check_scan(sampler, step, state, steps):
    expected = state
    for i in range(steps):
        expected = step(jax.random.fold_in(KEY, i), expected)
    _expect_close(
        "run and a loop over steps", _jit(lambda state: run(KEY, sampler, state, steps)[0])(state), expected, 1e-7
    )


def _check_flow(sampler, state, rtol):
    """A step as a function of the real numbers of the state, each array in units of its largest element."""
    real, rest = eqx.partition(state, eqx.is_inexact_array)
    units = jax.tree.map(
        lambda x: jnp.where(jnp.any(x != 0), jnp.max(jnp.abs(x), initial=0), 1) + jnp.zeros_like(x), real
    )
    (x, unravel), unit = ravel_pytree(real), ravel_pytree(units)[0]

    def flow(change):
        after = sampler.step(KEY, eqx.combine(unravel(x + unit * change), rest))
        return ravel_pytree(eqx.filter(after, eqx.is_inexact_array))[0]

    _check_derivatives(flow, jnp.zeros_like(x), rtol)


def _jit(function: Callable) -> Callable:
    return filter_jit_tiny(lambda *xs: function(*xs))  # also of modules, whose calls need not be hashable


def _translate(frame: Frame) -> Frame:
    return Frame(frame.positions + jnp.array([0.31, -0.22, 0.53]), frame.box)


def _rotate(frame: Frame) -> Frame:
    rotation, _ = jnp.linalg.qr(jax.random.normal(KEY, (3, 3)))
    rotation *= jnp.sign(jnp.linalg.det(rotation))
    return Frame(frame.positions @ rotation, None if frame.box is None else frame.box @ rotation)


_MOVES = {"translation": _translate, "rotation": _rotate}


def _cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if eqx.is_inexact_array(x) else x, tree)


def _double(tree):
    return _cast(tree, jnp.float64)


def _single(tree):
    return _cast(tree, jnp.float32)


def _stack(trees):
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)


def _identical(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(_numbers(a), _numbers(b), strict=True))


def _numbers(tree) -> list[np.ndarray]:
    keys = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if keys(x) else x) for x in jax.tree.leaves(tree)]


def _expect(true: Any, message: str):
    if not true:
        raise AssertionError(message)


def _expect_finite(what: str, tree: Any):
    _expect(all(np.all(np.isfinite(x)) for x in _numbers(tree)), f"{what}: not all numbers are finite: {tree}")


def _expect_precision(shapes: Any):
    wide = [x for x in jax.tree.leaves(shapes) if x.dtype == jnp.float64]
    _expect(not wide, f"of single precision positions came double precision: {wide}; cast parameters to the positions'")


def _expect_same_form(what: str, before: Any, after: Any):
    form = lambda tree: jax.tree.map(lambda x: (x.shape, str(x.dtype)), eqx.filter(tree, _is_shape))  # noqa: E731
    _expect(form(before) == form(after), f"{what} must keep shapes and precision, but {form(before)} -> {form(after)}")


def _is_shape(x):
    return isinstance(x, jax.ShapeDtypeStruct)


def _expect_close(what: str, found: Any, expected: Any, rtol: float, scale: float = 0.0):
    for x, y in zip(_numbers(found), _numbers(expected), strict=True):
        size = max(scale, float(np.max(np.abs(y), initial=0.0)), 1e-6)
        error = float(np.max(np.abs(x.astype(float) - y.astype(float)), initial=0.0))
        _expect(error <= rtol * size, f"{what} differ by {error:.3g}, where {rtol * size:.3g} is allowed:\n{x}\n{y}")
