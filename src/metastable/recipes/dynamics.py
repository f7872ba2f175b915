"""Molecular dynamics: walkers on a molecule's own potential, with restraints and walls where wished."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from metastable.cvs.variable import Variable
from metastable.enhanced.biases import MovingHarmonic
from metastable.estimate.landscape import Landscape, landscape
from metastable.estimate.weights import last_bias
from metastable.io.molecules import Molecule
from metastable.loops.run import Block
from metastable.recipes.plan import Plan
from metastable.recipes.recording import record, walkers_of
from metastable.recipes.results import axes_of, kept, write_results
from metastable.report.page import write_report
from metastable.report.sinks import read_arrays


def dynamics(
    plan: Plan,
    molecule: Molecule,
    cv: Variable,
    bias: Any,
    directory: str | Path,
    *,
    watch: Callable[[Block], None] = lambda block: None,
    **options: Any,
) -> Landscape | None:
    """Run independent walkers, and estimate the free energy over the first two CVs where the bias stands still.

    bias: static ones are reweighted; ``Sum()`` is none. Otherwise as ``metadynamics``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    walkers = walkers_of(plan, molecule, cv, bias)
    for block in record(plan, molecule, walkers, directory, **options):
        watch(block)
    found = conclude(plan, molecule, cv, directory, moving=moves(bias))
    write_report(directory)
    return found


def conclude(
    plan: Plan, molecule: Molecule, cv: Variable, directory: Path, *, moving: bool = False
) -> Landscape | None:
    """The estimates, from ``arrays.h5`` alone; none of the landscape where a bias moved."""
    arrays = read_arrays(directory / "arrays.h5")
    used = kept(plan, arrays)
    axes = axes_of(plan, cv, used["cvs"])
    found = None
    if not moving:
        found = landscape(used["cvs"][..., : len(axes)], last_bias(used["bias"], plan.kT), axes, plan.kT)
    write_results(directory, "dynamics", plan, molecule, arrays, found, ())
    return found


def moves(bias: Any) -> bool:
    """Whether a restraint moves in the bias."""
    nodes = jax.tree.leaves(bias, is_leaf=lambda x: isinstance(x, MovingHarmonic))
    return any(isinstance(node, MovingHarmonic) for node in nodes)
