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
        return (Component(self.label, "nm"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        x = group(frame, self.atoms, self.pbc)
        return root(jnp.sum(mean((x - mean(x, self.weights)) ** 2, self.weights)))[None]


class RMSD(Variable):
    """The root mean square deviation from a reference after the best translation and rotation, nm.

    (sum d_i |x_i - R y_i|^2 / sum d_i)^(1/2): x and y are taken from their centers weighted by ``align``, and R is the
    rotation that makes the deviation weighted by ``align`` least: the largest eigenvector, a quaternion, of Horn's
    matrix. At deviation 0, where there is a kink, the derivative given is 0; where the best rotation is not unique,
    that of one of them.

    reference: nm, (atoms, 3). align, displace: weights a, d, (atoms,); equal where not given.
    Source: Horn (1987), doi:10.1364/JOSAA.4.000629; Kearsley (1989), doi:10.1107/S0108767388010128.
    """

    atoms: tuple[int, ...] = eqx.field(static=True)
    reference: Float[Array, "atoms 3"]
    align: Float[Array, " atoms"]
    displace: Float[Array, " atoms"]
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(
        self, atoms: Sequence[int], reference, align=None, displace=None, *, label: str = "RMSD", pbc: bool = True
    ):
        self.atoms, self.reference = indices(atoms), jnp.asarray(reference)
        if self.reference.shape != (len(self.atoms), 3):
            raise ValueError(f"RMSD: the reference has shape {self.reference.shape}, not ({len(self.atoms)}, 3)")
        self.align = _weights(1 if align is None else align, len(self.atoms))
        self.displace = _weights(1 if displace is None else displace, len(self.atoms))
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
        return cls(atoms, np.stack([x, y, z], -1) * angstrom, align, displace, label=label, pbc=pbc)

    @property
    def components(self):
        return (Component(self.label, "nm"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        x = group(frame, self.atoms, self.pbc)
        y = self.reference.astype(x.dtype)
        x, y = x - mean(x, self.align), y - mean(y, self.align)
        a = (self.align / jnp.sum(self.align)).astype(x.dtype)
        rotation = best_rotation(x, y, a)
        rotated = jnp.sum(rotation * y[:, None, :], -1)
        return root(jnp.sum(mean((x - rotated) ** 2, self.displace)))[None]


def best_rotation(
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
    values, vectors = eigensystem(jnp.stack([jnp.stack(row) for row in rows]))
    w, i, j, k = jnp.sum(vectors * (jnp.arange(4) == jnp.argmax(values)), -1)
    rows = [
        [w * w + i * i - j * j - k * k, 2 * (i * j - w * k), 2 * (i * k + w * j)],
        [2 * (i * j + w * k), w * w - i * i + j * j - k * k, 2 * (j * k - w * i)],
        [2 * (i * k - w * j), 2 * (j * k + w * i), w * w - i * i - j * j + k * k],
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


@jax.custom_jvp
def eigensystem(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues, unsorted, and eigenvectors, in columns, of a small symmetric matrix.

    Cyclic Jacobi rotations, eight sweeps: elementwise operations only, so that replicas run side by side, where
    a library call would take one after the other. Equal eigenvalues give finite derivatives.
    """
    n = matrix.shape[0]

    def sweep(_, state):
        a, v = [list(row) for row in state[0]], [list(row) for row in state[1]]
        for p in range(n):
            for q in range(p + 1, n):
                _rotate(a, v, p, q)
        return a, v

    eye = jnp.eye(n, dtype=matrix.dtype)
    split = [[[m[i, j] for j in range(n)] for i in range(n)] for m in (matrix, eye)]
    a, v = lax.fori_loop(0, 8, sweep, (split[0], split[1]))
    return jnp.stack([a[i][i] for i in range(n)]), jnp.stack([jnp.stack(row) for row in v])


def _rotate(a, v, p, q):
    """Turn rows and columns p and q of the matrix, and the columns of v, so that its element p, q vanishes."""
    off, half = a[p][q], (a[q][q] - a[p][p]) / 2
    size = jnp.abs(half) + jnp.sqrt(half**2 + off**2)
    slope = jnp.where(half < 0, -off, off) / jnp.where(size > 0, size, 1)
    c = 1 / jnp.sqrt(1 + slope**2)
    s = slope * c
    for row in (*a, *v):
        row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
    for j in range(len(a)):
        a[p][j], a[q][j] = c * a[p][j] - s * a[q][j], s * a[p][j] + c * a[q][j]


@eigensystem.defjvp
def _eigensystem_jvp(primals, tangents):
    values, vectors = eigensystem(*primals)
    turned = jnp.sum(vectors[:, None, :, None] * tangents[0][:, :, None, None] * vectors[None, :, None, :], (0, 1))
    gap = values[None, :] - values[:, None]
    least = jnp.finfo(gap.dtype).eps * jnp.max(jnp.abs(values)) + jnp.finfo(gap.dtype).tiny
    inverse = gap / (gap**2 + least**2)  # 0 for equal eigenvalues, whose vectors are arbitrary
    mixing = turned * inverse
    return (values, vectors), (jnp.sum(turned * jnp.eye(len(values)), 0), jnp.sum(vectors[:, :, None] * mixing, 1))


def _weights(weights, atoms: int) -> Array:
    weights = jnp.broadcast_to(jnp.asarray(weights, float), (atoms,))
    if not float(jnp.sum(weights)) > 0:
        raise ValueError(f"the weights of {atoms} atoms sum to {float(jnp.sum(weights)):g}; the sum must be positive")
    return weights
