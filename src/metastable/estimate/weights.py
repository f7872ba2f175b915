"""Weights that undo a bias. Logarithms, defined up to a constant; all energies in kJ/mol.

Which one: ``time_offset``, with either offset, for a run whose bias grew while it was recorded: errors from
resampling walkers are then right to some 10 %, although the walkers share the bias. ``last_bias`` for a
static bias; for a grown one it takes for static what still changed, an error (tenths of kT, most on steep
walls) that resampling does not show.
"""

import numpy as np
from jaxtyping import Float


def last_bias(bias: Float[np.ndarray, "time walkers"], kT: float) -> Float[np.ndarray, "time walkers"]:
    """ln w = V(s_t) / kT, with the final (or static) bias evaluated on every frame.

    Torrie and Valleau (1977), doi:10.1016/0021-9991(77)90121-8; for the final bias of metadynamics
    Branduardi, Bussi and Parrinello (2012), doi:10.1021/ct3002464.
    """
    return np.asarray(bias, float) / kT


def time_offset(
    bias: Float[np.ndarray, "time walkers"], offset: Float[np.ndarray, " time"], kT: float
) -> Float[np.ndarray, "time walkers"]:
    """ln w = (V(s_t, t) - c(t)) / kT, with the bias that acted on each frame when it was recorded.

    offset: c(t) from :func:`tiwary_parrinello` or :func:`balanced`, kJ/mol. Walkers that share a bias share it.
    """
    bias, offset = np.asarray(bias, float), np.asarray(offset, float)
    if offset.shape != bias.shape[:1]:
        raise ValueError(f"offset {offset.shape} must have one entry a recorded time: {bias.shape[:1]}")
    return (bias - offset[:, None]) / kT


def tiwary_parrinello(
    bias: Float[np.ndarray, "*times cells"], kT: float, bias_factor: float
) -> Float[np.ndarray, "*times"]:
    """c(t) = kT ln [ sum_s exp(g V / ((g - 1) kT)) / sum_s exp(V / ((g - 1) kT)) ], kJ/mol.

    bias: V(s, t) on an even grid over the whole of CV space, cells in the last axis, kJ/mol. bias_factor: g > 1.
    Tiwary and Parrinello (2015), doi:10.1021/jp504920s, eqs. 3 and 12.
    """
    if not bias_factor > 1:
        raise ValueError(f"bias_factor = {bias_factor} must be above 1")
    x = np.asarray(bias, float) / ((bias_factor - 1) * kT)
    return kT * (_log_sum_exp(bias_factor * x) - _log_sum_exp(x))


def balanced(bias: Float[np.ndarray, "*times cells"]) -> Float[np.ndarray, "*times"]:
    """c(t) = the mean of V(s, t) over the cells that carry bias at that time, kJ/mol.

    It weighs the stretches of a run evenly, whatever the height the bias had reached: balanced exponential
    reweighting, Schaefer and Settanni (2020), doi:10.1021/acs.jctc.9b00867.
    """
    bias = np.asarray(bias, float)
    visited = np.count_nonzero(bias, axis=-1)
    return bias.sum(-1) / np.maximum(visited, 1)


def effective_size(log_weights: Float[np.ndarray, "..."]) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted samples say as much, ignoring their correlation.

    Kish (1965), Survey Sampling. Raises ValueError where no weight is a positive number.
    """
    log_weights = np.asarray(log_weights, float)
    largest = log_weights.max()
    if not np.isfinite(largest):
        raise ValueError(f"the largest log weight is {largest}: check the bias energies for NaN and infinity")
    w = np.exp(log_weights - largest)
    return float(w.sum() ** 2 / np.vdot(w, w))


def _log_sum_exp(x):
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]
