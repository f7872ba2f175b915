"""Water: how fast, how well it keeps its energy, and whether it is the water that OpenMM makes.

    python benchmarks/water.py [--json] [--only WORDS] [--rounds 5] [--ps 100] [--waters 512] [--quick]

speed: replica-steps per second of CPU time (``time.process_time``, all threads) of alanine dipeptide in TIP3P, some
2,050 atoms; amber14, particle-mesh Ewald with a cutoff of 0.9 nm and a tolerance of 5e-4, rigid water, bonds of
hydrogens constrained, Langevin's equation at 300 K, 1/ps and 2 fs, single precision. One replica and 16, against
OpenMM's CPU platform with one thread, all within one round; the best round of each counts, lists made anew as needed.

drift: of the total energy of a box of rigid TIP3P, in kT per degree of freedom and ns, by velocity Verlet, in single
and double precision, at 1 and 2 fs. Cutoff 0.85 nm, Lennard-Jones switched off from 0.7 nm, tolerance of Ewald's sum
1e-5. The energies are those of the recorded frames in double precision, the drift the slope of the straight line
through them, its error that of ten stretches of what is left. The value is the size of the drift in units of 1e-3; the
reach is met where it is below 1 within two errors, and these are below 2. Steps of 1 fs make half as long a run.

liquid: density at 1 bar by both barostats, and g(r) of oxygen and its diffusion at constant volume, all at 300 K,
against runs of OpenMM: two samples of one ensemble, whose z is the difference over the two errors. The runs for g(r)
and diffusion have the same friction, 1/ps, in both, and that slows the diffusion alike. Runs of 10 ps are too short
for errors, which are then NaN, and the row counts as missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from table import options_of, show

from metastable.core.frame import Frame
from metastable.core.space import molecules, volume
from metastable.core.units import bar, fs, kelvin, ps
from metastable.dynamics.barostats import CRescale, MonteCarloBarostat
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import Langevin, VelocityVerlet
from metastable.dynamics.lists import Listed, lists, overflowed
from metastable.dynamics.replicas import Replicas
from metastable.dynamics.state import kinetic_energy, temperature
from metastable.estimate.estimate import Estimate
from metastable.estimate.fluctuations import mass_density
from metastable.estimate.structure import radial_distribution
from metastable.estimate.transport import diffusion, mean_squared_displacement
from metastable.io.molecules import Molecule, from_openmm
from metastable.io.parameters import system_from_xml
from metastable.io.rules import Box, Rules, Solvate
from metastable.io.structures import read_structure
from metastable.loops.run import run

KT, DT, FRICTION, SKIN = 300 * kelvin, 2 * fs, 1 / ps, 0.1
EXAMPLE = Path(__file__).parent.parent / "examples" / "alanine-dipeptide.pdb"
PADDING = 1.4  # nm, which gives 2,044 atoms
CUTOFF = 0.85  # nm, of the boxes of water
EVERY = 20  # steps between recorded frames


class Insane(RuntimeError):
    """What was run is no molecular dynamics."""


class Start(NamedTuple):
    """OpenMM's system and its positions in equilibrium, and ours of the same."""

    system: Any
    positions: Any
    molecule: Molecule


def peer(system: Any, positions: Any, friction: float = 1.0, seed: int = 1) -> Any:
    """A context of OpenMM's CPU platform with one thread."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(300.0, friction, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(positions)
    return context


def settled(system: Any, topology: Any, positions: Any, steps: int) -> Start:
    """Minimised and brought to 1 bar by OpenMM, whose system keeps the box that comes of it."""
    import openmm

    last = system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 10))
    context = peer(system, positions, friction=5.0)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(steps)
    state = context.getState(getPositions=True)
    positions = state.getPositions(asNumpy=True)
    system.removeForce(last)
    system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    return Start(system, positions, from_openmm(system, topology, positions))


def peptide() -> Start:
    """Alanine dipeptide in water."""
    rules = Rules("hydrogen-bonds", box=Box(cutoff=0.9), solvate=Solvate(padding=PADDING))
    system, start = system_from_xml(read_structure(EXAMPLE), ("amber14-all.xml", "amber14/tip3p.xml"), rules)
    return settled(system, start.topology, start.positions, 1500)


def water(waters: int, tolerance: float = 5e-4, switch: float | None = None) -> Start:
    """A cube of about so many molecules of TIP3P."""
    import openmm
    import openmm.app as openmm_app
    import openmm.unit as openmm_unit

    app: Any = openmm_app
    unit: Any = openmm_unit
    modeller, field = app.Modeller(app.Topology(), unit.Quantity([], unit.nanometer)), app.ForceField("tip3p.xml")
    edge = (waters / 32.0) ** (1 / 3)
    modeller.addSolvent(field, boxSize=openmm.Vec3(edge, edge, edge))
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=CUTOFF, rigidWater=True, removeCMMotion=False,
        ewaldErrorTolerance=tolerance, switchDistance=switch,
    )  # fmt: skip
    return settled(system, modeller.topology, modeller.positions, 6000)


def begun(molecule: Molecule, dtype: Any = np.float32) -> Frame:
    """The first frame."""
    return Frame(jnp.asarray(molecule.frame.positions, dtype), jnp.asarray(molecule.frame.box, dtype))


def listed(molecule: Molecule, integrator: Any, dtype: Any = np.float32, **room: float) -> Listed:
    """The integrator with a list of pairs."""
    nonbonded: Any = molecule.potential.terms["nonbonded"]
    return Listed(integrator, nonbonded.pairs(begun(molecule, dtype), SKIN, **room))


def langevin(molecule: Molecule) -> Langevin:
    """At 300 K, by the leapfrog middle scheme, as the peer's."""
    bonds = Constraints.from_system(molecule.system, positions=molecule.frame.positions)
    return Langevin(molecule.potential, np.float32(molecule.system.masses), DT, KT, FRICTION, bonds)


# ---- speed


class Ours:
    """So many replicas, from one start, shaken apart by their noise."""

    def __init__(self, molecule: Molecule, replicas: int, steps: int):
        one = listed(molecule, langevin(molecule))
        self.replicas, self.steps, self.rounds, self.molecule = replicas, steps, 0, molecule
        self.sampler: Any = Replicas(one, replicas, lanes=1) if replicas > 1 else one
        self.state = self.sampler.init(jax.random.key(0), begun(molecule))
        self.round()
        self.rounds = 0

    def round(self) -> int:
        """Run; the number of replica-steps done."""
        self.rounds += 1
        self.state = jax.block_until_ready(run(jax.random.key(self.rounds), self.sampler, self.state, self.steps)[0])
        return self.steps * self.replicas

    def check(self) -> dict[str, Any]:
        """Temperature, K, and steps between two lists of what was run. Raises Insane."""
        system = self.molecule.system
        momenta = np.asarray(self.sampler.observe(lambda s: s.momenta)(self.state) if self.replicas > 1
                             else self.state.momenta[None], float)  # fmt: skip
        energy = np.sum(momenta**2 / system.masses[:, None], (1, 2))
        kelvins = float(np.mean(energy) / system.degrees_of_freedom / kelvin)
        error = 300 * np.sqrt(2 / system.degrees_of_freedom)
        if not np.isfinite(momenta).all() or overflowed(self.state) or not abs(kelvins - 300) < 5 * error:
            raise Insane(f"{kelvins:.1f} K where 300 +- {error:.1f} is right; overflow: {overflowed(self.state)}")
        updates = float(np.mean(lists(self.state)[0].updates)) - 1  # the first was made by init
        return {"temperature": kelvins, "steps_per_list": self.steps * (self.rounds + 1) / max(updates, 1)}


class Peer:
    """OpenMM."""

    def __init__(self, start: Start, steps: int):
        self.context, self.steps = peer(start.system, start.positions), steps
        self.context.setVelocitiesToTemperature(300.0, 2)
        self.context.getIntegrator().step(20)

    def round(self) -> int:
        """Run; the number of steps done."""
        self.context.getIntegrator().step(self.steps)
        self.context.getState(getEnergy=True)
        return self.steps


def speed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of one replica and of 16."""
    start = peptide()
    steps = 64 if options.quick else 192
    ours = [Ours(start.molecule, 1, steps), Ours(start.molecule, 16, steps // 16)]
    parties = [*ours, Peer(start, 2 * steps)]
    rates = [0.0] * len(parties)
    for _ in range(options.rounds):
        for i, party in enumerate(parties):
            clock = time.process_time()
            done = party.round()
            rates[i] = max(rates[i], done / (time.process_time() - clock))
    for one, rate, reach in zip(ours, rates, (0.5, 0.5), strict=False):
        name = f"speed: {len(start.molecule.system)} atoms, {one.replicas} replica{'s' if one.replicas > 1 else ''}"
        ratio = rate / rates[-1]
        yield {"row": name, "ours": rate, "peer": rates[-1], "value": ratio, "reach": f"> {reach}",
               "met": ratio > reach, **one.check()}  # fmt: skip


# ---- drift


def drift(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of both precisions and time steps."""
    start = water(options.waters, 1e-5, 0.7)
    for double in (False,) if options.quick else (False, True):
        for step in (1 * fs, 2 * fs):
            duration = options.ps * step / (2 * fs)
            with jax.enable_x64(double):
                records = constant_energy(start.molecule, np.float64 if double else np.float32, step, duration)
            found = gain(start.molecule, *records, duration)
            size = abs(found.value)
            name = (
                f"drift: {len(start.molecule.system) // 3} waters, {'double' if double else 'single'}, {step / fs:g} fs"
            )
            yield {"row": name, "ours": found, "peer": None, "value": size / 1e-3, "reach": "< 1",
                   "met": size < 1e-3 + 2 * found.error < 3e-3}  # fmt: skip


def constant_energy(molecule: Molecule, dtype: Any, step: float, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions and momenta of a run, (time, atoms, 3), after 2 ps of Langevin's equation."""
    masses = np.asarray(molecule.system.masses, dtype)
    bonds = Constraints.from_system(molecule.system, positions=molecule.frame.positions)
    warm = listed(molecule, Langevin(molecule.potential, masses, DT, KT, 5 / ps, bonds), dtype)
    state, _ = run(jax.random.key(1), warm, warm.init(jax.random.key(0), begun(molecule, dtype)), 1000)
    sampler = listed(molecule, VelocityVerlet(molecule.potential, masses, step, bonds, KT), dtype)
    state = sampler.init(jax.random.key(2), state.frame)
    frames = round(duration / (EVERY * step))
    state, records = run(jax.random.key(3), sampler, state, frames * EVERY, every=EVERY,
                         observe=lambda s: (s.positions, s.momenta))  # fmt: skip
    if overflowed(state):
        raise Insane("a list of pairs was too small")
    return np.asarray(records[0], float), np.asarray(records[1], float)


def gain(molecule: Molecule, positions: np.ndarray, momenta: np.ndarray, duration: float) -> Estimate:
    """What the total energy gains, kT per degree of freedom and ns."""
    with jax.enable_x64(True):
        masses, frame = jnp.asarray(molecule.system.masses), begun(molecule, np.float64)
        nonbonded: Any = molecule.potential.terms["nonbonded"]
        pairs = nonbonded.pairs(frame, SKIN, room=1.3)

        @jax.jit
        def total(x, p):
            here = Frame(x, frame.box)
            return molecule.potential(Frame(x, frame.box, pairs.update(here))) + kinetic_energy(p, masses)

        energy = np.array([total(x, p) for x, p in zip(positions, momenta, strict=True)])
    times = np.arange(len(energy)) * duration / len(energy) * 1e-3
    weights = (times - times.mean()) / np.sum((times - times.mean()) ** 2)
    slope = weights @ energy
    rest = weights * (energy - energy.mean() - slope * (times - times.mean()))
    error = np.sqrt(sum(np.sum(stretch) ** 2 for stretch in np.array_split(rest, 10)) * 10 / 8)
    scale = KT * molecule.system.degrees_of_freedom
    return Estimate(slope / scale, error / scale, "kT/ns")


# ---- liquid


def liquid(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of density, structure and diffusion."""
    start = water(options.waters)
    mass = float(start.molecule.system.masses.sum())
    theirs = mass_density(peer_volumes(start, options.ps), mass)
    for name, barostat in (
        ("C-rescale", partial(CRescale, time=1.0)),
        ("Monte Carlo", partial(MonteCarloBarostat, every=10)),
    ):
        yield compared(
            f"density, {name}, kg/m^3", mass_density(volumes(start.molecule, barostat, options.ps), mass), theirs
        )
    mine, others = (properties(start.molecule, of(start, options.ps)) for of in (trajectory, peer_trajectory))
    for name, one in mine.items():
        yield compared(name, one, others[name])


def compared(name: str, ours: Estimate, theirs: Estimate) -> dict[str, Any]:
    """A row with z."""
    z = float((ours.value - theirs.value) / np.hypot(ours.error, theirs.error))
    return {"row": f"liquid: {name}", "ours": ours, "peer": theirs, "value": z, "reach": "|z| < 2", "met": abs(z) < 2}


def volumes(molecule: Molecule, barostat: Callable[..., Any], duration: float) -> np.ndarray:
    """Of a run at 1 bar, after a tenth as much that is left out."""
    groups = molecules(molecule.system.constraints, len(molecule.system))
    sampler = barostat(listed(molecule, langevin(molecule), room=1.25), 1 * bar, groups=groups)
    state, _ = run(jax.random.key(1), sampler, sampler.init(jax.random.key(0), begun(molecule)), part(duration / 10))
    state, seen = run(jax.random.key(2), sampler, state, part(duration), every=EVERY,
                      observe=lambda s: volume(s.frame.box))  # fmt: skip
    if overflowed(state):
        raise Insane("a list of pairs was too small")
    return np.asarray(seen, float)


def peer_volumes(start: Start, duration: float) -> np.ndarray:
    """The same of OpenMM."""
    import openmm

    last = start.system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 10))
    context = peer(start.system, start.positions)
    start.system.removeForce(last)
    context.setVelocitiesToTemperature(300.0, 3)
    context.getIntegrator().step(part(duration / 10))
    found = []
    for _ in range(part(duration) // EVERY):
        context.getIntegrator().step(EVERY)
        found.append(np.linalg.det(np.array(context.getState().getPeriodicBoxVectors()._value)))
    return np.array(found)


def part(duration: float) -> int:
    """Steps, a multiple of those between frames."""
    return max(1, round(duration / DT / EVERY)) * EVERY


def trajectory(start: Start, duration: float) -> np.ndarray:
    """Positions of oxygen at constant volume, (time, waters, 3)."""
    sampler = listed(start.molecule, langevin(start.molecule))
    state = sampler.init(jax.random.key(4), begun(start.molecule))
    state, _ = run(jax.random.key(5), sampler, state, part(duration / 10))
    state, seen = run(
        jax.random.key(6), sampler, state, part(duration), every=EVERY, observe=lambda s: s.positions[::3]
    )
    kT = float(
        temperature(state.momenta, jnp.asarray(start.molecule.system.masses), start.molecule.system.degrees_of_freedom)
    )
    if overflowed(state) or not abs(kT / KT - 1) < 5 * np.sqrt(2 / start.molecule.system.degrees_of_freedom):
        raise Insane(f"{kT / kelvin:.1f} K where 300 K is right; overflow: {overflowed(state)}")
    return np.asarray(seen, float)


def peer_trajectory(start: Start, duration: float) -> np.ndarray:
    """The same of OpenMM."""
    context = peer(start.system, start.positions, seed=4)
    context.setVelocitiesToTemperature(300.0, 5)
    context.getIntegrator().step(part(duration / 10))
    found = []
    for _ in range(part(duration) // EVERY):
        context.getIntegrator().step(EVERY)
        found.append(context.getState(getPositions=True).getPositions(asNumpy=True)._value[::3])
    return np.array(found)


def properties(molecule: Molecule, oxygen: np.ndarray) -> dict[str, Estimate]:
    """g(r) where it is highest and where it is low, neighbours in the first shell, and diffusion, nm^2/ns."""
    found = radial_distribution(oxygen[::2], np.asarray(molecule.frame.box), np.arange(oxygen.shape[1]), bins=80)
    limit = min(5.0, len(oxygen) * EVERY * DT / 10)  # and blocks of twice that, many enough for an error
    displacement = mean_squared_displacement(oxygen, EVERY * DT, limit=limit, length=round(2 * limit / (EVERY * DT)))
    slope = diffusion(displacement, (1.0, float(displacement.x[-1])))
    return {
        "g(0.28 nm)": found.g.at(0.28),
        "g(0.35 nm)": found.g.at(0.35),
        "g(0.45 nm)": found.g.at(0.45),
        "neighbours within 0.35 nm": found.coordination.at(0.35),
        "diffusion, nm^2/ns": Estimate(1e3 * slope.value, 1e3 * slope.error, "nm^2/ns"),
    }


# ---- the table


def text(row: dict[str, Any]) -> str:
    """A row as text."""
    ours, theirs = (
        f"{x:.1f}" if isinstance(x, float) else "" if x is None else str(x) for x in (row["ours"], row["peer"])
    )
    extra = "".join(f"  {k} {row[k]:.1f}" for k in ("temperature", "steps_per_list") if k in row)
    return f"{row['row']:42} {ours:>26} {theirs:>26} {row['value']:9.3f} {row['reach']:>8}{extra}"


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--only", default="speed,drift,liquid", help="parts, with commas")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison of speed")
    parser.add_argument("--ps", type=float, default=0, help="length of each other run; 100, or 40 with --quick")
    parser.add_argument("--waters", type=int, default=0, help="in the box; 512, or 216 with --quick")
    parser.add_argument("--quick", action="store_true", help="less of all, and single precision only")
    options = parser.parse_args()
    options.ps = options.ps or (40.0 if options.quick else 100.0)
    options.waters = options.waters or (216 if options.quick else 512)
    parts = {"speed": speed, "drift": drift, "liquid": liquid}
    rows = (row for name in options.only.split(",") for row in parts[name](options))
    heading = f"{'row':42} {'ours':>26} {'OpenMM':>26} {'value':>9} {'reach':>8}"
    return show(rows, text, lambda row: bool(row["met"]), options.json, heading)


if __name__ == "__main__":
    sys.exit(main())
