"""The figures of the page that are curves: profiles, traces in time, convergence, growth of the bias."""

import math
from html import escape

import numpy as np

from metastable.report.notation import Shown, number, plus_minus, shown, symbol
from metastable.report.plot import Panel, margin, spread
from metastable.report.rundata import Landscape, Profile, RunData, Series, Trace
from metastable.report.surface import area, mark

_STYLES = ("s1", "s2", "s3", "s4", "s5", "s6")
_FEW = 8


def figure(title: str, drawing: str, caption: str, *, before: str = "") -> str:
    """A card with a heading, a picture and what it shows."""
    return (
        f'<figure class="card"><h3>{escape(title)}</h3>{before}<div class="plot">{drawing}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def profiles(landscape: Landscape, kT: float | None) -> list[Profile]:
    """Free energies along each axis: as the run wrote them, or the surface summed over the other axis.

    F(x) = -kT ln sum_y exp(-F(x, y)/kT). The error of such a sum is at most the mean of the errors under the same
    weights (as if they were all of one sign), and is marked as that bound. Without kT there is none.
    """
    if len(landscape.axes) == 1 or landscape.profiles or kT is None:
        own = Profile(landscape.axes[0], landscape.free_energy, landscape.error)
        return [own] if len(landscape.axes) == 1 else list(landscape.profiles)
    found = []
    for i, axis in enumerate(landscape.axes):
        weight = np.nan_to_num(np.exp(-(landscape.free_energy - np.nanmin(landscape.free_energy)) / kT))
        total = weight.sum(1 - i)
        error = (weight * np.nan_to_num(landscape.error)).sum(1 - i) / np.where(total > 0, total, np.nan)
        with np.errstate(divide="ignore"):
            free_energy = np.where(total > 0, -kT * np.log(total), np.nan)
        found.append(Profile(axis, free_energy - np.nanmin(free_energy), error, bound=True))
    return found


def profile_figure(profile: Profile, landscape: Landscape, *, wide: bool = False) -> str:
    """A profile with its error band; where it is the whole landscape, its minima are there to be clicked on."""
    axis = shown(profile.axis)
    x = profile.axis.grid * axis.factor
    low, high = profile.free_energy - profile.error, profile.free_energy + profile.error
    lo, hi = spread(profile.free_energy, low, high, floor=0.0)
    panel = Panel((axis.lo, axis.hi), (min(lo, float(np.nanmin(low, initial=0.0))), hi), height=400 if wide else 290)
    drawing = panel.svg(
        f"Free energy along {axis.symbol} in kJ/mol with its error band",
        panel.axes(axis.title, "free energy (kJ/mol)", axis.ticks),
        panel.band(x, low, high, "s1"),
        panel.line(x, profile.free_energy, "s1"),
    )
    band = "an upper bound of the standard error" if profile.bound else "one standard error"
    caption = f"The band is {band} to either side."
    if not wide:
        return figure(f"Along {axis.symbol}", drawing, caption)
    marks = []
    for m in landscape.minima:
        left = 100 * (m.location[0] * axis.factor - axis.lo) / (axis.hi - axis.lo)
        height = float(np.interp(m.location[0], profile.axis.grid, np.nan_to_num(profile.free_energy)))
        bottom = 100 * (height - panel.y[0]) / (panel.y[1] - panel.y[0])
        marks.append(mark(m, (axis,), f"left:{left:.2f}%;bottom:{bottom:.2f}%"))
    label = "Free energy: explore with the arrow keys, Enter shows the structure"
    return (
        f'<figure class="card map"><h3>Free energy</h3><div class="plot">{drawing}{area(panel, label, "".join(marks))}'
        f"</div><figcaption>{caption} A click shows the structure.</figcaption></figure>"
    )


def trace_figures(cvs: Series) -> list[str]:
    """Each collective variable in time, some walkers in colours."""
    time, unit = _time(cvs.time)
    drawn = []
    for k, (name, its_unit) in enumerate(zip(cvs.names, cvs.units, strict=True)):
        factor = math.degrees(1) if its_unit in ("rad", "radian", "radians") else 1.0
        label = f"{symbol(name)} (°)" if factor != 1 else f"{symbol(name)} ({its_unit})" if its_unit else symbol(name)
        values = cvs.values[:, :, k] * factor
        lo, hi = spread(values)
        turn = factor != 1 and hi - lo > 200
        panel = Panel(_ends(time), (-180, 180) if turn else (lo, hi), height=230)
        drawing = panel.svg(
            f"{symbol(name)} of {len(cvs.walkers)} walkers against time",
            panel.axes(f"time ({unit})", label, None, (-180, -90, 0, 90, 180) if turn else None),
            *(panel.dots(time, values[:, w], _STYLES[w % 6]) for w in range(len(cvs.walkers))),
        )
        drawn.append(figure(f"{symbol(name)} in time", drawing, f"{len(time)} points of each walker.",
                            before=legend([f"walker {w}" for w in cvs.walkers])))  # fmt: skip
    return drawn


def equilibration_figure(trace: Trace, data: RunData) -> str:
    """A quantity against time over the whole run: what the estimates leave out is shaded, their result is a band."""
    time, unit = _time(trace.time)
    mean, walkers = trace.walkers.mean(1), trace.walkers.T if 1 < trace.walkers.shape[1] <= _FEW else ()
    found = [q for q in data.quantities if q.name == trace.name and math.isfinite(q.value)][:1]
    bands = [q.value + np.array([-1, 1]) * np.nan_to_num(q.error) for q in found]
    lo, hi = spread(mean, *walkers, *bands)
    panel = Panel((0.0, float(time[-1])), (lo, hi), left=margin((lo, hi)))
    used = float(data.used_from * time[-1] / trace.time[-1])
    shaded = bool(0 < used <= time[-1])
    title = f"{trace.name} ({trace.unit.replace('^3', '³')})"
    drawn = [panel.shade(0.0, used)] if shaded else []
    drawn.append(panel.axes(f"time ({unit})", title))
    drawn += [panel.line(time, walker, "thin s1") for walker in walkers]
    drawn.append(panel.line(time, mean, "s1"))
    names = ["run"]
    for q, band in zip(found, bands, strict=True):
        kept = np.array([used, time[-1]])
        drawn.append(panel.band(kept, np.full(2, band[0]), np.full(2, band[1]), "s2"))
        drawn.append(panel.line(kept, np.full(2, q.value), "estimate s2"))
        names.append(f"estimate, {plus_minus(q.value, q.error, q.unit)}")
    drawing = panel.svg(f"{title} against time", *drawn)
    told = _told(trace, thin=len(walkers) > 0, shaded=shaded)
    return figure(f"{trace.name.capitalize()} in time", drawing, told, before=legend(names))


def growth_figure(trace: Trace) -> str:
    """A number that tells how the bias grew, against time: it is to come to rest, or to grow evenly."""
    time, unit = _time(trace.time)
    value = trace.walkers[:, 0]
    lo, hi = spread(value)
    panel = Panel((0.0, float(time[-1])), (lo, hi), left=margin((lo, hi)))
    title = f"{trace.name} ({trace.unit})" if trace.unit else trace.name
    drawing = panel.svg(f"{title} against time", panel.axes(f"time ({unit})", title), panel.line(time, value, "s1"))
    return figure(f"{trace.name[:1].upper()}{trace.name[1:]}", drawing, "Of the bias that all walkers share.")


def _told(trace: Trace, *, thin: bool, shaded: bool) -> str:
    """What the lines of a figure of equilibration are."""
    count = trace.walkers.shape[1]
    told = f"The mean of {count} walkers" if count > 1 else "The walker"
    told += f", and each of them (thin){';' if trace.records > 1 else ''}" if thin else "," * (trace.records > 1)
    told += f" every point is the mean of {trace.records} records." if trace.records > 1 else "."
    return told + " Shaded: left out of the estimates." * shaded


def legend(names: list[str]) -> str:
    """What the colours of a figure stand for, in their order."""
    items = "".join(f'<li class="{_STYLES[i % 6]}">{escape(n)}</li>' for i, n in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


def convergence_figure(data: RunData) -> str | None:
    """The estimates from the first part of the run, against its length; the last value runs through as a band."""
    parts = data.convergence
    names = list(dict.fromkeys(name for part in parts for name in part.values))
    if not names:
        return None
    units = {q.name: q.unit for q in data.quantities}
    unit = next((units[n] for n in names if units.get(n)), "kJ/mol")
    time, time_unit = _time(np.array([part.time for part in parts]) * 1000)
    table = np.array([[part.values.get(n, (math.nan, math.nan)) for n in names] for part in parts])
    values, errors = table[..., 0], table[..., 1]
    panel = Panel(
        (0.0, float(np.nanmax(time)) * 1.04), spread(values - np.nan_to_num(errors), values + np.nan_to_num(errors))
    )  # fmt: skip
    drawn = [panel.axes(f"simulated time used ({time_unit})", f"estimate ({unit})")]
    for i, name in enumerate(names):
        style, last, error = _STYLES[i % 6], values[-1, i], errors[-1, i]
        ends = np.array(panel.x)
        drawn.append(panel.band(ends, np.full(2, last - error), np.full(2, last + error), style))
        titles = [f"{symbol(name)}: {plus_minus(v, e, unit)} at {number(t)} {time_unit}"
                  for t, v, e in zip(time, values[:, i], errors[:, i], strict=True)]  # fmt: skip
        drawn += [panel.line(time, values[:, i], style), panel.bars(time, values[:, i], errors[:, i], style, titles)]
    drawing = panel.svg(f"{', '.join(names)} against the simulated time, with error bars", *drawn)
    caption = "Each point uses the run from its start to there. Bars are one standard error; the band is the final one."
    return figure("Convergence", drawing, caption, before=legend([symbol(n) for n in names]))


def bias_figure(data: RunData) -> str | None:
    """The bias against time, from the log."""
    bias, time = data.log.get("bias_kJ_mol"), data.log.get("time_ps")
    if bias is None or time is None or not np.isfinite(bias).any() or not np.nanmax(np.abs(bias)) > 0:
        return None
    stride = max(1, len(time) // 500)
    time, unit = _time(time[::stride])
    bias = bias[::stride]
    panel = Panel(_ends(time), spread(bias, floor=min(0.0, float(np.nanmin(bias)))))
    drawing = panel.svg(
        "The bias at the walkers, in kJ/mol, against time",
        panel.axes(f"time ({unit})", "bias (kJ/mol)"),
        panel.line(time, bias, "s1"),
    )
    return figure("Growth of the bias", drawing, "The mean over the walkers of the bias where they are.")


def shown_axes(landscape: Landscape) -> tuple[Shown, ...]:
    """The axes of a landscape in the units of the page."""
    return tuple(shown(a) for a in landscape.axes)


def _time(ps: np.ndarray) -> tuple[np.ndarray, str]:
    ps = np.asarray(ps, dtype=float)
    return (ps / 1000, "ns") if len(ps) and np.nanmax(ps) >= 2000 else (ps, "ps")


def _ends(time: np.ndarray) -> tuple[float, float]:
    lo, hi = (float(np.nanmin(time)), float(np.nanmax(time))) if len(time) else (0.0, 1.0)
    return min(lo, 0.0) if lo < 0.2 * hi else lo, hi
