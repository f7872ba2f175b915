"""Expressions recognised by their form."""

import pytest

from metastable.io.expressions import first_match, match, normalise


def test_blanks_and_empty_definitions_do_not_count():
    assert normalise(" a + b ;; c = 2 ; ") == "a+b;c=2"


@pytest.mark.parametrize("number", ["1", "-0.5", "2.5e-3", "1E+10", ".5", "3."])
def test_numbers_are_read(number):
    assert match("{k}*x^2; y={k}", f"{number} * x^2;y = {number}") == {"k": float(number)}


@pytest.mark.parametrize("other", ["2*x^3", "2*x^2+1", "x*2^2", "-2*y^2", "2*x^2;y=3", "1-2*x^2"])
def test_what_differs_is_not_matched(other):
    assert match("{k}*x^2", other) is None


def test_a_name_stands_for_one_number():
    assert match("{a}*x+{a}", "2*x+3") is None


def test_the_first_form_that_fits_is_named():
    assert first_match({"linear": "{k}*x", "square": "{k}*x^2"}, "3*x^2") == ("square", {"k": 3.0})
    assert first_match({"linear": "{k}*x"}, "x") is None
