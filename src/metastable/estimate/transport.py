"""How atoms move: mean squared displacement, velocity autocorrelation, diffusion, the spectrum of vibrations.

Particles are those of one box, and move together: so what is resampled is a stretch of time of a walker, with all of
its particles. Particles that are known to be independent, such as those of an ideal gas, may be given as walkers.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.fft import next_fast_len

from metastable.core.units import inverse_cm
from metastable.estimate.boxes import of_frames
from metastable.estimate.correlation import Blocks, choose_blocks
from metastable.estimate.curve import Curve, group_sums, ratio
from metastable.estimate.estimate import Estimate

_RUNS = 50  # lags go up to the length of the run over this: 9 independent blocks of a Brownian motion
_SAMPLES = 2**21  # numbers in one Fourier transform
_CUBIC = 2.837297


def unwrapped(
    positions: Float[np.ndarray, "time *walkers atoms 3"], box: Float[np.ndarray, "*time_walkers 3 3"]
) -> Float[np.ndarray, "time *walkers atoms 3"]:
    """Positions without the jumps across the border of the box, in double precision, nm.

    u_(t+1) = u_t + nearest(w_(t+1) - w_t) of the wrapped positions w, in the box of t + 1: no atom may move by more
    than the reach of the box between frames. Where the box changes in time this sum of displacements keeps the
    diffusion, which other schemes do not: von Buelow, Bullerjahn and Hummer (2020), doi:10.1063/5.0008316.
    """
    positions = np.asarray(positions, float)
    box = of_frames(box, positions.shape[:-2])[..., None, :, :]
    steps = np.diff(_wrapped(positions, box), axis=0)
    for i in (2, 1, 0):
        steps -= np.round(steps[..., i : i + 1] / box[1:, ..., i, i, None]) * box[1:, ..., i, :]
    return np.concatenate([positions[:1], positions[:1] + np.cumsum(steps, axis=0)])


def _wrapped(positions, box):
    for i in (2, 1, 0):
        positions = positions - np.floor(positions[..., i : i + 1] / box[..., i, i, None]) * box[..., i, :]
    return positions


def centers(
    vectors: Float[np.ndarray, "*batch atoms 3"],
    masses: Float[np.ndarray, " atoms"],
    molecules: Int[np.ndarray, " atoms"],
) -> Float[np.ndarray, "*batch molecules 3"]:
    """The mass-weighted mean of each molecule: its centre from positions (of whole molecules), or its velocity.

    molecules: the number of the molecule that each atom belongs to, from 0.
    """
    vectors, masses = np.asarray(vectors, float), np.asarray(masses, float)
    order = np.argsort(molecules, kind="stable")
    starts = np.searchsorted(np.asarray(molecules)[order], np.unique(molecules))
    total = np.add.reduceat(masses[order], starts)
    return np.add.reduceat(vectors[..., order, :] * masses[order, None], starts, axis=-2) / total[:, None]


def mean_squared_displacement(
    positions: Float[np.ndarray, "time *walkers particles 3"],
    dt: float,
    *,
    limit: float | None = None,
    length: int | None = None,
) -> Curve:
    """<|r(t + tau) - r(t)|^2> over particles, walkers and all times t, against tau in ps, nm^2.

    By Fourier transforms: Kneller, Keiner, Kneller and Schiller (1995), doi:10.1016/0010-4655(95)00048-K.

    positions: nm, unwrapped. dt: between frames, ps. limit: the largest tau, ps; a fiftieth of the run where None.
    length: of a block of time, frames; chosen from the correlation in time where None.
    Raises ValueError where the limit is not within the run.
    """
    x = _checked("positions", positions)
    return _averaged(x, np.ones(x.shape[2]), dt, limit, length, "nm^2", squared=True)


def velocity_autocorrelation(
    velocities: Float[np.ndarray, "time *walkers particles 3"],
    dt: float,
    masses: Float[np.ndarray, " particles"] | None = None,
    *,
    limit: float | None = None,
    length: int | None = None,
) -> Curve:
    """<v(t) . v(t + tau)> over particles, walkers and all times t, against tau in ps; nm^2/ps^2.

    masses: Da; each particle then counts with its mass, for :func:`spectrum`, and the unit is kJ/mol.
    Otherwise as :func:`mean_squared_displacement`.
    """
    v = _checked("velocities", velocities)
    scale = np.ones(v.shape[2]) if masses is None else np.sqrt(np.asarray(masses, float))
    if scale.shape != v.shape[2:3]:
        raise ValueError(f"masses {scale.shape} must have one entry for each of the {v.shape[2]} particles")
    return _averaged(v, scale, dt, limit, length, "nm^2/ps^2" if masses is None else "kJ/mol", squared=False)


def diffusion(displacement: Curve, window: tuple[float, float]) -> Estimate:
    """D = slope / 6 of the mean squared displacement over the lags of the window, ps: Einstein's relation, nm^2/ps.

    The straight line, with an intercept, is fitted with the weights 1/tau^3: the variance of the displacement of
    Brownian motion grows as tau^3. They do not depend on the data, so that D is linear in them and without bias.
    The window must lie where the motion is diffusive: that the displacement is straight there is for the eye.
    Raises ValueError where fewer than two lags lie in the window.
    """
    lags = displacement.x
    rounding = 1e-6 * lags[1]
    inside = (lags >= window[0] - rounding) & (lags <= window[1] + rounding) & (lags > 0)
    weights = np.where(inside, 1 / np.maximum(lags, lags[1]) ** 3, 0)
    if np.count_nonzero(weights) < 2:
        raise ValueError(
            f"window = {window} ps holds {np.count_nonzero(weights)} of the lags from {lags[1]:g} to {lags[-1]:g} ps: "
            "a line needs two; widen it, or raise the limit of the displacement"
        )
    centered = weights * (lags - weights @ lags / weights.sum())
    return displacement.functional(centered / (centered @ lags) / 6, "nm^2/ps")


def green_kubo(autocorrelation: Curve) -> Curve:
    """D(tau) = 1/3 integral_0^tau <v(0) . v(t)> dt, nm^2/ps, by trapezoids; D is its plateau.

    Allen and Tildesley (2017), Computer Simulation of Liquids, section 2.7. For the error of D at a time ask
    ``green_kubo(c).at(time)``. Raises ValueError for an autocorrelation that masses weigh.
    """
    if autocorrelation.unit != "nm^2/ps^2":
        raise ValueError(f"the autocorrelation is in {autocorrelation.unit}: diffusion needs that without masses")
    x = autocorrelation.x
    return autocorrelation.map(lambda c: _integral(c) * (x[1] - x[0]) / 3, x, "ps", "nm^2/ps")


def spectrum(autocorrelation: Curve) -> Curve:
    """The density of vibrational states, cm, against the wavenumber, cm^-1; it integrates to 1.

    S(nu) = 4 c integral_0^limit w(t) C(t) / C(0) cos(2 pi c nu t) dt with C weighed by the masses, and Hann's window
    w(t) = cos^2(pi t / (2 limit)): lines come out 1 / (c limit) wide. Times the degrees of freedom it is the density
    of Lin, Blanco and Goddard (2003), doi:10.1063/1.1624057.
    """
    c = autocorrelation.over(0, "")
    step, lags = c.x[1] - c.x[0], len(c)
    window = np.cos(np.pi / 2 * np.arange(lags) / (lags - 1)) ** 2
    size = 2 * (lags - 1)
    wavenumbers = np.arange(lags) / (size * step * inverse_cm)
    return c.map(
        lambda y: 2 * inverse_cm * step * np.fft.hfft(y * window, size)[..., :lags], wavenumbers, "cm^-1", "cm"
    )


def of_infinite_box(diffusion: Estimate, kT: float, viscosity: float | Estimate, edge: float) -> Estimate:
    """D + xi kT / (6 pi eta L), nm^2/ps, xi = 2.837297: what D in a cubic box of edge L tends to as L grows.

    Yeh and Hummer (2004), doi:10.1021/jp0477147. A box in which D was found holds back its own motion.
    kT: kJ/mol. viscosity: Da/(nm ps), e.g. ``0.85e-3 * pascal_second``; of the model, not of the real liquid; its
    error is carried on where it has one. edge: nm, of a cube: other boxes have another xi.
    """
    eta = viscosity if isinstance(viscosity, Estimate) else Estimate(float(viscosity), 0.0)
    if not (edge > 0 and eta.value > 0):
        raise ValueError(f"edge = {edge} nm and viscosity = {eta.value} Da/(nm ps) must be above 0")
    shift = _CUBIC * kT / (6 * np.pi * eta.value * edge)
    error = np.hypot(diffusion.error, shift * eta.error / eta.value)
    return Estimate(diffusion.value + shift, error, diffusion.unit)


def _checked(name, vectors) -> Float[np.ndarray, "time walkers particles 3"]:
    vectors = np.asarray(vectors)
    if vectors.ndim < 3 or vectors.shape[-1] != 3 or len(vectors) < 3:
        raise ValueError(f"{name} {vectors.shape} must be (time, particles, 3) or (time, walkers, particles, 3)")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name} must be finite numbers")
    return vectors.reshape(len(vectors), -1, *vectors.shape[-2:])


def _averaged(x, scale, dt, limit, length, unit, squared) -> Curve:
    """The mean over particles, walkers and origins of the products, or of the squared differences, at every lag."""
    times, walkers, particles = x.shape[:3]
    span = dt * (times - 1)
    limit = max(span / _RUNS, dt) if limit is None else limit
    if not dt <= limit < span:
        raise ValueError(f"limit = {limit} ps must lie between one frame, {dt} ps, and the run, {span:g} ps")
    lags = int(limit / dt + 1e-9) + 1
    origins = times - lags + 1

    def probe(piece, lag):
        ends = piece[..., lag : lag + origins]
        return np.sum((ends - piece[..., :origins]) ** 2 if squared else ends * piece[..., :origins], 1)

    ends = {1, lags - 1} if squared else {0, lags - 1}
    probes = sum(np.stack([probe(piece, lag) for lag in ends]) for piece in _pieces(x, scale))
    blocks = choose_blocks(origins, walkers, np.asarray(probes).transpose(2, 1, 0), length)
    sums = np.zeros((blocks.groups, blocks.per_walker, lags))
    for piece in _pieces(x, scale):
        _accumulate(sums, piece - piece.mean(-1, keepdims=True) if squared else piece, blocks, squared)
    counts = np.zeros_like(sums)
    counts += group_sums(blocks, np.full(walkers, float(particles)))[:, None, None]
    for k, (first, last) in enumerate(_bounds(blocks, times)):
        counts[:, k] *= np.minimum(last, times - np.arange(lags)) - first
    shape = (blocks.count, lags)
    return ratio(dt * np.arange(lags), sums.reshape(shape), counts.reshape(shape), blocks, "ps", unit)


def _pieces(x, scale):
    """The components of some particles at a time, (walkers, components, time), in double precision."""
    times, walkers, particles = x.shape[:3]
    some = max(1, _SAMPLES // (3 * times * walkers))
    for first in range(0, particles, some):
        piece = np.asarray(x[:, :, first : first + some], float) * scale[first : first + some, None]
        yield np.ascontiguousarray(np.moveaxis(piece.reshape(times, walkers, -1), 0, -1))


def _bounds(blocks: Blocks, times: int) -> list[tuple[int, int]]:
    """First and last origin of each block; what is left over, up to the last frame, joins the last."""
    first = [k * blocks.length for k in range(blocks.per_walker)]
    return list(zip(first, [*first[1:], times], strict=True))


def _accumulate(sums, piece: Float[np.ndarray, "walkers components time"], blocks: Blocks, squared: bool):
    """Add sum_t x(t) x(t + tau), or sum_t (x(t + tau) - x(t))^2, over the origins t of each block."""
    times, lags = piece.shape[-1], sums.shape[-1]
    tau = np.arange(lags)
    squares = np.pad(np.cumsum(np.sum(piece**2, 1), -1), ((0, 0), (1, 0)))  # up to each time, (walkers, time + 1)
    for k, (first, last) in enumerate(_bounds(blocks, times)):
        size = next_fast_len(last - first + lags - 1, real=True)
        starts = np.fft.rfft(piece[..., first:last], size)
        ends = np.fft.rfft(piece[..., first : last + lags - 1], size)
        found = np.fft.irfft(np.sum(starts.conj() * ends, 1), size)[..., :lags]
        if squared:
            stop = np.minimum(last, times - tau)
            both = squares[:, stop] - squares[:, [first]] + squares[:, stop + tau] - squares[:, first + tau]
            found = both - 2 * found
        sums[:, k] += group_sums(blocks, found)


def _integral(c):
    """Cumulative trapezoids over the last axis, in units of the step."""
    return np.cumsum(c, -1) - (c + c[..., :1]) / 2
