"""The page as a file: valid, small, alone, complete, and honest about what is missing."""

import errno
import json
import re
import shutil
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.report import write_report
from metastable.report.page import LIMIT
from metastable.report.reading import read_run

VOID = {"meta", "input", "br", "link", "img"}
SVG_VOID = {"path", "rect", "circle", "image", "stop"}


class Checked(HTMLParser):
    """Balanced tags, unique identifiers, and what each attribute of each element says."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.elements, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in SVG_VOID, f"<{tag}/> is no void element"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def html(run_directory, tmp_path_factory):
    return write_report(run_directory, tmp_path_factory.mktemp("out") / "page.html").read_text(encoding="utf-8")


def without(run_directory, tmp_path, *names):
    copy = tmp_path / "run"
    shutil.copytree(run_directory, copy)
    for name in names:
        (copy / name).unlink()
    return copy


def edited(run_directory, tmp_path, edit):
    copy = without(run_directory, tmp_path)
    results = json.loads((copy / "results.json").read_text())
    edit(results)
    (copy / "results.json").write_text(json.dumps(results))
    return copy


def test_the_page_is_one_valid_small_file(html):
    page = Checked(html)
    assert len(html.encode()) < LIMIT
    assert len(page.ids) == len(set(page.ids))
    assert html.startswith("<!doctype html>")


def test_nothing_is_loaded_from_anywhere(html):
    for tag, attributes in Checked(html).elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            if value is None or (tag == "a" and name == "href"):
                continue
            assert value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]}>"
        assert tag not in ("link", "iframe", "object", "embed", "base")
    scripts_and_styles = re.findall(r"<(?:script|style)[^>]*>(.*?)</(?:script|style)>", html, re.S)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\((?!#)|fetch\(|XMLHttpRequest|WebSocket|import\(",
                         "".join(scripts_and_styles))  # fmt: skip
    assert "default-src 'none'" in html


def test_what_can_be_seen_can_be_heard(html):
    """Each drawing has a name, each control a label, each figure a heading."""
    page = Checked(html)
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "input" or attributes.get("role") == "img" or attributes.get("role") == "application":
            assert attributes.get("aria-label")
    headings = sum(tag == "h3" for tag, _ in page.elements)
    assert headings == sum(tag == "figure" for tag, _ in page.elements)


def test_the_page_says_what_the_run_found(html):
    text = Checked(html).text
    assert "State A (φ −80°, ψ 75°) is the most stable and holds 62.9 ± 1.2 % of the population." in text
    assert "Above it lie B by 1.5 ± 0.3 and C by 8.0 ± 0.3 kJ/mol." in text
    for words in ("φ (°)", "ψ (°)", "kJ/mol", "Convergence", "Growth of the bias", "ψ in time", "Alanine dipeptide",
                  "amber14-all", "2.1 min", "20261121", "0.10.2", "doi:10.1103/PhysRevLett.100.020603", 'dt = "2 fs"',
                  "a <b> & c"):  # fmt: skip
        assert words in text, words
    assert 'href="https://doi.org/10.1103/PhysRevLett.100.020603"' in html


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["trajectory.xtc"], "The run directory has no trajectory, so there is no molecule to show."),
        (["topology.pdb"], "The run directory has no trajectory, so there is no molecule to show."),
        (["results.json"], "The run has written no free energy landscape."),
        (["arrays.h5"], "The run has written no collective variables in time."),
        (["log.csv"], "The run has written no log."),
        (["resolved.toml"], "The run directory has no resolved input."),
        (["arrays.h5", "log.csv", "trajectory.xtc", "versions.json"], "no collective variables in time and no log."),
    ],
)
def test_a_missing_part_is_left_out_with_a_sentence(run_directory, tmp_path, names, sentence):
    page = Checked(write_report(without(run_directory, tmp_path, *names)).read_text(encoding="utf-8"))
    assert sentence in page.text


def test_one_collective_variable_gives_one_profile(run_directory, tmp_path):
    def one(results):
        landscape = results["landscape"]
        landscape["axes"] = landscape["axes"][:1]
        landscape["free_energy"] = [row[30] for row in landscape["free_energy"]]
        landscape["error"] = [row[30] for row in landscape["error"]]
        for minimum in landscape["minima"]:
            minimum["location"] = minimum["location"][:1]
        results["frames"] = None

    page = Checked(write_report(edited(run_directory, tmp_path, one)).read_text(encoding="utf-8"))
    assert "State A (φ −80°) is the most stable" in page.text
    assert "Its standard error" not in page.text
    assert sum(a.get("class") == "ground" for _, a in page.elements) == 1


def test_no_minima_no_errors_no_temperature(run_directory, tmp_path):
    def bare(results):
        results["landscape"].update(minima=[], error=None)
        del results["facts"]["temperature_K"]

    page = Checked(write_report(edited(run_directory, tmp_path, bare)).read_text(encoding="utf-8"))
    assert "No minimum was found on the free energy landscape." in page.text
    assert "The run has written no errors of the surface." in page.text
    assert "Without a temperature among the facts there are no profiles." in page.text


def test_an_empty_landscape_is_not_drawn(run_directory, tmp_path):
    def empty(results):
        landscape = results["landscape"]
        landscape["free_energy"] = landscape["error"] = [[None] * 60 for _ in range(60)]
        landscape["minima"] = []

    page = Checked(write_report(edited(run_directory, tmp_path, empty)).read_text(encoding="utf-8"))
    assert "The free energy landscape is empty: no bin has been visited." in page.text


def test_a_name_cannot_break_out_of_the_page(run_directory, tmp_path):
    def evil(results):
        results["title"] = "</title><script>alert(1)</script>"
        results["landscape"]["minima"][0]["name"] = "</script><b>"

    page = Checked(write_report(edited(run_directory, tmp_path, evil)).read_text(encoding="utf-8"))
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert not any(tag == "script" and "src" in a for tag, a in page.elements)


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no run directory"):
        write_report(tmp_path)


def test_results_that_cannot_be_read_are_refused_by_name_and_line(run_directory, tmp_path):
    copy = without(run_directory, tmp_path)
    (copy / "results.json").write_text('{"recipe": "x",\n "facts": {,}}')
    with pytest.raises(InputError, match=r"results\.json:2: is not JSON"):
        write_report(copy)


def test_a_landscape_of_the_wrong_shape_is_refused(run_directory, tmp_path):
    def cut(results):
        results["landscape"]["free_energy"].pop()

    with pytest.raises(InputError, match=r"axes of \(60, 60\) bins, free_energy \(59, 60\)"):
        write_report(edited(run_directory, tmp_path, cut))


MALFORMED = {
    "convergence": ([{"time_ns": 1.0, "values": [1, 2]}], r"\[1, 2\] is no object"),
    "frames": ({"cvs": [1.0, 2.0]}, r"cvs is of shape \(2,\)"),
    "cite": (["Barducci 2008"], '"Barducci 2008" is no object'),
    "facts": ([300], r"\[300\] is no object"),
    "estimates": ([{"value": 1.0}], "'name' is missing"),
    "landscape": ({"axes": []}, "'free_energy' is missing"),
    "title": (["a"], r'\["a"\] is none'),
}


@pytest.mark.parametrize("key", MALFORMED)
def test_what_is_malformed_is_named_with_what_to_do(run_directory, tmp_path, key):
    value, why = MALFORMED[key]
    with pytest.raises(InputError, match=rf"results\.json: {key}: must be .*, but {why}: mend it, or take the key out"):
        write_report(edited(run_directory, tmp_path, lambda results: results.update({key: value})))
    copy = edited(tmp_path / "run", tmp_path / "cured", lambda results: results.pop(key))
    assert "<html" in write_report(copy).read_text(encoding="utf-8")


@pytest.mark.parametrize("frames", [[1, 2], {"cvs": [[1], [2, 3]]}, {"time_ps": "soon"}, {"walker": {"0": 1}}])
def test_malformed_frames_are_an_input_error(run_directory, tmp_path, frames):
    with pytest.raises(InputError, match="frames: must be"):
        write_report(edited(run_directory, tmp_path, lambda results: results.update(frames=frames)))


def test_all_that_is_malformed_is_told_at_once(run_directory, tmp_path):
    wrong = {"cite": [1], "facts": 7, "convergence": {"a": 1}}
    with pytest.raises(InputError) as error:
        write_report(edited(run_directory, tmp_path, lambda results: results.update(wrong)))
    assert len(error.value.problems) == 3


def test_arrays_that_cannot_be_read_are_refused_by_name(run_directory, tmp_path):
    copy = without(run_directory, tmp_path)
    (copy / "arrays.h5").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"arrays\.h5: cannot be read"):
        write_report(copy)


def test_a_page_that_cannot_be_written_leaves_the_old_one(run_directory, tmp_path, monkeypatch):
    """The replacement is the last thing that happens, and nothing is left beside it."""
    copy = without(run_directory, tmp_path)
    (copy / "report.html").write_text("the old page")

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_report(copy)
    assert (copy / "report.html").read_text() == "the old page"
    assert {p.name for p in copy.iterdir()} == {p.name for p in run_directory.iterdir()} | {"report.html"}
    write_report(copy)
    assert "<html" in (copy / "report.html").read_text(encoding="utf-8")


def test_traces_end_where_a_run_that_is_still_going_has_got_to(run_directory, tmp_path):
    copy = without(run_directory, tmp_path)
    with h5py.File(copy / "arrays.h5", "r+") as file:
        group = file["observables/cvs"]
        time, value = group["time"][:], group["value"][:]
        time[100:], value[100:] = np.nan, np.nan
        del group["time"]
        group["time"], group["value"][...] = time, value
        group.attrs["names"], group.attrs["units"] = ["chi1", "d"], ["rad", "nm"]
    cvs = read_run(copy).cvs
    assert cvs is not None
    assert (len(cvs.time), cvs.time[-1]) == (100, 2.5 * 99)
    assert np.isfinite(cvs.values).all()
    text = Checked(write_report(copy).read_text(encoding="utf-8")).text
    assert "χ₁ (°)" in text and "d (nm)" in text


def test_a_last_line_of_the_log_that_a_kill_cut_short_is_left_out(run_directory, tmp_path):
    copy = without(run_directory, tmp_path)
    with (copy / "log.csv").open("a") as file:
        file.write("100,500000,10")
    assert len(read_run(copy).log["time_ps"]) == 100
