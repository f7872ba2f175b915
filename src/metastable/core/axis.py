"""Axis: how a collective variable is cut into bins."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Axis:
    """Equal bins between two ends, in the unit of the collective variable.

    periodic: ``upper`` is ``lower`` again, as for a torsion in ``Axis(-pi, pi, 100, periodic=True)``. name, unit: of
    the variable, for messages and figures. Raises ValueError unless lower < upper and there is a bin.
    """

    lower: float
    upper: float
    bins: int
    periodic: bool = False
    name: str = "s"
    unit: str = ""

    def __post_init__(self):
        if not (np.isfinite([self.lower, self.upper]).all() and self.lower < self.upper):
            raise ValueError(f"Axis {self.name}: lower = {self.lower} must lie below upper = {self.upper}")
        if self.bins < 1:
            raise ValueError(f"Axis {self.name}: bins = {self.bins} must be at least 1")

    @classmethod
    def angle(cls, name: str = "phi", bins: int = 60) -> "Axis":
        """A full turn from -pi to pi, rad."""
        return cls(-np.pi, np.pi, bins, True, name, "rad")

    @property
    def length(self) -> float:
        """From end to end."""
        return self.upper - self.lower

    @property
    def spacing(self) -> float:
        """The width of one bin."""
        return self.length / self.bins

    @property
    def period(self) -> float | None:
        """The length of a periodic axis, None of another."""
        return self.length if self.periodic else None

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        """Where the bins begin and end, both ends included: (bins + 1,)."""
        return np.linspace(self.lower, self.upper, self.bins + 1)

    @property
    def points(self) -> Float[np.ndarray, " points"]:
        """The edges that are different places: (bins,) where periodic, else (bins + 1,)."""
        return self.edges[:-1] if self.periodic else self.edges

    @property
    def centers(self) -> Float[np.ndarray, " bins"]:
        """The middle of each bin."""
        return self.lower + self.spacing * (np.arange(self.bins) + 0.5)

    def index(self, s: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The bin of each value; -1 outside an axis that is not periodic. Raises ValueError where one is not finite."""
        s = np.asarray(s, float)
        if not np.isfinite(s).all():
            raise ValueError(f"Axis {self.name}: {np.size(s) - np.isfinite(s).sum()} samples are not finite numbers")
        k = np.floor((s - self.lower) / self.spacing).astype(np.int32)
        if self.periodic:
            return k % self.bins
        k = np.where(s == self.upper, self.bins - 1, k)
        return np.where((k >= 0) & (k < self.bins), k, -1)
