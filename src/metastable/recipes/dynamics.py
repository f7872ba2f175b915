"""Molecular dynamics: walkers on a molecule's own potential, with restraints and walls where wished."""

from pathlib import Path
from typing import Any

import jax

from metastable.cvs.variable import Stack, Variable
from metastable.enhanced.biases import MovingHarmonic, Sum
from metastable.estimate.landscape import Landscape, landscape
from metastable.estimate.weights import last_bias
from metastable.io.molecules import Molecule
from metastable.recipes.observing import Records, check, estimates
from metastable.recipes.plan import Plan
from metastable.recipes.recording import sample
from metastable.recipes.results import axes_of, first_kept, kept, write_results
from metastable.report.page import write_report
from metastable.report.sinks import read_arrays


def dynamics(
    plan: Plan,
    molecule: Molecule,
    cv: Variable | None,
    bias: Any,
    directory: str | Path,
    **options: Any,
) -> Landscape | None:
    """Run independent walkers; estimate the observables of the plan, and the free energy over the first two CVs.

    cv: None for no CV; then there is no landscape, nor where a bias moves. bias: static ones are reweighted; None, or
    ``Sum()``, for no bias, as observables want it. Otherwise as ``metadynamics``.

    Raises InputError with all that does not suit the observables of the plan.
    """
    cv, bias = Stack() if cv is None else cv, Sum() if bias is None else bias
    check(plan, molecule, bias)
    directory = sample(plan, molecule, cv, bias, directory, **options)
    found = conclude(plan, molecule, cv, directory, moving=moves(bias))
    write_report(directory)
    return found


def conclude(
    plan: Plan, molecule: Molecule, cv: Variable, directory: Path, *, moving: bool = False
) -> Landscape | None:
    """The estimates, from the files of the run; none of the landscape where a bias moved, or without CVs."""
    arrays = read_arrays(directory / "arrays.h5")
    used = kept(plan, arrays)
    found = None
    if cv.components and not moving:
        axes = axes_of(plan, cv, used["cvs"])
        found = landscape(used["cvs"][..., : len(axes)], last_bias(used["bias"], plan.kT), axes, plan.kT)
    observed = estimates(Records(plan, molecule, used, first_kept(plan, arrays), directory))
    write_results(directory, "dynamics", plan, molecule, arrays, found, (), observed)
    return found


def moves(bias: Any) -> bool:
    """Whether a restraint moves in the bias."""
    nodes = jax.tree.leaves(bias, is_leaf=lambda x: isinstance(x, MovingHarmonic))
    return any(isinstance(node, MovingHarmonic) for node in nodes)
