"""What a run directory holds: the only thing that the report knows of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metastable.report.movie import Movie


@dataclass(frozen=True)
class Quantity:
    """An estimate by its name: value and standard error in ``unit``."""

    name: str
    value: float
    error: float
    unit: str


@dataclass(frozen=True)
class Coordinate:
    """A collective variable as an axis. grid: bin centres in ``unit``; period in ``unit``, None where there is none."""

    label: str
    unit: str
    grid: np.ndarray
    period: float | None = None


@dataclass(frozen=True)
class Minimum:
    """A minimum of the landscape: place in the units of the axes, kJ/mol, populations as fractions.

    frame: which frame of the trajectory shows it, None where none does.
    """

    name: str
    location: tuple[float, ...]
    free_energy: float
    error: float
    population: float
    population_error: float
    frame: int | None


@dataclass(frozen=True)
class Profile:
    """A free energy along one axis, kJ/mol, (bins,). bound: the error is an upper bound, not a standard error."""

    axis: Coordinate
    free_energy: np.ndarray
    error: np.ndarray
    bound: bool = False


@dataclass(frozen=True)
class Landscape:
    """Free energy over one or two axes, kJ/mol, first axis first; NaN where the run never was."""

    axes: tuple[Coordinate, ...]
    free_energy: np.ndarray
    error: np.ndarray
    minima: tuple[Minimum, ...]
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Part:
    """What the first part of the run gives. time: of all walkers together, ns; values: name -> (value, error)."""

    time: float
    values: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Some walkers in time. time: ps, (frames,); values: (frames, walkers, columns); walkers: their numbers."""

    time: np.ndarray
    values: np.ndarray
    walkers: tuple[int, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """One quantity in time. time: ps, (points,); walkers: (points, walkers), means of so many ``records`` each."""

    name: str
    unit: str
    time: np.ndarray
    walkers: np.ndarray
    records: int


@dataclass(frozen=True)
class Curve:
    """A curve with its standard error, NaN where that is unknown.

    label, unit: of the values; x_label, x_unit: of the places. window: from, to, where a straight line, (slope,
    intercept), was laid through it; None where none was.
    """

    label: str
    x_label: str
    x_unit: str
    unit: str
    x: np.ndarray
    values: np.ndarray
    error: np.ndarray
    window: tuple[float, float] | None = None
    line: tuple[float, float] | None = None


@dataclass(frozen=True)
class Observed:
    """An observable of a liquid by its name: what kind it is, numbers, curves, and what must be known of them."""

    name: str
    kind: str
    quantities: tuple[Quantity, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RunData:
    """A run directory, read. ``None`` or empty is what the run did not write.

    unseen: why there is no movie. used_from: ps, before which the estimates use nothing.
    """

    directory: Path
    recipe: str = ""
    title: str = ""
    quantities: tuple[Quantity, ...] = ()
    landscape: Landscape | None = None
    observed: tuple[Observed, ...] = ()
    convergence: tuple[Part, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    cite: tuple[dict, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    resolved: str = ""
    log: dict[str, np.ndarray] = field(default_factory=dict)
    cvs: Series | None = None
    traces: tuple[Trace, ...] = ()
    growth: tuple[Trace, ...] = ()
    movie: Movie | None = None
    unseen: str = ""
    used_from: float = 0.0

    @property
    def seeks_landscape(self) -> bool:
        """Whether a free energy landscape is missed where there is none: not in dynamics without any CV."""
        return self.landscape is not None or self.recipe != "dynamics" or self.cvs is not None
