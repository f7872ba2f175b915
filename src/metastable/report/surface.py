"""A function of two collective variables as a picture: colours, contours, a colour bar, and marks to click on."""

import base64
import io
import math
from html import escape

import numpy as np

from metastable.report.notation import Shown, number, plus_minus, ticks_between
from metastable.report.plot import Panel, coordinate
from metastable.report.rundata import Landscape, Minimum

WIDTH, HEIGHT = 460.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 60.0, 8.0, 48.0


def surface(landscape: Landscape, shown: tuple[Shown, Shown], which: str, title: str, note: str) -> str:
    """One surface over two axes as a figure. which: ``free_energy`` or ``error``."""
    values = landscape.free_energy if which == "free_energy" else landscape.error
    colors = "viridis" if which == "free_energy" else "cividis"
    top = color_limit(values)
    step = _contour_step(top)
    x, y = shown
    panel = Panel((x.lo, x.hi), (y.lo, y.hi), WIDTH, HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM)
    hatch = (
        f'<defs><pattern id="never-{which}" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path class="never" d="M0 0V7"/></pattern></defs>'
        f'<rect x="{_LEFT:g}" y="{_TOP:g}" width="{WIDTH - _LEFT - _RIGHT:g}" height="{HEIGHT - _TOP - _BOTTOM:g}" '
        f'fill="url(#never-{which})"/>'
    )
    drawing = panel.svg(
        f"{title} over {x.symbol} and {y.symbol}, from 0 to {number(top, 1)} kJ/mol. {note}",
        hatch,
        _image(panel, landscape, values, top, colors),
        _contours(panel, landscape, shown, values, np.arange(step, top, step), f"clip-{which}"),
        panel.axes(x.title, y.title, x.ticks, y.ticks),
        _color_bar(panel, top, step, colors),
    )
    buttons = "".join(_mark(panel, m, shown) for m in landscape.minima)
    return (
        f'<figure class="card map"><h3>{escape(title)}</h3><div class="plot">{drawing}'
        f"{area(panel, f'{title}: explore with the arrow keys, Enter shows the structure', buttons)}</div>"
        f"<figcaption>{escape(note)}</figcaption></figure>"
    )


def area(panel: Panel, label: str, inside: str) -> str:
    """The part of a plot that answers to the pointer and to the keys: its children stand in per cent of it."""
    width, height = panel.width - panel.left - panel.right, panel.height - panel.top - panel.bottom
    place = (
        f"left:{100 * panel.left / panel.width:.3f}%;top:{100 * panel.top / panel.height:.3f}%;"
        f"width:{100 * width / panel.width:.3f}%;height:{100 * height / panel.height:.3f}%"
    )
    return (
        f'<div class="area" style="{place}"><div class="ground" tabindex="0" role="application" '
        f'aria-label="{escape(label)}"></div><i class="cross" hidden></i><i class="here" hidden></i>{inside}'
        '<output class="tip" hidden></output></div>'
    )


def _mark(panel: Panel, minimum: Minimum, shown: tuple[Shown, Shown]) -> str:
    x, y = (100 * (v * s.factor - s.lo) / (s.hi - s.lo) for v, s in zip(minimum.location, shown, strict=True))
    return mark(minimum, shown, f"left:{x:.2f}%;bottom:{y:.2f}%")


def mark(minimum: Minimum, shown: tuple[Shown, ...], style: str) -> str:
    """A minimum as a button."""
    place = ", ".join(f"{s.symbol} {s.text(v)}" for v, s in zip(minimum.location, shown, strict=True))
    label = f"State {minimum.name}: {place}; {plus_minus(minimum.free_energy, minimum.error, 'kJ/mol')}"
    return (
        f'<button type="button" class="state" data-state="{escape(minimum.name)}" style="{style}" '
        f'aria-label="{escape(label)}" title="{escape(label)}">{escape(minimum.name)}</button>'
    )


def color_limit(values: np.ndarray) -> float:
    """Where the colours end: all but the last hundredth of the bins lie below."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, 0.99)) or 1.0 if len(finite) else 1.0


def _contour_step(top: float) -> float:
    ticks = ticks_between(0, top, about=7)
    return ticks[1] - ticks[0] if len(ticks) > 1 else top


def _image(panel: Panel, landscape: Landscape, values: np.ndarray, top: float, colors: str) -> str:
    """The colours as a PNG of one byte a pixel, see-through where there is no value."""
    import matplotlib
    from PIL import Image

    fine = finer(values, [bool(a.period) for a in landscape.axes])
    level = np.clip(np.nan_to_num(fine / top) * 254, 0, 254).round().astype(np.uint8)
    level[~np.isfinite(fine)] = 255
    image = Image.fromarray(np.ascontiguousarray(level.T[::-1]), mode="P")
    palette = (matplotlib.colormaps[colors](np.linspace(0, 1, 255))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette([*palette.ravel().tolist(), 0, 0, 0])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=255, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = panel.width - panel.left - panel.right, panel.height - panel.top - panel.bottom
    return (
        f'<image x="{panel.left:g}" y="{panel.top:g}" width="{width:g}" height="{height:g}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
    )


def finer(values: np.ndarray, periodic: list[bool], size: int = 360) -> np.ndarray:
    """Bins interpolated linearly to about ``size`` pixels an axis; a pixel of an empty bin stays NaN."""
    nearest, filled = values, np.where(np.isfinite(values), values, 0.0)
    weight = np.isfinite(values).astype(float)
    for axis, wraps in enumerate(periodic):
        bins = values.shape[axis]
        pixels = bins * max(1, round(size / bins))
        place = (np.arange(pixels) + 0.5) * bins / pixels - 0.5
        low = np.floor(place).astype(int)
        share = (place - low).reshape([-1 if k == axis else 1 for k in range(2)])
        pair = [(low + k) % bins if wraps else np.clip(low + k, 0, bins - 1) for k in (0, 1)]
        filled, weight = (
            np.take(x, pair[0], axis) * (1 - share) + np.take(x, pair[1], axis) * share for x in (filled, weight)
        )
        nearest = np.take(nearest, np.clip(np.round(place).astype(int), 0, bins - 1), axis)
    return np.where(np.isfinite(nearest), filled / np.maximum(weight, 1e-9), np.nan)


def _contours(
    panel: Panel, landscape: Landscape, shown: tuple[Shown, Shown], values: np.ndarray, levels: np.ndarray, clip: str
) -> str:
    from contourpy import contour_generator

    grids = [a.grid * s.factor for a, s in zip(landscape.axes, shown, strict=True)]
    for axis, (a, s) in enumerate(zip(landscape.axes, shown, strict=True)):
        if a.period:  # one more bin on either side, so that the lines run to the edge
            values = np.concatenate([values.take([-1], axis), values, values.take([0], axis)], axis)
            period = a.period * s.factor
            grids[axis] = np.concatenate([grids[axis][-1:] - period, grids[axis], grids[axis][:1] + period])
    if min(values.shape) < 2:
        return ""
    generator = contour_generator(grids[0], grids[1], np.ma.masked_invalid(values.T))
    inside = (
        f'<clipPath id="{clip}"><rect x="{panel.left:g}" y="{panel.top:g}" '
        f'width="{panel.width - panel.left - panel.right:g}" height="{panel.height - panel.top - panel.bottom:g}"/>'
        "</clipPath>"
    )
    lines = []
    for level in levels:
        for line in generator.lines(float(level)):
            points = (f"{coordinate(panel.px(x))} {coordinate(panel.py(y))}" for x, y in np.asarray(line))
            lines.append("M" + "L".join(points))
    return f'{inside}<path class="contour" clip-path="url(#{clip})" d="{"".join(lines)}"/>'


def _color_bar(panel: Panel, top: float, step: float, colors: str) -> str:
    import matplotlib
    from matplotlib.colors import to_hex

    x, height = panel.width - panel.right + 12, panel.height - panel.top - panel.bottom
    stops = "".join(
        f'<stop offset="{t:.3f}" stop-color="{to_hex(matplotlib.colormaps[colors](t))}"/>'
        for t in np.linspace(0, 1, 17)
    )
    ticks = []
    for value in np.arange(0, top * 1.0001, step):
        y = panel.top + height * (1 - value / top)
        places = 0 if math.isclose(step, round(step)) else 1 if step >= 0.1 else 2
        ticks.append(
            f'<path class="tick" d="M{coordinate(x + 12)} {coordinate(y)}h4"/>'
            f'<text x="{coordinate(x + 19)}" y="{coordinate(y + 4.5)}">{number(float(value), places)}</text>'
        )
    return (
        f'<defs><linearGradient id="{colors}" x1="0" y1="1" x2="0" y2="0">{stops}</linearGradient></defs>'
        f'<rect x="{x:g}" y="{panel.top:g}" width="12" height="{height:g}" fill="url(#{colors})"/>{"".join(ticks)}'
        f'<text x="{panel.width:g}" y="{panel.height - 8:g}" class="end name">kJ/mol</text>'
    )
