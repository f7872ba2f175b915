"""What the README and the documents show is run, as a reader would: blocks one after the other."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/extending.md",
    "docs/observables.md",
    "docs/boxes.md",
    "docs/enhanced.md",
]


def blocks(document: str, language: str) -> list[tuple[int, str]]:
    """(line, text) of each fenced block of a language."""
    text = (ROOT / document).read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: m.start(1)].count("\n"), m[1]) for m in found]


def execute(document: str) -> dict:
    """The names that the Python blocks of a document leave."""
    names: dict = {}
    for line, text in blocks(document, "python"):
        exec(compile("\n" * line + text, ROOT / document, "exec"), names)
    return names


def test_extending():
    names = execute("docs/extending.md")
    assert abs(names["kinetic"][5:].mean() / names["kelvin"] - 300) < 20
    assert abs(names["step"].model.depth - 300) < 0.1
    assert names["state"].bias.slope[0] < 0  # it pushes to longer stretches, which a molecule at rest has not


def test_observables(checkout):
    names = execute("docs/observables.md")
    results = json.loads((checkout / "runs/argon/results.json").read_text())
    assert [o["name"] for o in results["observables"]] == ["structure", "motion", "response"]
    assert "Not enough" not in str(results["observables"])
    for found, exact in (
        (names["einstein"], names["kT"] / 40 / 5.0),
        (names["kubo"], names["kT"] / 40 / 5.0),
        (names["kappa"], 1 / 100),
        (names["found"].g.at(0.8), 1.0),
    ):
        assert abs(found.value - exact) < 4 * found.error + 0.03 * exact
        assert found.error < 0.2 * exact


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like the clone to a reader, and keeps what is written out of it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tables_of_observables_fit_the_example_of_water(checkout):
    """Every key that is shown, in an input of which only the dielectric constant is left as it was."""
    from metastable.cli.build import build
    from metastable.cli.input import read_input, read_tables

    ((_, text),) = blocks("docs/observables.md", "toml")
    tables = tomllib.loads((ROOT / "examples/water.toml").read_text()) | tomllib.loads(text)
    tables["output"]["trajectory"] = "0.4 ps"
    _, job = build(read_tables(tables), ROOT / "examples")
    assert list(job.plan.observables) == ["oxygens", "motion", "vibrations", "dielectric"]
    assert read_input(ROOT / "examples/water.toml").observables.keys() >= {"oxygens", "motion", "dielectric"}


def test_boxes(checkout):
    from metastable.cli.build import build
    from metastable.cli.input import read_tables

    names = execute("docs/boxes.md")
    volumes = names["volumes"]
    assert volumes[0] == volumes[9] != volumes[-1]  # held at first
    assert float(names["repulsion"](names["state"].frame)) > 0
    ((_, text),) = blocks("docs/boxes.md", "toml")
    rest = tomllib.loads((ROOT / "examples/alanine-dipeptide-in-water.toml").read_text())
    _, job = build(read_tables(tomllib.loads(text) | {k: rest[k] for k in ("cv", "bias", "output")}), ROOT / "examples")
    assert job.plan.constant_volume == 10.0 and "NA" in set(job.molecule.system.topology.residue_names)


def test_enhanced():
    names = execute("docs/enhanced.md")
    x, f = names["bias"].axes[0].points, names["free_energy"]
    assert 10 < float(f[abs(x) < 0.03].max()) < 25  # of a barrier of 20, broadened by the kernels
    assert float(f[abs(x) > 0.8].min()) > 15


@pytest.mark.physics
def test_readme_in_python(checkout, capsys):
    landscape = execute("README.md")["landscape"]
    assert len(landscape.basins) >= 2
    assert "+-" in capsys.readouterr().out
    assert (checkout / "runs/python/report.html").stat().st_size < 1.5e6


def test_readme_in_python_is_short():
    ((_, text),) = blocks("README.md", "python")
    lines = [line for line in text.splitlines() if line and not line.startswith("from")]
    assert 0 < len(lines) <= 10


@pytest.mark.physics
def test_readme_commands(checkout):
    """The console blocks; a clone has nothing else on its PATH than its environment."""
    commands = [
        line[2:] for _, text in blocks("README.md", "console") for line in text.splitlines() if line[:2] == "$ "
    ]
    assert any("metastable demo" in command for command in commands)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(shlex.split(command), env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (checkout / "runs/demo/report.html").exists()


@pytest.mark.physics
def test_readme_example_passes_its_check(checkout):
    """The long example is not run, but it is read, built and timed."""
    command = [Path(sys.executable).parent / "metastable", "check", "examples/alanine-dipeptide.toml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_that_are_shown_exist():
    from typer.main import get_command

    from metastable.cli.main import app

    known = get_command(app).commands
    shown = {m for d in DOCUMENTS for m in re.findall(r"metastable ([a-z]+)\b", "\n".join(t for _, t in shown_in(d)))}
    assert shown >= {"demo", "run", "check", "init", "resume"}
    assert shown <= set(known)


def shown_in(document: str) -> list[tuple[int, str]]:
    return blocks(document, "sh") + blocks(document, "console")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or ((ROOT / document).parent / target).exists(), target
    for path in re.findall(r"`((?:metastable|tests|docs|examples|core|dynamics|potentials)/[\w./-]*)`", text):
        assert any((root / path).exists() for root in (ROOT, ROOT / "src", ROOT / "src/metastable")), path


def test_architecture_names_every_folder():
    text = (ROOT / "docs/architecture.md").read_text()
    for folder in (p for p in (ROOT / "src/metastable").iterdir() if list(p.glob("*.py"))):
        assert re.search(rf"\b{folder.name}\b", text), folder.name
