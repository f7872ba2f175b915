"""When a simulation leaves the numbers that make sense: where, when, and which term of the energy did it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from metastable.core.compiling import filter_jit_once
from metastable.core.errors import RunawayError
from metastable.core.units import kelvin
from metastable.dynamics.state import temperature
from metastable.enhanced.walkers import Walkers
from metastable.io.molecules import Molecule
from metastable.loops.run import Block, run
from metastable.recipes.plan import Plan
from metastable.recipes.start import start_of

HOT = 20
"""A kinetic temperature of so many times the thermostat's is a runaway: by chance it never happens."""


def inspection(key: PRNGKeyArray, plan: Plan, molecule: Molecule, walkers: Walkers) -> Callable[[Any, Block], None]:
    """A function of the state before a block and the block, that raises RunawayError where a walker ran away in it."""
    observe = filter_jit_once(health(molecule, walkers))

    def inspect(before: Any, block: Block) -> None:
        recorded = np.isfinite(block.records["potential"]) & _sane(block.records["temperature"], plan)
        if not (np.all(recorded) and np.all(_sane(np.asarray(observe(block.state)), plan))):
            raise locate(key, plan, molecule, walkers, before, block)

    return inspect


def _sane(kelvins: np.ndarray, plan: Plan) -> np.ndarray:
    """Where a temperature is one; NaN is none."""
    return np.asarray(kelvins) < HOT * plan.temperature


def health(molecule: Molecule, walkers: Walkers) -> Callable[[Any], Any]:
    """The kinetic temperature of every walker, K; NaN where its positions, CVs or energy are not finite."""
    system, _, potential = molecule
    masses = jnp.asarray(system.masses)

    def one(state, bias):
        kT = temperature(state.momenta, masses, system.degrees_of_freedom)
        parts = (state.positions, walkers.cv(state.frame), potential(state.frame))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(part)) for part in parts]))
        return jnp.where(finite, kT / kelvin, jnp.nan)

    return walkers.observe(one)


def locate(
    key: PRNGKeyArray, plan: Plan, molecule: Molecule, walkers: Walkers, before: Any, block: Block
) -> RunawayError:
    """Repeat the block from its start, looking at every step: blocks depend on nothing else."""
    key = jax.random.fold_in(key, block.index)

    def again(observe):
        return np.asarray(run(key, walkers, before, plan.steps, every=1, observe=observe)[1])

    kelvins = again(health(molecule, walkers))
    bad = ~_sane(kelvins, plan)
    step = int(np.argmax(np.any(bad, 1))) if bad.any() else plan.steps - 1
    replica = int(np.argmax(bad[step] if bad.any() else ~_sane(np.asarray(block.records["temperature"][-1]), plan)))
    path = again(lambda state: walkers.observe(lambda one, bias: one.positions)(state)[replica])
    term, energy = largest(molecule, walkers, before.bias, path[max(0, step - 1) : step + 1])
    return RunawayError(replica, block.index * plan.steps + step + 1, term, energy)


def largest(molecule: Molecule, walkers: Walkers, bias: Any, path: np.ndarray) -> tuple[str, float]:
    """The term of largest energy, kJ/mol, in the last frame of the path where there are finite positions."""
    frames = [start_of(molecule).at(jnp.asarray(x)) for x in path if np.isfinite(x).all()]
    if not frames:
        return "unknown", float("nan")
    energies = dict(molecule.potential.energies(frames[-1])) | {"bias": bias(walkers.cv(frames[-1]))}
    sizes = {name: float(energy) for name, energy in energies.items()}
    return max(sizes.items(), key=lambda item: abs(item[1]) if np.isfinite(item[1]) else np.inf)
