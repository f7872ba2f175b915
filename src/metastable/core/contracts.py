"""The contracts: Protocols, no base classes. Everything is written for one system.

Replicas come from :func:`metastable.core.replicas.replicate`, devices from sharding the replica axis.
"""

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray

from metastable.core.frame import Frame

S = TypeVar("S")


class Potential(Protocol):
    """The energy of a frame, kJ/mol. Forces are always minus its gradient; any function of a frame is one."""

    def __call__(self, frame: Frame) -> Float[Array, ""]: ...


class CV(Protocol):
    """Collective variables of a frame: a vector, also where there is only one."""

    def __call__(self, frame: Frame) -> Float[Array, " cvs"]: ...


class Bias(Protocol):
    """An energy on collective variables, kJ/mol. It is immutable and is its own state.

    ``update`` takes the CVs of all walkers that share the bias and returns the bias from then on.
    """

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]: ...

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The bias from then on, of the same structure and shapes. kT: kJ/mol."""
        ...


class Constraint(Protocol):
    """Puts positions (nm) and momenta (Da nm/ps) back on the constrained surface."""

    def positions(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """``new``, nm, moved onto the surface along the gradients of the constraints at ``old``."""
        ...

    def moves(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """What ``positions`` adds to ``new``, nm, to more digits than their difference has."""
        ...

    def momenta(
        self, momenta: Float[Array, "atoms 3"], frame: Frame, masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """The momenta without what would leave the surface at ``frame``."""
        ...


class Sampler(Protocol[S]):
    """A Markov chain: molecular dynamics, Monte Carlo, exchange, metadynamics."""

    def init(self, key: PRNGKeyArray, frame: Frame) -> S:
        """A first state at the frame; the key is for what must be drawn, such as momenta."""
        ...

    def step(self, key: PRNGKeyArray, state: S) -> S:
        """The next state, of the same structure, shapes and precisions; all its chance comes from the key."""
        ...


@runtime_checkable
class Several(Protocol[S]):
    """What a sampler of many systems may have beside ``step``: several steps at once, where that is cheaper."""

    def advance(self, keys: PRNGKeyArray, state: S) -> S:
        """The state after as many steps as keys."""
        ...


Observe = Callable[[Any], Any]
"""What is recorded of a state: any pytree of arrays."""
