"""Clusters of bond constraints: distances that the dynamics keeps, solved for all replicas at once.

Positions x' that a step reaches from x are put back by x' + sum_k lambda_k dr_k / m, along the constraint vectors
r_k = x_i - x_j of the step's start, so that every |r_k| is d_k again (SHAKE; Ryckaert, Ciccotti, Berendsen 1977,
doi:10.1016/0021-9991(77)90098-5). Momenta lose what would change the |r_k| (RATTLE; Andersen 1983,
doi:10.1016/0021-9991(83)90014-1). Constraints that share an atom are coupled: lambda_l r_l moves r_k by
B_kl lambda_l r_l, where B holds inverse masses, and A_kl = B_kl r_k . r_l falls apart into clusters of constraints.

Clusters of up to four constraints, as constrained hydrogens make them, are solved by Newton's method:
two steps reach single precision and three double precision, from any bond that is not off by more than some
per cent. Larger ones, as constrained bonds of heavy atoms make them, are iterated with the inverse of A at a reference
geometry, held constant (CCMA; Eastman, Pande 2010, doi:10.1021/ct900463w): 8 iterations in single precision, 16 in
double. The numbers are fixed, for steps of up to 4 fs, so that everything is differentiable and all replicas march
alike; ``Clusters.stretch`` says on the host whether they were enough.
"""

from typing import Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from metastable.core.frame import Frame
from metastable.dynamics.state import inverse

_SMALL = 4  # the most constraints of a cluster that is solved exactly: elimination is written out for it


class Clusters(eqx.Module):
    """Fixed distances between pairs of atoms; make it with :meth:`from_pairs`.

    lengths: nm, (constraints,).
    inverse: of A at the reference geometry, for the constraints of large clusters, Da/nm^2, (large, large).
    pairs: the two atoms of each constraint. clusters: (constraints in each, how many) of the small clusters, whose
    constraints come first: the first one of each cluster, then the second one of each, and so on.
    """

    lengths: Float[Array, " constraints"]
    inverse: Float[Array, "large large"]
    pairs: tuple[tuple[int, int], ...] = eqx.field(static=True)
    clusters: tuple[tuple[int, int], ...] = eqx.field(static=True)

    @classmethod
    def from_pairs(
        cls,
        pairs: Int[np.ndarray, "constraints 2"],
        lengths: Float[np.ndarray, " constraints"],
        masses: Float[np.ndarray, " atoms"],
        positions: Float[Array, "atoms 3"] | None = None,
    ) -> Self:
        """The constraints of pairs of atoms to lengths, nm.

        masses: Da. positions: nm, a geometry with usual bond angles; needed only where more than four constraints hang
        together. Both only decide how fast large clusters converge.

        Raises ValueError where ``positions`` are needed and not given.
        """
        order, clusters = _arrange(pairs, len(masses))
        pairs, lengths = pairs[order], lengths[order]
        large = pairs[sum(size * count for size, count in clusters) :]
        inverse = np.zeros((0, 0))
        if len(large):
            if positions is None:
                raise ValueError(f"{len(large)} constraints hang together in more than {_SMALL}: give positions too")
            incidence = (large[:, :1] == np.arange(len(masses))) * 1.0 - (large[:, 1:] == np.arange(len(masses)))
            r = incidence @ np.asarray(positions, float)
            coupling = incidence / np.asarray(masses) @ incidence.T
            inverse = np.linalg.inv(coupling * (r @ r.T))
        return cls(jnp.asarray(lengths), jnp.asarray(inverse), tuple(map(tuple, pairs.tolist())), tuple(clusters))

    def __len__(self) -> int:
        return len(self.pairs)

    def positions(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """``new``, moved along the constraint vectors of ``old`` until the constraints hold, nm."""
        return new + self.moves(new, old, masses) if self.pairs else new

    def moves(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """What ``positions`` adds to ``new``, nm."""
        if not self.pairs:
            return jnp.zeros_like(new)
        pairs, weights = np.array(self.pairs), inverse(jnp.asarray(masses, new.dtype))
        steps, iterations = (3, 16) if new.dtype == jnp.float64 else (2, 8)
        return self._solve(_length, _vectors(new, pairs), _vectors(old, pairs), weights, steps, iterations)

    def momenta(
        self, momenta: Float[Array, "atoms 3"], frame: Frame, masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        """The momenta, or any forces, without what would change the lengths of the constraints, Da nm/ps."""
        if not self.pairs:
            return momenta
        pairs, masses = np.array(self.pairs), jnp.asarray(masses, momenta.dtype)
        weights = inverse(masses)
        velocities, r = _vectors(momenta * weights[:, None], pairs), _vectors(frame.positions, pairs)
        iterations = 16 if momenta.dtype == jnp.float64 else 8
        return momenta + masses[:, None] * self._solve(_rate, velocities, r, weights, 1, iterations)

    def stretch(self, positions: Float[Array, "*batch atoms 3"]) -> Float[Array, "*batch constraints"]:
        """The length of every constraint over what it should be."""
        first, second = np.array(self.pairs, int).reshape(-1, 2).T
        lengths = jnp.linalg.norm(positions[..., first, :] - positions[..., second, :], axis=-1)
        return lengths / jnp.asarray(self.lengths, positions.dtype)

    def _solve(self, equation, s, r, weights, steps, iterations):
        """The displacements, (atoms, 3), after which ``equation`` of every constraint is 0."""
        s, r = lax.optimization_barrier((s, r))  # or each of their many uses repeats the gathers
        pairs, lengths = np.array(self.pairs), jnp.asarray(self.lengths, s.dtype)
        multipliers, start = [], 0
        for size, count in self.clusters:
            rows = [slice(start + k * count, start + (k + 1) * count) for k in range(size)]
            one, two, d = ([x[row] for row in rows] for x in (s, r, lengths))
            coupling = _coupling([pairs[row] for row in rows], weights)
            multipliers += _newton(equation, one, two, d, coupling, steps)
            start += size * count
        if start < len(pairs):
            one, two, d, large = (x[start:] for x in (s, r, lengths, pairs))
            inverse = jnp.asarray(self.inverse, s.dtype)
            multipliers.append(_ccma(equation, one, two, d, large, weights, inverse, iterations))
        return _displacements(jnp.concatenate(multipliers), r, pairs, weights)


def _length(s, r, lengths):
    """Of positions: (|s|^2 - d^2) / 2, and its gradient with respect to s."""
    return (_dot(s, s) - lengths**2) / 2, s


def _rate(s, r, lengths):
    """Of velocities: r . s, and its gradient with respect to s."""
    return _dot(r, s), r


def _newton(equation, s, r, lengths, coupling, steps):
    """The multipliers of a kind of small clusters: lists over their constraints of arrays over the clusters."""
    every = range(len(s))
    multipliers = [jnp.zeros_like(d) for d in lengths]
    for _ in range(steps):
        errors, gradients = zip(*map(equation, s, r, lengths), strict=True)
        matrix = [[coupling[k][n] * _dot(gradients[k], r[n]) for n in every] for k in every]
        change = lax.optimization_barrier(_eliminate(matrix, [-error for error in errors]))
        multipliers = [m + c for m, c in zip(multipliers, change, strict=True)]
        s = [s[k] + sum((coupling[k][n] * change[n])[:, None] * r[n] for n in every) for k in every]
        s = lax.optimization_barrier(s)
    return multipliers


def _ccma(equation, s, r, lengths, pairs, weights, inverse, iterations):
    """The multipliers of the large clusters, from the constant inverse of the coupling matrix."""

    def iterate(_, multipliers):
        moved = s + _vectors(_displacements(multipliers, r, pairs, weights), pairs)
        return multipliers - inverse @ equation(moved, r, lengths)[0]

    return lax.fori_loop(0, iterations, iterate, jnp.zeros_like(lengths))


def _vectors(x, pairs):
    """x_i - x_j of every constraint, (constraints, 3)."""
    return x[pairs[:, 0]] - x[pairs[:, 1]]


def _displacements(multipliers, r, pairs, weights):
    """sum_k lambda_k dr_k / m, (atoms, 3): each atom gathers from the few constraints that it takes part in."""
    own: list[list[tuple[int, int]]] = [[] for _ in weights]
    for k, (i, j) in enumerate(pairs):
        own[i].append((k, 1))
        own[j].append((k, -1))
    most = max(map(len, own))
    index, sign = np.array([c + [(len(pairs), 0)] * (most - len(c)) for c in own]).T
    pulls = lax.optimization_barrier(multipliers[:, None] * r)
    pulls = jnp.concatenate([pulls, jnp.zeros((1, 3), r.dtype)])
    return weights[:, None] * sum(sign[n][:, None].astype(r.dtype) * pulls[index[n]] for n in range(most))


def _coupling(pairs, weights):
    """B_kl of a kind of small clusters, (clusters,) each: what lambda_l r_l does to r_k."""

    def entry(one, other):
        (i, j), (a, b) = one.T, other.T
        first, second = 1 * (i == a) - (i == b), 1 * (j == b) - (j == a)  # integers: the precision is the weights'
        return weights[i] * first + weights[j] * second

    return [[entry(one, other) for other in pairs] for one in pairs]


def _eliminate(matrix, right):
    """Gauss elimination of equations whose coefficients are arrays; the diagonal dominates, so without pivots."""
    size, matrix, right = len(right), [list(row) for row in matrix], list(right)
    for k in range(size):
        for i in range(k + 1, size):
            factor = matrix[i][k] / matrix[k][k]
            right[i] = right[i] - factor * right[k]
            for j in range(k + 1, size):
                matrix[i][j] = matrix[i][j] - factor * matrix[k][j]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            right[k] = right[k] - matrix[k][j] * right[j]
        right[k] = right[k] / matrix[k][k]
    return right


def _dot(a, b):
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def components(pairs: Int[np.ndarray, "constraints 2"], atoms: int) -> list[np.ndarray]:
    """The numbers of the pairs that hang together, directly or by others, each an array. On the host."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (atoms, atoms))
    label = connected_components(graph, directed=False)[1][pairs[:, 0]]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(pairs) else []


def _arrange(pairs, atoms):
    """An order of the constraints, and the (size, count) of the small clusters, as ``Clusters`` keeps them."""
    members, order, clusters = components(pairs, atoms), [], []
    for size in range(1, _SMALL + 1):
        alike = [m for m in members if len(m) == size]
        if alike:
            order += np.transpose(alike).ravel().tolist()
            clusters.append((size, len(alike)))
    return order + [k for m in members if len(m) > _SMALL for k in m.tolist()], clusters
