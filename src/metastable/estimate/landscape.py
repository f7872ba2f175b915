"""The landscape of a run: all that a report says about its free energy, from samples and weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from metastable.core.axis import Axis
from metastable.estimate.basins import Basins, basins
from metastable.estimate.correlation import Blocks
from metastable.estimate.density import Density, free_energy, prepare, tally
from metastable.estimate.estimate import Estimate, log_ratio
from metastable.estimate.weights import effective_size

_FRACTIONS = tuple(k / 10 for k in range(1, 11))


@dataclass(frozen=True)
class Convergence:
    """The same estimate from growing parts of a run.

    fractions: of its frames, from the start. estimate: one row a fraction.
    """

    fractions: tuple[float, ...]
    estimate: Estimate


def converge(
    estimate: Callable[..., Estimate], *arrays: Float[np.ndarray, "time *rest"], fractions: Sequence[float] = _FRACTIONS
) -> Convergence:
    """Call ``estimate(*arrays)`` on the first parts of arrays that have time in their first axis.

    For example ``converge(lambda a, b, w: state_difference(a, b, kT, w), phi > 0, phi < 0, log_weights)``.
    """
    if not all(0 < f <= 1 for f in fractions):
        raise ValueError(f"fractions {fractions} must lie above 0 and not above 1")
    frames = len(arrays[0])
    found = [estimate(*(a[: max(1, round(f * frames))] for a in arrays)) for f in fractions]
    value, error = np.array([e.value for e in found]), np.array([e.error for e in found])
    return Convergence(tuple(fractions), Estimate(value, error, found[0].unit))


@dataclass(frozen=True)
class Landscape:
    """Free energy over collective variables, with its minima, convergence and errors.

    axes: of the grid. free_energy: of every cell, kJ/mol, lowest 0, NaN where unsampled, (*bins).
    basins: minima with location, free energy difference, population, barriers; ``basins.labels`` is their map.
    convergence: of ``basins.free_energy``, (fractions, basins), the basins those of the whole run.
    effective_size: Kish's, of the weights of all frames. blocks: the stretches that were resampled.
    density: to read more from, with errors that belong together.
    """

    axes: tuple[Axis, ...]
    kT: float
    free_energy: Estimate
    basins: Basins
    convergence: Convergence
    effective_size: float
    blocks: Blocks
    density: Density


def landscape(
    samples: Float[np.ndarray, "time walkers cvs"],
    log_weights: Float[np.ndarray, "time walkers"] | None,
    axes: tuple[Axis, ...],
    kT: float,
    *,
    merge: float | None = None,
    bandwidth: tuple[float, ...] | None = None,
    length: int | None = None,
    fractions: Sequence[float] = _FRACTIONS,
    resamples: int = 200,
    seed: int = 0,
) -> Landscape:
    """Everything at once: see ``density``, ``basins`` and ``converge`` for each part.

    kT: kJ/mol. log_weights: None for an unbiased run. merge: minima less deep than this are one, kJ/mol.
    """
    samples = np.asarray(samples)
    index, weights, blocks = prepare(samples, axes, log_weights, length)
    found = tally(index, axes, weights, blocks, bandwidth=bandwidth, resamples=resamples, seed=seed)
    minima = basins(found, kT, merge=merge)
    label = np.append(minima.labels.ravel(), -1)[index]  # index -1, off the grid, is no basin
    basin = (Axis(-0.5, len(minima) - 0.5, len(minima), name="basin"),)

    def differences(label, weights) -> Estimate:
        part = Blocks(len(label), blocks.walkers, min(blocks.length, len(label)), blocks.groups)
        shares = tally(label, basin, weights, part, resamples=resamples, seed=seed)
        return log_ratio(shares.probability, shares.probability[0], shares.resamples, shares.resamples[:, :1], kT)

    return Landscape(
        axes,
        kT,
        free_energy(found, kT),
        minima,
        converge(differences, label, weights, fractions=fractions),
        effective_size(np.zeros(index.shape) if log_weights is None else log_weights),
        blocks,
        found,
    )
