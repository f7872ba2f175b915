"""Chains with known answers, and the question whether error bars tell the truth."""

import numpy as np
import pytest


@pytest.fixture
def metropolis():
    """metropolis(energy, start, kT, steps, move, rng): (steps, *start.shape), every element its own chain."""

    def sample(energy, start, kT, steps, move, rng):
        x, u, out = start.copy(), energy(start), np.empty((steps, *start.shape))
        for i in range(steps):
            y = x + rng.normal(0, move, x.shape)
            v = energy(y)
            accept = rng.random(x.shape) < np.exp(np.minimum(0, (u - v) / kT))
            x, u = np.where(accept, y, x), np.where(accept, v, u)
            out[i] = x
        return out

    return sample


@pytest.fixture
def calibrated():
    """calibrated(z, slack): z = (estimate - truth) / error, (experiments, quantities), lies within 1 for 68 %.

    The tolerance is 4 standard errors over the experiments, which are independent, plus the slack.
    """

    def check(z, slack=0.02):
        z = np.asarray(z, float).reshape(len(z), -1)
        assert np.isfinite(z).all()
        inside = (np.abs(z) < 1).mean(1)
        off = inside.mean() - 0.6827
        limit = 4 * inside.std() / np.sqrt(len(inside)) + slack
        assert abs(off) < limit, f"within one error: {inside.mean():.3f}, not 0.683 +- {limit:.3f}"
        assert limit < 0.12, f"too few experiments to tell: tolerance {limit:.3f}"

    return check
