"""How one operation takes one more, last, axis. The rules of :mod:`metastable.core.replicas`.

A rule takes (equation, operands, which of them carry the axis, its size) and gives the result, a list
for an operation with several, or None to leave the case to ``jax.vmap``.
"""

import jax
import jax.numpy as jnp
from jax import lax

_ELEMENTWISE = frozenset(
    """abs acos acosh add and asin asinh atan atan2 atanh cbrt ceil clamp conj convert_element_type copy copy_p
    cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma digamma log
    log1p logistic lt max min mul ne neg nextafter not or population_count pow real reduce_precision rem round
    rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient
    sub tan tanh xor add_any complex bessel_i0e bessel_i1e igamma clz""".split()
)
_LEADING_AXES = frozenset(  # their axis parameters count from the front: a trailing axis changes nothing
    """reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin cumsum cumprod
    cummax cummin cumlogsumexp rev squeeze sort concatenate split""".split()
)


def with_axis(x, batched: bool, size: int, shape: tuple[int, ...] | None = None):
    """x with a trailing replica axis; ``shape`` is the one-system shape to broadcast it to."""
    own = jnp.shape(x)[: jnp.ndim(x) - batched]
    shape = own if shape is None else shape
    if batched and own == shape:
        return x
    dims = (*range(len(own)), *([len(shape)] if batched else []))  # own is () or has the rank of shape
    return lax.broadcast_in_dim(x, (*shape, size), dims)


def operate(eqn, xs, bs, size):
    """Apply one operation, of which some operand carries the axis: its result carries it too."""
    name, params = eqn.primitive.name, eqn.primitive.get_bind_params(eqn.params)
    out = None
    if name in _ELEMENTWISE:
        out = eqn.primitive.bind(*_aligned(eqn, xs, bs, size), **params)
    elif name in _LEADING_AXES:
        out = eqn.primitive.bind(*(with_axis(x, b, size) for x, b in zip(xs, bs, strict=True)), **params)
    elif name in _RULES:
        out = _RULES[name](eqn, xs, bs, size)
    if out is None:
        axes = [-1 if b else None for b in bs]
        out = jax.vmap(lambda *x: eqn.primitive.bind(*x, **params), axes, -1, axis_size=size)(*xs)
    return out


def _aligned(eqn, xs, bs, size):
    """Operands of an elementwise operation, broadcast against each other with the replicas last."""
    shape = eqn.outvars[0].aval.shape
    return [x if not b and jnp.shape(x) == () and _takes_scalar(eqn, i) else with_axis(x, b, size, shape)
            for i, (x, b) in enumerate(zip(xs, bs, strict=True))]  # fmt: skip


def _takes_scalar(eqn, i: int) -> bool:
    return (eqn.primitive.name == "select_n" and i == 0) or (eqn.primitive.name == "clamp" and i != 1)


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
    whole, part = (with_axis(x, b, size) for x, b in zip(xs[:2], bs[:2], strict=True))
    return lax.dynamic_update_slice(whole, part, (*xs[2:], jnp.zeros((), xs[2].dtype)))


def _gather(eqn, xs, bs, size):
    p, numbers, rank = eqn.params, eqn.params["dimension_numbers"], eqn.outvars[0].aval.ndim
    if bs[1] and not bs[0] and not numbers.offset_dims and not numbers.operand_batching_dims:
        return eqn.primitive.bind(xs[0], jnp.moveaxis(xs[1], -1, -2), **p)  # single elements of what replicas share
    if bs[1]:
        return None
    numbers = numbers._replace(offset_dims=(*numbers.offset_dims, rank))
    return eqn.primitive.bind(*xs, **{**p, "dimension_numbers": numbers, "slice_sizes": (*p["slice_sizes"], size)})


def _scatter(eqn, xs, bs, size):
    if bs[1]:
        return None
    numbers, rank = eqn.params["dimension_numbers"], eqn.invars[2].aval.ndim
    numbers = numbers._replace(update_window_dims=(*numbers.update_window_dims, rank))
    target, updates = with_axis(xs[0], bs[0], size), with_axis(xs[2], bs[2], size)
    return eqn.primitive.bind(target, xs[1], updates, **{**eqn.params, "dimension_numbers": numbers})


def _dot_general(eqn, xs, bs, size):
    (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
    if all(bs):  # a matrix product in each replica: multiply and add, along the replicas
        return _dot_along_replicas(eqn, xs, lc, rc, lb, rb)
    if lb:
        return None
    precision, wide = eqn.params["precision"], eqn.params["preferred_element_type"]
    if bs[1]:
        return lax.dot_general(xs[0], xs[1], ((lc, rc), (lb, rb)), precision, wide)
    out = lax.dot_general(xs[1], xs[0], ((rc, lc), (rb, lb)), precision, wide)  # replicas end up last
    free = xs[1].ndim - len(rc)
    own = out.ndim - 1 - free
    return lax.transpose(out, (*range(free, free + own), *range(free), out.ndim - 1))


def _dot_along_replicas(eqn, xs, lc, rc, lb, rb):
    x, y = (operand.astype(eqn.outvars[0].aval.dtype) for operand in xs)
    free_x = [d for d in range(x.ndim - 1) if d not in (*lc, *lb)]
    free_y = [d for d in range(y.ndim - 1) if d not in (*rc, *rb)]
    x = lax.transpose(x, (*lb, *free_x, *lc, x.ndim - 1))
    y = lax.transpose(y, (*rb, *free_y, *rc, y.ndim - 1))
    nb, nx, ny, nc = len(lb), len(free_x), len(free_y), len(lc)
    x = jnp.expand_dims(x, tuple(range(nb + nx, nb + nx + ny)))
    y = jnp.expand_dims(y, tuple(range(nb, nb + nx)))
    return jnp.sum(x * y, axis=tuple(range(nb + nx + ny, nb + nx + ny + nc)))


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
