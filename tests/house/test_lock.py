"""The lock: complete, hashed, free of what must never enter, and silent about where it was made."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE))


def names(requirements):
    return {re.match(r"[A-Za-z0-9._-]+", r)[0].lower().replace("_", "-") for r in requirements if isinstance(r, str)}


@pytest.mark.parametrize(
    "package", ["torch", "jraph", "distrax", "nglview", "mlflow", "pymbar", "kfac-jax", "schnetpack", "py3dmol"]
)
def test_never_enters(package):
    assert package not in PINS


def test_holds_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = names(project["project"]["dependencies"]).union(*map(names, project["dependency-groups"].values()))
    assert len(declared) > 20
    assert declared <= set(PINS)


def test_every_pin_is_hashed_and_single():
    blocks = re.split(r"^(?=\S)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINS)  # one version of each, whatever the Python: no forks
    assert all("--hash=sha256:" in block for block in blocks)


def test_jax_is_the_one_that_python_311_can_have():
    assert PINS["jax"].startswith("0.10.")


def test_names_no_host_and_no_machine():
    assert not re.search(r"://|index-url|find-links|@ |/[a-z]+/[a-z]+/", LOCK)
    assert not (ROOT / "uv.lock").exists()
