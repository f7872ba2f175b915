"""Numbers as a chemist writes them; curves and colours that stand where the numbers say."""

import math
import re

import numpy as np
import pytest

from metastable.report.figures import profiles
from metastable.report.notation import duration, fact, number, plus_minus, shown, ticks_between, typeset
from metastable.report.plot import Panel
from metastable.report.rundata import Coordinate, Landscape
from metastable.report.surface import color_limit, finer

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (8.234, 0.31, "8.2 ± 0.3"), (8.234, 0.12, "8.23 ± 0.12"), (8.234, 0.0196, "8.23 ± 0.02"),
        (-1.26, 0.5, "−1.3 ± 0.5"),
        (1234.5, 12.0, "1234 ± 12"), (0.001234, 0.00005, "0.00123 ± 0.00005"), (-0.01, 0.3, "0.0 ± 0.3"),
        (3.2, NAN, "3.2"), (0.0, 0.0, "0"), (NAN, NAN, "–"), (12.0, 0.0951, "12.00 ± 0.10"), (12.0, 9.9, "12 ± 10"),
        (25502.0, NAN, "25\u202f502"), (512.3, 0.0, "512"), (-104.6, NAN, "−105"), (math.inf, NAN, "–"),
        (100.0, 6e-16, "100"), (1.0, 6e-18, "1.0"), (4.61e-5, 2.3e-6, "(4.6 ± 0.2) × 10⁻⁵"),
        (-2e-4, 4e-4, "(−2 ± 4) × 10⁻⁴"), (0.00507, NAN, "0.00507"), (6.784e-5, NAN, "6.78 × 10⁻⁵"),
    ],
)  # fmt: skip
def test_a_value_is_written_to_the_digit_that_its_error_reaches(value, error, text):
    assert plus_minus(value, error) == text


def test_a_unit_has_its_exponent():
    assert plus_minus(998.21, 1.4, "kg/m^3") == "998.2 ± 1.4 kg/m³"
    assert typeset("nm^2/ps at 3 cm^-1, not X^2") == "nm²/ps at 3 cm⁻¹, not X^2"


@pytest.mark.parametrize(
    ("name", "value", "label", "text"),
    [
        ("dt_fs", 2, "Time step", "2 fs"), ("temperature_K", 300.0, "Temperature", "300 K"),
        ("seed", 123456, "Seed", "123456"),
        ("ns_per_day", 4100.0, "Speed", "4100 ns/day"), ("wall_time_s", 126.5, "Wall time", "2.1 min"),
        ("friction_per_ps", 1, "Friction", "1 /ps"), ("force_field", ["a.xml", "b.xml"], "Force field", "a.xml, b.xml"),
        ("steps", 2_500_000, "Steps", "2\u202f500\u202f000"), ("constrained", True, "Constrained", "yes"),
        ("solvent", None, "Solvent", "–"), ("pressure_bar", 1.0, "Pressure", "1 bar"),
        ("mean_box_nm", [1.9477, 2, 3.0], "Mean box", "1.948 × 2 × 3 nm"),
        ("mean_volume_nm3", 7.3894, "Mean volume", "7.389 nm³"),
    ],
)  # fmt: skip
def test_facts_are_written_with_their_units(name, value, label, text):
    assert fact(name, value) == (label, text)


def test_numbers_and_durations():
    assert number(-1.5e-7) == "−1.5 × 10⁻⁷"
    assert [duration(s) for s in (12, 126, 36_000)] == ["12.0 s", "2.1 min", "10.0 h"]


@pytest.mark.parametrize(("lo", "hi"), [(0, 1), (-3.2, 17), (0, 31.7), (1e-4, 2e-4), (250, 90_000)])
def test_ticks_are_round_few_and_inside(lo, hi):
    ticks = ticks_between(lo, hi)
    assert 3 <= len(ticks) <= 8
    assert lo - 1e-9 * abs(hi) <= ticks[0] and ticks[-1] <= hi * (1 + 1e-9)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_torsions_are_shown_in_degrees():
    grid = (np.arange(36) + 0.5) * 2 * math.pi / 36 - math.pi
    axis = shown(Coordinate("phi", "rad", grid, 2 * math.pi))
    assert (axis.title, axis.text(-math.pi / 2)) == ("φ (°)", "−90°")
    assert (axis.lo, axis.hi) == pytest.approx((-180, 180))
    assert axis.ticks == (-180, -120, -60, 0, 60, 120, 180)


def test_a_curve_stands_where_its_numbers_say():
    panel = Panel((0, 10), (0, 5), width=120, height=70, left=10, right=10, top=10, bottom=10)
    drawn = panel.line(np.array([0.0, 5.0, 10.0]), np.array([0.0, 2.5, 5.0]), "s1")
    assert re.findall(r"[\d.]+ [\d.]+", drawn) == ["10 60", "60 35", "110 10"]


def test_a_curve_is_broken_where_there_is_no_number():
    panel = Panel((0, 3), (0, 1))
    drawn = panel.line(np.arange(4.0), np.array([0.1, NAN, 0.2, 0.3]), "s1")
    assert drawn.count("M") == 2 and drawn.count("L") == 1


def surface(error):
    x, y = np.linspace(-1, 1, 7), np.linspace(-1, 1, 9)
    free_energy = 3 * x[:, None] ** 2 + 2 * y[None, :] ** 2 + x[:, None] * y[None, :]
    free_energy[0, 0] = NAN
    axes = (Coordinate("x", "nm", x), Coordinate("y", "nm", y))
    return Landscape(axes, free_energy, np.full((7, 9), error), (), ())


def test_a_profile_is_the_surface_summed_over_the_other_axis():
    landscape, kT = surface(0.3), 2.5
    first, second = profiles(landscape, kT)
    for k in range(7):
        terms = [math.exp(-f / kT) for f in landscape.free_energy[k] if not math.isnan(f)]
        others = [math.exp(-f / kT) for f in landscape.free_energy[3] if not math.isnan(f)]
        difference = -kT * math.log(sum(terms) / sum(others))
        assert first.free_energy[k] - first.free_energy[3] == pytest.approx(difference)
    assert len(second.free_energy) == 9 and second.free_energy.min() == 0
    assert np.allclose(first.error, 0.3) and first.bound


def test_interpolation_keeps_planes_and_empty_bins():
    x, y = np.arange(6.0)[:, None], np.arange(5.0)[None, :]
    values = 2 * x + 3 * y
    fine = finer(values, [False, False], size=60)
    place = [(np.arange(60) + 0.5) * n / 60 - 0.5 for n in (6, 5)]
    expected = 2 * np.clip(place[0], 0, 5)[:, None] + 3 * np.clip(place[1], 0, 4)[None, :]
    assert np.allclose(fine, expected)
    values[2, 2] = NAN
    assert np.isnan(finer(values, [False, False], size=60)).sum() == pytest.approx(60 * 60 / 30, rel=0.2)


def test_interpolation_wraps_where_the_axis_does():
    turn = (np.arange(12) + 0.5) * 2 * math.pi / 12
    values = np.cos(turn)[:, None] + 0 * turn[None, :]
    fine = finer(values, [True, True], size=240)
    assert fine[0, 0] == pytest.approx(fine[-1, 0])
    assert fine[0, 0] == pytest.approx(math.cos(math.pi / 12), abs=1e-9)


def test_colours_end_above_all_but_the_last_hundredth():
    values = np.append(np.linspace(0, 10, 999), 1e6).reshape(40, 25)
    assert 9.5 < color_limit(values) < 10.5
