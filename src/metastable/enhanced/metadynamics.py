"""Well-tempered metadynamics: a bias made of hills, which any number of walkers may raise together.

The hills are PLUMED's stretched Gaussians, in d^2 = sum ((s - center) / width)^2 and c = exp(-6.25):
(exp(-d^2 / 2) - c) / (1 - c) inside d^2 / 2 < 6.25, and nothing beyond, without a jump. An update raises one hill
for each walker, where it stands, with height * exp(-V / (kT (bias_factor - 1))), V being the bias there before the
update: many walkers that start together want a height lower by their number. A bias factor of infinity is plain
metadynamics. (PLUMED's HILLS files hold these heights times bias_factor / (bias_factor - 1).)

``WellTempered`` keeps the sum on a grid, at a cost that does not grow; ``Hills`` keeps the hills, and is exact.

Source: Barducci, Bussi, Parrinello (2008), doi:10.1103/PhysRevLett.100.020603; many walkers: Raiteri et al. (2006),
doi:10.1021/jp054359r; stretched Gaussians: PLUMED's manual, METAD.
"""

import math
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from metastable.core.axis import Axis
from metastable.cvs.variable import wrap
from metastable.enhanced.spline import Spline

_CUTOFF = 6.25
_FLOOR = math.exp(-_CUTOFF)
_REACH = math.sqrt(2 * _CUTOFF)
"""How far a hill goes, in widths."""


class WellTempered(eqx.Module):
    """Well-tempered metadynamics on a grid of one, two or three CVs.

    It is a :class:`~metastable.enhanced.spline.Spline`. At a spacing of a third of the width the error is some 5e-4 of
    a hill's height, mostly at its rim, where a hill ends with a kink; inside a hill it is of fourth order in the
    spacing.

    An axis that is not periodic continues, unseen, by as much as a hill reaches. A walker outside lower...upper
    feels the tails of the hills inside and, further out, no bias; it raises no hill, and is counted in
    ``outside``. Where that is not wanted add an ``UpperWall`` or a ``LowerWall`` a little inside the grid.

    spline: kJ/mol. outside: how many times a walker was outside at an update.
    height: kJ/mol. widths: standard deviations, in the units of the CVs, (cvs,). bias_factor: more than 1.
    """

    spline: Spline
    height: Float[Array, ""]
    widths: Float[Array, " cvs"]
    bias_factor: Float[Array, ""]
    outside: Int[Array, ""]

    def __init__(self, axes: Sequence[Axis], *, height: float, widths: Sequence[float], bias_factor: float):
        axes = tuple(axes)
        widths = tuple(np.broadcast_to(np.asarray(widths, float), (len(axes),)))
        _check(axes, widths, bias_factor)
        self.spline, self.outside = Spline(axes, [_REACH * w for w in widths]), jnp.zeros((), jnp.int32)
        self.height, self.widths, self.bias_factor = (jnp.asarray(x, float) for x in (height, widths, bias_factor))

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return self.spline(s)

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The bias with one hill more for each walker that is inside the grid."""
        outside, dtype = self.spline.outside(s), self.spline.coefficients.dtype
        heights = jnp.where(outside, 0, _heights(self, self.spline.at(s), kT)).astype(dtype)
        new = self.spline.plus(self._hills(s.astype(dtype), heights))
        count = self.outside + jnp.sum(outside, dtype=self.outside.dtype)
        return eqx.tree_at(lambda b: (b.spline, b.outside), self, (new, count))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Of the grid."""
        return self.spline.axes

    @property
    def grid(self) -> tuple[np.ndarray, ...]:
        """Where ``values`` and ``free_energy`` stand, one array an axis."""
        return tuple(axis.points for axis in self.axes)

    @property
    def values(self) -> Float[Array, "..."]:
        """The bias on the grid, kJ/mol."""
        return self.spline.values

    def free_energy(self) -> Float[Array, "..."]:
        """The estimate of F on the grid, kJ/mol, 0 at its lowest: -bias_factor / (bias_factor - 1) V.

        Barducci, Bussi, Parrinello (2008).
        """
        f = -self.values / (1 - 1 / self.bias_factor)
        return f - jnp.min(f)

    def offset(self, kT: float) -> Float[Array, ""]:
        """c(t), kJ/mol: a frame seen under the bias V now has the weight exp((V(s) - c) / kT) in equilibrium averages.

        c = kT log(int exp(bias_factor / (bias_factor - 1) V / kT) ds / int exp(V / ((bias_factor - 1) kT)) ds), over
        the grid: Tiwary and Parrinello (2015), doi:10.1021/jp504920s, equations 3 and 12.
        """
        v = self.values / kT
        share = 1 / self.bias_factor / (1 - 1 / self.bias_factor)
        return kT * (jax.nn.logsumexp(v / (1 - 1 / self.bias_factor)) - jax.nn.logsumexp(v * share))

    def growth(self, kT: float) -> dict[str, Float[Array, ""]]:
        """What tells how it grows, to be recorded: c(t), kJ/mol."""
        return {"offset": self.offset(kT)}

    def _hills(self, s, heights):
        """The sum of the hills at all the points of the grid, margins included."""
        profiles = []
        for d, (axis, places) in enumerate(zip(self.axes, self.spline.places, strict=True)):
            points = jnp.asarray(places, s.dtype)
            delta = wrap((points - s[:, d : d + 1])[..., None], [axis.period])[..., 0]
            profiles.append(jnp.exp(-((delta / self.widths[d].astype(s.dtype)) ** 2) / 2))

        def add(i, total):
            hill = jnp.ones((), s.dtype)
            for profile in profiles:
                hill = hill[..., None] * profile[i]
            return total + heights[i] * jnp.maximum(hill - _FLOOR, 0)

        return lax.fori_loop(0, len(s), add, jnp.zeros_like(self.spline.coefficients)) / (1 - _FLOOR)


class Hills(eqx.Module):
    """The same bias as a list of hills: exact, without a grid, at a cost that grows with the list.

    It is the oracle of ``WellTempered``, and can hold hills that differ in height and shape, as PLUMED's HILLS do.

    centers: (capacity, cvs). heights: kJ/mol, 0 where not yet used, (capacity,).
    shapes: d^2 = |shape (s - center)|^2, (capacity, cvs, cvs): 1 / width on the diagonal for upright hills.
    count: hills so far. overflow: whether hills were lost, because there were more than ``capacity``.
    """

    centers: Float[Array, "capacity cvs"]
    heights: Float[Array, " capacity"]
    shapes: Float[Array, "capacity cvs cvs"]
    count: Int[Array, ""]
    overflow: Bool[Array, ""]
    height: Float[Array, ""]
    widths: Float[Array, " cvs"]
    bias_factor: Float[Array, ""]
    periods: tuple[float | None, ...] = eqx.field(static=True)

    def __init__(
        self,
        capacity: int,
        *,
        height: float,
        widths: Sequence[float],
        bias_factor: float,
        periods: Sequence[float | None] | None = None,
    ):
        self.height, self.widths, self.bias_factor = (jnp.asarray(x, float) for x in (height, widths, bias_factor))
        cvs = self.widths.size
        self.centers, self.heights = jnp.zeros((capacity, cvs)), jnp.zeros(capacity)
        self.shapes = jnp.broadcast_to(jnp.diag(1 / self.widths), (capacity, cvs, cvs))
        self.count, self.overflow = jnp.zeros((), jnp.int32), jnp.asarray(False)
        self.periods = (None,) * cvs if periods is None else tuple(periods)

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return hills_at(s, self.centers, self.heights, self.shapes, self.periods)

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The bias with one hill more for each walker; hills beyond the capacity are lost, and ``overflow`` says so."""
        rows = self.count + jnp.arange(len(s))
        heights = _heights(self, jax.vmap(self)(s), kT).astype(self.heights.dtype)
        new = (
            self.centers.at[rows].set(s.astype(self.centers.dtype), mode="drop"),
            self.heights.at[rows].set(heights, mode="drop"),
            self.count + len(s),
            self.overflow | (self.count + len(s) > len(self.heights)),
        )
        return eqx.tree_at(lambda b: (b.centers, b.heights, b.count, b.overflow), self, new)


def hills_at(s, centers, heights, shapes, periods) -> Float[Array, ""]:
    """The sum of stretched Gaussians at s, kJ/mol: see ``Hills`` for the arguments."""
    delta = wrap(s - centers.astype(s.dtype), periods)
    square = jnp.sum(jnp.sum(shapes.astype(s.dtype) * delta[:, None, :], -1) ** 2, -1) / 2
    hills = jnp.where(square < _CUTOFF, (jnp.exp(-square) - _FLOOR) / (1 - _FLOOR), 0)
    return jnp.sum(heights.astype(s.dtype) * hills)


def _heights(bias, raised, kT):
    """height exp(-V / (kT (bias_factor - 1))) of each walker's hill, V = ``raised``: Barducci et al. (2008)."""
    share = 1 / bias.bias_factor / (1 - 1 / bias.bias_factor)
    return bias.height * jnp.exp(-raised / kT * share)


def _check(axes: Sequence[Axis], widths: Sequence[float], bias_factor: float) -> None:
    if not bias_factor > 1:
        raise ValueError(f"the bias factor must be more than 1 (infinity is plain metadynamics), not {bias_factor:g}")
    for axis, width in zip(axes, widths, strict=True):
        if not width > 0:
            raise ValueError(f"Axis {axis.name}: the hill width must be positive, not {width:g}")
        if axis.spacing > width / 2:
            raise ValueError(f"Axis {axis.name}: its spacing {axis.spacing:g} is more than half the hill width "
                             f"{width:g}; give at least {math.ceil(2 * axis.length / width)} bins")  # fmt: skip
        if axis.periodic and 2 * _REACH * width > axis.length:
            raise ValueError(f"Axis {axis.name}: a hill of width {width:g} is longer than the period; "
                             f"at most {axis.length / (2 * _REACH):g} is possible")  # fmt: skip
