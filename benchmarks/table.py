"""The table that a benchmark prints: its options, a row after the other, and whether one misses its reach."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def options_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, with --json."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    return parser


def structures() -> Path:
    """The folder of structures in METASTABLE_DATA; where that is not set, the script ends with status 2."""
    data = os.environ.get("METASTABLE_DATA")
    if data is None:
        print("METASTABLE_DATA is not set: it must name the folder that holds structures/", file=sys.stderr)
        sys.exit(2)
    return Path(data) / "structures"


def within(row: Row) -> bool:
    """Whether the ratio of a row, an error, is at most its reach; rows without a reach always are."""
    return row["reach"] is None or row["ratio"] <= row["reach"]


def above(row: Row) -> bool:
    """Whether the ratio of a row, a gain, is at least its reach; rows without a reach always are."""
    return row["reach"] is None or row["ratio"] >= row["reach"]


def show(
    rows: Iterable[Row], line: Callable[[Row], str], met: Callable[[Row], bool], as_json: bool, heading: str = ""
) -> int:
    """Print each row as soon as it is there; the exit status, 1 where one misses.

    line: a row as text. met: whether it reaches what it should.
    """
    if heading and not as_json:
        print(heading, flush=True)
    missed = 0
    for row in rows:
        good = met(row)
        missed += not good
        text = json.dumps(row, default=_plain) if as_json else line(row) + ("" if good else "  missed")
        print(text, flush=True)
    return int(missed > 0)


def _plain(value: Any) -> Any:
    """What json does not know: numbers of numpy and estimates."""
    return vars(value) if hasattr(value, "__dict__") else float(value)
