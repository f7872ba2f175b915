"""``check``: what an input would do, without doing it."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from metastable.cli.build import Job, build
from metastable.cli.directory import resolved
from metastable.cli.input import Input, read_input
from metastable.cli.progress import duration
from metastable.cli.running import keep_compilations
from metastable.dynamics.minimize import largest_force
from metastable.loops.run import run
from metastable.recipes.recording import learning_of, observables, observation, walkers_of
from metastable.recipes.start import listed, start_of
from metastable.report.sinks import arrays_size

_PROBE = 100  # steps that are timed
_XTC = 5.0  # bytes an atom, about


def check(source: Path, overrides: Sequence[str] = ()) -> None:
    """Read everything and say what would happen. Raises InputError with every problem."""
    keep_compilations()
    draft = read_input(source, overrides)
    double = draft.dynamics is not None and draft.dynamics.precision == "double"
    with jax.enable_x64(double):
        given, job = build(draft, source.parent)
        sections = [_molecule(job), _cvs(job), _observables(given, job), _schedule(given, job), _cost(job)]
    print("\n\n".join(filter(None, sections)))
    print(f"\nResolved input, with every default:\n\n{resolved(given, source.parent)[0]}", end="")
    print(f"\nno problem found: 'metastable run {source} --out DIR'")


def _molecule(job: Job) -> str:
    system, _, potential = job.molecule
    start = listed(job.molecule)
    energies = {name: float(e) for name, e in potential.energies(start).items()}
    force = float(largest_force(potential, start))
    lines = [
        f"Molecule: {len(system)} atoms, charge {system.charges.sum():+.3f} e, {len(system.constraints)} bonds of "
        f"fixed length, {system.degrees_of_freedom} degrees of freedom",
        f"  energy of the structure {sum(energies.values()):.2f} kJ/mol, largest force {force:.4g} kJ/mol/nm",
        *(f"    {name:20} {energy:12.2f} kJ/mol" for name, energy in energies.items()),
    ]
    return "\n".join(lines)


def _cvs(job: Job) -> str:
    if not job.cv.components:
        return ""
    values = np.asarray(job.cv(start_of(job.molecule)))
    lines = ["Collective variables, and their values in the structure:"]
    for component, value in zip(job.cv.components, values, strict=True):
        degrees = f" = {np.degrees(value):.1f} deg" if component.unit == "rad" else ""
        lines.append(f"    {component.label:20} {value:.4f} {component.unit}{degrees}")
    return "\n".join(lines)


def _observables(given: Input, job: Job) -> str:
    lines = ["Observables:"]
    for name, observable in job.plan.observables.items():
        groups = [getattr(observable, key, None) for key in ("first", "second", "atoms")]
        counts = " and ".join(f"{len(group)}" for group in groups if group)
        lines.append(f"    {name:20} {given.observables[name].type}" + (f" of {counts} atoms" if counts else ""))
    return "\n".join(lines) if job.plan.observables else ""


def _schedule(given: Input, job: Job) -> str:
    plan = job.plan
    asked, real = given.dynamics.duration, plan.time
    lines = [
        f"Run: {plan.walkers} walkers x {real / 1e3:g} ns = {plan.walkers * real / 1e3:g} ns, in {plan.blocks} blocks "
        f"of {plan.steps} steps",
    ]
    if not np.isclose(asked, real, rtol=1e-6):
        lines.append(f"    the duration {asked.text} is rounded up to whole blocks")
    bias = learning_of(job.bias)
    if bias is not None:
        points = " x ".join(str(axis.bins) for axis in bias.axes)
        what = "hills" if job.recipe == "metadynamics" else "kernels, most of them merged"
        count = plan.walkers * plan.blocks * plan.steps // plan.pace
        lines.append(f"    {count} {what}, on a grid of {points} points")
    return "\n".join(lines)


def _cost(job: Job) -> str:
    plan = job.plan
    walkers = walkers_of(plan, job.molecule, job.cv, job.bias)
    frame = start_of(job.molecule)
    began = time.perf_counter()
    state = eqx.filter_jit(walkers.init)(jax.random.key(0), frame)
    observe = observation(plan, job.molecule, walkers)

    def probe() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(jax.random.key(0), walkers, state, _PROBE, every=_PROBE, observe=observe))
        return time.perf_counter() - start

    probe()
    compilation = time.perf_counter() - began
    step = min(probe() for _ in range(3)) / _PROBE
    total = step * plan.blocks * plan.steps
    frames = plan.records // plan.frames * plan.trajectory_walkers
    size = arrays_size(observables(plan, job.molecule, walkers), plan.records)
    size += frames * len(job.molecule.system) * _XTC
    size += 2 * sum(x.nbytes for x in jax.tree.leaves(state) if hasattr(x, "nbytes")) + 1e6
    speed = plan.walkers * plan.dt / 1e3 / step * 86400
    devices = ", ".join(str(d) for d in jax.devices())
    return (
        f"Time: about {duration(total)}, and {compilation:.0f} s to compile, on {devices} ({os.cpu_count()} cores), as "
        f"busy as it is now: {speed:,.0f} ns/day\nDisk: about {size / 1e6:.1f} MB"
    )
