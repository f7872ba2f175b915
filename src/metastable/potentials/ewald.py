"""Ewald summation: Coulomb's energy of charges and all their periodic images, in two sums that converge fast.

The energy of a box with its images, kJ/mol, is (Ewald 1921, doi:10.1002/andp.19213690304; in this notation Essmann et
al. 1995, doi:10.1063/1.470117, eqs. 2.2 to 2.5), with conducting surroundings,

    E = coulomb * ( sum over pairs and images of q_i q_j erfc(alpha r) / r                :class:`DirectSum`
                  - sum over excluded pairs of q_i q_j erf(alpha r) / r                   :class:`Excluded`
                  + 1 / (2 pi V) sum over m != 0 of exp(-pi^2 m^2 / alpha^2) |S(m)|^2 / m^2
                  - alpha / sqrt(pi) sum q_i^2 - pi (sum q_i)^2 / (2 V alpha^2) )         :class:`Ewald`

with the structure factor S(m) = sum q_i exp(2 pi i m . r_i) over the vectors m of the reciprocal lattice. The last term
is that of a uniform background which neutralises a charged box: it has no force, but a pressure. The sum over m is what
:class:`metastable.potentials.pme.PME` does faster. :class:`DirectSum` looks at all pairs of atoms, for small systems
and as the plain form of what a list of near pairs does.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf, erfc
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.core.space import fractional, nearest, volume
from metastable.core.units import coulomb
from metastable.potentials.analytic import Index, cast, leaf

FRIENDLY = (2, 3, 5, 7)
"""Prime factors of the sizes that fast Fourier transforms like."""
PAIRS = 2**20
"""Pairs that :class:`DirectSum` looks at in one go."""


def choose_alpha(cutoff: float, tolerance: float) -> float:
    """Splitting parameter sqrt(-ln(2 tolerance)) / cutoff, 1/nm, as OpenMM chooses it: erfc is small at the cutoff.

    cutoff: nm. tolerance: about the relative error of forces, between 0 and 1/2. Raises ValueError for others.
    """
    if not 0 < tolerance < 0.5:
        raise ValueError(f"the tolerance of an Ewald sum must lie between 0 and 0.5, not {tolerance}; try 5e-4")
    if not cutoff > 0:
        raise ValueError(f"the cutoff of an Ewald sum must be positive, nm, not {cutoff}")
    return math.sqrt(-math.log(2 * tolerance)) / cutoff


def choose_grid(box: Float[np.ndarray, "3 3"], alpha: float, tolerance: float) -> tuple[int, int, int]:
    """Grid of :class:`~metastable.potentials.pme.PME`: at least 2 alpha L / (3 tolerance^(1/5)) points along each L.

    As OpenMM chooses it for splines of order 5, each then enlarged to a product of the primes :data:`FRIENDLY`.
    L: the diagonal of the box, nm. alpha: 1/nm.
    """
    lengths = np.diagonal(np.asarray(box, float))
    wanted = np.ceil(2 * alpha * lengths / (3 * tolerance**0.2)).astype(int)
    return three(_friendly(max(6, size)) for size in wanted.tolist())


def choose_kmax(box: Float[np.ndarray, "3 3"], alpha: float, tolerance: float) -> tuple[int, int, int]:
    """Largest integer of the wave vectors of :class:`Ewald` along each box vector, of length L, as OpenMM chooses it.

    The largest even k <= n for the least n with 0.05 sqrt(alpha L) n exp(-(pi n / (alpha L))^2) <= tolerance. OpenMM
    takes the diagonal of the box for L, which cuts off long waves where the box is far from a brick.
    """

    def error(n: int, size: float) -> float:
        return 0.05 * math.sqrt(size) * n * math.exp(-((math.pi * n / size) ** 2))

    found = []
    for size in (alpha * np.linalg.norm(np.asarray(box, float), axis=1)).tolist():
        n = max(1, math.ceil(size / (math.pi * math.sqrt(2))))  # the bound falls from here on
        while error(n, size) > tolerance:
            n += 1
        found.append(n // 2 * 2)
    return three(found)


def three(sizes: Iterable[int]) -> tuple[int, int, int]:
    """One integer a box vector, which are part of a program and not its input. Raises ValueError for other shapes."""
    found = tuple(int(n) for n in sizes)
    if len(found) != 3 or min(found) < 0:
        raise ValueError(f"one integer for each of the three box vectors is needed, none negative; got {found}")
    return found


class Ewald(eqx.Module):
    """Reciprocal sum, self energy and background of the module's formula, kJ/mol.

    charges: e. alpha: splitting parameter, 1/nm. kmax: largest integer of the wave vectors along each box vector;
    the sum has all integers from -kmax to kmax. Needs a box, and raises ValueError without.
    """

    charges: Float[Array, " atoms"] = eqx.field(converter=leaf)
    alpha: Float[Array, ""] = eqx.field(converter=leaf)
    kmax: tuple[int, int, int] = eqx.field(static=True, converter=three)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        box, dtype = box_of(frame), frame.positions.dtype
        one = cast(self, dtype)
        x, y, z = (np.arange(-k, k + 1) for k in self.kmax)
        z = z[z >= 0]  # the others are complex conjugates
        along = fractional(frame.positions, box)
        ex, ey, ez = (waves(n, along[:, i]) for i, n in enumerate((x, y, z)))
        plane = (one.charges * ex[:, None] * ey).reshape(-1, len(one.charges))
        factor = (plane @ ez.T).reshape(len(x), len(y), len(z))
        power = factor.real**2 + factor.imag**2
        weights = influence(box, one.alpha, (x, y, z)) * np.where(z > 0, 2, 1).astype(dtype)
        return 0.5 * jnp.sum(weights * power) + self_energy(one.charges, one.alpha, box)


class Excluded(eqx.Module):
    """E = - coulomb q_i q_j erf(alpha r) / r over pairs: what a reciprocal sum has of pairs that do not interact.

    charges: e. alpha: 1/nm. index: the pairs, (pairs, 2), which must be apart; r is to the nearest image.
    """

    charges: Float[Array, " atoms"] = eqx.field(converter=leaf)
    alpha: Float[Array, ""] = eqx.field(converter=leaf)
    index: Index = eqx.field(static=True, converter=lambda index: Index(index, 2))

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        one, (i, j) = cast(self, frame.positions.dtype), np.asarray(self.index).T
        r = jnp.sqrt(jnp.sum(nearest(frame.positions[i] - frame.positions[j], frame.box) ** 2, -1))
        return -coulomb * jnp.sum(one.charges[i] * one.charges[j] * erf(one.alpha * r) / r)


class DirectSum(eqx.Module):
    """E = coulomb q_i q_j erfc(alpha r) / r over all pairs of atoms, kJ/mol.

    charges: e. alpha: 1/nm. excluded: pairs that are left out, in the box itself and not with their images,
    (pairs, 2). cutoff: nm; farther pairs are left out; None for none. cells: 0 for each pair's nearest image only;
    n for those in all boxes up to n away along each box vector, an atom's own images among them, as small cells need.
    """

    charges: Float[Array, " atoms"] = eqx.field(converter=leaf)
    alpha: Float[Array, ""] = eqx.field(converter=leaf)
    excluded: Index = eqx.field(static=True, converter=lambda index: Index(index, 2), default=())
    cutoff: float | None = eqx.field(static=True, default=None)
    cells: int = eqx.field(static=True, default=0)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        positions, box = frame.positions, box_of(frame)
        one, atoms = cast(self, positions.dtype), len(positions)
        charges = jnp.asarray(one.charges)
        cells = np.stack(np.meshgrid(*[np.arange(-self.cells, self.cells + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
        home = ~np.any(cells, 1)
        shifts = cells.astype(box.dtype) @ box
        left_out = _partners(self.excluded, atoms)

        @jax.checkpoint
        def among(rows):
            """Twice the energy of some atoms, in units of coulomb; rows beyond the last atom count nothing."""
            away = nearest(positions[rows][:, None] - positions, box)
            d2 = jnp.sum((away[:, :, None] + shifts) ** 2, -1)
            counts = jnp.ones((len(rows), atoms + 1), bool)
            counts = counts.at[np.arange(len(rows))[:, None], left_out[rows]].set(False)[:, :-1]
            on = jnp.where(home, counts[:, :, None], d2 > 0)
            on = on if self.cutoff is None else on & (d2 < self.cutoff**2)
            r = jnp.sqrt(jnp.where(on, d2, 1))
            total = jnp.sum(jnp.where(on, erfc(one.alpha * r) / r, 0), -1)
            return jnp.sum(jnp.where(rows < atoms, charges[rows], 0) * (total @ charges))

        width = max(1, min(atoms, PAIRS // (atoms * len(cells))))
        blocks = jnp.arange(-(-atoms // width) * width).reshape(-1, width)
        twice, _ = lax.scan(lambda energy, rows: (energy + among(rows), None), jnp.zeros((), positions.dtype), blocks)
        return 0.5 * coulomb * twice


def self_energy(charges: Float[Array, " atoms"], alpha: Float[Array, ""], box: Float[Array, "3 3"]):
    """Energy of each charge with its own screening, and of a net charge with its background, kJ/mol."""
    own = alpha / math.sqrt(math.pi) * jnp.sum(charges**2)
    background = math.pi / (2 * volume(box) * alpha**2) * jnp.sum(charges) ** 2
    return -coulomb * (own + background)


def influence(box: Float[Array, "3 3"], alpha: Any, integers: Sequence[np.ndarray]) -> Float[Array, "x y z"]:
    """coulomb exp(-pi^2 m^2 / alpha^2) / (pi V m^2), zero for m = 0: half of it times |S(m)|^2 is an energy, kJ/mol.

    integers: those of the wave vectors along each box vector; m = box^-1 (x, y, z), 1/nm.
    """
    nx, ny, nz = np.ix_(*(np.asarray(n, box.dtype) for n in integers))
    x = nx / box[0, 0]
    y = (ny - box[1, 0] * x) / box[1, 1]
    z = (nz - box[2, 0] * x - box[2, 1] * y) / box[2, 2]
    zero = (nx == 0) & (ny == 0) & (nz == 0)
    m2 = jnp.where(zero, 1, x * x + y * y + z * z)
    return jnp.where(zero, 0, coulomb / (math.pi * volume(box)) * jnp.exp(-((math.pi / alpha) ** 2) * m2) / m2)


def waves(integers: np.ndarray, along: Float[Array, " atoms"]) -> Array:
    """exp(2 pi i n s) of integers and fractional coordinates, (integers, atoms), complex."""
    turns = integers.astype(along.dtype)[:, None] * along
    angle = 2 * math.pi * (turns - lax.stop_gradient(jnp.round(turns)))
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def box_of(frame: Frame) -> Float[Array, "3 3"]:
    """The box of a frame, which must have one."""
    if frame.box is None:
        raise ValueError("an Ewald sum needs a periodic box, and the frame has none: give Frame(positions, box)")
    return frame.box


def _friendly(size: int) -> int:
    """The least integer not below ``size`` that has no other prime factors than :data:`FRIENDLY`."""
    rest = size
    for prime in FRIENDLY:
        while rest % prime == 0:
            rest //= prime
    return size if rest == 1 else _friendly(size + 1)


def _partners(excluded: Index, atoms: int) -> Array:
    """Itself and the excluded partners of each atom, filled up with ``atoms``, (atoms, most)."""
    partners = [[i] for i in range(atoms)]
    for i, j in np.asarray(excluded).tolist():
        partners[i].append(j)
        partners[j].append(i)
    table = np.full((atoms, max(map(len, partners))), atoms)
    for row, own in zip(table, partners, strict=True):
        row[: len(own)] = own
    return jnp.asarray(table)
