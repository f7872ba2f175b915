"""The size of a group of atoms, and how far it is from a reference."""

from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from metastable.core.errors import InputError, Problem
from metastable.core.frame import Frame
from metastable.core.units import angstrom
from metastable.cvs.geometry import group, indices, mean, root
from metastable.cvs.variable import Component, Variable


class RadiusOfGyration(Variable):
    """(sum w_i |r_i - c|^2 / sum w_i)^(1/2), nm, c the weighted center of the group.

    weights: one an atom, e.g. masses; equal where not given, as in PLUMED.
    """

    atoms: tuple[int, ...] = eqx.field(static=True)
    weights: Float[Array, " atoms"] | None
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(self, atoms: Sequence[int], weights=None, *, label: str = "radius of gyration", pbc: bool = True):
        self.atoms, self.weights = indices(atoms), None if weights is None else _weights(weights, len(atoms))
        self.label, self.pbc = label, pbc

    @property
    def components(self):
        """One, in nm."""
        return (Component(self.label, "nm"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        x = group(frame, self.atoms, self.pbc)
        return root(jnp.sum(mean((x - mean(x, self.weights)) ** 2, self.weights)))[None]


class Volume(Variable):
    """The volume of the box, nm^3: the determinant of its vectors, with its sign, as in PLUMED."""

    label: str = eqx.field(static=True)

    def __init__(self, *, label: str = "volume"):
        self.label = label

    @property
    def components(self):
        """One, in nm^3."""
        return (Component(self.label, "nm3"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        if frame.box is None:
            raise ValueError("the volume is that of a periodic box, and the frame has none: give Frame(positions, box)")
        a, b, c = frame.box
        return jnp.sum(a * jnp.cross(b, c))[None]


class RMSD(Variable):
    """The root mean square deviation from a reference after the best translation and rotation, nm.

    (sum d_i |x_i - R y_i|^2 / sum d_i)^(1/2): x and y are taken from their centers weighted by ``align``, and R is the
    rotation that makes the deviation weighted by ``align`` least: the largest eigenvector, a quaternion, of Horn's
    matrix. At deviation 0, where there is a kink, the derivative given is 0; where the best rotation is not unique,
    that of one of them.

    reference: nm, (atoms, 3). align: the weights a, (atoms,), equal where not given. displace: d; those of ``align``
    where not given, which is faster.
    Source: Horn (1987), doi:10.1364/JOSAA.4.000629; Kearsley (1989), doi:10.1107/S0108767388010128.
    """

    atoms: tuple[int, ...] = eqx.field(static=True)
    reference: Float[Array, "atoms 3"]
    align: Float[Array, " atoms"]
    displace: Float[Array, " atoms"] | None
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(
        self, atoms: Sequence[int], reference, align=None, displace=None, *, label: str = "RMSD", pbc: bool = True
    ):
        self.atoms, self.reference = indices(atoms), jnp.asarray(reference)
        if self.reference.shape != (len(self.atoms), 3):
            raise ValueError(f"RMSD: the reference has shape {self.reference.shape}, not ({len(self.atoms)}, 3)")
        self.align = _weights(1 if align is None else align, len(self.atoms))
        self.displace = None if displace is None else _weights(displace, len(self.atoms))
        self.label, self.pbc = label, pbc

    @classmethod
    def from_pdb(cls, path: str | Path, *, label: str = "RMSD", pbc: bool = True) -> "RMSD":
        """With PLUMED's reading of a PDB file: atoms are those whose serial numbers it has, less one; the occupancy is
        the weight in the alignment and the B factor that in the deviation. Raises InputError where it has no atom."""
        lines = [line for line in Path(path).read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
        if not lines:
            raise InputError(Problem(str(path), "no ATOM or HETATM line; an RMSD reference needs one for each atom"))
        x, y, z, align, displace = np.array(
            [[float(line[i:j]) for i, j in ((30, 38), (38, 46), (46, 54), (54, 60), (60, 66))] for line in lines]
        ).T
        atoms = [int(line[6:11]) - 1 for line in lines]
        displace = None if np.array_equal(align * displace.sum(), displace * align.sum()) else displace
        return cls(atoms, np.stack([x, y, z], -1) * angstrom, align, displace, label=label, pbc=pbc)

    @property
    def components(self):
        """One, in nm."""
        return (Component(self.label, "nm"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        x = group(frame, self.atoms, self.pbc)
        y = self.reference.astype(x.dtype)
        align = (self.align / jnp.sum(self.align)).astype(x.dtype)
        x, y = x - mean(x, align), y - mean(y, align)
        if self.displace is None:
            return root(_least_deviation(x, y, align))[None]
        return root(_deviation(x, y, align, (self.displace / jnp.sum(self.displace)).astype(x.dtype)))[None]


def _deviation(x, y, align, displace):
    """The weighted mean square deviation after the rotation that ``align`` makes best, nm^2."""
    rotated = jnp.sum(_best_rotation(x, y, align) * y[:, None, :], -1)
    return jnp.sum(displace[:, None] * (x - rotated) ** 2)


@jax.custom_jvp
def _least_deviation(x, y, weights):
    """The same where the weights agree: its first derivative is that at fixed rotation, which makes it least."""
    return _deviation(x, y, weights, weights)


@_least_deviation.defjvp
def _least_deviation_jvp(primals, tangents):
    (x, y, weights), (dx, dy, dweights) = primals, tangents
    rotation = _best_rotation(x, y, weights)
    residual = x - jnp.sum(rotation * y[:, None, :], -1)
    change = dx - jnp.sum(rotation * dy[:, None, :], -1)
    slope = jnp.sum(weights[:, None] * 2 * residual * change) + jnp.sum(dweights[:, None] * residual**2)
    return jnp.sum(weights[:, None] * residual**2), slope


def _best_rotation(
    x: Float[Array, "atoms 3"], y: Float[Array, "atoms 3"], weights: Float[Array, " atoms"]
) -> Float[Array, "3 3"]:
    """The rotation R with the least sum of w_i |x_i - R y_i|^2, x and y being centered."""
    c = jnp.sum((weights[:, None] * y)[:, :, None] * x[:, None, :], 0)  # y to x
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = c
    rows = [
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, yy - xx - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, zz - xx - yy],
    ]
    w, i, j, k = _top_eigenvector(jnp.stack([jnp.stack(row) for row in rows]))
    rows = [
        [w * w + i * i - j * j - k * k, 2 * (i * j - w * k), 2 * (i * k + w * j)],
        [2 * (i * j + w * k), w * w - i * i + j * j - k * k, 2 * (j * k - w * i)],
        [2 * (i * k - w * j), 2 * (j * k + w * i), w * w - i * i - j * j + k * k],
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


_PAIRS = [(i, j) for i in range(4) for j in range(i, 4)]
_AT = [[_PAIRS.index((min(i, j), max(i, j))) for j in range(4)] for i in range(4)]
_SQUARINGS = 24


@jax.custom_jvp
def _top_eigenvector(matrix: Float[Array, "4 4"]) -> Float[Array, " 4"]:
    """The unit eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix; where it is not unique, one of them.

    The matrix, shifted to be positive, is squared until only the projector on that vector is left: elementwise
    operations, which replicas go through side by side. Equal eigenvalues give finite derivatives.
    """
    shift = jnp.sqrt(jnp.sum(matrix**2))
    shift = jnp.where(shift > 0, shift, 1)
    upper = jnp.stack([matrix[i, j] + (shift if i == j else 0) for i, j in _PAIRS])

    def square(_, a):
        a = a / (a[_AT[0][0]] + a[_AT[1][1]] + a[_AT[2][2]] + a[_AT[3][3]])
        return jnp.stack([sum(a[_AT[i][k]] * a[_AT[k][j]] for k in range(4)) for i, j in _PAIRS])

    upper = lax.fori_loop(0, _SQUARINGS, square, upper)
    projector = jnp.stack([jnp.stack([upper[k] for k in row]) for row in _AT])
    weight = jnp.stack([upper[_AT[i][i]] for i in range(4)])
    column = jnp.sum(jnp.where(jnp.arange(4) == jnp.argmax(weight), projector, 0), 1)
    return column / jnp.sqrt(jnp.sum(column**2))


@_top_eigenvector.defjvp
def _top_eigenvector_jvp(primals, tangents):
    """dq = (lambda - A)^+ dA q, where what belongs to an equal eigenvalue is left out: its vectors are arbitrary."""
    (matrix,), (change,) = primals, tangents
    q = _top_eigenvector(matrix)
    values, vectors = jnp.linalg.eigh(matrix)
    gap = jnp.sum(q * jnp.sum(matrix * q, -1)) - values
    least = 100 * jnp.finfo(gap.dtype).eps * jnp.max(jnp.abs(values)) + jnp.finfo(gap.dtype).tiny
    inverse = jnp.where(gap > least, 1 / jnp.where(gap > least, gap, 1), 0)
    pull = jnp.sum(change * q, -1)
    return q, jnp.sum(vectors * (inverse * jnp.sum(vectors * pull[:, None], 0)), -1)


def _weights(weights, atoms: int) -> Array:
    weights = np.broadcast_to(np.asarray(weights, float), (atoms,))
    if not weights.sum() > 0:
        raise ValueError(f"the weights of {atoms} atoms sum to {weights.sum():g}; the sum must be positive")
    return jnp.asarray(weights)
