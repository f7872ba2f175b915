"""The observables of a liquid on the page: their numbers in a table, their curves with bands of error."""

import math
from html import escape

import numpy as np

from metastable.report.figures import figure, legend
from metastable.report.notation import plus_minus, typeset
from metastable.report.plot import Panel, margin, spread
from metastable.report.rundata import Curve, Observed, Quantity

UNKNOWN = "too short for an error: run longer"
_POINTS = 600  # of a curve, at most


def number_rows(observed: tuple[Observed, ...]) -> str:
    """The rows of the table: what, value and standard error."""
    return "".join(
        f'<tr><th scope="row">{escape(typeset(q.name))}</th><td>{_value(q)}</td></tr>'
        for one in observed
        for q in one.quantities
    )


def _value(q: Quantity) -> str:
    text = escape(plus_minus(q.value, q.error, q.unit))
    return text if math.isfinite(q.error) else f'{text}<br><span class="absent">{UNKNOWN}</span>'


def note_list(observed: tuple[Observed, ...]) -> str:
    """What a reader must know of the numbers, each once."""
    notes = dict.fromkeys(note for one in observed for note in one.notes)
    if not notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(typeset(note))}</li>" for note in notes)}</ul>'


def curve_figures(observed: tuple[Observed, ...]) -> str:
    """A picture of every curve."""
    return "".join(_curve_figure(one, curve) for one in observed for curve in one.curves)


def _curve_figure(one: Observed, curve: Curve) -> str:
    stride = -(-len(curve.x) // _POINTS)
    x, y, error = curve.x[::stride], curve.values[::stride], curve.error[::stride]
    low, high = y - error, y + error
    known = bool(np.isfinite(error).any())
    lo, hi = spread(y, low, high)
    floor = 0.0 if np.nanmin(y, initial=0.0) > -0.05 * np.nanmax(np.abs(y), initial=0.0) else lo
    start = 0.0 if 0 <= x[0] < 0.1 * x[-1] else float(x[0])
    panel = Panel((start, float(x[-1])), (floor, hi), left=margin((floor, hi)))
    drawn = [panel.shade(*curve.window)] if curve.window is not None else []
    drawn.append(panel.axes(_titled(curve.x_label, curve.x_unit), _titled(curve.label, curve.unit)))
    drawn += [panel.band(x, low, high, "s1")] if known else []
    drawn.append(panel.line(x, y, "s1"))
    before, told = "", "The band is one standard error to either side." if known else f"No band: {UNKNOWN}."
    if curve.window is not None and curve.line is not None:
        ends = np.array([max(curve.window[0], start), min(curve.window[1], x[-1])])
        drawn.append(panel.line(ends, curve.line[0] * ends + curve.line[1], "estimate s2"))
        before = legend([curve.label, "straight line in the window"])
        told += " Shaded: the window; it should lie where the displacement is straight."
    drawing = panel.svg(f"{curve.label} against {_titled(curve.x_label, curve.x_unit)}", *drawn)
    title = f"{curve.label[:1].upper() + curve.label[1:] if len(curve.label) > 4 else curve.label}, {one.name}"
    return figure(title, drawing, told, before=before)


def _titled(label: str, unit: str) -> str:
    return f"{label} ({typeset(unit)})" if unit else label
