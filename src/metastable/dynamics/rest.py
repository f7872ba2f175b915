"""Samplers that wrap a sampler; and the one that keeps the centre of mass at rest."""

from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray

from metastable.core.frame import Frame
from metastable.dynamics.state import at_rest


def of_sampler(name: str) -> property:
    """The attribute of the sampler inside: what is replaced there, as by walkers, is replaced for both."""
    return property(lambda self: getattr(self.sampler, name), doc=f"``{name}`` of the sampler inside.")


class AtRest(eqx.Module):
    """Any sampler, with the velocity of the centre of mass taken away after each step.

    For a system in a box under Langevin dynamics, whose noise makes it drift; three degrees of freedom fewer. Not where
    an outside potential holds it, nor where an atom of mass 0 does. Its state is that of ``sampler``.
    """

    sampler: Any

    potential, masses, kT, dt = (of_sampler(name) for name in ("potential", "masses", "kT", "dt"))

    def init(self, key: PRNGKeyArray, frame: Frame) -> Any:
        """The sampler's first state, its centre of mass at rest. frame: positions (atoms, 3), nm."""
        return self._rest(self.sampler.init(key, frame))

    def step(self, key: PRNGKeyArray, state: Any) -> Any:
        """One step of the sampler, then the momenta without that of the centre of mass."""
        return self._rest(self.sampler.step(key, state))

    def _rest(self, state):
        return eqx.tree_at(lambda s: s.momenta, state, at_rest(state.momenta, self.masses))
