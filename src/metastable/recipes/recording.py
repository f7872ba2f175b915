"""From a molecule to walkers, and from walkers to files that can be gone on with."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metastable.core.compiling import filter_jit_once
from metastable.core.frame import Frame
from metastable.core.space import molecules, volume
from metastable.core.units import kelvin, kg_m3
from metastable.cvs.variable import Variable
from metastable.dynamics.barostats import CRescale, MonteCarloBarostat
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import BAOAB, Langevin, Overdamped, VelocityVerlet
from metastable.dynamics.lists import Listed
from metastable.dynamics.minimize import fire
from metastable.dynamics.state import temperature
from metastable.dynamics.thermostats import CSVR, NoseHoover
from metastable.enhanced.metadynamics import WellTempered
from metastable.enhanced.opes import OPES
from metastable.enhanced.walkers import Walkers, WalkersState
from metastable.io.molecules import Molecule
from metastable.loops.checkpoint import Checkpoints, begin, persist
from metastable.loops.run import Block
from metastable.recipes.lists import Lists, list_of
from metastable.recipes.observing import series
from metastable.recipes.plan import Plan
from metastable.recipes.runaway import inspection
from metastable.recipes.start import pairs_of, start_of
from metastable.report.sinks import Arrays, Observable, Table, Trajectory, write_topology

LOG = ("time_ps", "potential_kJ_mol", "temperature_K", "bias_kJ_mol")


def walkers_of(plan: Plan, molecule: Molecule, cv: Variable, bias: Any) -> Walkers:
    """Walkers on the potential of the molecule, and the bias that they share."""
    lanes = 0 if molecule.frame.box is None else 1  # walkers with lists of pairs make them anew one by one
    return Walkers(sampler_of(plan, molecule), cv, bias, plan.pace, plan.walkers, lanes=lanes)


def sampler_of(plan: Plan, molecule: Molecule) -> Any:
    """What the plan names: an integrator or thermostat, in a box with lists of near pairs, and a barostat."""
    sampler = _integrator_of(plan, molecule)
    if molecule.frame.box is None:
        if plan.pressure is not None:
            raise ValueError(f"pressure = {plan.pressure} kJ/mol/nm^3 needs a periodic box: load the molecule with one")
        return sampler
    sampler = Listed(sampler, pairs_of(molecule, start_of(molecule), plan.skin))
    if plan.pressure is None:
        return sampler
    system = molecule.system
    groups = molecules(np.concatenate([system.topology.bonds, system.constraints]), len(system))
    shared: dict[str, Any] = {"coupling": plan.coupling, "hold": round(plan.constant_volume / plan.dt)}
    if plan.barostat == "monte-carlo":
        return MonteCarloBarostat(sampler, plan.pressure, groups, **shared)
    return CRescale(sampler, plan.pressure, plan.pressure_time, groups=groups, **shared)


def _integrator_of(plan: Plan, molecule: Molecule) -> Any:
    system, frame, potential = molecule
    bonds = Constraints.from_system(system, positions=frame.positions)
    common, free = (potential, system.masses, plan.dt), degrees_of_freedom(plan, molecule)
    match plan.integrator:
        case "langevin":
            return Langevin(*common, plan.kT, plan.friction, bonds)
        case "baoab":
            return BAOAB(*common, plan.kT, plan.friction, bonds)
        case "overdamped" if not len(bonds):
            return Overdamped(*common, plan.kT, plan.friction)
        case "csvr":
            return CSVR(*common, plan.kT, plan.relaxation, free, bonds)
        case "nose-hoover":
            return NoseHoover(*common, plan.kT, plan.relaxation, free, bonds)
        case "verlet":
            return VelocityVerlet(*common, bonds, plan.kT)
    raise ValueError(f"integrator = '{plan.integrator}' keeps no constraints: load the molecule without them")


def degrees_of_freedom(plan: Plan, molecule: Molecule) -> int:
    """Those that the momenta have: csvr and nose-hoover hold the centre of mass still."""
    return molecule.system.degrees_of_freedom - 3 * (plan.integrator in ("csvr", "nose-hoover"))


def sample(
    plan: Plan,
    molecule: Molecule,
    cv: Variable,
    bias: Any,
    directory: str | Path,
    *,
    watch: Callable[[Block], None] = lambda block: None,
    **options: Any,
) -> Path:
    """Run walkers to their end, from where they are; the directory that all of it is in.

    directory: for the files; where it holds the checkpoint of such a run, that one is gone on with.
    watch: called after each block, once it is on the disk. options: those of ``record``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for block in record(plan, molecule, walkers_of(plan, molecule, cv, bias), directory, **options):
        watch(block)
    return directory


def record(
    plan: Plan,
    molecule: Molecule,
    walkers: Walkers,
    directory: Path,
    *,
    identity: str = "",
    say: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Block]:
    """Run the walkers from their last checkpoint, or from the start, and keep the files of the directory.

    identity: what the run was told, kept in the checkpoints. say: takes a sentence for people.
    """
    keys = jax.random.split(jax.random.key(plan.seed), 2)
    frame = start_of(molecule)
    pairs = list_of(walkers.sampler)
    held = None if pairs is None else Lists(directory, walkers, pairs, say)
    hooks: dict[str, Any] = {"between": recentered} if plan.recenter else {}
    if held is not None:
        hooks = {"between": held.open, "again": held.again, "close": held.close}
    store = Checkpoints(directory)
    start = None
    if store.identity() is not None:
        like = eqx.filter_eval_shape(walkers.init, keys[0], frame)
        start, notes = store.latest(like if held is None else held.close(like))
        for note in notes:
            say(note)
    if start is None:
        if plan.minimize:
            frame = _relaxed(molecule, frame if pairs is None else Frame(frame.positions, frame.box, pairs))
            frame = Frame(frame.positions, frame.box)
        positions = np.asarray(frame.positions, float)
        box = None if frame.box is None else np.asarray(frame.box, float)
        write_topology(directory / "topology.pdb", molecule.system.topology, molecule.system.numbers, positions, box)
        start = begin(filter_jit_once(walkers.init)(keys[0], frame), identity)
    return persist(
        keys[1],
        walkers,
        start,
        plan.blocks,
        plan.steps,
        every=plan.every,
        observe=observation(plan, molecule, walkers),
        sinks=sinks(plan, molecule, walkers, directory),
        checkpoints=store,
        **hooks,
        inspect=inspection(keys[1], plan, molecule, walkers),
    )


@eqx.filter_jit
def recentered(state: WalkersState) -> WalkersState:
    """Every walker moved so that the mean of its positions is the origin."""
    positions = state.walkers.frame.positions
    moved = positions - jnp.mean(positions, axis=1, keepdims=True)  # (chunks, atoms, 3, lanes)
    return eqx.tree_at(lambda s: s.walkers.frame.positions, state, moved)


def _relaxed(molecule: Molecule, frame: Frame) -> Frame:
    """The frame with its energy minimised, roughly: enough to start from."""
    bonds = Constraints.from_system(molecule.system, positions=molecule.frame.positions)
    steps = 2000 if frame.box is None else 500  # a liquid has no one minimum to reach
    return filter_jit_once(fire)(
        molecule.potential, frame, steps=steps, constraint=bonds, masses=jnp.asarray(molecule.system.masses)
    )


def observation(plan: Plan, molecule: Molecule, walkers: Walkers) -> Callable[[Any], dict[str, Any]]:
    """What is recorded: CVs, bias, potential energy, temperature of each walker; c(t); positions of some.

    And what the observables of the plan want.
    """
    system, _, potential = molecule
    masses, wanted = jnp.asarray(system.masses), series(plan, molecule)
    free = degrees_of_freedom(plan, molecule)

    def one(state, bias):
        s = walkers.cv(state.frame)
        kT = temperature(state.momenta, masses, free)
        found = {"cvs": s, "bias": bias(s), "potential": potential(state.frame), "temperature": kT / kelvin}
        found |= {name: own.take(state) for name, own in wanted.items()}
        return found if state.frame.box is None else found | {"volume": volume(state.frame.box)}

    def observe(state):
        found = walkers.observe(one)(state)
        found |= {name: found[name][: own.walkers] for name, own in wanted.items()}
        learning = learning_of(state.bias)
        if learning is not None:
            found |= learning.growth(plan.kT)
        frames = walkers.observe(lambda state, bias: (state.frame.positions, state.frame.box))(state)
        positions, box = jax.tree.map(lambda x: x[: plan.trajectory_walkers], frames)
        return found | {"positions": positions} | ({} if box is None else {"box": box})

    return observe


def learning_of(bias: Any) -> WellTempered | OPES | None:
    """What grows in a bias, or in a sum of biases; None where nothing does."""
    nodes = jax.tree.leaves(bias, is_leaf=lambda x: isinstance(x, WellTempered | OPES))
    return next((node for node in nodes if isinstance(node, WellTempered | OPES)), None)


def observables(plan: Plan, molecule: Molecule, walkers: Walkers) -> dict[str, Observable]:
    """What ``arrays.h5`` holds, by name."""
    cv: Any = walkers.cv
    cvs, unit = len(cv.components), set(cv.units)
    found = {"cvs": Observable((plan.walkers, cvs), unit.pop() if len(unit) == 1 else "")} if cvs else {}
    found |= {
        "bias": Observable((plan.walkers,), "kJ/mol"),
        "potential": Observable((plan.walkers,), "kJ/mol"),
        "temperature": Observable((plan.walkers,), "K"),
    }
    if list_of(walkers.sampler) is not None:
        found["volume"] = Observable((plan.walkers,), "nm3")
    for name, own in series(plan, molecule).items():
        found[name] = Observable((own.walkers, *own.shape), own.unit)
    learning = learning_of(walkers.bias)
    grows = () if learning is None else learning.growth(plan.kT)
    return found | {name: Observable((), "kJ/mol" if name == "offset" else "", np.float64) for name in grows}


def sinks(plan: Plan, molecule: Molecule, walkers: Walkers, directory: Path) -> dict[str, Any]:
    """The files that grow. All that they hold follows from the blocks alone."""
    per_block = plan.steps // plan.every

    mass = molecule.system.masses.sum()
    periodic = molecule.frame.box is not None

    def row(block: Block):
        time, records = (block.index + 1) * plan.steps * plan.dt, block.records
        means = [np.mean(records[n], dtype=np.float64) for n in ("potential", "temperature", "bias")]
        return (time, *means, *([np.mean(mass / records["volume"], dtype=np.float64) / kg_m3] if periodic else []))

    def frames(block: Block):
        numbers = block.index * per_block + np.arange(per_block) + 1
        chosen = numbers % plan.frames == 0
        positions = block.records["positions"][chosen]
        steps = np.repeat(numbers[chosen] * plan.every, plan.trajectory_walkers)
        box = block.records["box"][chosen].reshape(-1, 3, 3) if periodic else None
        return positions.reshape(-1, *positions.shape[2:]), steps * plan.dt, steps, box

    cv: Any = walkers.cv
    about: dict[str, dict[str, Any]] = {"cvs": {"names": list(cv.labels), "units": list(cv.units)}}
    about |= {n: {"atoms": own.atoms} for n, own in series(plan, molecule).items() if own.atoms is not None}
    if periodic:
        about["volume"] = {"mass": float(mass)}  # Da: what makes a density of it
    kept = observables(plan, molecule, walkers)
    arrays = Arrays(directory / "arrays.h5", kept, records=plan.records, every=plan.every, dt=plan.dt, attributes=about)
    found = {"arrays.h5": arrays, "log.csv": Table(directory / "log.csv", LOG + ("density_kg_m3",) * periodic, row)}
    if plan.trajectory_walkers:
        found["trajectory.xtc"] = Trajectory(directory / "trajectory.xtc", frames)
    return found
