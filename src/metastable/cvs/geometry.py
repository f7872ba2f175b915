"""Positions, distances, angles and torsions of atoms, or of centers of atoms.

Atoms are counted from 0. In a periodic box every vector is the shortest of its images, as in PLUMED, unless
``pbc`` is False. Definitions: Tribello et al. (2014), doi:10.1016/j.cpc.2013.09.018, and PLUMED's manual.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.space import times
from metastable.cvs.periodic import cross, minimum_image, nearest_images, reduced
from metastable.cvs.variable import Component, Variable


@dataclass(frozen=True)
class Center:
    """The weighted center of some atoms: it stands wherever a CV takes an atom.

    atoms: indices. weights: one an atom, e.g. masses; None for equal ones.
    pbc: make the group whole first, by successive shortest images in the order of ``atoms``.
    """

    atoms: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    pbc: bool = True

    def __post_init__(self):
        object.__setattr__(self, "atoms", indices(self.atoms))
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(map(float, self.weights)))
            if len(self.weights) != len(self.atoms) or sum(self.weights) == 0:
                raise ValueError(f"Center: {len(self.weights)} weights, summing to {sum(self.weights)}, for "
                                 f"{len(self.atoms)} atoms; give one an atom, with a sum that is not 0")  # fmt: skip

    def __str__(self) -> str:
        return f"center of {len(self.atoms)}"

    def __call__(self, frame: Frame) -> Float[Array, "3"]:
        return mean(group(frame, self.atoms, self.pbc), self.weights)


Point = int | Center


class Position(Variable):
    """The position of an atom, nm, (3,); in a box that of its image nearest to the origin."""

    point: Point = eqx.field(static=True)
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(self, point: Point, *, label: str | None = None, pbc: bool = True):
        (self.point,) = _points(point)
        self.label, self.pbc = label or f"position {self.point}", pbc

    @property
    def components(self):
        """x, y and z, in nm; none is periodic, also in a box."""
        return tuple(Component(f"{self.label} {axis}", "nm") for axis in "xyz")

    def __call__(self, frame: Frame) -> Float[Array, "3"]:
        r = locate(frame, self.point)
        return minimum_image(r, frame.box) if self.pbc else r


class Displacement(Variable):
    """The vector from one atom to another, nm, (3,)."""

    points: tuple[Point, ...] = eqx.field(static=True)
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(self, start: Point, end: Point, *, label: str | None = None, pbc: bool = True):
        self.points = _points(start, end)
        self.label, self.pbc = label or _name("displacement", self.points), pbc

    @property
    def components(self):
        """x, y and z, in nm; none is periodic, also in a box."""
        return tuple(Component(f"{self.label} {axis}", "nm") for axis in "xyz")

    def __call__(self, frame: Frame) -> Float[Array, "3"]:
        return vectors(frame, [self.points], self.pbc)[0]


class Distance(Variable):
    """The distance between two atoms, nm. Its derivative is 0 where they coincide."""

    points: tuple[Point, ...] = eqx.field(static=True)
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(self, first: Point, second: Point, *, label: str | None = None, pbc: bool = True):
        self.points = _points(first, second)
        self.label, self.pbc = label or _name("distance", self.points), pbc

    @property
    def components(self):
        """One, in nm."""
        return (Component(self.label, "nm"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        return norm(vectors(frame, [self.points], self.pbc))


class Angle(Variable):
    """The angle between two vectors, rad, from 0 to pi: atan2(|u x v|, u . v).

    Three atoms i, j, k: u from j to i, v from j to k. Four atoms i, j, k, l: u from j to i, v from k to l.
    Where the vectors are parallel the angle has a kink, and the derivative given is 0.
    """

    pairs: tuple[tuple[Point, ...], ...] = eqx.field(static=True)
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(self, *points: Point, label: str | None = None, pbc: bool = True):
        points = _points(*points)
        if len(points) not in (3, 4):
            raise ValueError(f"an Angle takes 3 or 4 atoms, not {len(points)}")
        self.pairs = (points[1], points[0]), points[-2:]
        self.label, self.pbc = label or _name("angle", points), pbc

    @property
    def components(self):
        """One, in rad, not periodic."""
        return (Component(self.label, "rad"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        u, v = vectors(frame, self.pairs, self.pbc)
        return jnp.arctan2(norm(cross(u, v)), jnp.sum(u * v))[None]


class Torsion(Variable):
    """The torsion angle, rad, from -pi to pi, period 2 pi, positive as IUPAC has it.

    It is the angle from u to v about the axis a: atan2(|a| a . (u x v), (a x u) . (a x v)).
    Four atoms i, j, k, l: u from j to i, a from j to k, v from k to l. Six atoms: u from the first to the
    second, a from the third to the fourth, v from the fifth to the sixth.
    """

    pairs: tuple[tuple[Point, ...], ...] = eqx.field(static=True)
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(self, *points: Point, label: str | None = None, pbc: bool = True):
        points = _points(*points)
        if len(points) not in (4, 6):
            raise ValueError(f"a Torsion takes 4 or 6 atoms, not {len(points)}")
        i, j, k, l = points[:4]  # noqa: E741
        self.pairs = ((j, i), (j, k), (k, l)) if len(points) == 4 else (points[:2], points[2:4], points[4:])
        self.label, self.pbc = label or _name("torsion", points), pbc

    @property
    def components(self):
        """One, in rad, with the period 2 pi."""
        return (Component(self.label, "rad", 2 * math.pi),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        u, a, v = vectors(frame, self.pairs, self.pbc)
        m, n = cross(a, u), cross(a, v)
        sine, cosine = norm(a) * jnp.sum(a * cross(u, v)), jnp.sum(m * n)
        flat = (sine == 0) & (cosine == 0)  # atoms in line: no torsion, and no derivative
        return jnp.arctan2(jnp.where(flat, 0, sine), jnp.where(flat, 1, cosine))[None]


def vectors(frame: Frame, pairs: Sequence[tuple[Point, ...]], pbc: bool = True) -> Float[Array, "pairs 3"]:
    """The vector from the first to the second point of each pair, nm; its shortest image in a box."""
    delta = jnp.stack([locate(frame, end) - locate(frame, start) for start, end in pairs])
    return minimum_image(delta, frame.box) if pbc else delta


def locate(frame: Frame, point: Point) -> Float[Array, "3"]:
    """Where an atom or a center is, nm. Raises ValueError where the frame has no such atom."""
    if isinstance(point, Center):
        return point(frame)
    check_range(frame, (point,))
    return frame.positions[point]


def group(frame: Frame, atoms: tuple[int, ...], pbc: bool = True) -> Float[Array, "atoms 3"]:
    """The positions of a group, nm; in a box each atom as its image nearest to the one before it in the group."""
    check_range(frame, atoms)
    x = frame.positions[np.array(atoms)]
    if not pbc or frame.box is None:
        return x
    box = reduced(frame.box)
    shifts = jnp.cumsum(nearest_images(x[1:] - x[:-1], box), axis=0)
    return jnp.concatenate([x[:1], x[1:] - times(shifts, box)])


def mean(x: Float[Array, "atoms 3"], weights=None) -> Float[Array, "3"]:
    """The weighted mean of positions."""
    if weights is None:
        return jnp.mean(x, axis=0)
    w = jnp.asarray(weights, x.dtype)
    return jnp.sum(w[:, None] * x, axis=0) / jnp.sum(w)


def norm(v: Float[Array, "*n 3"]) -> Float[Array, "*n"]:
    """The length of vectors, with derivative 0 at the origin."""
    return root(jnp.sum(v * v, -1))


def root(x):
    """The square root, with derivative 0 at 0."""
    zero = x <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def indices(atoms: Sequence[int]) -> tuple[int, ...]:
    """Atom indices as a tuple of integers. Raises ValueError where there is none, or one is negative or no integer."""
    plain = tuple(int(a) for a in atoms)
    wrong = [a for a, b in zip(atoms, plain, strict=True) if a != b or b < 0]
    if wrong or not plain:
        raise ValueError(f"atom indices are integers from 0, at least one, not {list(atoms)}")
    return plain


def check_range(frame: Frame, atoms: Sequence[int]) -> None:
    """Raise ValueError where the frame has fewer atoms than an index says."""
    if max(atoms) >= frame.positions.shape[0]:
        raise ValueError(
            f"a CV uses atom {max(atoms)}, but the frame has {frame.positions.shape[0]} atoms, counted from 0"
        )


def _points(*points: Point) -> tuple[Point, ...]:
    return tuple(p if isinstance(p, Center) else indices([p])[0] for p in points)


def _name(kind: str, points: Sequence[Point]) -> str:
    return " ".join([kind, *map(str, points)])
