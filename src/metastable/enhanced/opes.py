"""OPES: a bias that follows from an estimate of the probability density on the fly, and soon stands almost still.

With the density P of the kernels, Z its mean over the explored CV space, and epsilon = exp(-barrier / (kT g)),

    V(s) = g kT ln(P(s) / Z + epsilon),    g = 1 - 1 / bias_factor, explore: bias_factor - 1

``OPES`` estimates the unbiased density, from kernels of height exp(V / kT), and converges fast; with ``explore`` it is
the density that is being sampled, from kernels of one height, which crosses faster to where nobody has been and
reweights less sharply. Kernels narrow as their number grows (Silverman's rule, on the effective sample size or, with
explore, on their number). Frames after the first moments have the weight exp(V / kT), as under a bias that stands
still: ``estimate.weights.last_bias`` of the bias that acted.

Many walkers: all heights are those of the bias before the update, then the kernels are added one after the other.

Invernizzi, Parrinello (2020), doi:10.1021/acs.jpclett.0c00497; explore: Invernizzi, Parrinello (2022),
doi:10.1021/acs.jctc.2c00152. Conventions are those of PLUMED's OPES_METAD and OPES_METAD_EXPLORE.
"""

import math
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from metastable.core.axis import Axis
from metastable.enhanced.kernels import Kernels
from metastable.enhanced.spline import Spline


class OPES(eqx.Module):
    """On-the-fly probability enhanced sampling.

    kernels: of the density. weights, squares: the sums over kernels of exp(V / kT), and of its square. steps: kernels
    ever added, and one. zed: Z. kT: that the bias is for, kJ/mol; ``update`` is told the same.
    widths: of the first kernels, in the units of the CVs, (cvs,); of the free energy minima, or a little less.
    narrowest: no kernel is narrower, (cvs,). bias_factor, epsilon: see the module.
    spline: the bias on a grid, kJ/mol, where there are axes: then it costs the same however many kernels there are.
    """

    kernels: Kernels
    weights: Float[Array, ""]
    squares: Float[Array, ""]
    steps: Int[Array, ""]
    zed: Float[Array, ""]
    kT: Float[Array, ""]
    widths: Float[Array, " cvs"]
    narrowest: Float[Array, " cvs"]
    strength: Float[Array, ""]
    epsilon: Float[Array, ""]
    spline: Spline | None
    explore: bool = eqx.field(static=True)
    fixed_widths: bool = eqx.field(static=True)
    normalize: bool = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[float],
        *,
        barrier: float,
        kT: float,
        axes: Sequence[Axis] | None = None,
        periods: Sequence[float | None] | None = None,
        bias_factor: float | None = None,
        explore: bool = False,
        narrowest: float | Sequence[float] | None = None,
        fixed_widths: bool = False,
        normalize: bool = True,
        capacity: int = 1000,
        kernels: Kernels | None = None,
        epsilon: float | None = None,
    ):
        """barrier: the highest free energy that is to be crossed, kJ/mol.

        bias_factor: barrier / kT where None, infinity for a flat distribution.
        axes: of a grid; None for a bias without one, of CVs with ``periods``.
        narrowest: two spacings of the grid where None.
        normalize: whether Z is worked out, or 1.
        capacity: of kernels, which are merged beyond it.
        kernels: none yet, but with another cutoff or threshold. epsilon: another than follows from the barrier.

        Raises ValueError for barriers, widths or bias factors that make no sense.
        """
        factor = barrier / kT if bias_factor is None else bias_factor
        _check(widths, barrier, kT, factor, explore, axes)
        periods = [a.period for a in axes] if axes is not None else (periods or [None] * len(widths))
        if len(periods) != len(widths):
            raise ValueError(f"OPES: {len(widths)} widths for {len(periods)} CVs")
        strength = factor - 1 if explore else 1 - 1 / factor
        cutoff = math.sqrt(2 * barrier / kT / (1 if explore else strength))
        self.kernels = Kernels(capacity, periods, cutoff) if kernels is None else kernels
        self.weights, self.squares, self.zed = jnp.ones(()), jnp.ones(()), jnp.ones(())
        self.steps = jnp.ones((), jnp.int32)
        self.kT, self.strength = jnp.asarray(kT, float), jnp.asarray(strength, float)
        self.widths = jnp.asarray(widths, float)
        if narrowest is None:
            narrowest = 0.0 if axes is None else [2 * a.spacing for a in axes]
        self.narrowest = jnp.broadcast_to(jnp.asarray(narrowest, float), self.widths.shape)
        self.epsilon = jnp.asarray(math.exp(-barrier / (strength * kT)) if epsilon is None else epsilon, float)
        self.explore, self.fixed_widths, self.normalize = explore, fixed_widths, normalize
        self.spline = None
        if axes is not None:
            flat = Spline(axes, [3 * w for w in widths])
            self.spline = flat.through(jnp.full(flat.coefficients.shape, self._bias(jnp.zeros(()))))

    def __call__(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        return self.exact(s) if self.spline is None else self.spline(s)

    def exact(self, s: Float[Array, " cvs"]) -> Float[Array, ""]:
        """The bias by the kernels themselves, kJ/mol."""
        return self._bias(self.kernels(s))

    def update(self, s: Float[Array, "walkers cvs"], kT: Float[Array, ""]) -> Self:
        """The bias with a kernel more, or a larger one, for each walker."""
        dtype = self.kernels.heights.dtype
        raised = jnp.exp(lax.map(self.exact, s.astype(dtype)) / self.kT.astype(dtype))
        weights, squares = self.weights + jnp.sum(raised), self.squares + jnp.sum(raised**2)
        steps = self.steps + len(s)
        size = steps.astype(dtype) if self.explore else (1 + weights) ** 2 / (1 + squares)
        cvs = len(self.widths)
        narrowing = 1.0 if self.fixed_widths else (size * (cvs + 2) / 4) ** (-1 / (4 + cvs))
        widths = jnp.maximum(self.widths * narrowing, self.narrowest).astype(dtype)
        heights = (jnp.ones_like(raised) if self.explore else raised) * jnp.prod(self.widths / widths).astype(dtype)
        kernels = lax.fori_loop(
            0, len(s), lambda i, kernels: kernels.add(s[i].astype(dtype), widths, heights[i]), self.kernels
        )
        norm = steps.astype(dtype) if self.explore else weights
        zed = kernels.overlap() / (norm * kernels.count) if self.normalize else self.zed
        found = (kernels, weights.astype(dtype), squares.astype(dtype), steps, zed.astype(dtype))
        new = eqx.tree_at(lambda b: (b.kernels, b.weights, b.squares, b.steps, b.zed), self, found)
        if self.spline is None:
            return new
        values = new._bias(kernels.on_grid(self.spline.places))
        return eqx.tree_at(lambda b: b.spline, new, self.spline.through(values))

    def _bias(self, density):
        norm = self.steps if self.explore else self.weights
        scale = (norm * self.zed).astype(density.dtype)
        return (self.strength * self.kT).astype(density.dtype) * jnp.log(density / scale + self.epsilon)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Of the grid; none where there is no grid."""
        return () if self.spline is None else self.spline.axes

    @property
    def values(self) -> Float[Array, "..."]:
        """The bias at the points of the axes, kJ/mol. Raises ValueError where there is no grid."""
        if self.spline is None:
            raise ValueError("OPES: this bias has no grid; give axes, or ask it for its value at a place")
        return self.spline.values

    def free_energy(self) -> Float[Array, "..."]:
        """The estimate of F at the points of the axes, kJ/mol, 0 at its lowest; of kernels, hence broadened.

        -V / g, and with explore -V bias_factor / g, as the density is then that under the bias.
        """
        f = -self.values / self.strength * (self.strength + 1 if self.explore else 1)
        return f - jnp.min(f)

    @property
    def effective_size(self) -> Float[Array, ""]:
        """Of the samples that the kernels were made of: (1 + sum w)^2 / (1 + sum w^2)."""
        return (1 + self.weights) ** 2 / (1 + self.squares)

    def offset(self, kT: float) -> Float[Array, ""]:
        """c(t) = kT ln <exp(V / kT)>, kJ/mol, a sign of convergence: it comes to stand still."""
        return self.kT * jnp.log(self.weights / self.steps)

    def growth(self, kT: float) -> dict[str, Float[Array, ""]]:
        """What tells how it grows, to be recorded: c(t), kJ/mol, the kernels, and their effective sample size."""
        kernels = self.kernels.count.astype(self.weights.dtype)
        return {"offset": self.offset(kT), "kernels": kernels, "effective_size": self.effective_size}


def _check(widths, barrier, kT, factor, explore, axes) -> None:
    problems = []
    if not barrier > kT:
        problems.append(
            f"barrier = {barrier} kJ/mol must be above kT = {kT:.4g} kJ/mol: how high is what is to be crossed?"
        )
    if not all(w > 0 for w in widths):
        problems.append(f"widths {list(widths)} must be positive")
    if not factor > 1:
        problems.append(f"bias_factor = {factor:g} must be above 1, infinity for a flat distribution")
    if explore and math.isinf(factor):
        problems.append("explore needs a finite bias_factor: leave it out for barrier / kT")
    if axes is not None and len(axes) != len(widths):
        problems.append(f"{len(widths)} widths for {len(axes)} axes")
    if problems:
        raise ValueError("OPES: " + "; ".join(problems))
