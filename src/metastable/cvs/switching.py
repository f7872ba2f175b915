"""Switching functions: 1 for short distances, going smoothly to 0 for long ones, with PLUMED's conventions.

Each is a function of the distance r, nm, through x = (r - d0) / r0: 1 where x <= 0, f(x) beyond, and 0 beyond
dmax. With ``stretch``, PLUMED's default, f is scaled and shifted so that it goes from 1 at r = 0 to 0 at dmax
without a jump: (f - f(dmax)) / (f(0) - f(dmax)). Any other function of a distance can take their place.
Source: Tribello et al. (2014), doi:10.1016/j.cpc.2013.09.018.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Switching(eqx.Module):
    """r0, d0, dmax: nm; with a dmax of None nothing is cut off. stretch: see the module."""

    r0: float
    d0: float = 0.0
    dmax: float | None = None
    stretch: bool = eqx.field(static=True, default=True)

    def _shape(self, x):
        """f(x), for x >= 0."""
        raise NotImplementedError

    def __call__(self, r: Float[Array, "*n"]) -> Float[Array, "*n"]:
        x = jnp.maximum((r - self.d0) / self.r0, 0)
        if self.dmax is None:
            return self._shape(x)
        end = (self.dmax - self.d0) / self.r0
        f = self._shape(jnp.minimum(x, end))  # what is cut off must not overflow, or its derivative is not a number
        if self.stretch:
            first = self._shape(jnp.maximum(jnp.asarray(-self.d0 / self.r0, r.dtype), 0))
            last = self._shape(jnp.asarray(end, r.dtype))
            f = (f - last) / (first - last)
        return jnp.where(r >= self.dmax, 0, f)


class Rational(Switching):
    """f = (1 - x^n) / (1 - x^m), m = 2 n unless given.

    Without a dmax it is PLUMED's implicit one, d0 + r0 1e-5^(1/(n - m)), where f has fallen to about 1e-5.
    """

    n: int = eqx.field(static=True, default=6)
    m: int = eqx.field(static=True, default=12)

    def __init__(self, r0, d0=0.0, n: int = 6, m: int | None = None, dmax=None, stretch: bool = True):
        m = 2 * n if m is None else m
        if n < 1 or m <= n:
            raise ValueError(f"Rational: the exponents must be 0 < n < m, not n = {n}, m = {m}")
        self.r0, self.d0, self.n, self.m, self.stretch = r0, d0, n, m, stretch
        self.dmax = d0 + r0 * 1e-5 ** (1 / (n - m)) if dmax is None else dmax

    def _shape(self, x):
        common = math.gcd(self.n, self.m)  # both sums of powers, without the factor that vanishes at x = 1
        y = x**common
        return _powers(y, self.n // common) / _powers(y, self.m // common)


def _powers(y, count: int):
    """1 + y + ... + y^(count - 1)."""
    total = jnp.ones_like(y)
    for _ in range(count - 1):
        total = 1 + y * total
    return total


class Exponential(Switching):
    """f = exp(-x)."""

    def _shape(self, x):
        return jnp.exp(-x)


class Gaussian(Switching):
    """f = exp(-x^2 / 2)."""

    def _shape(self, x):
        return jnp.exp(-(x**2) / 2)


class Smap(Switching):
    """f = (1 + (2^(a/b) - 1) x^a)^(-b/a)."""

    a: int = eqx.field(static=True, kw_only=True)
    b: int = eqx.field(static=True, kw_only=True)

    def _shape(self, x):
        return (1 + (2 ** (self.a / self.b) - 1) * x**self.a) ** (-self.b / self.a)


class Tanh(Switching):
    """f = 1 - tanh(x)."""

    def _shape(self, x):
        return 1 - jnp.tanh(x)


class Cosinus(Switching):
    """f = (1 + cos(pi x)) / 2 up to x = 1, and 0 beyond."""

    def _shape(self, x):
        return (1 + jnp.cos(jnp.pi * jnp.minimum(x, 1))) / 2


class Cubic(Switching):
    """f = (y - 1)^2 (1 + 2 y), y = (r - d0) / (dmax - d0)."""

    def __init__(self, d0, dmax):
        self.r0, self.d0, self.dmax, self.stretch = dmax - d0, d0, dmax, True

    def _shape(self, x):
        return (x - 1) ** 2 * (1 + 2 * x)
