"""Plots as inline SVG: text, lines, bands and marks, coloured by the page's style sheet.

No picture library: the figures follow the light and the dark scheme, print sharply, and weigh a few kilobytes.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np

from metastable.report.notation import number, ticks_between


def coordinate(value: float) -> str:
    """A length in SVG units, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Panel:
    """A rectangle with axes. x, y: the ranges shown. width, height and the margins are in SVG units."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 460
    height: float = 290
    left: float = 58
    right: float = 14
    top: float = 14
    bottom: float = 48

    def px(self, x: float) -> float:
        """Where x is from the left edge of the drawing, SVG units."""
        return self.left + (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        """Where y is from the top edge of the drawing, SVG units."""
        bottom = self.height - self.bottom
        return bottom - (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1) * (bottom - self.top)

    def axes(
        self, xlabel: str, ylabel: str, xticks: Iterable[float] | None = None, yticks: Iterable[float] | None = None
    ) -> str:
        """Ticks, their numbers, grid lines and the names of the axes."""
        xticks = tuple(ticks_between(*self.x) if xticks is None else xticks)
        yticks = tuple(ticks_between(*self.y, about=5) if yticks is None else yticks)
        bottom, right = self.height - self.bottom, self.width - self.right
        parts = []
        for t, text in zip(xticks, _tick_texts(xticks), strict=True):
            x = coordinate(self.px(t))
            parts.append(f'<path class="tick" d="M{x} {coordinate(bottom)}v5"/>')
            parts.append(f'<text x="{x}" y="{coordinate(bottom + 19)}" class="mid">{text}</text>')
        for t, text in zip(yticks, _tick_texts(yticks), strict=True):
            y = self.py(t)
            parts.append(f'<path class="grid" d="M{coordinate(self.left)} {coordinate(y)}H{coordinate(right)}"/>')
            parts.append(f'<text x="{coordinate(self.left - 8)}" y="{coordinate(y + 4.5)}" class="end">{text}</text>')
        x, y = (self.left + right) / 2, (self.top + bottom) / 2
        parts.append(f'<path class="frame" d="M{coordinate(self.left)} {coordinate(bottom)}H{coordinate(right)}"/>')
        for text, place in (
            (xlabel, f'x="{coordinate(x)}" y="{coordinate(self.height - 8)}"'),
            (ylabel, f'transform="translate(15 {coordinate(y)}) rotate(-90)"'),
        ):
            parts.append(f'<text {place} class="mid name">{escape(text)}</text>')
        return "".join(parts)

    def shade(self, low: float, high: float) -> str:
        """A stretch of the x axis, darkened."""
        left, right = self.px(low), self.px(high)
        return (
            f'<rect class="shade" x="{coordinate(left)}" y="{coordinate(self.top)}" '
            f'width="{coordinate(right - left)}" height="{coordinate(self.height - self.bottom - self.top)}"/>'
        )

    def line(self, x: np.ndarray, y: np.ndarray, style: str) -> str:
        """A line, broken where y is not a number."""
        return f'<path class="line {style}" d="{self._path(x, y)}"/>'

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, style: str) -> str:
        """The area between two lines."""
        parts = []
        for run in _runs(np.isfinite(low) & np.isfinite(high)):
            parts.append("M" + "L".join(self._points(x[run], low[run]) + self._points(x[run], high[run])[::-1]) + "Z")
        return f'<path class="band {style}" d="{"".join(parts)}"/>'

    def dots(self, x: np.ndarray, y: np.ndarray, style: str) -> str:
        """Many small round points, as one path."""
        points = (f"M{coordinate(self.px(a))} {coordinate(self.py(b))}h0" for a, b in _finite(x, y))
        return f'<path class="dots {style}" d="{"".join(points)}"/>'

    def bars(self, x: np.ndarray, y: np.ndarray, error: np.ndarray, style: str, titles: Iterable[str]) -> str:
        """Marks with error bars; ``titles`` are what hovering over each says."""
        parts = []
        for a, b, e, title in zip(x, y, error, titles, strict=True):
            if not math.isfinite(b):
                continue
            e = e if math.isfinite(e) else 0.0
            cx, cy = coordinate(self.px(a)), coordinate(self.py(b))
            low, high = coordinate(self.py(b - e)), coordinate(self.py(b + e))
            parts.append(
                f'<g class="mark {style}"><title>{escape(title)}</title><path d="M{cx} {low}V{high}"/>'
                f'<circle cx="{cx}" cy="{cy}" r="4"/></g>'
            )
        return "".join(parts)

    def svg(self, description: str, *parts: str) -> str:
        """The whole picture. description: what it shows, for those who cannot see it."""
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(description)}">'
            f"{''.join(parts)}</svg>"
        )

    def _path(self, x: np.ndarray, y: np.ndarray) -> str:
        return "".join("M" + "L".join(self._points(x[run], y[run])) for run in _runs(np.isfinite(y)))

    def _points(self, x: np.ndarray, y: np.ndarray) -> list[str]:
        return [f"{coordinate(self.px(a))} {coordinate(self.py(b))}" for a, b in zip(x, y, strict=True)]


def margin(y: tuple[float, float]) -> float:
    """The left margin that the numbers and the name of a y axis of this range want, SVG units."""
    longest = max(map(len, _tick_texts(tuple(ticks_between(*y, about=5)))), default=0)
    return max(58.0, 38 + 8.0 * longest)


def spread(*arrays: np.ndarray, margin: float = 0.06, floor: float | None = None) -> tuple[float, float]:
    """A range that holds all finite numbers with some room; it begins at ``floor`` where one is given."""
    values = np.concatenate([np.ravel(a) for a in arrays])
    values = values[np.isfinite(values)]
    lo, hi = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = margin * ((hi - lo) or abs(hi) or 1.0)
    return (lo - room if floor is None else floor, hi + room)


def _finite(x: np.ndarray, y: np.ndarray) -> Iterable[tuple[float, float]]:
    ok = np.isfinite(x) & np.isfinite(y)
    return zip(x[ok], y[ok], strict=True)


def _runs(ok: np.ndarray) -> list[slice]:
    """The stretches where ``ok`` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ok, [False]]).astype(int)))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _tick_texts(ticks: tuple[float, ...]) -> list[str]:
    step = min((abs(b - a) for a, b in itertools.pairwise(ticks)), default=1.0)
    places = next((p for p in range(8) if abs(round(step, p) - step) < 1e-9 * step + 1e-12), 3)
    return [number(t, places) for t in ticks]
