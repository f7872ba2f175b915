"""Free energy profiles and surfaces: weighted densities on a grid, resampled once, read many times."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from metastable.core.axis import Axis
from metastable.estimate.axes import cell_index, straighten
from metastable.estimate.correlation import STRETCHES, Blocks, choose_blocks, resample
from metastable.estimate.estimate import Estimate, log_ratio


@dataclass(frozen=True)
class Density:
    """Probabilities of the cells of a grid, and what they might have been.

    probability: of each cell, summing to 1, (*bins).
    resamples: the same from resampled data, normalised on average only, (resamples, *bins). Every error
        comes from these, so that the errors of all that is read from one density belong together.
    blocks: what was resampled.
    """

    axes: tuple[Axis, ...]
    probability: Float[np.ndarray, "*bins"]
    resamples: Float[np.ndarray, "resamples *bins"]
    blocks: Blocks | None = None


def density(
    samples: Float[np.ndarray, "time walkers cvs"],
    axes: tuple[Axis, ...],
    log_weights: Float[np.ndarray, "time walkers"] | None = None,
    *,
    bandwidth: tuple[float, ...] | None = None,
    length: int | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Density:
    """The weighted density of samples on a grid.

    log_weights: from :mod:`metastable.estimate.weights`; all frames alike where None.
    bandwidth: standard deviation of a Gaussian kernel on each axis, in its unit; None for a plain histogram.
        The kernel lowers the noise and adds a bias, up to bandwidth^2 F'' / 2 and the like, which no error shows.
    length: of a block of time in frames; chosen from the correlation of the samples where None.
    Raises ValueError for shapes that do not agree, numbers that are not finite, or no sample on the grid.
    """
    index, weights, blocks = prepare(samples, axes, log_weights, length)
    return tally(index, axes, weights, blocks, bandwidth=bandwidth, resamples=resamples, seed=seed)


def prepare(samples, axes, log_weights, length):
    """The cell and the weight of every frame, and the stretches to resample: what :func:`tally` takes."""
    samples = np.asarray(samples)
    if samples.ndim != 3 or not samples.size:
        raise ValueError(f"samples {samples.shape} must be (time, walkers, cvs), and some")
    weights = _weights(log_weights, samples.shape[:2])
    parts = np.array_split(samples, -(-samples.size // 2**22))
    index = np.concatenate([cell_index(part, axes) for part in parts])
    return index, weights, _blocks(samples, axes, weights, length)


def tally(
    index: Int[np.ndarray, "time walkers"],
    axes: tuple[Axis, ...],
    weights: Float[np.ndarray, "time walkers"],
    blocks: Blocks,
    *,
    bandwidth: tuple[float, ...] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Density:
    """The density of frames whose cells are known: see :func:`density`. A negative index lies off the grid."""
    shape = tuple(axis.bins for axis in axes)
    sums = blocks.sums(index, int(np.prod(shape)), weights)
    total = sums.sum()
    if not total > 0:
        raise ValueError("no sample with a positive weight lies on the grid: widen the axes")
    sums /= total
    drawn = resample(blocks.count, resamples, seed) @ sums
    value, drawn = sums.sum(0).reshape(shape), drawn.reshape(resamples, *shape)
    if bandwidth is not None:
        value, drawn = smooth(value, axes, bandwidth), smooth(drawn, axes, bandwidth)
    return Density(axes, value, drawn, blocks)


def smooth(
    cells: Float[np.ndarray, "*bins"], axes: tuple[Axis, ...], bandwidth: tuple[float, ...]
) -> Float[np.ndarray, "*bins"]:
    """Spread the cells, in the last axes, by a Gaussian: wrapped on a periodic axis, else reflected at the ends.

    The kernel density estimate of binned data: Silverman (1986), Density Estimation, section 3.5.
    """
    if len(bandwidth) != len(axes):
        raise ValueError(f"bandwidth {bandwidth} must have one entry an axis: {len(axes)}")
    for i, (axis, sigma) in enumerate(zip(axes, bandwidth, strict=True)):
        place = i - len(axes)
        cells = np.moveaxis(np.moveaxis(cells, place, -1) @ _kernel(axis, sigma), -1, place)
    return cells


def _kernel(axis: Axis, sigma: float) -> Float[np.ndarray, "bins bins"]:
    if not 0 < sigma < axis.length:
        raise ValueError(f"Axis {axis.name}: bandwidth = {sigma} must lie between 0 and its length")
    span, s = axis.length, axis.centers - axis.lower
    images = 2 * np.ceil(1 + 6 * sigma / span)
    shifts = span * np.arange(-images, images + 1)[:, None, None]
    if axis.periodic:
        distances = [s[:, None] - s + shifts]
    else:
        distances = [s[:, None] - s + 2 * shifts, s[:, None] + s + 2 * shifts]
    kernel = np.sum([np.exp(-((d / sigma) ** 2) / 2).sum(0) for d in distances], axis=0)
    return kernel / kernel.sum(1, keepdims=True)


def free_energy(density: Density, kT: float) -> Estimate:
    """F = -kT ln p of every cell, kJ/mol, its lowest 0; NaN where nothing was sampled.

    The error is that of -kT ln p, with p normalised: where the surface would lie if it were drawn again,
    the constant that puts its lowest cell at 0 held. Of the difference of two places ask
    :func:`region_difference` or :func:`metastable.estimate.basins.barrier`.
    """
    axes = tuple(range(1, density.resamples.ndim))
    norm = density.resamples.sum(axes, keepdims=True)
    f = log_ratio(density.probability, np.ones_like(density.probability), density.resamples, norm, kT)
    return Estimate(f.value - np.nanmin(f.value), f.error, f.unit)


def region_difference(density: Density, kT: float, first: Bool[np.ndarray, "*bins"], second: Bool[np.ndarray, "*bins"]):
    """F(first) - F(second) = -kT ln(P(first) / P(second)) of two regions, masks of cells: an Estimate, kJ/mol."""
    p, drawn = density.probability, density.resamples
    return log_ratio(p[first].sum(), p[second].sum(), drawn[:, first].sum(1), drawn[:, second].sum(1), kT)


def population(density: Density, region: Bool[np.ndarray, "*bins"]) -> Estimate:
    """The probability of a region, a mask of cells."""
    p, drawn = density.probability[region].sum(), density.resamples[:, region].sum(1)
    every = density.resamples.sum(tuple(range(1, density.resamples.ndim)))
    return Estimate(p, np.std(drawn - p * every), "")


def state_difference(
    first: Bool[np.ndarray, "time walkers"],
    second: Bool[np.ndarray, "time walkers"],
    kT: float,
    log_weights: Float[np.ndarray, "time walkers"] | None = None,
    *,
    length: int | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """F(first) - F(second) of two states that exclude each other, from which frames lie in them; kJ/mol.

    Any test on a frame defines a state, e.g. ``phi > 0``. Otherwise as :func:`density`.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if np.any(first & second):
        raise ValueError(f"{np.sum(first & second)} frames lie in both states: they must exclude each other")
    samples = np.where(first, 0.0, np.where(second, 1.0, 2.0))[..., None]
    axes = (Axis(-0.5, 2.5, 3, name="state"),)
    found = density(samples, axes, log_weights, length=length, resamples=resamples, seed=seed)
    states = np.arange(3)
    return region_difference(found, kT, states == 0, states == 1)


def _weights(log_weights, shape) -> Float[np.ndarray, "time walkers"]:
    if log_weights is None:
        return np.ones(shape)
    log_weights = np.asarray(log_weights, float)
    if log_weights.shape != shape:
        raise ValueError(f"log_weights {log_weights.shape} must have the times and walkers of the samples, {shape}")
    if np.isnan(log_weights).any() or not np.isfinite(log_weights.max()):
        raise ValueError("log_weights must be finite numbers (or -inf for none): check the bias energies")
    return np.exp(log_weights - log_weights.max())


def _blocks(samples, axes, weights, length) -> Blocks:
    """Stretches chosen from the weighted autocorrelation of the CVs, of their circle where they are periodic."""
    frames, walkers = samples.shape[:2]
    if length is not None or walkers >= STRETCHES:
        return choose_blocks(frames, walkers, length=length)
    w = weights[..., None]
    s = straighten(samples, axes)
    observables = w * (s - (w * s).sum((0, 1)) / weights.sum())
    return choose_blocks(frames, walkers, observables)
