"""Metadynamics: from a molecule to its free energy landscape.

input -> System, Frame -> Potential -> Sampler -> stream -> Block -> arrays -> Estimate -> report
"""

from pathlib import Path
from typing import Any

from metastable.cvs.variable import Variable
from metastable.estimate.landscape import Landscape, landscape
from metastable.estimate.weights import time_offset
from metastable.io.molecules import Molecule
from metastable.recipes.observing import check
from metastable.recipes.plan import Plan
from metastable.recipes.recording import sample
from metastable.recipes.results import axes_of, kept, write_results
from metastable.report.page import write_report
from metastable.report.sinks import read_arrays

CITE = ("well-tempered", "walkers", "reweighting")


def metadynamics(
    plan: Plan,
    molecule: Molecule,
    cv: Variable,
    bias: Any,
    directory: str | Path,
    **options: Any,
) -> Landscape:
    """Run walkers that share one bias, and estimate the free energy over the first two collective variables.

    bias: ``WellTempered``, or a ``Sum`` that has one; it acts on all of ``cv``.
    directory, options: as of :func:`metastable.recipes.recording.sample`.

    Raises InputError where the plan has observables: they go with no bias.
    """
    check(plan, molecule, bias)
    directory = sample(plan, molecule, cv, bias, directory, **options)
    found = conclude(plan, molecule, cv, directory)
    write_report(directory)
    return found


def conclude(plan: Plan, molecule: Molecule, cv: Variable, directory: Path) -> Landscape:
    """The estimates, from ``arrays.h5`` alone, as far as the run got; they are written to ``results.json``."""
    arrays = read_arrays(directory / "arrays.h5")
    used = kept(plan, arrays)
    weights = time_offset(used["bias"], used["offset"], plan.kT)
    axes = axes_of(plan, cv, used["cvs"])
    found = landscape(used["cvs"][..., : len(axes)], weights, axes, plan.kT)
    write_results(directory, "metadynamics", plan, molecule, arrays, found, CITE)
    return found
