"""The sections of the page, from the headline to what to cite."""

import math
from html import escape

import numpy as np

from metastable.report import figures
from metastable.report.movie import Movie
from metastable.report.notation import duration, fact, number, percent, plus_minus, symbol, typeset
from metastable.report.observed import curve_figures, note_list, number_rows
from metastable.report.rundata import Minimum, RunData
from metastable.report.surface import surface

STAGE = "<!--stage-->"
"""Where the molecule goes."""

_ORDER = (
    "molecule", "atoms", "waters", "ions", "force_field", "solvent", "mean_box_nm", "mean_volume_nm3", "temperature_K",
    "pressure_bar", "barostat", "constant_volume_ps", "integrator", "thermostat", "dt_fs", "walkers",
    "steps", "total_time_ns", "ns_per_day", "wall_time_s", "precision", "device", "seed",
)  # fmt: skip


_KEY = 4  # observables among the key figures


def body(data: RunData, kT: float | None) -> str:
    """Everything between <body> and the scripts; ``STAGE`` stands where the molecule goes."""
    parts = [
        _header(data),
        f'<section class="triptych" aria-label="{_seen(data)}">{STAGE}{_landscape(data)}</section>',
        _observables(data),
        f'<div class="pair">{_states(data)}{_estimates(data)}</div>',
        _profiles(data, kT),
        _equilibration(data),
        _sampling(data),
        _facts(data),
        _cite(data),
        _input(data),
    ]
    foot = f"Made by Metastable {escape(data.versions.get('metastable', ''))} from the files of the run alone."
    return (
        f'<a class="skip" href="#states">Skip to the table</a><main>{"".join(parts)}</main>'
        f'<footer><p>{foot}</p><p id="trouble" role="alert" hidden></p></footer>'
    )


def title(data: RunData) -> str:
    """The name of the run, or of its molecule, its recipe or its directory where it has none."""
    return data.title or str(data.facts.get("molecule") or "") or data.recipe or data.directory.resolve().name


def _seen(data: RunData) -> str:
    return "Structure and free energy" if data.seeks_landscape else "Structure and observables"


def _header(data: RunData) -> str:
    items = "".join(
        f"<li><b>{escape(value)}<small> {escape(unit)}</small></b><span>{escape(label)}</span></li>"
        for label, value, unit in _key_figures(data)
    )
    over = " · ".join(filter(None, ("Metastable", data.recipe)))
    return (
        f'<header><p class="over">{escape(over)}</p><h1>{escape(title(data))}</h1>'
        f'<p class="lead">{escape(_headline(data))}</p><ul class="figures">{items}</ul></header>'
    )


def _key_figures(data: RunData) -> list[tuple[str, str, str]]:
    """(what, value, unit) of the few numbers that a reader looks for first."""
    found = []
    minima = _by_depth(data)
    if len(minima) > 1:
        value = plus_minus(minima[1].free_energy, minima[1].error)
        found.append((f"state {minima[1].name} above state {minima[0].name}", value, "kJ/mol"))
    density = [q for q in data.quantities if q.name == "density"]
    observed = [q for one in data.observed for q in one.quantities if math.isfinite(q.error)][:_KEY]
    found += [(typeset(q.name), plus_minus(q.value, q.error), typeset(q.unit)) for q in density + observed]
    for name, label in (("total_time_ns", "simulated"), ("walkers", "walkers"), ("ns_per_day", "speed, all walkers")):
        value = data.facts.get(name)
        if isinstance(value, int | float):
            value = float(f"{value:.3g}") if name == "ns_per_day" else value
            found.append((label, number(value), {"total_time_ns": "ns", "ns_per_day": "ns/day"}.get(name, "")))
    wall = data.facts.get("wall_time_s")
    if isinstance(wall, int | float):
        found.append(("wall time", *duration(wall).split(" ", 1)))
    return found


def _by_depth(data: RunData) -> list[Minimum]:
    return sorted(data.landscape.minima, key=lambda m: m.free_energy) if data.landscape else []


def _headline(data: RunData) -> str:
    """The result in a sentence or two."""
    if data.landscape is None:
        return "" if data.quantities else "This run has written no free energy landscape."
    minima = _by_depth(data)
    if not minima:
        return "No minimum was found on the free energy landscape."
    best, shown = minima[0], figures.shown_axes(data.landscape)
    place = ", ".join(f"{s.symbol} {s.text(v)}" for v, s in zip(best.location, shown, strict=True))
    text = f"State {best.name} ({place}) is the most stable"
    if math.isfinite(best.population):
        text += f" and holds {percent(best.population, best.population_error)} of the population"
    if len(minima) == 1:
        return f"{text}."
    others = [f"{m.name} by {plus_minus(m.free_energy, m.error)}" for m in minima[1:4]]
    return f"{text}. {'Above it lies' if len(others) == 1 else 'Above it lie'} {_listed(others)} kJ/mol."


def stage(movie: Movie) -> str:
    """The molecule and its controls."""
    water = f" {number(movie.hidden)} atoms of water and ions are left out." if movie.hidden else ""
    heading = "The liquid in its box" if movie.liquid else "The molecule"
    return (
        f'<figure class="card molecule"><h3>{heading}</h3><div class="stage">'
        f'<canvas id="molecule" tabindex="0" role="img" aria-label="{heading}, {len(movie.elements)} atoms, as '
        "balls and sticks. Arrow keys turn it, plus and minus zoom, space plays, comma and full stop step through the "
        'frames, Home resets the view." aria-describedby="frame-label"></canvas><output class="tip" hidden></output>'
        '<noscript><p class="absent">The moving molecule needs JavaScript.</p></noscript></div>'
        '<div class="controls"><button type="button" id="play" aria-label="Play" aria-pressed="false">'
        '<svg viewBox="0 0 16 16" aria-hidden="true"><path class="when-paused" d="M5 2l9 6-9 6z"/>'
        '<path class="when-playing" d="M3 2h3.5v12H3zM9.5 2H13v12H9.5z"/></svg></button>'
        '<input type="range" id="frame" min="0" max="0" value="0" aria-label="Frame">'
        '<button type="button" id="home" aria-label="Reset the view" title="Reset the view">'
        '<svg viewBox="0 0 16 16" aria-hidden="true"><path class="stroke" '
        'd="M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4"/></svg></button></div><figcaption><span id="frame-label"></span>'
        f'<span class="hint">Drag to turn; click, then scroll, to zoom.{water}</span></figcaption></figure>'
    )


def _landscape(data: RunData) -> str:
    landscape = data.landscape
    if landscape is None:
        absent = '<p class="card absent">The run has written no free energy landscape.</p>'
        return absent if data.seeks_landscape else _numbers(data)
    if not np.isfinite(landscape.free_energy).any():
        return '<p class="card absent">The free energy landscape is empty: no bin has been visited.</p>'
    if len(landscape.axes) == 1:
        own = figures.profiles(landscape, None)[0]
        return figures.profile_figure(own, landscape, wide=True)
    shown = figures.shown_axes(landscape)
    pair = (shown[0], shown[1])
    never = " Hatched: never visited." if np.isnan(landscape.free_energy).any() else ""
    drawn = surface(landscape, pair, "free_energy", "Free energy", f"A click shows the nearest structure.{never}")
    if not np.isfinite(landscape.error).any():
        return drawn + '<p class="card absent">The run has written no errors of the surface.</p>'
    return drawn + surface(landscape, pair, "error", "Its standard error", "One standard error of the free energy.")


def _numbers(data: RunData) -> str:
    """The table of the observables, and what must be known of them."""
    if not any(one.quantities or one.notes for one in data.observed):
        return ""
    head = '<th scope="col">Observable</th><th scope="col">Value ± standard error</th>'
    told = "Means over the part of the run that is used, as in <code>results.json</code>."
    return f"<div>{_table(told, head, number_rows(data.observed))}{note_list(data.observed)}</div>"


def _observables(data: RunData) -> str:
    """The curves; the table, too, where a landscape stands beside the molecule."""
    numbers = _numbers(data) if data.seeks_landscape else ""
    drawn = curve_figures(data.observed)
    if not (numbers or drawn):
        return ""
    return _section("observables", "Observables", numbers + f'<div class="pair">{drawn}</div>')


def _states(data: RunData) -> str:
    landscape = data.landscape
    if not data.seeks_landscape:
        return ""
    if landscape is None or not landscape.minima:
        return _section("states", "States", '<p class="absent">The run names no minima.</p>')
    shown = figures.shown_axes(landscape)
    head = "".join(f'<th scope="col">{escape(s.title)}</th>' for s in shown)
    rows = []
    for m in landscape.minima:
        name = escape(m.name)
        badge = (
            f'<button type="button" class="badge" data-state="{name}" aria-label="Show state {name}">{name}</button>'
            if m.frame is not None and data.movie is not None
            else f'<span class="badge">{name}</span>'
        )
        places = "".join(f"<td>{s.number(v)}</td>" for v, s in zip(m.location, shown, strict=True))
        share = percent(m.population, m.population_error).removesuffix(" %")
        rows.append(
            f'<tr data-state="{name}"><th scope="row">{badge}</th>{places}'
            f"<td>{plus_minus(m.free_energy, m.error)}</td><td>{share}</td></tr>"
        )
    how = " A letter shows the structure." if data.movie is not None else ""
    caption = f"Free energies are against the lowest state; errors are one standard error.{how}"
    head = (
        f'<th scope="col">State</th>{head}<th scope="col">Free energy (kJ/mol)</th><th scope="col">Population (%)</th>'
    )
    return _section("states", "States", _table(caption, head, "".join(rows)))


def _table(caption: str, head: str, rows: str) -> str:
    return (
        f'<div class="card scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _profiles(data: RunData, kT: float | None) -> str:
    landscape = data.landscape
    if landscape is None or len(landscape.axes) == 1 or not np.isfinite(landscape.free_energy).any():
        return ""
    found = figures.profiles(landscape, kT)
    if not found:
        return _section("profiles", "Profiles", "<p>Without a temperature among the facts there are no profiles.</p>")
    drawn = "".join(figures.profile_figure(p, landscape) for p in found)
    return _section("profiles", "Profiles", f'<div class="pair">{drawn}</div>')


def _equilibration(data: RunData) -> str:
    """Where the density was recorded; the potential energy alone stands among the figures of the sampling."""
    if len(data.traces) < 2:
        return ""
    drawn = "".join(figures.equilibration_figure(trace, data) for trace in data.traces)
    return _section("equilibration", "Equilibration", f'<div class="pair">{drawn}</div>')


def _sampling(data: RunData) -> str:
    drawn = [figures.convergence_figure(data), figures.bias_figure(data)]
    drawn += [figures.growth_figure(trace) for trace in data.growth]
    if len(data.traces) == 1:
        drawn.append(figures.equilibration_figure(data.traces[0], data))
    drawn = [d for d in drawn if d] + (figures.trace_figures(data.cvs) if data.cvs is not None else [])
    missing = [
        text
        for text, there in (
            ("no convergence of its estimates", data.convergence or not data.seeks_landscape),
            ("no collective variables in time", data.cvs or not data.seeks_landscape),
            ("no log", data.log),
        )
        if not there
    ]
    note = f'<p class="absent">The run has written {_listed(missing)}.</p>' if missing else ""
    if not (drawn or note):
        return ""
    return _section("sampling", "Convergence and sampling", f'<div class="pair">{"".join(drawn)}</div>{note}')


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _estimates(data: RunData) -> str:
    shown = {q.name for one in data.observed for q in one.quantities}
    others = [q for q in data.quantities if q.name not in shown]
    if not others:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(symbol(q.name))}</th><td>{escape(plus_minus(q.value, q.error, q.unit))}</td></tr>'
        for q in others
    )
    head = '<th scope="col">Estimate</th><th scope="col">Value ± standard error</th>'
    table = _table("As in <code>results.json</code>.", head, rows)
    return _section("estimates", "Other estimates" if shown else "Every estimate", table)


def _facts(data: RunData) -> str:
    names = sorted(data.facts, key=lambda n: _ORDER.index(n) if n in _ORDER else len(_ORDER))
    entries = [fact(n, data.facts[n]) for n in names]
    temperature = data.log.get("temperature_K")
    estimated = any(q.name == "temperature" for q in data.quantities)
    if temperature is not None and np.isfinite(temperature).any() and not estimated:
        entries.append(("Mean temperature", f"{number(float(np.nanmean(temperature)), 1)} K"))
    entries += [(name, version) for name, version in data.versions.items()]
    if not entries:
        return _section("facts", "The run", '<p class="absent">The run has written no facts about itself.</p>')
    items = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>" for label, text in entries)
    return _section("facts", "The run", f'<dl class="card facts">{items}</dl>')


def _cite(data: RunData) -> str:
    if not data.cite:
        return ""
    items = []
    for c in data.cite:
        doi = str(c.get("doi") or "").removeprefix("https://doi.org/")
        link = f' <a href="https://doi.org/{escape(doi)}">doi:{escape(doi)}</a>' if doi else ""
        what = f"<b>{escape(str(c.get('what')))}.</b> " if c.get("what") else ""
        items.append(f"<li>{what}{escape(str(c.get('text') or ''))}{link}</li>")
    return _section("cite", "What to cite", f'<ul class="cite">{"".join(items)}</ul>')


def _input(data: RunData) -> str:
    if not data.resolved:
        return _section("input", "Input", '<p class="absent">The run directory has no resolved input.</p>')
    return (
        '<section id="input"><details><summary><h2>Input, with every default filled in</h2></summary>'
        f'<pre tabindex="0">{escape(data.resolved)}</pre></details></section>'
    )


def _section(name: str, heading: str, content: str) -> str:
    return f'<section id="{name}"><h2>{heading}</h2>{content}</section>'
