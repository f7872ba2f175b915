"""Umbrella windows to a free energy density: MBAR on the samples, WHAM on their histograms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from metastable.core.axis import Axis
from metastable.estimate.axes import cell_index, straighten
from metastable.estimate.correlation import Blocks, resample, statistical_inefficiency
from metastable.estimate.density import Density, smooth
from metastable.estimate.estimate import Estimate
from metastable.estimate.mbar import Mbar, refit, solve


@dataclass(frozen=True)
class Umbrella:
    """What windows say together.

    density: of the unbiased ensemble; read it with ``free_energy``, ``basins``, ``barrier``, ``region_difference``.
    free_energy: f_k - f_0 of the windows, in kT, with bootstrap errors. mbar: the solution for the whole data.
    inefficiency: statistical inefficiency of each trajectory, frames. Windows shorter than some 100 of them
        have errors that are too small.
    """

    density: Density
    free_energy: Estimate
    mbar: Mbar
    inefficiency: Float[np.ndarray, " trajectories"]


def umbrella(
    trajectories: Sequence[Float[np.ndarray, "time cvs"]],
    bias: Float[np.ndarray, "windows samples"],
    axes: tuple[Axis, ...],
    kT: float,
    *,
    window: Sequence[int] | None = None,
    bandwidth: tuple[float, ...] | None = None,
    length: int | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Umbrella:
    """Join biased trajectories into one unbiased density by MBAR, with errors by bootstrap over blocks of time.

    bias: the bias energy of every window on every sample, the trajectories one after another, kJ/mol.
    window: which window each trajectory was run in; one each where None. bandwidth: as for ``density``.
    length: of a block, frames; 16 statistical inefficiencies of the CVs where None, and 5 blocks or more.
    Raises as :func:`metastable.estimate.mbar.solve` does, and ValueError for windows without samples.
    """
    trajectories = [np.asarray(t, float) for t in trajectories]
    home = np.arange(len(trajectories)) if window is None else np.asarray(window)
    frames = np.array([len(t) for t in trajectories])
    bias = np.asarray(bias, float)
    if bias.shape[1] != frames.sum() or len(home) != len(trajectories):
        raise ValueError(f"bias {bias.shape} must be (windows, samples) of {frames.sum()} samples, each in a window")
    counts = np.bincount(home, frames, minlength=len(bias))
    if not counts.all() or len(counts) > len(bias):
        raise ValueError(f"windows {np.flatnonzero(counts == 0).tolist()} of {len(bias)} have no samples")
    own = (np.repeat(home, frames)[:, None] == np.arange(len(bias))).astype(float)
    solution = solve(bias / kT, counts, start=np.einsum("kn,nk->k", bias, own) / (kT * counts))
    drawn, inefficiency = _multiplicity(trajectories, axes, length, resamples, seed)
    f, log_w = refit(solution, drawn, drawn @ own)

    index = cell_index(np.concatenate(trajectories), axes)
    rows = np.stack([_histogram(index, row, axes) for row in [solution.log_weights(), *log_w]])
    rows = rows if bandwidth is None else smooth(rows, axes, bandwidth)
    errors = np.std(f - f[:, :1], axis=0)
    return Umbrella(Density(axes, rows[0], rows[1:]), Estimate(solution.f, errors, "kT"), solution, inefficiency)


def wham(
    histograms: Float[np.ndarray, "windows *bins"], bias: Float[np.ndarray, "windows *bins"], kT: float
) -> tuple[Float[np.ndarray, "*bins"], Float[np.ndarray, " windows"]]:
    """(unbiased probability of every bin, f_k - f_0 in kT) from the histograms of biased windows.

    bias: of every window at every bin, kJ/mol. It is MBAR with every sample moved to the center of its bin, and
    so wrong by the curvature of the bias within a bin. Kumar, Bouzida, Swendsen, Kollman and Rosenberg (1992),
    doi:10.1002/jcc.540130812.
    """
    histograms, bias = np.asarray(histograms, float), np.asarray(bias, float)
    if histograms.shape != bias.shape:
        raise ValueError(f"histograms {histograms.shape} and bias {bias.shape} must agree: (windows, *bins)")
    rows = histograms.reshape(len(histograms), -1)
    solution = solve(bias.reshape(rows.shape) / kT, rows.sum(1), rows.sum(0))
    return np.exp(solution.log_weights()).reshape(histograms.shape[1:]), solution.f


def _histogram(index, log_weights, axes: tuple[Axis, ...]) -> Float[np.ndarray, "*bins"]:
    """Normalised on the grid."""
    shape = tuple(axis.bins for axis in axes)
    weights = np.exp(log_weights - log_weights.max())
    cells = np.bincount(index + 1, weights, minlength=int(np.prod(shape)) + 1)[1:]
    if not cells.sum() > 0:
        raise ValueError("no sample with a positive weight lies on the grid: widen the axes")
    return (cells / cells.sum()).reshape(shape)


def _multiplicity(trajectories, axes, length, resamples, seed):
    """How often each frame counts in each resample (blocks of time, drawn within each trajectory), and each g."""
    rows, inefficiency = [], []
    for i, trajectory in enumerate(trajectories):
        frames, observables = len(trajectory), straighten(trajectory, axes)
        g = max(statistical_inefficiency(column) for column in observables.T)
        cuts = frames // length if length else int(np.clip(frames / (16 * g), 5, 64))
        if not 2 <= cuts <= frames:
            raise ValueError(
                f"trajectory {i} of {frames} frames cannot be cut into {cuts} blocks: give a shorter length"
            )
        blocks = Blocks(frames, 1, frames // cuts, 1)
        rows.append(resample(blocks.count, resamples, seed + i)[:, blocks.stretch(0, frames)[:, 0]])
        inefficiency.append(g)
    return np.concatenate(rows, 1), np.array(inefficiency)
