"""Biases on collective variables: restraints, walls, and sums of biases, defined as in PLUMED.

A bias is immutable and is its own state (see ``core.contracts.Bias``). Energies in kJ/mol, CVs in their own units;
a CV with a period enters through its shortest difference. Parameters are cast to the precision of the CVs.
Source: Tribello et al. (2014), doi:10.1016/j.cpc.2013.09.018.
"""

from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metastable.cvs.variable import wrap

Periods = tuple[float | None, ...]


class Harmonic(eqx.Module):
    """A restraint: sum of kappa (s - center)^2 / 2.

    center: (cvs,). kappa: kJ/mol per unit of s squared, (cvs,), or one for all.
    periods: as ``cv.periods`` gives them; None where no CV has one.
    """

    center: Float[Array, " cvs"]
    kappa: Float[Array, " cvs"]
    periods: Periods | None = eqx.field(static=True)

    def __init__(self, center, kappa, periods: Sequence[float | None] | None = None):
        self.center = jnp.atleast_1d(jnp.asarray(center, float))
        self.kappa = jnp.broadcast_to(jnp.asarray(kappa, float), self.center.shape)
        self.periods = _periods(periods, self.center.size)

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return _harmonic(s, self.center, self.kappa, self.periods)

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The same: a restraint does not learn."""
        return self


class MovingHarmonic(eqx.Module):
    """A restraint whose center and kappa move: PLUMED's MOVINGRESTRAINT.

    Between the given steps both are interpolated linearly; before the first and after the last they stand still.
    Each ``update`` advances its clock by ``stride`` steps: set it to the number of steps between updates.

    steps: when, increasing, (times,). centers: (times, cvs). kappas: (times, cvs), or one for all.
    step: the clock.
    """

    steps: Float[Array, " times"]
    centers: Float[Array, "times cvs"]
    kappas: Float[Array, "times cvs"]
    step: Int[Array, ""]
    stride: int = eqx.field(static=True)
    periods: Periods | None = eqx.field(static=True)

    def __init__(self, steps, centers, kappas, periods: Sequence[float | None] | None = None, stride: int = 1):
        steps = np.asarray(steps, float)
        centers = jnp.asarray(centers, float)
        self.centers = centers[:, None] if centers.ndim == 1 else centers
        if steps.ndim != 1 or len(self.centers) != len(steps) or np.any(np.diff(steps) <= 0):
            raise ValueError(f"MovingHarmonic: {len(self.centers)} centers for the steps {steps}; give one for each "
                             "step, and the steps in increasing order")  # fmt: skip
        self.steps, kappas = jnp.asarray(steps), jnp.asarray(kappas, float)
        kappas = kappas[:, None] if kappas.ndim == 1 else kappas
        self.kappas = jnp.broadcast_to(kappas, self.centers.shape)
        self.step, self.stride = jnp.zeros((), jnp.int32), stride
        self.periods = _periods(periods, self.centers.shape[1])

    @property
    def center(self) -> Float[Array, " cvs"]:
        """Where the restraint is now."""
        return self._now(self.centers)

    @property
    def kappa(self) -> Float[Array, " cvs"]:
        """How strong it is now, kJ/mol per unit of s squared."""
        return self._now(self.kappas)

    def _now(self, rows):
        return jnp.stack([jnp.interp(self.step, self.steps, column) for column in rows.T])

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return _harmonic(s, self.center, self.kappa, self.periods)

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The same a ``stride`` later, wherever the walkers are."""
        return eqx.tree_at(lambda bias: bias.step, self, self.step + self.stride)


class UpperWall(eqx.Module):
    """sum of kappa ((s - at + offset) / eps)^exponent where that is positive: PLUMED's UPPER_WALLS, with no 1/2.

    at: (cvs,). kappa: kJ/mol. exponent: at least 1. offset, eps: in units of s. One of each for all CVs, or (cvs,).
    """

    at: Float[Array, " cvs"]
    kappa: Float[Array, " cvs"]
    offset: Float[Array, " cvs"]
    eps: Float[Array, " cvs"]
    exponent: int = eqx.field(static=True)

    def __init__(self, at, kappa, *, exponent: int = 2, offset=0.0, eps=1.0):
        if exponent < 1 or exponent != int(exponent):
            raise ValueError(f"the exponent of a wall is an integer from 1, not {exponent}")
        self.at = jnp.atleast_1d(jnp.asarray(at, float))
        self.kappa, self.offset, self.eps = (
            jnp.broadcast_to(jnp.asarray(x, float), self.at.shape) for x in (kappa, offset, eps)
        )
        self.exponent = int(exponent)

    def _depth(self, s):
        at, offset, eps = (x.astype(s.dtype) for x in (self.at, self.offset, self.eps))
        return (s - at + offset) / eps

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return jnp.sum(self.kappa.astype(s.dtype) * jnp.maximum(self._depth(s), 0) ** self.exponent)

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The same: a wall does not learn."""
        return self


class LowerWall(UpperWall):
    """sum of kappa (-(s - at - offset) / eps)^exponent where that is positive: PLUMED's LOWER_WALLS.

    Fields as in ``UpperWall``. For an odd exponent PLUMED's own energy is negative, which is no wall.
    """

    def _depth(self, s):
        at, offset, eps = (x.astype(s.dtype) for x in (self.at, self.offset, self.eps))
        return (at + offset - s) / eps


class Sum(eqx.Module):
    """Several biases on the same CVs."""

    biases: tuple[Any, ...]

    def __init__(self, *biases):
        self.biases = biases

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return sum((bias(s) for bias in self.biases), jnp.zeros((), s.dtype))

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """Each of the biases updated."""
        return eqx.tree_at(lambda total: total.biases, self, tuple(bias.update(s, kT) for bias in self.biases))


class Select(eqx.Module):
    """A bias that acts on some of the CVs only: ``Sum(metadynamics_of_two, Select(wall, [2]))``."""

    bias: Any
    components: tuple[int, ...] = eqx.field(static=True, converter=lambda c: tuple(map(int, c)))

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return self.bias(jnp.stack([s[i] for i in self.components]))

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The bias updated with the components that it acts on."""
        chosen = jnp.stack([s[:, i] for i in self.components], -1)
        return eqx.tree_at(lambda select: select.bias, self, self.bias.update(chosen, kT))


def _harmonic(s, center, kappa, periods):
    delta = s - center.astype(s.dtype)
    delta = delta if periods is None else wrap(delta, periods)
    return jnp.sum(kappa.astype(s.dtype) * delta**2) / 2


def _periods(periods, size: int) -> Periods | None:
    if periods is None:
        return None
    periods = tuple(periods)
    if len(periods) != size:
        raise ValueError(f"{len(periods)} periods for a bias on {size} CVs: give one for each, None for none")
    return periods
