"""Walkers that share one bias, inside the compiled loop."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metastable.core.contracts import CV, Bias, Potential
from metastable.core.frame import Frame
from metastable.dynamics.replicas import Replicas
from metastable.potentials.sites import WithSites


class Biased(eqx.Module):
    """The potential energy plus a bias on collective variables: U(x) + V(s(x)), kJ/mol; s may be of virtual sites."""

    potential: Potential
    cv: CV
    bias: Bias

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        seen = self.potential.placed(frame) if isinstance(self.potential, WithSites) else frame
        return self.potential(frame) + self.bias(self.cv(seen))


class WalkersState(eqx.Module):
    """The walkers' own states, (chunks, ..., lanes); the bias that they share; steps taken."""

    walkers: Any
    bias: Bias
    steps: Int[Array, ""]


class Walkers(eqx.Module):
    """``size`` walkers on the potential of ``sampler`` plus one bias that all of them feed.

    Multiple walkers: Raiteri, Laio, Gervasio, Micheletti, Parrinello (2006), doi:10.1021/jp054359r.

    sampler: a sampler of one system with a ``potential`` and a ``kT``, such as ``Langevin``.
    cv, bias: the contracts CV and Bias; ``bias`` is the one to start from.
    stride: steps between two updates of the bias, each of which sees the CVs of all walkers. There
        is no update at step 0, and the forces of a step are those of the bias before its update.
    size, lanes, devices: as in :class:`~metastable.dynamics.replicas.Replicas`.
    """

    sampler: Any
    cv: CV
    bias: Bias
    stride: int = eqx.field(static=True)
    size: int = eqx.field(static=True)
    lanes: int = eqx.field(static=True, default=0)
    devices: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.stride < 1:
            raise ValueError(f"Walkers: stride = {self.stride} must be at least 1 step")

    def init(self, key: PRNGKeyArray, frame: Frame) -> WalkersState:
        """All walkers from one frame, or each from its own where the frame has a leading walker axis."""
        return WalkersState(self.replicas(self.bias).init(key, frame), self.bias, jnp.zeros((), jnp.int32))

    def step(self, key: PRNGKeyArray, state: WalkersState) -> WalkersState:
        """Move all walkers one step; each ``stride`` steps, update the bias with their CVs."""
        return self._fed(state, self.replicas(state.bias).step(key, state.walkers), 1)

    def advance(self, keys: PRNGKeyArray, state: WalkersState) -> WalkersState:
        """As many steps as keys, those between two updates of the bias at once, as Replicas advances.

        Where runs are joined that are no multiples of ``stride``, an update may come up to a ``stride`` late.
        """
        several = math.gcd(len(keys), self.stride)

        def stretch(state, keys):
            return self._fed(state, self.replicas(state.bias).advance(keys, state.walkers), several), None

        return lax.scan(stretch, state, keys.reshape(-1, several))[0]

    def _fed(self, state: WalkersState, walkers: Any, taken: int) -> WalkersState:
        """The state with the walkers so many steps later, and the bias updated if that is due."""
        steps = state.steps + taken

        def update(arrays):
            bias = eqx.combine(arrays, fixed)
            s = self.replicas(bias).observe(lambda one: self.cv(one.frame))(walkers)
            new = eqx.filter(bias.update(s, self.sampler.kT), eqx.is_array)
            return jax.tree.map(lambda new, old: new.astype(old.dtype), new, arrays)

        arrays, fixed = eqx.partition(state.bias, eqx.is_array)
        arrays = lax.cond(steps // self.stride > state.steps // self.stride, update, lambda arrays: arrays, arrays)
        return WalkersState(walkers, eqx.combine(arrays, fixed), steps)

    def observe(self, function: Callable[[Any, Bias], Any]) -> Callable[[WalkersState], Any]:
        """Lift ``function(state of one walker, bias)`` to all walkers: its results have the walkers in front."""
        return lambda state: self.replicas(state.bias).observe(lambda one: function(one, state.bias))(state.walkers)

    def replicas(self, bias: Bias) -> Replicas:
        """The walkers as independent replicas on the potential with this bias, for as long as it stands."""
        biased = eqx.tree_at(lambda s: s.potential, self.sampler, Biased(self.sampler.potential, self.cv, bias))
        return Replicas(biased, self.size, lanes=self.lanes, devices=self.devices)
