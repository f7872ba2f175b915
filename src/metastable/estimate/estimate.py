"""Estimate: a number, or an array of numbers, that admits what it does not know."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, of one shape.

    value: NaN where there is nothing to estimate from.
    error: one standard deviation of the value over repetitions of the whole run; NaN where unknown.
    unit: of both, as text.
    """

    value: Any
    error: Any
    unit: str = ""

    def __post_init__(self):
        if np.shape(self.value) != np.shape(self.error):
            raise ValueError(f"Estimate: value {np.shape(self.value)} and error {np.shape(self.error)} differ in shape")

    def __getitem__(self, index) -> "Estimate":
        return Estimate(np.asarray(self.value)[index], np.asarray(self.error)[index], self.unit)

    def __len__(self) -> int:
        return len(self.value)

    def __str__(self) -> str:
        """The value to the digit where its error has two: 3.142 +- 0.016 kJ/mol; or 3.142 kJ/mol, error unknown."""
        if np.ndim(self.value):
            return f"Estimate of shape {np.shape(self.value)} {self.unit}".rstrip()
        value, error = float(self.value), float(self.error)
        if not np.isfinite(error):
            return f"{value:.3f} {self.unit}".rstrip() + ", error unknown"
        digits = int(max(0, 1 - np.floor(np.log10(error)))) if error > 0 else 3
        return f"{value:.{digits}f} +- {error:.{digits}f} {self.unit}".rstrip()


def log_ratio(first, second, first_resampled, second_resampled, kT: float) -> Estimate:
    """-kT ln(first / second) with the error that the resampled sums give, kJ/mol.

    The error is that of the linearised logarithm, kT std(a_b / a - c_b / c) over resamples b: to first order
    the same as resampling the logarithm, and finite where a resample happens to hold no sample at all.
    Resamples lie in the first axis. NaN where either sum is zero.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    a, c = np.where(first > 0, first, np.nan), np.where(second > 0, second, np.nan)
    with np.errstate(invalid="ignore"):
        error = kT * np.std(first_resampled / a - second_resampled / c, axis=0)
    return Estimate(kT * np.log(c / a), error, "kJ/mol")
