"""The one place where a one-system function becomes a function of many replicas.

``replicate(function)`` means the same as ``jax.vmap(function, -1, -1)``, but the replica axis *stays*
last in every intermediate array, so that each elementary operation runs along contiguous replicas and
the vector units are full whatever the shape of the molecule. ``jax.vmap`` moves the axis to the front
at the first broadcast, which costs a small molecule a third to a half of its speed on a CPU.

How: the function is traced once, for one system, and the trace is evaluated again with every traced
array carrying one more, last, axis. Operations that do not care about a trailing axis are simply
applied; for the others a rule in :mod:`metastable.core.trailing` adds the axis to their parameters; what
has no rule is left to ``jax.vmap`` with the axis last, which is always right and only slower. Control
flow, and functions that bring a derivative of their own, are lifted here, as what they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend import core as jex

from metastable.core.trailing import operate, with_axis


def replicate(function: Callable, *, shared: Sequence[int] = ()) -> Callable:
    """Lift a one-system function to replicas in the last axis of every argument and result.

    shared: positions of the arguments that all replicas have in common, which carry no such axis.
    The result always carries it. Same meaning as ``jax.vmap(function, in_axes=-1, out_axes=-1)``.
    """

    def lifted(*arguments):
        leaves, tree = jax.tree.flatten(arguments)
        leaves = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in leaves]
        batched = [i not in shared for i, a in enumerate(arguments) for _ in jax.tree.leaves(a)]
        sizes = {jnp.shape(x)[-1:] for x, b in zip(leaves, batched, strict=True) if b}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(
                f"replicate: the last axes must agree and there must be one, not {sorted(sizes)}; "
                "an argument that all replicas have in common must be named in shared"
            )
        ((size,),) = sizes
        one = [_without_axis(jax.typeof(x), b) for x, b in zip(leaves, batched, strict=True)]
        result_tree = None

        def flat(*xs):
            nonlocal result_tree
            results, result_tree = jax.tree.flatten(function(*jax.tree.unflatten(tree, xs)))
            return results

        closed = jax.make_jaxpr(flat)(*one)
        results, lasts = _evaluate(closed.jaxpr, closed.consts, leaves, batched, size)
        results = [with_axis(x, b, size) for x, b in zip(results, lasts, strict=True)]
        return jax.tree.unflatten(result_tree, results)

    return lifted


def last(tree: Any) -> Any:
    """Move the leading replica axis of every array to the end: from the public layout to the inner one."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)


def leading(tree: Any) -> Any:
    """Move the last, replica, axis of every array to the front: from the inner layout to the public one."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), tree)


def _without_axis(aval, batched: bool):
    return jax.ShapeDtypeStruct(aval.shape[: aval.ndim - batched], aval.dtype, weak_type=aval.weak_type)


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
    if name in ("jit", "pjit", "closed_call", "core_call"):
        inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        return _evaluate(inner.jaxpr, inner.consts, xs, bs, size)
    if name in _CONTROL and any(bs) and not params.get("branches_platforms"):
        return _CONTROL[name](eqn, xs, bs, size)
    if name == "optimization_barrier":
        return lax.optimization_barrier(xs), bs
    out = operate(eqn, xs, bs, size) if any(bs) else eqn.primitive.bind(*xs, **eqn.primitive.get_bind_params(params))
    outs = out if eqn.primitive.multiple_results else [out]
    return outs, [any(bs)] * len(outs)


# ---- control flow


def _fixed_point(body, values, start, size):
    """Which carried values become batched, found by tracing the body until nothing changes."""
    batched = list(start)
    while True:
        found: list[bool] = []

        def trial(carry, batched=tuple(batched), found=found):
            outs, lasts = body(carry, list(batched))
            found[:] = lasts
            return outs

        carry = [with_axis(x, b, size) if w else x for x, b, w in zip(values, start, batched, strict=True)]
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

    wide = _fixed_point(body, carry, kb, size)
    carry = [with_axis(x, b, size) if w else x for x, b, w in zip(carry, kb, wide, strict=True)]
    row_lasts: list[bool] = []

    def step(carry, row):
        outs, lasts = _evaluate(closed.jaxpr, closed.consts, [*consts, *carry, *row], [*cb, *wide, *rb], size)
        row_lasts[:] = lasts[nk:]
        new = [with_axis(x, b, size) if w else x for x, b, w in zip(outs[:nk], lasts[:nk], wide, strict=True)]
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

    wide = _fixed_point(body, carry, kb, size)
    per_replica: list[bool] = []
    jax.eval_shape(lambda c: per_replica.append(alive(c, wide)[1]),
                   [with_axis(x, b, size) if w else x for x, b, w in zip(carry, kb, wide, strict=True)])  # fmt: skip
    if per_replica[0]:  # each replica stops by itself: all its state is batched, and frozen once it has stopped
        wide = [True] * len(wide)
    carry = [with_axis(x, b, size) if w else x for x, b, w in zip(carry, kb, wide, strict=True)]

    def cond_fun(carry):
        return jnp.any(alive(carry, wide)[0])

    def body_fun(carry):
        outs, lasts = body(carry, wide)
        outs = [with_axis(x, b, size) if w else x for x, b, w in zip(outs, lasts, wide, strict=True)]
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
            return [with_axis(x, b, size) for x, b in zip(outs, lasts, strict=True)]

        return call

    calls = [branch(b) for b in branches]
    if not bs[0]:
        outs = lax.switch(index, calls, *operands)
    else:  # the replicas may disagree: take every branch that one of them takes, and choose
        index = jnp.clip(index.astype(jnp.int32), 0, len(calls) - 1)

        def nothing(*operands):
            return [jnp.zeros((*v.aval.shape, size), v.aval.dtype) for v in eqn.outvars]

        keys = any(jnp.issubdtype(v.aval.dtype, jax.dtypes.extended) for v in eqn.outvars)  # they have no zero
        taken = [
            call(*operands) if keys else lax.cond(jnp.any(index == k), call, nothing, *operands)
            for k, call in enumerate(calls)
        ]
        outs = [_choose(index, cases) for cases in zip(*taken, strict=True)]
    return outs, [True] * len(outs)


def _choose(index, cases):
    out = cases[0]
    for k, case in enumerate(cases[1:], 1):
        out = jnp.where(index == k, case, out)
    return out


# ---- functions that bring a rule of their own, which looking inside would lose


def _checkpoint(eqn, xs, bs, size):
    lasts: list[bool] = []

    def call(*xs):
        outs, lasts[:] = _evaluate(eqn.params["jaxpr"], (), xs, bs, size)
        return outs

    if eqn.params["differentiated"]:  # this is the recomputation: keep it apart from the first
        return call(*(lax.optimization_barrier(xs) if eqn.params["prevent_cse"] else xs)), lasts
    return jax.checkpoint(call, policy=eqn.params["policy"], prevent_cse=eqn.params["prevent_cse"])(*xs), lasts


def _custom_derivative(eqn, xs, bs, size):
    """A function with a custom derivative: the lifted one has the lifted derivative."""
    closed, bind = eqn.params["call_jaxpr"], eqn.primitive.get_bind_params(eqn.params)
    real = [i for i, v in enumerate(eqn.invars) if jnp.issubdtype(v.aval.dtype, jnp.inexact)]
    shared = [i for i, b in enumerate(bs) if not b]

    def call(*xs):
        outs, lasts = _evaluate(closed.jaxpr, closed.consts, xs, bs, size)
        return [with_axis(x, b, size) for x, b in zip(outs, lasts, strict=True)]

    def among(xs, moving):
        """The one-system function of the moving operands among all, and these."""

        def one(*some):
            full = list(xs)
            for i, x in zip(moving, some, strict=True):
                full[i] = x
            outs = eqn.primitive.bind(*full, **bind)
            return [x for x in outs if jnp.issubdtype(x.dtype, jnp.inexact)], outs

        return one, [xs[i] for i in moving]

    def jvp(primals, tangents):
        moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]

        def one_jvp(primals, *tangents):
            one, some = among(primals, moving)
            _, slopes, outs = jax.jvp(one, some, list(tangents), has_aux=True)
            return outs, slopes

        fixed = [*shared, *(len(primals) + k for k, i in enumerate(moving) if i in shared)]
        lifted_jvp = replicate(lambda *values: one_jvp(values[: len(primals)], *values[len(primals) :]), shared=fixed)
        outs, slopes = lifted_jvp(*primals, *(tangents[i] for i in moving))
        return outs, _interleave(outs, slopes)

    def forward(*xs):
        def one_vjp(*xs):
            one, some = among(xs, real)
            _, pullback, outs = jax.vjp(one, *some, has_aux=True)
            return outs, pullback

        return replicate(one_vjp, shared=shared)(*xs)

    def backward(pullback, slopes):
        slopes = [s for s in slopes if s.dtype != jax.dtypes.float0]
        found = dict(zip(real, replicate(lambda pullback, slopes: pullback(slopes))(pullback, slopes), strict=True))
        whole = (found.get(i) for i in range(len(bs)))  # None for integers, which have no derivative
        return tuple(x if b or x is None else jnp.sum(x, -1) for x, b in zip(whole, bs, strict=True))

    if "jvp_jaxpr_fun" in eqn.params:
        lifted = jax.custom_jvp(call)
        lifted.defjvp(jvp, symbolic_zeros=True)  # no work for what does not vary
    else:
        lifted = jax.custom_vjp(call)
        lifted.defvjp(forward, backward)
    return lifted(*xs), [True] * len(eqn.outvars)


def _interleave(outs, slopes):
    """A tangent for each result: those of integers are the empty ones."""
    slopes = iter(slopes)
    return [
        next(slopes) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0) for x in outs
    ]


_CONTROL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "checkpoint": _checkpoint,
    "custom_jvp_call": _custom_derivative,
    "custom_vjp_call": _custom_derivative,
}
