"""Estimate and the linearised logarithm."""

import numpy as np
import pytest

from metastable.estimate.estimate import Estimate, log_ratio


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3.14159, 0.0157, "3.142 +- 0.016 kJ/mol"),
        (123.4, 21.0, "123 +- 21 kJ/mol"),
        (0.5, 0.0, "0.500 +- 0.000 kJ/mol"),
        (0.5, np.nan, "0.500 kJ/mol, error unknown"),
    ],
)
def test_an_estimate_shows_the_digits_that_it_knows(value, error, text):
    assert str(Estimate(value, error, "kJ/mol")) == text


def test_value_and_error_have_one_shape():
    with pytest.raises(ValueError, match="differ in shape"):
        Estimate(np.zeros(3), np.zeros(2))
    part = Estimate(np.arange(3.0), np.ones(3), "nm")[1]
    assert (float(part.value), float(part.error), part.unit) == (1.0, 1.0, "nm")


def test_log_ratio_has_the_spread_of_the_logarithm():
    rng, kT = np.random.default_rng(0), 2.5
    a, c = rng.normal(3, 0.03, 20000), rng.normal(1, 0.02, 20000)
    found = log_ratio(3.0, 1.0, a, c, kT)
    assert found.value == pytest.approx(-kT * np.log(3))
    assert found.error == pytest.approx(np.std(kT * np.log(a / c)), rel=0.01)
    assert np.isnan(log_ratio(0.0, 1.0, 0 * a, c, kT).value)
