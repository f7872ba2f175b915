"""The page: one HTML file that needs nothing else, remade at any time from the run directory alone."""

import base64
import json
import math
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from metastable.core.units import kelvin
from metastable.loops.checkpoint import write_atomically
from metastable.report import sections
from metastable.report.figures import shown_axes
from metastable.report.movie import encoded
from metastable.report.reading import read_run
from metastable.report.rundata import RunData

LIMIT = 1_500_000
"""What the page may weigh, bytes."""

_MOVIE = 700_000
"""What the moving molecule may weigh of that, bytes."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run directory as one self-contained HTML file, and return where it is.

    out: the file to write, ``report.html`` in the run directory where none is given. What the run did not write is
    left out of the page with a sentence that says so. Raises InputError where the directory is no run directory or
    a file in it cannot be understood, OSError where there is no room: a page that was there before then still stands.
    """
    data = read_run(directory)
    path = Path(directory) / "report.html" if out is None else Path(out)
    write_atomically(path, page(data).encode())
    return path


def page(data: RunData) -> str:
    """The HTML of the report."""
    temperature = data.facts.get("temperature_K")
    kT = temperature * kelvin if isinstance(temperature, int | float) else None
    body, grids = sections.body(data, kT), _grids(data)
    style, scripts = _asset("page.css"), _asset("viewer.js") + _asset("page.js")
    rest = sum(len(part.encode()) for part in (body, style, scripts, json.dumps(grids))) + 20_000
    movie, stage = _movie(data, min(_MOVIE, LIMIT - rest))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(sections.title(data))}</title><style>{style}</style></head>\n"
        f"<body>{body.replace(sections.STAGE, stage, 1)}"
        f'<script type="application/json" id="data">{_embedded({"landscape": grids, "movie": movie})}</script>'
        f"<script>{scripts}</script></body></html>\n"
    )


def _movie(data: RunData, budget: int) -> tuple[dict[str, Any] | None, str]:
    """The moving molecule as data and as HTML, or the sentence that says why there is none."""
    why = data.unseen
    if data.movie is not None:
        try:
            return encoded(data.movie, budget), sections.stage(data.movie)
        except ValueError as error:
            why = f"The molecule is not shown: {error}."
    return None, f'<p class="card absent">{escape(why)}</p>'


def _asset(name: str) -> str:
    return files("metastable.report").joinpath("assets", name).read_text(encoding="utf-8")


def _embedded(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _grids(data: RunData) -> dict[str, Any] | None:
    """What the page needs of the landscape to answer to the pointer."""
    if data.landscape is None:
        return None
    shown = shown_axes(data.landscape)
    axes = [
        {"symbol": s.symbol, "unit": s.unit, "factor": s.factor, "lo": s.lo, "hi": s.hi, "bins": len(a.grid),
         "period": a.period * s.factor if a.period else None}
        for a, s in zip(data.landscape.axes, shown, strict=True)
    ]  # fmt: skip
    minima = [
        {"name": m.name, "location": m.location, "frame": m.frame, "free_energy": _finite(m.free_energy)}
        for m in data.landscape.minima
    ]
    grids = {"free_energy": _quantised(data.landscape.free_energy), "error": _quantised(data.landscape.error)}
    return {"axes": axes, "minima": minima, **grids}


def _quantised(values: np.ndarray) -> dict[str, Any]:
    """16-bit integers times ``scale``, base64; -32768 stands for no value."""
    top = float(np.nanmax(np.abs(values), initial=0.0)) if np.isfinite(values).any() else 0.0
    scale = top / 32767 or 1.0
    whole = np.where(np.isfinite(values), np.round(np.nan_to_num(values) / scale), -32768).astype("<i2")
    return {"scale": scale, "values": base64.b64encode(whole.tobytes()).decode()}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
