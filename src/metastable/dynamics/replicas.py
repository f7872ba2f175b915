"""Many replicas of one sampler, each with its own start and, if wished, temperature and parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, PRNGKeyArray

from metastable.core.frame import Frame
from metastable.core.random import spread
from metastable.core.replicas import replicate
from metastable.loops.run import advance

LANES = 256
"""Replicas advanced together on a CPU: enough to fill the vector units, few enough to stay in the cache."""

STRETCH = 128
"""Steps that a chunk of replicas takes at once, at most: their keys are made beforehand."""


def _nothing(sampler) -> Sequence[Any]:
    return ()


class Replicas(eqx.Module):
    """``size`` independent copies of a one-system sampler: itself a sampler.

    sampler: any sampler of one system.
    size: how many replicas.
    varying: picks the leaves of ``sampler`` that carry a leading replica axis, for instance
        ``lambda s: [s.kT]`` for a ladder of temperatures. All others are common to the replicas.
    lanes: replicas advanced together; must divide ``size``. Default: all on an accelerator, on a CPU
        the largest divisor of ``size`` up to 256. It changes the speed, never the random numbers. 1 where replicas
        keep lists of near pairs: each then makes its own anew when it must.
    devices: over how many devices the replicas are shared.

    Its state is the sampler's state with every array shaped (chunks, ..., lanes): what
    :meth:`observe` gives, and :meth:`public` returns, has the replicas in front.
    """

    sampler: Any
    size: int = eqx.field(static=True)
    varying: Callable[[Any], Sequence[Any]] = eqx.field(static=True, default=_nothing)
    lanes: int = eqx.field(static=True, default=0)
    devices: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"Replicas: size = {self.size} must be at least 1")
        if self.lanes and self.size % self.lanes:
            raise ValueError(f"Replicas: lanes = {self.lanes} must divide size = {self.size}")
        if self.devices > jax.device_count():
            raise ValueError(f"Replicas: devices = {self.devices}, but there are {jax.device_count()}")
        if self._chunks % self.devices:
            raise ValueError(
                f"Replicas: {self._chunks} chunks of {self._width} replicas cannot be shared by {self.devices} "
                f"devices; make size / lanes a multiple of {self.devices}"
            )

    @property
    def _width(self) -> int:
        if self.lanes:
            return self.lanes
        share = self.size // self.devices if self.size % self.devices == 0 else self.size
        if jax.default_backend() != "cpu":
            return share
        return next(n for n in range(min(LANES, share), 0, -1) if share % n == 0)

    @property
    def _chunks(self) -> int:
        return self.size // self._width

    def init(self, key: PRNGKeyArray, frame: Frame) -> Any:
        """Start all replicas from one frame, or each from its own where the frame has a leading replica axis."""
        if frame.positions.ndim == 2:
            frame = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.size, *x.shape)), frame)
        elif frame.positions.shape[0] != self.size:
            raise ValueError(f"Replicas: {frame.positions.shape[0]} starting frames for {self.size} replicas")
        return self._each(lambda sampler, key, frame: sampler.init(key, frame))(self._keys(key), self.private(frame))

    def step(self, key: PRNGKeyArray, state: Any) -> Any:
        """One step of every replica; replica i uses the i-th key spread from ``key``."""
        return self._each(lambda sampler, key, state: sampler.step(key, state))(self._keys(key), state)

    def advance(self, keys: PRNGKeyArray, state: Any) -> Any:
        """As many steps as keys: what ``step`` does with each of them, but chunk by chunk for some of them at once.

        Where a chunk's state, its lists of pairs above all, is large, it is then not carried about in each step.
        """
        if self._chunks == 1:
            return lax.scan(lambda state, key: (self.step(key, state), None), state, keys)[0]
        several = next(n for n in range(min(STRETCH, len(keys)), 0, -1) if len(keys) % n == 0)

        def stretch(state, keys):
            own = jnp.moveaxis(jax.vmap(self._keys)(keys), 0, 1)  # (chunks, steps, lanes)
            return self._each(lambda sampler, keys, state: advance(sampler, keys, state))(own, state), None

        return lax.scan(stretch, state, keys.reshape(-1, several))[0]

    def observe(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Lift ``function`` of one replica's state to all: its results have the replicas in front."""
        return lambda state: self.public(self._each(lambda _, state: function(state))(state))

    def change(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Lift ``function``, from one replica's state to another, to the state of all."""
        return self._each(lambda _, state: function(state))

    def public(self, tree: Any) -> Any:
        """From (chunks, ..., lanes) to (replicas, ...)."""
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 1).reshape(self.size, *x.shape[1:-1]), tree)

    def private(self, tree: Any) -> Any:
        """From (replicas, ...) to (chunks, ..., lanes)."""
        shape = (self._chunks, self._width)
        return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(*shape, *x.shape[1:]), 1, -1), tree)

    def _keys(self, key: PRNGKeyArray) -> Array:
        return spread(key, self.size).reshape(self._chunks, self._width)

    def _each(self, function: Callable) -> Callable:
        """function(sampler, *per replica) for all replicas: chunk by chunk, on each device its own chunks."""
        none = jax.tree.map(lambda _: False, self.sampler)
        chosen = eqx.tree_at(self.varying, none, replace_fn=lambda _: True) if self.varying is not _nothing else none
        varying, common = eqx.partition(self.sampler, chosen)
        varying = self.private(varying)

        def chunk(arguments):
            def one(varying, *rest):
                return function(eqx.combine(varying, common), *rest)

            if self._width > 1:
                return replicate(one)(*arguments)
            alone = one(*jax.tree.map(lambda x: x[..., 0], arguments))  # its branches stay branches
            return jax.tree.map(lambda x: x[..., None], alone)

        def local(*arguments):
            if jax.tree.leaves(arguments)[0].shape[0] == 1:  # no loop, so that XLA sees straight-line code
                return jax.tree.map(lambda x: x[None], chunk(jax.tree.map(lambda x: x[0], arguments)))
            return lax.map(chunk, arguments)

        def everywhere(*arguments):
            if self.devices == 1:
                return local(varying, *arguments)
            mesh = jax.make_mesh(
                (self.devices,), ("replicas",), axis_types=(AxisType.Auto,), devices=jax.devices()[: self.devices]
            )
            spec = PartitionSpec("replicas")
            shared = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
            return shared(varying, *arguments)

        return everywhere
