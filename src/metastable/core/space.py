"""Periodic space: boxes, nearest images, and molecules made whole.

A box has the box vectors as its rows, a = (ax, 0, 0), b = (bx, by, 0), c = (cx, cy, cz), nm. It is reduced, as OpenMM
and GROMACS want it, where ax, by, cz > 0 and |bx| <= ax/2, |cx| <= ax/2, |cy| <= by/2: :func:`reduced` makes it so.
Any lattice has such a box. Then the nearest image of all that is closer than :func:`reach` is found one box vector
after the other, from c to a.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def nearest(d: Float[Array, "*pairs 3"], box: Float[Array, "3 3"] | None) -> Float[Array, "*pairs 3"]:
    """The nearest image of displacements, nm. Right wherever that image is closer than :func:`reach`."""
    if box is None:
        return d
    return jnp.stack(nearest_components(d[..., 0], d[..., 1], d[..., 2], box), -1)


def nearest_components(x, y, z, box):
    """:func:`nearest` of the three components apart: the form that kernels take."""
    n = jnp.round(z / box[2, 2])
    x, y, z = x - n * box[2, 0], y - n * box[2, 1], z - n * box[2, 2]
    n = jnp.round(y / box[1, 1])
    x, y = x - n * box[1, 0], y - n * box[1, 1]
    return x - jnp.round(x / box[0, 0]) * box[0, 0], y, z


def closest_components(x, y, z, box):
    """The nearest image of all of three components, also beyond :func:`reach`: as far as the least of ax, by, cz.

    Beside the image that :func:`nearest_components` takes, the one on the other side along c and along b may be closer.
    """
    n = jnp.round(z / box[2, 2])
    x, y, z = x - n * box[2, 0], y - n * box[2, 1], z - n * box[2, 2]
    best = None
    for over_c in (0, jnp.sign(z)):
        x1, y1, z1 = x - over_c * box[2, 0], y - over_c * box[2, 1], z - over_c * box[2, 2]
        n = jnp.round(y1 / box[1, 1])
        x1, y1 = x1 - n * box[1, 0], y1 - n * box[1, 1]
        for over_b in (0, jnp.sign(y1)):
            x2, y2 = x1 - over_b * box[1, 0], y1 - over_b * box[1, 1]
            x2 = x2 - jnp.round(x2 / box[0, 0]) * box[0, 0]
            if best is None:
                best = x2, y2, z1
            else:
                closer = x2 * x2 + y2 * y2 + z1 * z1 < best[0] ** 2 + best[1] ** 2 + best[2] ** 2
                best = tuple(jnp.where(closer, new, old) for new, old in zip((x2, y2, z1), best, strict=True))
    return best


def reach(box: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch"]:
    """The distance within which :func:`nearest` is right, nm: half of the least of ax, by, cz.

    A cutoff must not exceed it, for each atom to see at most one image of any other.
    """
    return jnp.min(jnp.diagonal(box, axis1=-2, axis2=-1), -1) / 2


def volume(box: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch"]:
    """nm^3, of a box whose vectors form a triangle."""
    return jnp.prod(jnp.diagonal(box, axis1=-2, axis2=-1), -1)


def fractional(positions: Float[Array, "*atoms 3"], box: Float[Array, "3 3"]) -> Float[Array, "*atoms 3"]:
    """Coordinates along the box vectors: positions = fractional @ box."""
    z = positions[..., 2] / box[2, 2]
    y = (positions[..., 1] - z * box[2, 1]) / box[1, 1]
    x = (positions[..., 0] - y * box[1, 0] - z * box[2, 0]) / box[0, 0]
    return jnp.stack([x, y, z], -1)


def times(rows: Float[Array, "*rows 3"], matrix: Float[Array, "3 3"]) -> Float[Array, "*rows 3"]:
    """rows @ matrix, written out: the matrix units of a GPU would round it to a few digits.

    Coordinates along the box vectors, times the box, are positions, nm.
    """
    return rows[..., :1] * matrix[0] + rows[..., 1:2] * matrix[1] + rows[..., 2:] * matrix[2]


def wrap(positions: Float[Array, "*atoms 3"], box: Float[Array, "3 3"]) -> Float[Array, "*atoms 3"]:
    """Every atom by itself brought into the box that begins at the origin."""
    return positions - times(jnp.floor(fractional(positions, box)), box)


def reduced(vectors: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The reduced box of the lattice that the rows of ``vectors`` span. On the host.

    The vectors must already point along x, into the xy plane, and anywhere: other lattices are to be rotated, with
    their atoms, first. Raises ValueError where they do not, or have no volume.
    """
    box = np.array(vectors, float)
    if box.shape != (3, 3) or not np.isfinite(box).all():
        raise ValueError(f"a box is three vectors of three finite numbers, nm; got an array of shape {box.shape}")
    if np.any(np.abs(box[np.triu_indices(3, 1)]) > 1e-6) or np.any(np.diagonal(box) <= 0):
        raise ValueError(
            f"box vectors {box.tolist()}: the first must point along +x, the second lie in the xy plane with y > 0, "
            "the third have z > 0; rotate the lattice, and the atoms with it"
        )
    box[np.triu_indices(3, 1)] = 0
    box[2] -= box[1] * np.round(box[2, 1] / box[1, 1])
    box[2] -= box[0] * np.round(box[2, 0] / box[0, 0])
    box[1] -= box[0] * np.round(box[1, 0] / box[0, 0])
    return box


def whole(positions: Float[Array, "atoms 3"], box: Float[Array, "3 3"], tree: np.ndarray) -> Float[Array, "atoms 3"]:
    """Molecules that the border of the box cuts, put together again.

    tree: rows (parent, child) of bonds, every parent before its children, as :func:`spanning` orders them.
    """
    for parents, children in _generations(tree):
        near = nearest(positions[children] - positions[parents], box)
        positions = positions.at[children].set(positions[parents] + near)
    return positions


def spanning(bonds: np.ndarray, atoms: int) -> np.ndarray:
    """A tree of bonds for each molecule, rooted in its first atom: rows (parent, child), parents first. On the host."""
    neighbours: list[list[int]] = [[] for _ in range(atoms)]
    for i, j in np.asarray(bonds, int).reshape(-1, 2).tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    rows, seen = [], np.zeros(atoms, bool)
    for root in range(atoms):
        if seen[root]:
            continue
        seen[root], front = True, [root]
        while front:
            found = []
            for i in front:
                for j in neighbours[i]:
                    if not seen[j]:
                        seen[j] = True
                        rows.append((i, j))
                        found.append(j)
            front = found
    return np.array(rows, int).reshape(-1, 2)


def molecules(bonds: np.ndarray, atoms: int) -> np.ndarray:
    """The number of the molecule that each atom belongs to, from 0 in the order of their first atoms. On the host."""
    label = np.arange(atoms)
    for parent, child in spanning(bonds, atoms):
        label[child] = label[parent]
    return np.unique(label, return_inverse=True)[1]


def _generations(tree: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The rows of a tree by their distance from the root: few vectorised steps in place of one a bond."""
    depth: dict[int, int] = {}
    for parent, child in tree.tolist():
        depth[child] = depth.get(parent, 0) + 1
    level = np.array([depth[c] for c in tree[:, 1].tolist()], int)
    return [(tree[level == d, 0], tree[level == d, 1]) for d in np.unique(level)]
