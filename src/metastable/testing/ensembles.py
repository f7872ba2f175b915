"""Does a thermostat or a barostat sample its ensemble? The ratio test, for systems of which nothing else is known.

The distribution of a quantity at two temperatures or two pressures must have a ratio that is exponential, with a slope
that needs no density of states. With the same sampler at both points, and x of the uncorrelated frames of each::

    what is held               x                     expected slope of ln(p_second / p_first)
    volume, kT1 and kT2        potential energy      1 / kT1 - 1 / kT2
    volume, kT1 and kT2        kinetic energy        1 / kT1 - 1 / kT2
    volume, kT1 and kT2        total energy          1 / kT1 - 1 / kT2   (positions and momenta of one time)
    kT, pressures p1 and p2    volume                (p1 - p2) / kT
    pressure p, kT1 and kT2    U + p V               1 / kT1 - 1 / kT2

The test is most sensitive where the means of the two points differ by two to four standard deviations of x.

Shirts 2013, doi:10.1021/ct300688p.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from metastable.estimate.correlation import choose_blocks
from metastable.estimate.estimate import Estimate


def ratio_slope(first: Float[np.ndarray, "time walkers"], second: Float[np.ndarray, "time walkers"]) -> Estimate:
    """The slope of ln(p_second(x) / p_first(x)) = intercept + slope x by maximum likelihood, in 1 / unit of x.

    No histograms: the probability that a sample at x is one of ``second`` is logistic in x. The error is that of
    scores summed over stretches of time that are long beside the correlation, and over walkers, so that correlated
    frames do no harm as long as there are many stretches.

    first, second: x of the frames, time in front, of one walker or more; (time,) is one walker.

    Raises ValueError where a sample does not vary, where the two do not overlap, or where the run is too short.
    """
    samples = [np.asarray(x, float).reshape(len(x), -1) for x in (first, second)]
    if not all(np.isfinite(x).all() and x.std() > 0 for x in samples):
        raise ValueError("ratio_slope: the samples must be finite, and vary")
    if samples[0].max() <= samples[1].min() or samples[1].max() <= samples[0].min():
        raise ValueError("ratio_slope: the two distributions do not overlap; bring the two points closer together")
    pooled = np.concatenate([x.ravel() for x in samples])
    centre, scale = pooled.mean(), pooled.std()
    z = [(x - centre) / scale for x in samples]
    theta = _fit(z)
    information, scatter = np.zeros((2, 2)), np.zeros((2, 2))
    for label, x in enumerate(z):
        p = expit(theta[0] + theta[1] * x)
        score = (label - p)[..., None] * np.stack([np.ones_like(x), x], -1)
        information += np.einsum("tw,twi,twj->ij", p * (1 - p), *[np.stack([np.ones_like(x), x], -1)] * 2)
        scatter += _scatter(score, x)
    inverse = np.linalg.inv(information)
    error = np.sqrt((inverse @ scatter @ inverse)[1, 1]) / scale
    return Estimate(theta[1] / scale, error, "")


def check_ratio(
    first: Float[np.ndarray, "time walkers"],
    second: Float[np.ndarray, "time walkers"],
    expected: float,
    *,
    errors: float = 3.0,
    sensitivity: float = 0.1,
) -> float:
    """AssertionError where :func:`ratio_slope` is more than ``errors`` standard errors from ``expected``.

    Or where its standard error exceeds ``sensitivity`` of what is expected: the test could then hardly fail. Gives back
    the deviation in standard errors.
    """
    slope = ratio_slope(first, second)
    if not slope.error <= sensitivity * abs(expected):
        raise AssertionError(
            f"the slope {slope} is too uncertain to test against {expected:.4g}: sample longer, or move the two "
            "points to where their distributions overlap by half"
        )
    deviation = float((slope.value - expected) / slope.error)
    if abs(deviation) > errors:
        raise AssertionError(f"the slope of the ratio is {slope}, expected {expected:.4g}: {deviation:+.1f} errors off")
    return deviation


def _fit(z):
    """Intercept and slope of the logistic regression by Newton's method, halved while the likelihood falls."""
    x, label = np.concatenate([a.ravel() for a in z]), np.repeat([0.0, 1.0], [a.size for a in z])
    theta, design = np.zeros(2), np.stack([np.ones_like(x), x])

    def loss(theta):
        u = theta @ design
        return np.sum(np.logaddexp(0, u) - label * u)

    value = loss(theta)
    for _ in range(100):
        p = expit(theta @ design)
        step = np.linalg.solve((design * p * (1 - p)) @ design.T, design @ (label - p))
        while (new := loss(theta + step)) > value and np.abs(step).max() > 1e-12:
            step /= 2
        theta, value = theta + step, new
        if np.abs(step).max() < 1e-9:
            return theta
    raise ValueError("ratio_slope: the two distributions hardly overlap; bring the two points closer together")


def _scatter(score, x):
    """The covariance of the sum of the scores of one sample, from independent stretches of it."""
    frames, walkers = x.shape
    blocks = choose_blocks(frames, walkers, x[..., None])
    if blocks.count < 8:
        raise ValueError(f"ratio_slope: the run holds only {blocks.count} independent stretches; sample longer")
    zero = np.zeros(x.shape, int)
    sums = np.stack([blocks.sums(zero, 1, score[..., k])[:, 0] for k in range(2)], -1)
    sums = sums - sums.mean(0)
    return blocks.count / (blocks.count - 1) * sums.T @ sums
