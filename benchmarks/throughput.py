"""Replica-steps per CPU second of Langevin dynamics, side by side with OpenMM in one process.

    METASTABLE_DATA=... python benchmarks/throughput.py [--json] [--only WORDS] [--rounds 5]
    METASTABLE_DATA=... python benchmarks/throughput.py --replicas 1,64,256,1024,4096,16384 [--only WORDS]

300 K, friction 1/ps, 2 fs, bonds of hydrogens constrained, single precision, both by the leapfrog middle scheme. A
round runs ours and then each platform of the peer; the best round of each counts, in seconds of CPU time of the
process (``time.process_time``, all threads), without compilation. The peer is the faster of OpenMM's Reference
platform and its CPU platform with one thread, and moves one molecule, the only thing that it can do.

Before anything is printed what was timed is looked at: everything finite, the constraints held, and the temperature
within five standard errors of 300 K.

With ``--replicas`` the first row's molecule (or the first that ``--only`` leaves) is run with so many replicas on
whatever device jax finds, in wall seconds, against OpenMM's CUDA platform where it can be had, or else the above.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from table import above, options_of, show, structures

from metastable.core.frame import Frame
from metastable.core.units import fs, kelvin, ps
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.replicas import Replicas
from metastable.dynamics.state import temperature
from metastable.io.molecules import Molecule, from_openmm
from metastable.io.parameters import system_from_xml
from metastable.io.rules import Rules
from metastable.io.structures import read_structure
from metastable.loops.run import run

DT, KT, FRICTION = 2 * fs, 300 * kelvin, 1 / ps
RESIDUAL = 1e-5  # largest relative error of a constraint that single precision leaves; OpenMM's tolerance too


class Case(NamedTuple):
    """A row: steps is what ours takes in a round, peer_steps what the peer takes, some tenths of a second each."""

    name: str
    structure: str
    files: tuple[str, ...]
    replicas: int
    steps: int
    peer_steps: int
    reach: float


VACUUM, OBC2, GBN2 = (
    ("amber14-all.xml",),
    ("amber99sb.xml", "amber99_obc.xml"),
    ("amber14-all.xml", "implicit/gbn2.xml"),
)
CASES = [
    Case("alanine dipeptide, vacuum, 256 replicas", "ala2.pdb", VACUUM, 256, 1500, 40000, 3.5),
    Case("alanine dipeptide, vacuum, 1 replica", "ala2.pdb", VACUUM, 1, 40000, 40000, 0.8),
    Case("alanine dipeptide, OBC2, 256 replicas", "ala2.pdb", OBC2, 256, 500, 15000, 4.0),
    Case("chignolin, OBC2, 64 replicas", "chignolin_1UAO.pdb", OBC2, 64, 60, 500, 4.0),
    Case("chignolin, GBn2, 64 replicas", "chignolin_1UAO.pdb", GBN2, 64, 60, 150, 10.0),
    Case("Trp-cage, OBC2, 64 replicas", "trpcage_1L2Y.pdb", OBC2, 64, 20, 200, 4.0),
    Case("Trp-cage, GBn2, 64 replicas", "trpcage_1L2Y.pdb", GBN2, 64, 20, 40, 10.0),
]


class Insane(RuntimeError):
    """What was timed is no molecular dynamics."""


class Ours:
    """Our replicas, started from one equilibrated frame and shaken apart by the friction of a warm-up."""

    def __init__(self, molecule: Molecule, replicas: int, steps: int):
        system, self.steps = molecule.system, steps
        self.constraints = Constraints.from_system(system, positions=molecule.frame.positions)
        langevin = Langevin(molecule.potential, np.float32(system.masses), DT, KT, FRICTION, self.constraints)
        # a single system needs no replica axis, and is what a user of one molecule would run
        self.sampler: Any = Replicas(langevin, replicas) if replicas > 1 else langevin
        self.replicas, self.system, self.rounds = replicas, system, 0
        self.state = self.sampler.init(jax.random.key(0), Frame(jnp.asarray(molecule.frame.positions, jnp.float32)))
        where = (lambda s: s.sampler.friction) if replicas > 1 else (lambda s: s.friction)
        self._advance(eqx.tree_at(where, self.sampler, jnp.asarray(20 / ps)))  # compiles, and forgets the start

    def round(self) -> int:
        """Run; the number of replica-steps done."""
        self._advance(self.sampler)
        self.rounds += 1
        return self.steps * self.replicas

    def _advance(self, sampler: Any) -> None:
        key = jax.random.key(self.rounds + 1)
        self.state = jax.block_until_ready(run(key, sampler, self.state, self.steps)[0])

    def check(self) -> dict[str, float]:
        """Temperature (K) and residual of the constraints of what was run. Raises Insane."""
        positions, momenta = self._public(lambda s: s.positions), self._public(lambda s: s.momenta)
        freedom, masses = self.system.degrees_of_freedom, jnp.asarray(self.system.masses)
        kelvins = np.asarray(jax.vmap(lambda p: temperature(p, masses, freedom))(momenta)) / kelvin
        residual = float(jnp.max(self.constraints.residual(positions)))
        apart = self.steps * self.rounds * DT * FRICTION > 3  # until then the replicas remember their common start
        error = 300 * np.sqrt(2 / freedom / (self.replicas if apart else 1))
        if not np.isfinite(positions).all() or not abs(kelvins.mean() - 300) < 5 * error or not residual < RESIDUAL:
            raise Insane(f"{kelvins.mean():.1f} K where 300 +- {error:.1f} is right, constraints off by {residual:.1e}")
        return {"temperature": float(kelvins.mean()), "residual": residual}

    def _public(self, function: Callable[[Any], Any]) -> Any:
        return self.sampler.observe(function)(self.state) if self.replicas > 1 else function(self.state)[None]


class Peer:
    """OpenMM on one of its platforms."""

    def __init__(self, system: Any, positions: np.ndarray, platform: str, steps: int):
        import openmm

        integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
        integrator.setRandomNumberSeed(1)
        options = {"CPU": {"Threads": "1"}, "CUDA": {"Precision": "mixed"}}.get(platform, {})
        self.context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), options)
        self.context.setPositions(positions)
        self.context.setVelocitiesToTemperature(300.0, 1)
        self.integrator, self.steps, self.name = integrator, steps, platform
        integrator.step(10)

    def round(self) -> int:
        """Run; the number of steps done."""
        self.integrator.step(self.steps)
        self.context.getState(getEnergy=True)  # waits for a device
        return self.steps


def equilibrated(system: Any, positions: np.ndarray, steps: int) -> np.ndarray:
    """Positions, nm, minimised and then warmed up by OpenMM."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(300.0, 20.0, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(steps)
    return np.asarray(context.getState(getPositions=True).getPositions(asNumpy=True)._value)


def load(case: Case, data: Path) -> tuple[Molecule, Any, np.ndarray]:
    """Our molecule, OpenMM's system, and a warm start, nm."""
    structure = read_structure(data / "structures" / "prepared" / case.structure)
    system, _ = system_from_xml(structure, case.files, Rules("hydrogen-bonds"))
    positions = equilibrated(system, structure.positions - structure.positions.mean(0), min(case.peer_steps, 500))
    return from_openmm(system, structure.topology, positions), system, positions


def best(clock: Callable[[], float], parties: list[Any], rounds: int) -> list[float]:
    """The best rate of each, in steps per second of the clock, taking turns."""
    rates = [0.0] * len(parties)
    for _ in range(rounds):
        for i, party in enumerate(parties):
            start = clock()
            done = party.round()
            rates[i] = max(rates[i], done / (clock() - start))
    return rates


def compare(case: Case, data: Path, rounds: int) -> dict[str, Any]:
    """The row of a case."""
    molecule, system, positions = load(case, data)
    ours = Ours(molecule, case.replicas, case.steps)
    peers = [Peer(system, positions, p, n) for p, n in (("Reference", case.peer_steps), ("CPU", case.peer_steps // 5))]
    mine, *theirs = best(time.process_time, [ours, *peers], rounds)
    peer = max(theirs)
    about = {"platform": peers[theirs.index(peer)].name, **ours.check()}
    return {"row": case.name, "ours": mine, "peer": peer, "ratio": mine / peer, "reach": case.reach, **about}


def sweep(case: Case, data: Path, replicas: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Rows of one molecule with so many replicas, in wall seconds, on jax's default device."""
    import openmm

    molecule, system, positions = load(case, data)
    known = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    peers = [Peer(system, positions, p, case.peer_steps) for p in ("CUDA",) if p in known]
    peers = peers or [Peer(system, positions, p, case.peer_steps // 5) for p in ("Reference", "CPU")]
    theirs = best(time.perf_counter, peers, rounds)
    molecules, device = case.name.rsplit(",", 1)[0], jax.devices()[0].device_kind
    for count in replicas:
        ours = Ours(molecule, count, max(20, min(case.steps, case.steps * case.replicas // count)))
        (mine,) = best(time.perf_counter, [ours], rounds)
        name = f"{molecules}, {count} replica{'s' if count > 1 else ''}, {device}, wall"
        platform = peers[theirs.index(max(theirs))].name
        yield {"row": name, "ours": mine, "peer": max(theirs), "ratio": mine / max(theirs), "reach": None,
               "platform": platform, **ours.check()}  # fmt: skip


def text(row: dict[str, Any]) -> str:
    """A row as text."""
    reach = "" if row["reach"] is None else f"{row['reach']:6.1f}"
    return "{row:55} {ours:10.0f} {peer:10.0f} {platform:>10} {ratio:7.2f}".format_map(row) + reach


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--only", default="", help="only the rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=5, help="how many times each runs")
    parser.add_argument("--replicas", default="", help="a sweep over numbers of replicas, in wall seconds")
    options = parser.parse_args()
    data = structures().parent
    cases = [c for c in CASES if options.only in c.name]
    if options.replicas:
        rows = sweep(cases[0], data, [int(n) for n in options.replicas.split(",")], options.rounds)
    else:
        rows = (compare(case, data, options.rounds) for case in cases)
    heading = f"{'row, replica-steps per second':55} {'ours':>10} {'OpenMM':>10} {'platform':>10} {'ratio':>7} reach"
    return show(rows, text, above, options.json, heading)


if __name__ == "__main__":
    sys.exit(main())
