"""MBAR: the free energies of many states from samples of all of them, and weights that join the samples.

Shirts and Chodera (2008), doi:10.1063/1.2978177. Reduced energies u = U / kT without a unit.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

from metastable.estimate.estimate import Estimate

_SELF_CONSISTENT = 5  # iterations that bring the start to where Newton's steps are good


class ConvergenceError(RuntimeError):
    """A solver stopped before it had the answer."""


@dataclass(frozen=True)
class Mbar:
    """The solution of the MBAR equations.

    reduced: u_k(x_n), of every sample in every state, (states, samples).
    counts: N_k, how many of the samples came from each state; 0 for a state that was not sampled.
    multiplicity: how often each sample counts, (samples,).
    f: free energies over kT, f_0 = 0, (states,).
    log_denominator: ln sum_k N_k exp(f_k - u_k(x_n)), (samples,).
    """

    reduced: Float[np.ndarray, "states samples"]
    counts: Float[np.ndarray, " states"]
    multiplicity: Float[np.ndarray, " samples"]
    f: Float[np.ndarray, " states"]
    log_denominator: Float[np.ndarray, " samples"]

    def log_weights(self, reduced: Float[np.ndarray, " samples"] | float = 0.0) -> Float[np.ndarray, " samples"]:
        """ln of the weight of each sample in a state of reduced energy ``reduced``, normalised; eq. 13.

        The default is the state without bias, where u_k are reduced bias energies.
        """
        log_w = _log(self.multiplicity) - self.log_denominator - reduced
        return log_w - _log_sum(log_w)

    def weights(self) -> Float[np.ndarray, "states samples"]:
        """W_kn, the weight of each sample in each state: rows sum to 1; eq. 9."""
        return np.exp(self.f[:, None] - self.reduced - self.log_denominator) * self.multiplicity

    def covariance(self) -> Float[np.ndarray, "states states"]:
        """The asymptotic covariance of f up to a constant, for uncorrelated samples; eq. 8 through appendix D."""
        return _covariance(self._gram(self.weights()), self.counts)

    def free_energy(self) -> Estimate:
        """f_k - f_0 with asymptotic errors, in kT. Correlated samples: subsample first, or bootstrap."""
        return Estimate(self.f - self.f[0], _difference_errors(self.covariance())[:, 0], "kT")

    def differences(self) -> Estimate:
        """[i, j]: f_j - f_i with asymptotic errors, in kT."""
        return Estimate(self.f - self.f[:, None], _difference_errors(self.covariance()), "kT")

    def overlap(self) -> Float[np.ndarray, "states states"]:
        """O_ij = N_j sum_n W_in W_jn: where the samples of state j would be of use to state i; rows sum to 1.

        Klimovich, Shirts and Mobley (2015), doi:10.1007/s10822-015-9840-9.
        """
        return self._gram(self.weights()) * self.counts

    def perturb(self, reduced: Float[np.ndarray, "new samples"]) -> Estimate:
        """f - f_0 of states that need not have been sampled, with asymptotic errors, in kT; eqs. 11 and 12."""
        log_w = _log(self.multiplicity) - self.log_denominator - np.atleast_2d(reduced)
        f = -_log_sum(log_w)
        w = np.concatenate([self.weights(), np.exp(f[:, None] + log_w)])
        theta = _covariance(self._gram(w), np.concatenate([self.counts, np.zeros(len(f))]))
        return Estimate(f - self.f[0], _difference_errors(theta)[len(self.f) :, 0], "kT")

    def mean(self, values: Float[np.ndarray, " samples"], reduced: Float[np.ndarray, " samples"] | float = 0.0):
        """The mean of a quantity in a state of reduced energy ``reduced``: an Estimate, with an asymptotic error.

        The error is that of the paper, linearised: the delta method with the weights w (A - <A>) as one more column.
        """
        w = np.exp(self.log_weights(reduced))
        value = float(w @ values)
        columns = np.concatenate([self.weights(), [w * (values - value)]])
        theta = _covariance(self._gram(columns), np.append(self.counts, 0))
        return Estimate(value, float(np.sqrt(max(0.0, theta[-1, -1]))))

    def _gram(self, w):
        share = np.where(self.multiplicity > 0, self.multiplicity, 1)
        return (w / share) @ w.T


def solve(
    reduced: Float[np.ndarray, "states samples"],
    counts: Float[np.ndarray, " states"] | Int[np.ndarray, " states"],
    multiplicity: Float[np.ndarray, " samples"] | None = None,
    *,
    start: Float[np.ndarray, " states"] | None = None,
    tolerance: float = 1e-10,
    iterations: int = 200,
) -> Mbar:
    """Solve the MBAR equations: minimise sum_n ln sum_k N_k exp(f_k - u_kn) - sum_k N_k f_k, which is convex.

    Newton steps, damped until the function falls, after some steps of the self-consistent equation 11.
    multiplicity: how often each sample counts, 1 where None. tolerance: on the largest |sum_n W_kn - 1|.
    start: a guess of f. Where f spans hundreds of kT, the mean of u_k over the samples of state k is a good one.
    Raises ValueError for arrays that do not agree or states that share no samples, ConvergenceError where
    the tolerance is not reached.
    """
    u, n, m = _check(reduced, counts, multiplicity)
    sampled = np.flatnonzero(n > 0)
    log_n, own = np.log(n[sampled])[:, None], u[sampled]
    f = np.zeros(len(sampled)) if start is None else np.asarray(start, float)[sampled].copy()
    point, damping = _objective(f, own, log_n, n[sampled], m), 0.0
    for i in range(iterations):
        error = np.abs(point.gradient / n[sampled]).max()
        if error < tolerance:
            break
        if i < _SELF_CONSISTENT and start is None:
            f = -_log_sum(_log(m) - own - _log_sum(f[:, None] - own + log_n, 0))
            f -= f[0]
            point = _objective(f, own, log_n, n[sampled], m)
        else:
            f, point, damping = _newton(f, point, damping, own, log_n, n[sampled], m)
    else:
        raise ConvergenceError(
            f"MBAR: after {iterations} iterations the weights of a state still miss 1 by {error:.3g} "
            f"(tolerance {tolerance:.3g}): the states may share too few samples; add states between them"
        )
    log_denominator = _log_sum(f[:, None] - own + log_n, 0)
    every = -_log_sum(_log(m) - u - log_denominator)
    every[sampled] = f  # the same, to the tolerance
    solution = Mbar(u, n, m, every - every[0], log_denominator - every[0])
    _check_overlap(solution, sampled)
    return solution


def refit(
    solution: Mbar, multiplicity: Float[np.ndarray, "resamples samples"], counts: Float[np.ndarray, "resamples states"]
) -> tuple[Float[np.ndarray, "resamples states"], Float[np.ndarray, "resamples samples"]]:
    """(f, ln weights without bias, not normalised) of resampled data, all at once.

    The same equations as :func:`solve`, by Newton steps with the Hessian of the whole data; resamples for which
    these do not converge are solved alone. All states must have been sampled.
    """
    p = np.exp(solution.f[:, None] - solution.reduced - solution.log_denominator) * solution.counts[:, None]
    inverse = np.zeros((len(p), len(p)))
    inverse[1:, 1:] = np.linalg.inv(_hessian(p, solution.multiplicity)[1:, 1:])
    delta = np.zeros(counts.shape)
    for _ in range(30):
        ratio = np.exp(delta) * counts / solution.counts
        scaled = multiplicity / (ratio @ p)
        gradient = ratio * (scaled @ p.T) - counts
        if np.abs(gradient / counts).max() < 1e-6:
            break
        delta -= np.clip(gradient @ inverse, -1, 1)
    failed = np.flatnonzero(~(np.abs(gradient / counts).max(1) < 1e-6))
    f, log_w = solution.f + delta, _log(scaled) - solution.log_denominator
    for b in failed:
        one = solve(solution.reduced, counts[b], multiplicity[b], start=solution.f)
        f[b], log_w[b] = one.f, _log(multiplicity[b]) - one.log_denominator
    return f, log_w


class _Point(NamedTuple):
    """The function, its gradient (states,), and p_kn = N_k exp(f_k - u_kn) / sum_j N_j exp(f_j - u_jn)."""

    value: float
    gradient: np.ndarray
    p: np.ndarray


def _objective(f, u, log_n, n, m) -> _Point:
    p = f[:, None] - u + log_n
    top = p.max(0)
    p -= top
    np.exp(p, out=p)
    total = p.sum(0)
    p /= total
    return _Point(float(m @ (np.log(total) + top) - n @ f), p @ m - n, p)


def _hessian(p, m):
    weighted = p * m
    return np.diag(weighted.sum(1)) - weighted @ p.T


def _newton(f, point: _Point, damping: float, u, log_n, n, m):
    """One Newton step in f with f_0 held, damped by Levenberg and Marquardt until the function falls.

    At its rounding the function may stay. Returns f, the point there and the damping to begin the next step with.
    """
    scale = np.sqrt(n[1:])
    hessian = _hessian(point.p, m)[1:, 1:] / np.outer(scale, scale)
    for _ in range(40):
        lifted = hessian + (damping + 1e-14) * np.eye(len(scale))
        step = np.concatenate([[0.0], np.linalg.solve(lifted, point.gradient[1:] / scale) / scale])
        trial = _objective(f - step, u, log_n, n, m)
        if trial.value <= point.value + 1e-13 * abs(point.value):
            return f - step, trial, damping / 10 if damping > 1e-8 else 0.0
        damping = max(10 * damping, 1e-8)
    raise ConvergenceError("MBAR: no step lowers the function: the states may share too few samples")


def _check(reduced, counts, multiplicity):
    u, n = np.asarray(reduced, float), np.asarray(counts, float)
    if u.ndim != 2 or n.shape != u.shape[:1]:
        raise ValueError(f"reduced {u.shape} must be (states, samples) and counts {n.shape} (states,)")
    m = np.ones(u.shape[1]) if multiplicity is None else np.asarray(multiplicity, float)
    if m.shape != u.shape[1:] or (m < 0).any():
        raise ValueError(f"multiplicity {m.shape} must be one number, 0 or more, a sample: {u.shape[1:]}")
    if not np.isclose(n.sum(), m.sum()) or (n < 0).any() or not n.any():
        raise ValueError(f"counts must be 0 or more and sum to the number of samples, {m.sum():g}, not {n.sum():g}")
    if np.isnan(u).any() or (u == -np.inf).any() or not np.isfinite(u[n > 0]).any(0).all():
        raise ValueError("reduced energies must be numbers, and each sample's finite in a state that was sampled")
    return u, n, m


def _check_overlap(solution: Mbar, sampled):
    """States that exchange less than one sample's worth are not connected, and their difference is not known."""
    shared = solution.overlap()[np.ix_(sampled, sampled)] * solution.counts[sampled, None]
    groups, label = connected_components(shared >= 1, directed=False)
    if groups > 1:
        parts = "; ".join(str(sampled[label == g].tolist()) for g in range(groups))
        raise ValueError(f"MBAR: these groups of states share no samples: {parts}. Add states between them")


def _covariance(gram, counts):
    """Theta = V S (I - S V^T N V S)^+ S V^T, from the eigenvectors V and eigenvalues S^2 of W^T W; eqs. D4 and D5."""
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    inner = np.eye(len(gram)) - root.T @ (counts[:, None] * root)
    return root @ np.linalg.pinv(inner, rcond=1e-10, hermitian=True) @ root.T


def _difference_errors(theta):
    d = np.diag(theta)
    return np.sqrt(np.clip(d[:, None] - 2 * theta + d, 0, None))


def _log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def _log_sum(x, axis: int = -1):
    top = x.max(axis, keepdims=True)
    return _log(np.exp(x - top).sum(axis)) + np.squeeze(top, axis)
