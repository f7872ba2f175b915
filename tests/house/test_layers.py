"""Imports only go down: import-linter's contracts hold, and they leave no folder out."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "metastable"


def imports(path: Path):
    """Modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_only_go_down():
    """In a process of its own: import-linter keeps the standard output that it first saw, which pytest closes."""
    command = [Path(sys.executable).with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_has_its_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["type"] == "layers"]
    named = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    assert {f"metastable.{p.name}" for p in PACKAGE.iterdir() if list(p.glob("*.py"))} == named


def test_nobody_imports_what_must_stay_out():
    banned = {"torch", "jraph", "distrax", "nglview", "mlflow", "pymbar"}
    assert not [p for p in PACKAGE.rglob("*.py") if banned & {m.split(".")[0] for m in imports(p)}]
