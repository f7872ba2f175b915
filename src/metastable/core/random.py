"""Normal deviates for the noise of the dynamics, and keys for many replicas, from a counter-based generator.

``normal`` is the default there: jax's own threefry deviates cost as much as all the bonded forces of a small
peptide, this one a tenth of that. ``threefry_normal`` is the same with jax's generator, for whoever wants to
exclude the noise as the cause of something: ``Langevin(..., normal=threefry_normal)``.

Either is a pure function of its key, so what a run draws is as reproducible with one as with the other: the same
on every machine up to the rounding of a logarithm. Neither is meant for secrets.
"""

from math import factorial, pi

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

_GOLDEN = np.uint32(0x9E3779B9)
_SINE = [(-1) ** k * pi ** (2 * k + 1) / factorial(2 * k + 1) for k in range(12)]  # sin(pi f) / f in powers of f^2


def normal(key: PRNGKeyArray, shape: tuple[int, ...] = (), dtype=None) -> Float[Array, "*shape"]:
    """Standard normal deviates by the Box-Muller transform of hashed counters.

    z = sqrt(-2 ln u) sin(pi f), u uniform in (0, 1], f uniform in [-1/2, 1/2). In single precision u has
    31 bits and |z| stays below 6.7, in double precision 64 and 9.5. u cannot round to zero, so z is always finite.

    Of a pair of deviates only the sine is used: everything is then elementwise, also under
    :func:`metastable.core.replicas.replicate`, and fuses with what uses it, which costs less than the
    concatenation of sines and cosines.

    Box, Muller 1958, doi:10.1214/aoms/1177706645.
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype or float)
    size = int(np.prod(shape))
    if dtype == jnp.float64:
        radius, radius_low, angle, angle_low = (w.astype(dtype) for w in _words(key, size, 4))
        u = (radius + (radius_low + 0.5) * 2.0**-32) * 2.0**-32
        f = (angle + (angle_low + 0.5) * 2.0**-32) * 2.0**-32 - 0.5
        sine = f * _polynomial(_SINE, f * f)
    else:
        radius, angle = _words(key, size, 2)
        u = (_signed(radius >> 1).astype(jnp.float32) + 0.5) * 2.0**-31
        f = _signed(angle).astype(jnp.float32) * 2.0**-32
        sine = f * _polynomial(_SINE[:7], f * f)
    # a quotient, for XLA works out a product anew for each of its readers, and all that stands behind it
    return (sine / lax.rsqrt(-2 * jnp.log(u))).reshape(shape)


def threefry_normal(key: PRNGKeyArray, shape: tuple[int, ...] = (), dtype=None) -> Float[Array, "*shape"]:
    """Standard normal deviates by jax's generator: ``jax.random.normal``."""
    return jax.random.normal(key, shape, dtype or float)


def spread(key: PRNGKeyArray, count: int) -> PRNGKeyArray:
    """``count`` keys from one, a hash of its two words and a counter: what ``jax.random.split`` does, without the
    threefry, which for the keys of some hundred replicas costs as much in each step as their noise.
    """
    return jax.random.wrap_key_data(jnp.stack(_words(key, count, 2), axis=-1), impl=jax.random.key_impl(key))


def _words(key: PRNGKeyArray, size: int, count: int) -> list[UInt32[Array, " size"]]:
    """``count`` arrays of 32 random bits, each (size,): hashes of a counter with both words of the key."""
    words = jax.random.key_data(key)
    first, second = words[0], words[-1]
    counter = lax.iota(jnp.uint32, size)
    return [_mix(_mix((counter + np.uint32(1 + i * size)) * _GOLDEN + first) ^ second) for i in range(count)]


def _mix(x: UInt32[Array, " size"]) -> UInt32[Array, " size"]:
    """A bijection of 32 bits in which each bit of the argument flips each of the result half the time.

    The multiply-xorshift finaliser of murmur3 (Appleby 2011) with the less biased constants of Wellons 2018.
    """
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _signed(x):
    return lax.bitcast_convert_type(x, jnp.int32)  # the conversion of signed integers to floats is the quick one


def _polynomial(coefficients, x):
    result = coefficients[-1]
    for c in coefficients[-2::-1]:
        result = c + x * result
    return result
