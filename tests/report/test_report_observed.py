"""Observables on the page: numbers in a table, curves with bands, and what is too short for an error."""

import json
import re
import shutil

import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.report import write_report
from metastable.report.reading import read_run

X = np.linspace(0, 1, 50)
G = {"label": "g(r)", "x_label": "r", "x_unit": "nm", "unit": "", "x": X.tolist(),
     "values": (1 - np.cos(9 * X) / 2).tolist(), "error": np.full(50, 0.05).tolist()}  # fmt: skip
MSD = {"label": "mean squared displacement", "x_label": "time", "x_unit": "ps", "unit": "nm^2", "x": X.tolist(),
       "values": (0.6 * X).tolist(), "error": [None] * 50, "window": [0.5, 1.0], "line": [0.6, 0.0]}  # fmt: skip
OBSERVABLES = [
    {"name": "water<b>", "kind": "radial distribution", "curves": [G], "notes": [],
     "estimates": [{"name": "first peak of g(r), at 0.3 nm", "value": 1.5, "error": 0.05, "unit": ""}]},
    {"name": "d", "kind": "diffusion", "curves": [MSD], "notes": ["The friction slows it."],
     "estimates": [{"name": "diffusion of atoms", "value": 0.1, "error": None, "unit": "nm^2/ps"}]},
]  # fmt: skip


def written(run_directory, tmp_path, observables, **changes):
    copy = tmp_path / "run"
    shutil.copytree(run_directory, copy)
    results = json.loads((copy / "results.json").read_text())
    results["observables"] = observables
    results["estimates"] += [e for o in observables for e in o.get("estimates", ())]
    (copy / "results.json").write_text(json.dumps(results | changes))
    return copy


def test_numbers_and_curves_are_shown(run_directory, tmp_path):
    copy = written(run_directory, tmp_path, OBSERVABLES)
    found = read_run(copy).observed
    assert [o.name for o in found] == ["water<b>", "d"] and found[1].curves[0].window == (0.5, 1.0)
    page = write_report(copy).read_text(encoding="utf-8")
    section = page.partition('<section id="observables">')[2].partition("</section>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td>', section)
    assert rows[0] == ("first peak of g(r), at 0.3 nm", "1.50 ± 0.05")
    assert rows[1][0] == "diffusion of atoms" and rows[1][1].startswith("0.1 nm²/ps")
    assert "too short for an error: run longer" in rows[1][1]
    assert "The friction slows it." in section and "g(r), water&lt;b&gt;" in section
    first, second = section.split("<figure")[1:]
    assert 'class="band' in first and 'class="band' not in second  # the errors of the second are not known
    assert "No band: too short for an error" in second and 'class="shade"' in second and "straight line" in second
    others = page.partition('<section id="estimates">')[2].partition("</section>")[0]
    assert "Other estimates" in others and "diffusion of atoms" not in others


def test_without_variables_the_numbers_stand_beside_the_molecule(run_directory, tmp_path):
    copy = written(run_directory, tmp_path, OBSERVABLES, recipe="dynamics", landscape=None, convergence=[])
    (copy / "arrays.h5").unlink()
    page = write_report(copy).read_text(encoding="utf-8")
    beside = page.partition('<section class="triptych"')[2].partition("</section>")[0]
    assert "diffusion of atoms" in beside and "molecule" in beside
    assert "landscape" not in page.partition("<main>")[2].partition("<script")[0]
    assert "States" not in page and "no collective variables" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": [1.0]}, "a curve of shape (50,) has values (1,)"),
        ({"x": [None] * 50}, "places that are no numbers"),
        ({"window": [1.0]}, "not enough values"),
        ({"label": 7}, "7 is none"),
    ],
)
def test_a_malformed_curve_is_refused_with_the_cure(run_directory, tmp_path, change, words):
    copy = written(run_directory, tmp_path, [OBSERVABLES[0] | {"curves": [G | change]}])
    with pytest.raises(InputError) as error:
        read_run(copy)
    assert "results.json: observables" in str(error.value) and words in str(error.value)
