"""The one place where a one-system function becomes a function of many replicas.

``replicate(function)`` means the same as ``jax.vmap(function, -1, -1)``, but the replica axis *stays*
last in every intermediate array, so that each elementary operation runs along contiguous replicas and
the vector units are full whatever the shape of the molecule. ``jax.vmap`` moves the axis to the front
at the first broadcast, which costs a small molecule a third to a half of its speed on a CPU.

How: the function is traced once, for one system, and the trace is evaluated again with every traced
array carrying one more, last, axis. Operations that do not care about a trailing axis are simply
applied; for the others a rule below adds the axis to their parameters; what has no rule is left to
``jax.vmap`` with the axis last, which is always right and only slower.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex

_ELEMENTWISE = frozenset(
    """abs acos acosh add and asin asinh atan atan2 atanh cbrt ceil clamp conj convert_element_type copy copy_p
    cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma digamma log
    log1p logistic lt max min mul ne neg nextafter not or population_count pow real reduce_precision rem round
    rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient
    sub tan tanh xor add_any erf_inv optimization_barrier bessel_i0e bessel_i1e igamma clz""".split()
)
_LEADING_AXES = frozenset(  # their axis parameters count from the front: a trailing axis changes nothing
    """reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin cumsum cumprod
    cummax cummin cumlogsumexp rev squeeze sort concatenate""".split()
)


def replicate(function: Callable, *, shared: Sequence[int] = ()) -> Callable:
    """Lift a one-system function to replicas in the last axis of every argument and result.

    shared: positions of the arguments that all replicas have in common, which carry no such axis.
    The result always carries it. Same meaning as ``jax.vmap(function, in_axes=-1, out_axes=-1)``.
    """

    def lifted(*arguments):
        leaves, tree = jax.tree.flatten(arguments)
        batched = [i not in shared for i, a in enumerate(arguments) for _ in jax.tree.leaves(a)]
        sizes = {leaf.shape[-1] for leaf, b in zip(leaves, batched, strict=True) if b}
        if len(sizes) != 1:
            raise ValueError(f"replicate: the last axes must agree and there must be one, not {sorted(sizes)}")
        one = [
            jax.ShapeDtypeStruct(jnp.shape(x)[:-1] if b else jnp.shape(x), jax.dtypes.canonicalize_dtype(x.dtype)
                                 if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else x.dtype)
            for x, b in zip(map(_as_array, leaves), batched, strict=True)
        ]  # fmt: skip
        result_tree = None

        def flat(*xs):
            nonlocal result_tree
            results, result_tree = jax.tree.flatten(function(*jax.tree.unflatten(tree, xs)))
            return results

        closed = jax.make_jaxpr(flat)(*one)
        size = sizes.pop()
        results, lasts = _evaluate(closed.jaxpr, closed.consts, leaves, batched, size)
        results = [_with_axis(x, b, size) for x, b in zip(results, lasts, strict=True)]
        return jax.tree.unflatten(result_tree, results)

    return lifted


def last(tree: Any) -> Any:
    """Move the leading replica axis of every array to the end: from the public layout to the inner one."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)


def leading(tree: Any) -> Any:
    """Move the last, replica, axis of every array to the front: from the inner layout to the public one."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), tree)


def _as_array(x):
    return x if hasattr(x, "dtype") else jnp.asarray(x)


def _with_axis(x, batched: bool, size: int, shape: tuple[int, ...] | None = None):
    """x with a trailing replica axis; ``shape`` is the one-system shape to broadcast it to."""
    own = jnp.shape(x)[: jnp.ndim(x) - batched]
    shape = own if shape is None else shape
    if batched and own == shape:
        return x
    dims = (*range(len(own)), *([len(shape)] if batched else []))  # own is () or has the rank of shape
    return lax.broadcast_in_dim(x, (*shape, size), dims)


def _evaluate(jaxpr, consts, values, batched, size):
    """Evaluate a one-system jaxpr on values whose ``batched`` ones carry a trailing axis of ``size``."""
    env: dict[Any, tuple[Any, bool]] = {}
    env.update(zip(jaxpr.constvars, ((c, False) for c in consts), strict=True))
    env.update(zip(jaxpr.invars, zip(values, batched, strict=True), strict=True))

    def read(atom):
        return (atom.val, False) if isinstance(atom, jex.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        xs, bs = zip(*map(read, eqn.invars), strict=True) if eqn.invars else ((), ())
        outs, lasts = _apply(eqn, list(xs), list(bs), size)
        env.update(zip(eqn.outvars, zip(outs, lasts, strict=True), strict=True))
    outs = [read(v) for v in jaxpr.outvars]
    return [x for x, _ in outs], [b for _, b in outs]


def _apply(eqn, xs, bs, size):
    """One operation: (results, which of them are batched)."""
    name, params = eqn.primitive.name, eqn.params
    inner = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
    if name in ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call",
                "custom_vjp_call", "custom_vjp_call_jaxpr"):  # fmt: skip
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return _evaluate(jaxpr, consts, xs, bs, size)
    if name in _CONTROL and any(bs):
        return _CONTROL[name](eqn, xs, bs, size)
    if not any(bs):
        outs = eqn.primitive.bind(*xs, **params)
        outs = outs if eqn.primitive.multiple_results else [outs]
        return outs, [False] * len(outs)
    if name == "optimization_barrier":
        return lax.optimization_barrier(xs), bs
    out = None
    if name in _ELEMENTWISE:
        out = eqn.primitive.bind(*_aligned(eqn, xs, bs, size), **params)
    elif name in _LEADING_AXES:
        full = [_with_axis(x, b, size) for x, b in zip(xs, bs, strict=True)]
        out = eqn.primitive.bind(*full, **params)
    elif name in _RULES:
        out = _RULES[name](eqn, xs, bs, size)
    if out is None:
        axes = [-1 if b else None for b in bs]
        out = jax.vmap(lambda *x: eqn.primitive.bind(*x, **params), axes, -1, axis_size=size)(*xs)
    outs = out if eqn.primitive.multiple_results else [out]
    return outs, [True] * len(outs)


def _aligned(eqn, xs, bs, size):
    """Operands of an elementwise operation, broadcast against each other with the replicas last."""
    shape = eqn.outvars[0].aval.shape
    return [x if not b and jnp.shape(x) == () and _takes_scalar(eqn, i) else _with_axis(x, b, size, shape)
            for i, (x, b) in enumerate(zip(xs, bs, strict=True))]  # fmt: skip


def _takes_scalar(eqn, i: int) -> bool:
    return (eqn.primitive.name == "select_n" and i == 0) or (eqn.primitive.name == "clamp" and i != 1)


# ---- rules: (eqn, operands, which are batched, replicas) -> result, or None to leave it to jax.vmap


def _broadcast_in_dim(eqn, xs, bs, size):
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    return lax.broadcast_in_dim(xs[0], (*shape, size), (*dims, len(shape)))


def _reshape(eqn, xs, bs, size):
    return lax.reshape(xs[0], (*eqn.params["new_sizes"], size)) if eqn.params["dimensions"] is None else None


def _transpose(eqn, xs, bs, size):
    permutation = eqn.params["permutation"]
    return lax.transpose(xs[0], (*permutation, len(permutation)))


def _slice(eqn, xs, bs, size):
    p = eqn.params
    strides = None if p["strides"] is None else (*p["strides"], 1)
    return lax.slice(xs[0], (*p["start_indices"], 0), (*p["limit_indices"], size), strides)


def _pad(eqn, xs, bs, size):
    return None if bs[1] else lax.pad(xs[0], xs[1], (*eqn.params["padding_config"], (0, 0, 0)))


def _dynamic_slice(eqn, xs, bs, size):
    if any(bs[1:]):
        return None
    return lax.dynamic_slice(xs[0], (*xs[1:], jnp.zeros((), xs[1].dtype)), (*eqn.params["slice_sizes"], size))


def _dynamic_update_slice(eqn, xs, bs, size):
    if any(bs[2:]):
        return None
    whole, part = (_with_axis(x, b, size) for x, b in zip(xs[:2], bs[:2], strict=True))
    return lax.dynamic_update_slice(whole, part, (*xs[2:], jnp.zeros((), xs[2].dtype)))


def _gather(eqn, xs, bs, size):
    if bs[1]:
        return None
    p, numbers, rank = eqn.params, eqn.params["dimension_numbers"], eqn.outvars[0].aval.ndim
    numbers = numbers._replace(offset_dims=(*numbers.offset_dims, rank))
    return eqn.primitive.bind(*xs, **{**p, "dimension_numbers": numbers, "slice_sizes": (*p["slice_sizes"], size)})


def _scatter(eqn, xs, bs, size):
    if bs[1]:
        return None
    numbers, rank = eqn.params["dimension_numbers"], eqn.invars[2].aval.ndim
    numbers = numbers._replace(update_window_dims=(*numbers.update_window_dims, rank))
    target, updates = _with_axis(xs[0], bs[0], size), _with_axis(xs[2], bs[2], size)
    return eqn.primitive.bind(target, xs[1], updates, **{**eqn.params, "dimension_numbers": numbers})


def _dot_general(eqn, xs, bs, size):
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    if all(bs):  # a matrix product in each replica: multiply and add, along the replicas
        return _dot_along_replicas(eqn, xs, lc, rc, lb, rb)
    if lb:
        return None
    rest = {k: v for k, v in eqn.params.items() if k != "dimension_numbers"}
    if bs[1]:
        return lax.dot_general(*xs, ((lc, rc), (lb, rb)), **_dot_options(rest))
    out = lax.dot_general(xs[1], xs[0], ((rc, lc), (rb, lb)), **_dot_options(rest))  # replicas end up last
    free = xs[1].ndim - len(rc)
    own = out.ndim - 1 - free
    return lax.transpose(out, (*range(free, free + own), *range(free), out.ndim - 1))


def _dot_options(params):
    return {k: params[k] for k in ("precision", "preferred_element_type")}


def _dot_along_replicas(eqn, xs, lc, rc, lb, rb):
    x, y = xs
    free_x = [d for d in range(x.ndim - 1) if d not in (*lc, *lb)]
    free_y = [d for d in range(y.ndim - 1) if d not in (*rc, *rb)]
    x = lax.transpose(x, (*lb, *free_x, *lc, x.ndim - 1))
    y = lax.transpose(y, (*rb, *free_y, *rc, y.ndim - 1))
    nb, nx, ny, nc = len(lb), len(free_x), len(free_y), len(lc)
    x = jnp.expand_dims(x, tuple(range(nb + nx, nb + nx + ny)))
    y = jnp.expand_dims(y, tuple(range(nb, nb + nx)))
    return jnp.sum(x * y, axis=tuple(range(nb + nx + ny, nb + nx + ny + nc))).astype(eqn.outvars[0].aval.dtype)


_RULES = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter-add": _scatter,
    "scatter_add": _scatter,
    "scatter": _scatter,
    "dot_general": _dot_general,
}


# ---- control flow


def _fixed_point(body, values, batched, size, consts, const_batched):
    """Which carried values become batched, found by tracing the body until nothing changes."""
    while True:
        found: list[bool] = []

        def trial(carry, batched=tuple(batched), found=found):
            outs, lasts = body(carry, list(batched))
            found[:] = lasts
            return outs

        carry = [_with_axis(x, b, size) if want else x for x, b, want in zip(values, const_batched, batched, strict=True)]
        jax.eval_shape(trial, carry)
        wider = [a or b for a, b in zip(batched, found, strict=True)]
        if wider == list(batched):
            return wider
        batched = wider


def _scan(eqn, xs, bs, size):
    p = eqn.params
    nc, nk, closed = p["num_consts"], p["num_carry"], p["jaxpr"]
    consts, carry, rows = xs[:nc], xs[nc : nc + nk], xs[nc + nk :]
    cb, kb, rb = bs[:nc], bs[nc : nc + nk], bs[nc + nk :]

    def body(carry, carried):
        row = [jax.tree.map(lambda x: x[0], r) for r in rows]
        outs, lasts = _evaluate(closed.jaxpr, closed.consts, [*consts, *carry, *row], [*cb, *carried, *rb], size)
        return outs[:nk], lasts[:nk]

    wide = _fixed_point(body, carry, kb, size, consts, kb)
    carry = [_with_axis(x, b, size) if w else x for x, b, w in zip(carry, kb, wide, strict=True)]
    row_lasts: list[bool] = []

    def step(carry, row):
        outs, lasts = _evaluate(closed.jaxpr, closed.consts, [*consts, *carry, *row], [*cb, *wide, *rb], size)
        row_lasts[:] = lasts[nk:]
        new = [_with_axis(x, b, size) if w else x for x, b, w in zip(outs[:nk], lasts[:nk], wide, strict=True)]
        return new, outs[nk:]

    carry, ys = lax.scan(step, carry, list(rows), p["length"], p["reverse"], p["unroll"])
    return [*carry, *ys], [*wide, *row_lasts]


def _while(eqn, xs, bs, size):
    p = eqn.params
    nc, nb = p["cond_nconsts"], p["body_nconsts"]
    c_consts, b_consts, carry = xs[:nc], xs[nc : nc + nb], xs[nc + nb :]
    cb, bb, kb = bs[:nc], bs[nc : nc + nb], bs[nc + nb :]
    cond, body_jaxpr = p["cond_jaxpr"], p["body_jaxpr"]

    def body(carry, carried):
        return _evaluate(body_jaxpr.jaxpr, body_jaxpr.consts, [*b_consts, *carry], [*bb, *carried], size)

    def alive(carry, carried):
        (out,), (b,) = _evaluate(cond.jaxpr, cond.consts, [*c_consts, *carry], [*cb, *carried], size)
        return out, b

    wide = _fixed_point(body, carry, kb, size, b_consts, kb)
    per_replica: list[bool] = []
    jax.eval_shape(lambda c: per_replica.append(alive(c, wide)[1]),
                   [_with_axis(x, b, size) if w else x for x, b, w in zip(carry, kb, wide, strict=True)])  # fmt: skip
    if per_replica[0]:  # each replica stops by itself: all its state is batched, and frozen once it has stopped
        wide = [True] * len(wide)
    carry = [_with_axis(x, b, size) if w else x for x, b, w in zip(carry, kb, wide, strict=True)]

    def cond_fun(carry):
        return jnp.any(alive(carry, wide)[0])

    def body_fun(carry):
        outs, lasts = body(carry, wide)
        outs = [_with_axis(x, b, size) if w else x for x, b, w in zip(outs, lasts, wide, strict=True)]
        if per_replica[0]:
            on = alive(carry, wide)[0]
            outs = [jnp.where(on, new, old) for new, old in zip(outs, carry, strict=True)]
        return outs

    return lax.while_loop(cond_fun, body_fun, carry), wide


def _cond(eqn, xs, bs, size):
    branches, index, operands = eqn.params["branches"], xs[0], xs[1:]

    def branch(closed):
        def call(*operands):
            outs, lasts = _evaluate(closed.jaxpr, closed.consts, list(operands), bs[1:], size)
            return [_with_axis(x, b, size) for x, b in zip(outs, lasts, strict=True)]

        return call

    calls = [branch(b) for b in branches]
    if not bs[0]:
        outs = lax.switch(index, calls, *operands)
    else:  # the replicas disagree: take every branch and choose
        taken = [c(*operands) for c in calls]
        index = jnp.clip(index.astype(jnp.int32), 0, len(calls) - 1)
        outs = [_choose(index, cases) for cases in zip(*taken, strict=True)]
    return outs, [True] * len(outs)


def _choose(index, cases):
    out = cases[0]
    for k, case in enumerate(cases[1:], 1):
        out = jnp.where(index == k, case, out)
    return out


_CONTROL = {"scan": _scan, "while": _while, "cond": _cond}
