"""How many of the samples are independent, and the errors that follow.

Walkers are taken as independent of each other. (Given the bias they are; that they share one couples them
through it, an effect of the order of one over the number of walkers.) In time they are correlated:
so what is resampled is never a frame but a stretch, one walker over one block of time.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from metastable.estimate.estimate import Estimate

STRETCHES = 64  # wanted: the error is then itself known to 9 %
_MOST_STRETCHES = 512  # more walkers than this are resampled in groups, to save memory
LEAST = 4  # fewer stretches than this tell no error: of two it may come out a hundred times too small
_FEW = 8  # stretches, for which blocks may be half as long as is wanted
_LENGTH = 8  # of a block, in statistical inefficiencies: errors come out at most 3 % too small


def statistical_inefficiency(x: Float[np.ndarray, "time *walkers"]) -> float:
    """g = 1 + 2 sum_t (1 - t / T) C(t): the frames that say as much as one independent one, at least 1.

    C is the normalised autocorrelation about the mean over all walkers, so that walkers stuck in different
    places count as long correlation. Summed to its first crossing of zero: Chodera, Swope, Pitera, Seok
    and Dill (2007), doi:10.1021/ct0502864.
    """
    x = np.asarray(x, float).reshape(len(x), -1)
    time = len(x)
    x = x - x.mean()
    size = 2 ** int(np.ceil(np.log2(2 * time)))
    spectrum = np.zeros(size // 2 + 1)
    for column in x.T:
        spectrum += np.abs(np.fft.rfft(column, size)) ** 2
    c = np.fft.irfft(spectrum, size)[:time]
    if time < 2 or not c[0] > np.finfo(float).eps * size:
        return 1.0
    c = c / c[0]  # the sum over time - t terms already carries the factor 1 - t / T
    below = np.flatnonzero(c <= 0)
    return max(1.0, float(1 + 2 * c[1 : below[0] if len(below) else time].sum()))


def subsample(x: Float[np.ndarray, " time"]) -> Int[np.ndarray, " kept"]:
    """Indices of frames that are nearly uncorrelated: one every g frames."""
    return np.arange(0, len(x), int(np.ceil(statistical_inefficiency(x))))


@dataclass(frozen=True)
class Blocks:
    """The stretches that are resampled: every walker (or group of walkers) over every block of time.

    frames, walkers: of the run. length: of a block, frames. groups: of walkers.
    inefficiency: statistical inefficiency of the samples, frames; NaN where nobody had to look.
    """

    frames: int
    walkers: int
    length: int
    groups: int
    inefficiency: float = float("nan")

    @property
    def per_walker(self) -> int:
        """Blocks along the run, at least one."""
        return max(1, self.frames // self.length)

    @property
    def count(self) -> int:
        """All blocks, those of each group of walkers counted."""
        return self.groups * self.per_walker

    def stretch(self, first: int, last: int) -> Int[np.ndarray, "time walkers"]:
        """The stretch that each frame from first to last belongs to. What is left over joins the last block."""
        block = np.minimum(np.arange(first, last) // self.length, self.per_walker - 1)
        group = np.arange(self.walkers) * self.groups // self.walkers
        return (group * self.per_walker)[None, :] + block[:, None]

    def sums(
        self, index: Int[np.ndarray, "time walkers"], bins: int, weights: Float[np.ndarray, "time walkers"]
    ) -> Float[np.ndarray, "stretches bins"]:
        """The summed weight of every stretch in every bin; a negative index is left out."""
        total = np.zeros(self.count * (bins + 1))
        chunk = max(1, 2**20 // self.walkers)
        for first in range(0, self.frames, chunk):
            last = min(first + chunk, self.frames)
            flat = self.stretch(first, last) * (bins + 1) + index[first:last] + 1
            total += np.bincount(flat.ravel(), weights[first:last].ravel(), minlength=len(total))
        return total.reshape(self.count, bins + 1)[:, 1:]


def choose_blocks(
    frames: int,
    walkers: int,
    observables: Float[np.ndarray, "time walkers observables"] | None = None,
    length: int | None = None,
) -> Blocks:
    """Stretches to resample: whole walkers where there are 64 or more, else blocks of time in each.

    The length of a block: the run cut so that there are 64 stretches in all, but at least 8 times the
    largest statistical inefficiency of the observables, 4 times where there were fewer than 8 stretches; or as
    given, in frames.
    """
    groups = min(walkers, _MOST_STRETCHES)
    if length is not None:
        if not 1 <= length <= frames:
            raise ValueError(f"block length = {length} frames must lie between 1 and the {frames} frames of the run")
        return Blocks(frames, walkers, length, groups)
    if walkers >= STRETCHES or observables is None:
        return Blocks(frames, walkers, frames, groups)
    g = max(statistical_inefficiency(observables[..., i]) for i in range(observables.shape[-1]))
    wanted = min(-(-STRETCHES // walkers), int(frames / (_LENGTH * g)))
    cuts = max(1, wanted, min(-(-_FEW // walkers), int(2 * frames / (_LENGTH * g))))
    return Blocks(frames, walkers, frames // cuts, groups, g)


def resample(count: int, resamples: int, seed: int) -> Float[np.ndarray, "resamples count"]:
    """How often each of ``count`` stretches is drawn in each resample; the mean of all entries is 1.

    One fewer is drawn than there are, which makes the variance unbiased: Rao and Wu (1988),
    doi:10.1080/01621459.1988.10478591. NaN where there are fewer than LEAST stretches: too few to know an error from.
    """
    if resamples < 2:
        raise ValueError(f"resamples = {resamples} must be at least 2")
    if count < LEAST:
        return np.full((resamples, count), np.nan)
    drawn = np.random.default_rng(seed).multinomial(count - 1, np.full(count, 1 / count), resamples)
    return drawn * (count / (count - 1))


def mean(
    values: Float[np.ndarray, "time walkers"],
    log_weights: Float[np.ndarray, "time walkers"] | None = None,
    *,
    length: int | None = None,
    unit: str = "",
) -> Estimate:
    """The weighted mean with the error of a ratio over stretches; NaN error where there are fewer than LEAST.

    m = sum_u S_u / sum_u W_u; error^2 = n / (n - 1) sum_u (S_u - m W_u)^2 / (sum_u W_u)^2.
    """
    values = np.asarray(values, float)
    log_weights = np.zeros(values.shape) if log_weights is None else np.asarray(log_weights, float)
    weights = np.exp(log_weights - log_weights.max())
    m = float(np.average(values, weights=weights))
    frames, walkers = values.shape
    blocks = choose_blocks(frames, walkers, (weights * (values - m))[..., None], length)
    zero = np.zeros(values.shape, int)
    s, w = blocks.sums(zero, 1, weights * values)[:, 0], blocks.sums(zero, 1, weights)[:, 0]
    n = blocks.count
    error = np.sqrt(n / (n - 1) * np.sum((s - m * w) ** 2)) / w.sum() if n >= LEAST else np.nan
    return Estimate(m, float(error), unit)


def blocking(x: Float[np.ndarray, " time"]) -> tuple[Estimate, Float[np.ndarray, "levels 3"]]:
    """The mean of one time series by repeated halving, and the table: block length, error, error of the error.

    Flyvbjerg and Petersen (1989), doi:10.1063/1.457480, eqs. 20 and 28. The level of the plateau is the
    first with L^3 > 2 n (error_L / error_1)^4: Wolff (2004), doi:10.1016/S0010-4655(03)00467-3, and Lee et
    al. (2011), doi:10.1103/PhysRevE.83.066706; where the run is too short for a plateau the error is NaN.
    """
    x = np.asarray(x, float)
    if len(x) < 4:
        raise ValueError(f"blocking needs at least 4 frames, not {len(x)}")
    value, frames, length, rows = float(x.mean()), len(x), 1, []
    while len(x) >= 4:
        error = np.sqrt(x.var() / (len(x) - 1))
        rows.append((length, error, error / np.sqrt(2 * (len(x) - 1))))
        x, length = x[: len(x) // 2 * 2].reshape(-1, 2).mean(1), 2 * length
    table = np.array(rows)
    ratio = table[:, 1] / table[0, 1] if table[0, 1] > 0 else np.ones(len(table))
    flat = np.flatnonzero(table[:, 0] ** 3 > 2 * frames * ratio**4)
    return Estimate(value, float(table[flat[0], 1]) if len(flat) else float("nan")), table
