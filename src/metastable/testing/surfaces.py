"""Model systems of one particle, with free energies by quadrature. Frames hold one atom: positions (1, 3)."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.axis import Axis
from metastable.core.frame import Frame


class DoubleWell(eqx.Module):
    """U = height ((x / width)^2 - 1)^2 + tilt x + stiffness (y^2 + z^2) / 2, kJ/mol.

    height: of the barrier at x = 0 without tilt, kJ/mol. width: half the distance of the wells, nm.
    tilt: kJ/mol/nm. stiffness: across, kJ/mol/nm^2. F(x) is the part in x, exactly.
    """

    height: Float[Array, ""] | float = 10.0
    width: Float[Array, ""] | float = 1.0
    tilt: Float[Array, ""] | float = 0.0
    stiffness: Float[Array, ""] | float = 100.0

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        x, y, z = frame.positions[0]
        return self.height * ((x / self.width) ** 2 - 1) ** 2 + self.tilt * x + self.stiffness * (y**2 + z**2) / 2


class MuellerBrown(eqx.Module):
    """U = scale sum_i A_i exp(a_i dx^2 + b_i dx dy + c_i dy^2) + stiffness z^2 / 2, kJ/mol; x and y in nm.

    Mueller and Brown (1979), doi:10.1007/BF00547608: minima at (-0.558, 1.442), (0.623, 0.028) and
    (-0.050, 0.467), saddles at (-0.822, 0.624) and (0.212, 0.293). F(x, y) is the part in x and y, exactly.
    scale: 0.1 puts the highest barrier at 10.6 kJ/mol.
    """

    scale: Float[Array, ""] | float = 1.0
    stiffness: Float[Array, ""] | float = 100.0

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        x, y, z = frame.positions[0]
        heights, a, b, c, x0, y0 = jnp.asarray(_MUELLER_BROWN, x.dtype)
        dx, dy = x - x0, y - y0
        wells = jnp.sum(heights * jnp.exp(a * dx**2 + b * dx * dy + c * dy**2))
        return self.scale * wells + self.stiffness * z**2 / 2


_MUELLER_BROWN = (
    (-200.0, -100.0, -170.0, 15.0),
    (-1.0, -1.0, -6.5, 0.7),
    (0.0, 0.0, 11.0, 0.6),
    (-10.0, -10.0, -6.5, 0.7),
    (1.0, 0.0, -0.5, -1.0),
    (0.0, 0.5, 1.5, 1.0),
)


def exact_free_energy(
    energy: Callable[..., Float[np.ndarray, "..."]], axes: tuple[Axis, ...], kT: float, nodes: int = 12
) -> Float[np.ndarray, "*bins"]:
    """F = -kT ln p of every cell of a grid, with p integrated over the cell and normalised on the grid; kJ/mol.

    energy: of arrays of coordinates, one an axis: the free energy along them, e.g. from :func:`on_plane`.
    nodes: of the Gauss-Legendre rule in each cell and direction.
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    lines = [(axis.centers[:, None] + axis.spacing / 2 * points).ravel() for axis in axes]
    u = np.asarray(energy(*np.meshgrid(*lines, indexing="ij")), float)
    p = np.exp(-(u - u.min()) / kT)
    for i, axis in enumerate(axes):
        rows = np.moveaxis(p, i, -1)
        p = np.moveaxis(rows.reshape(*rows.shape[:-1], axis.bins, nodes) @ weights, -1, i)
    with np.errstate(divide="ignore"):  # infinity where p underflows, 700 kT up
        return -kT * np.log(p / p.sum())


def on_plane(potential: Callable[[Frame], Float[Array, ""]]) -> Callable[..., Float[np.ndarray, "..."]]:
    """The energy of a one-particle potential as a function of arrays x, or x and y, the rest zero; kJ/mol."""

    def energy(*coordinates):
        shape = coordinates[0].shape
        rest = [np.zeros(shape)] * (3 - len(coordinates))
        positions = jnp.asarray(np.stack([*coordinates, *rest], -1).reshape(-1, 1, 3))
        return np.asarray(eqx.filter_vmap(lambda p: potential(Frame(p)))(positions), float).reshape(shape)

    return energy
