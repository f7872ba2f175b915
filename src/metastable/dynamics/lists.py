"""Dynamics with a list of near pairs, made anew as needed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, enlarged, kept
from metastable.dynamics.rest import of_sampler

AHEAD = 2.0
"""Times the longest way of the last step, or of the fastest atom: the next step is hardly longer."""


class Listed(eqx.Module):
    """A sampler whose frames carry a list of near pairs.

    After each step the list is made anew where it is stale. An integrator that looks at forces in the midst of a step
    (its state carries them) does so with the list of before: for it the list is made anew already where the next step
    might take two atoms past the skin, and ``overflow`` is set where a step did all the same, as a pair may have been
    missed. :func:`overflowed` reads it on the host, between blocks, and :func:`regrown` gives the state from which to
    repeat the block.

    sampler: its states have a ``frame``. pairs: made by :func:`metastable.core.pairs.allocate`, or by the potential.
    """

    sampler: Any
    pairs: Pairs

    potential, masses, kT, dt = (of_sampler(name) for name in ("potential", "masses", "kT", "dt"))

    def init(self, key: PRNGKeyArray, frame: Frame) -> Any:
        """The sampler's first state, with a list of its positions."""
        pairs = self.pairs.update(Frame(frame.positions, frame.box))
        return self.sampler.init(key, Frame(frame.positions, frame.box, pairs))

    def step(self, key: PRNGKeyArray, state: Any) -> Any:
        """One step of the sampler, and the list made anew if it must be."""
        old, new = state.frame, self.sampler.step(key, state)
        late = old.pairs.stale(old)  # where something else moved the atoms, or the box, since the last step
        margin = 0.0
        if getattr(new, "forces", None) is not None:
            late = late | old.pairs.stale(new.frame)
            margin = AHEAD * jnp.sqrt(jnp.max(jnp.sum((new.frame.positions - old.positions) ** 2, -1)))
        overflow = new.frame.pairs.overflow | late
        frame = eqx.tree_at(lambda f: f.pairs.overflow, new.frame, overflow)
        return eqx.tree_at(lambda s: s.frame, new, kept(frame, margin))


def lists(state: Any) -> list[Pairs]:
    """All lists of a state, whatever wraps it."""
    return [x for x in jax.tree.leaves(state, is_leaf=_is_list) if _is_list(x)]


def overflowed(state: Any) -> bool:
    """Whether a list of the state, of any of its replicas, may have missed a pair. On the host."""
    return any(bool(jnp.any(pairs.overflow)) for pairs in lists(state))


def regrown(before: Any, after: Any, room: float = 1.25) -> Any:
    """The state ``before`` a block with more room in its lists: what they needed in it, times ``room``. On the host.

    The lists are made of the frames of which they were made, so that what follows is what an ample list had given.
    One system only. See :func:`metastable.core.pairs.enlarged`, also for what it raises.
    """
    grown = iter([enlarged(old, new, room) for old, new in zip(lists(before), lists(after), strict=True)])
    return jax.tree.map(lambda x: next(grown) if _is_list(x) else x, before, is_leaf=_is_list)


def _is_list(x: Any) -> bool:
    return isinstance(x, Pairs)
