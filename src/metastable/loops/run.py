"""The loop that samples: ``run`` once, or ``stream`` in blocks that a restart repeats bit for bit."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax import lax
from jaxtyping import PRNGKeyArray

from metastable.core.contracts import Several


class Block(NamedTuple):
    """One stretch of a run.

    index: which block, from 0. state: after it. records: what was observed, time axis first.
    """

    index: int
    state: Any
    records: Any


Reporter = Callable[[Block], None]


def _nothing(state):
    return None


@eqx.filter_jit
def run(
    key: PRNGKeyArray,
    sampler: Any,
    state: Any,
    steps: int,
    *,
    every: int | None = None,
    observe: Callable[[Any], Any] = _nothing,
) -> tuple[Any, Any]:
    """Take ``steps`` steps of the sampler; record ``observe(state)`` after each ``every`` of them.

    Step i uses key i of ``jax.random.split(key, steps)``. Returns the last state and the records, which carry a leading
    axis of length ``steps // every``. Pure and differentiable: jit, vmap and grad apply to it.

    Raises ValueError where ``every`` does not divide ``steps``.
    """
    every = steps if every is None else every
    if every < 1 or steps % every:
        raise ValueError(f"every = {every} must be at least 1 and divide steps = {steps}")

    def stretch(state, keys):
        state = advance(sampler, keys, state)
        return state, observe(state)

    keys = jax.random.split(key, (steps // every, every))  # at once: a key a step costs as much as the step's noise
    return lax.scan(stretch, state, keys)


def advance(sampler: Any, keys: PRNGKeyArray, state: Any) -> Any:
    """The state as many steps later as there are keys."""
    if isinstance(sampler, Several):
        return sampler.advance(keys, state)
    return lax.scan(lambda state, key: (sampler.step(key, state), None), state, keys)[0]


def stream(
    key: PRNGKeyArray,
    sampler: Any,
    state: Any,
    blocks: int,
    steps: int,
    *,
    every: int | None = None,
    observe: Callable[[Any], Any] = _nothing,
    first: int = 0,
) -> Iterator[Block]:
    """Yield ``blocks`` blocks of ``steps`` steps each, from block ``first``.

    Block i depends only on (key, i, the state before it): a stream restarted at ``first`` with the
    saved state repeats what an uninterrupted one gives, bit for bit.
    """
    for index in range(first, blocks):
        state, records = run(jax.random.fold_in(key, index), sampler, state, steps, every=every, observe=observe)
        yield Block(index, state, records)
