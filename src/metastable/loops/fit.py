"""The loop that learns: ``fit`` lowers a loss, one batch a step."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from optax import GradientTransformation


class Fit(NamedTuple):
    """Where learning stands after a step; all that is needed to go on from there.

    step: how many steps have been taken. model: after them. memory: what the optimizer remembers.
    loss, aux: of the model *before* the step, on its batch.
    """

    step: int
    model: Any
    memory: Any
    loss: Float[Array, ""]
    aux: Any


def fit(
    model: Any,
    loss: Callable[[Any, Any], tuple[Float[Array, ""], Any]],
    batch: Callable[[int, Any], Any],
    optimizer: GradientTransformation,
    steps: int,
    *,
    start: Fit | None = None,
) -> Iterator[Fit]:
    """Yield the model after each of ``steps`` steps of the optimizer.

    model: any pytree; its arrays of real or complex numbers are learned, all else is left alone.
    loss(model, batch) -> (scalar, aux): pure, compiled once.
    batch(i, model) -> the pytree that step i learns from; plain Python, called on the host with the
        model as it is: it may read a file, draw from a generator seeded with i, or sample the model.
    optimizer: an optax gradient transformation.
    start: a Fit that an earlier call yielded. Step i depends only on (i, model, memory), so that what
        follows is what that call would have yielded, bit for bit. ``steps`` counts from the first start.

    Raises ValueError where ``steps`` is negative, there is nothing to learn, or the loss is not a scalar.
    """
    if steps < 0:
        raise ValueError(f"steps = {steps} must not be negative")
    if not jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
        raise ValueError("the model has no array of real numbers, so there is nothing to learn")
    first, memory = 0, None
    if start is not None:
        first, model, memory = start.step, start.model, start.memory
    return _steps(model, memory, loss, batch, optimizer, first, steps)


def _steps(model, memory, loss, batch, optimizer, first, steps):
    if memory is None:
        memory = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for i in range(first, steps):
        model, memory, value, aux = _step(model, memory, batch(i, model), loss, optimizer)
        yield Fit(i + 1, model, memory, value, aux)


@eqx.filter_jit
def _step(model, memory, batch, loss, optimizer):
    learned, fixed = eqx.partition(model, eqx.is_inexact_array)

    def value(learned):
        value, aux = loss(eqx.combine(learned, fixed), batch)
        if jnp.shape(value):
            raise ValueError(f"the loss must be a scalar, not of shape {jnp.shape(value)}: average or sum it")
        return value, aux

    (value_now, aux), slope = jax.value_and_grad(value, has_aux=True)(learned)
    slope = jax.tree.map(jnp.conj, slope)  # steepest descent, also where numbers are complex
    updates, memory = optimizer.update(slope, memory, learned)
    return eqx.combine(eqx.apply_updates(learned, updates), fixed), memory, value_now, aux
