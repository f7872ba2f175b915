"""What a barostat may change of a box, and the ensemble that it then samples.

Of a box with the volume V and molecules that a strain moves as wholes (:mod:`metastable.dynamics.pressure`),
both barostats sample

    p(x, box) ~ exp(-(U(x, box) + p V) / kT) dx d(box),   d(box) = dV d(shape),

where the measure of the shape knows no preferred one, so that the volume has the same law whatever the coupling:

    isotropic       one factor for all: dV
    semi-isotropic  x and y in common, z by itself: dA dL, A = ax by, L = cz
    anisotropic     x, y and z by themselves, the ratios of the tilts kept: dLx dLy dLz
    triclinic       all six numbers of the box: dbox / (by cz^2), the same as d^9 h / V^2 of a box that is free to turn

(Martyna, Tobias, Klein 1994, doi:10.1063/1.467468, for the last). A liquid bears no shear: with anything but isotropic
coupling its box wanders off into a needle or a sheet; anisotropic ones are for solids, semi-isotropic for membranes.
An ideal gas of N molecules has p V / kT distributed as Gamma(N + 1): Monte Carlo gives that always, C-rescale where
the thermostat acts on the total momentum, and Gamma(N) where it is held at zero (CSVR, Nose-Hoover,
:class:`metastable.dynamics.rest.AtRest`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Coupling(NamedTuple):
    """The strains that a barostat makes: S = exp(sum_k e_k E_k), each of the first ones with ln V changing by e_k.

    generators: E_k, lower triangular, (modes, 3, 3). swelling: their traces, d ln V / d e_k. weights: the share of
    each in the compressibility. turning: d/de_k of the logarithm of the left over the right Haar measure of
    lower triangular boxes, ax^2 / cz^2, by which not commuting with the others favours a mode.
    """

    generators: np.ndarray
    weights: np.ndarray
    turning: np.ndarray

    @property
    def swelling(self) -> np.ndarray:
        """d ln V / d e_k, the traces of the generators, (modes,)."""
        return np.trace(self.generators, axis1=1, axis2=2)


def _unit(*places):
    matrix = np.zeros((3, 3))
    for i, j in places:
        matrix[i, j] = 1 / len(places)
    return matrix


_AXES = [_unit((k, k)) for k in range(3)]
_SHEARS = [_unit((1, 0)), _unit((2, 0)), _unit((2, 1))]
COUPLINGS = {
    "isotropic": Coupling(np.array([np.eye(3) / 3]), np.ones(1), np.zeros(1)),
    "semi-isotropic": Coupling(np.array([_unit((0, 0), (1, 1)), _AXES[2]]), np.array([2, 1]) / 3, np.zeros(2)),
    "anisotropic": Coupling(np.array(_AXES), np.ones(3) / 3, np.zeros(3)),
    "triclinic": Coupling(np.array(_AXES + _SHEARS), np.array([1, 1, 1, 2, 2, 2]) / 3, np.array([2, 0, -2, 0, 0, 0])),
}


def exponential(amplitudes: Float[Array, " modes"], coupling: str) -> tuple[Float[Array, "3 3"], Float[Array, "3 3"]]:
    """The strain S = exp(sum_k e_k E_k) and its inverse, of determinants exp(+-sum_k e_k) exactly.

    The diagonal in halves around the exponential of what is below it: to second order, and time-symmetric.
    """
    generators = coupling_of(coupling, amplitudes.dtype)[0]
    exponent = jnp.sum(amplitudes[:, None, None] * generators, 0)
    scale, below = jnp.exp(jnp.diagonal(exponent) / 2), jnp.tril(exponent, -1)
    scale = scale[:, None] * scale
    even = jnp.eye(3, dtype=scale.dtype).at[2, 0].set(below[2, 1] * below[1, 0] / 2)
    return (even + below) * scale, (even - below) / scale


def coupling_of(name, dtype):
    """generators, swelling, weights and turning in the precision of the positions."""
    c = COUPLINGS[name]
    return [jnp.asarray(x, dtype) for x in (c.generators, c.swelling, c.weights, c.turning)]


def reduced_again(box):
    """The same lattice by a reduced box; see :func:`metastable.core.space.reduced`."""
    a, b, c = box
    c = c - b * jnp.round(c[1] / b[1])
    c = c - a * jnp.round(c[0] / a[0])
    return jnp.stack([a, b - a * jnp.round(b[0] / a[0]), c])
