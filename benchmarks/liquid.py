"""CPU time of a Lennard-Jones liquid, side by side with JAX-MD and OpenMM.

    python benchmarks/liquid.py [--json] [--only WORDS] [--rounds 3] [--jaxmd PATH_TO_PYTHON]

Reduced units: density 0.8, cutoff 2.5 (sharp), skin 0.3, dt 0.004, constant energy; an fcc crystal with momenta of
kT = 1.44 melts and comes to about 0.7. Single precision. Each starts from the crystal with momenta of its own, melts
outside the clock, and then runs some hundred steps a round, in turns; the best round of each counts, in CPU
microseconds a step (all threads), lists made anew as needed.

JAX-MD runs in a process of its own with the interpreter that --jaxmd names, which must have it: its standard neighbour
list (dense or sparse, the faster of both), ``neighbor.update`` in every step as its documentation has it. OpenMM runs
on its CPU platform with one thread.

Then what making the list costs, in evaluations of the force. Looked at before anything is printed: the temperature, no
overflow, and that the total energy stayed.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from table import options_of, show

from metastable.core.frame import Frame
from metastable.dynamics.integrators import VelocityVerlet
from metastable.dynamics.lists import Listed, lists, overflowed, regrown
from metastable.dynamics.state import force, kinetic_energy, total_energy
from metastable.loops.run import run
from metastable.potentials.analytic import Index
from metastable.potentials.nonbonded import Exceptions, Uniform
from metastable.potentials.periodic import Periodic

DENSITY, CUTOFF, SKIN, DT, KT = 0.8, 2.5, 0.3, 0.004, 1.44
CASES = [(864, 1000, 8.0), (4000, 300, None), (32000, 40, None)]  # atoms, steps a round, reach against JAX-MD
OPENMM_REACH, REBUILD_REACH = 0.6, 5.0


class Insane(RuntimeError):
    """What was timed is no liquid."""


def crystal(atoms: int) -> tuple[np.ndarray, float]:
    """fcc, and the length of its cube."""
    cells = round((atoms / 4) ** (1 / 3))
    length = (atoms / DENSITY) ** (1 / 3)
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    x = corner + np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return x.reshape(-1, 3) * length / cells, length


class Ours:
    """Listed velocity Verlet."""

    def __init__(self, atoms: int, steps: int):
        x, length = crystal(atoms)
        frame = Frame(jnp.asarray(x, jnp.float32), jnp.asarray(np.eye(3) * length, jnp.float32))
        none = Exceptions(Index([], 2), [], [], [])
        self.potential = Periodic(np.zeros(atoms), Uniform(1.0, 1.0), none, None, CUTOFF)
        mechanics = VelocityVerlet(self.potential, np.ones(atoms, np.float32), np.float32(DT), kT=np.float32(KT))
        self.sampler, self.steps, self.blocks = Listed(mechanics, self.potential.pairs(frame, SKIN)), steps, 0
        self.state = self.sampler.init(jax.random.key(0), frame)
        self.updates = 0
        for _ in range(-(-600 // steps) + 1):
            self.round()

    def round(self) -> float:
        """CPU microseconds a step."""
        while True:
            start = time.process_time()
            after, _ = run(jax.random.key(self.blocks), self.sampler, self.state, self.steps)
            jax.block_until_ready(after)
            used = time.process_time() - start
            if not overflowed(after):
                break
            self.state = regrown(self.state, after)
        self.updates = int(lists(after)[0].updates) - int(lists(self.state)[0].updates)
        self.state, self.blocks = after, self.blocks + 1
        return used / self.steps * 1e6

    def energy(self) -> tuple[float, float]:
        """kT and the total energy an atom."""
        masses = jnp.ones(len(self.state.positions), jnp.float32)
        total = eqx.filter_jit(total_energy)(self.potential, self.state, masses)
        return float(kinetic_energy(self.state.momenta, masses)) * 2 / 3 / len(masses), float(total) / len(masses)

    def rebuild(self, rounds: int) -> float:
        """What making the list costs, in evaluations of the force."""
        pairs, frame = lists(self.state)[0], self.state.frame
        make = jax.jit(lambda frame: pairs.update(Frame(frame.positions, frame.box)).index)
        evaluate, repeat = jax.jit(lambda frame: force(self.potential, frame)), max(2, self.steps // 20)
        best = [np.inf, np.inf]
        for _ in range(rounds + 1):
            for k, function in enumerate((make, evaluate)):
                start = time.process_time()
                for _ in range(repeat):
                    jax.block_until_ready(function(frame))
                best[k] = min(best[k], time.process_time() - start)
        return best[0] / best[1]


class OpenMM:
    """The CPU platform with one thread."""

    def __init__(self, atoms: int, steps: int):
        import openmm

        x, length = crystal(atoms)
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*(np.eye(3) * length))
        pairs = openmm.NonbondedForce()
        pairs.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        pairs.setCutoffDistance(CUTOFF)
        pairs.setUseDispersionCorrection(False)
        for _ in range(atoms):
            system.addParticle(1.0)
            pairs.addParticle(0.0, 1.0, 1.0)
        system.addForce(pairs)
        integrator, self.steps = openmm.VerletIntegrator(DT), steps
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(system, integrator, platform, {"Threads": "1"})
        self.context.setPositions(x)
        self.context.setVelocities(np.sqrt(KT) * np.random.default_rng(0).normal(0, 1, x.shape))
        self.integrator = integrator
        integrator.step(600)

    def round(self) -> float:
        """CPU microseconds a step."""
        start = time.process_time()
        self.integrator.step(self.steps)
        self.context.getState(getEnergy=True)
        return (time.process_time() - start) / self.steps * 1e6


class JaxMD:
    """JAX-MD in a process of its own, which takes its turn when asked."""

    def __init__(self, python: str, atoms: int, steps: int):
        command = [python, str(Path(__file__).with_name("liquid_jaxmd.py")), str(atoms), str(steps)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.format = self._said()

    def round(self) -> float:
        """CPU microseconds a step."""
        assert self.process.stdin is not None
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        return float(self._said())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _said(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise Insane(f"JAX-MD ended with {self.process.wait()}; see above")
        return line


def compare(atoms: int, steps: int, reach: float | None, jaxmd: str, rounds: int) -> list[dict[str, Any]]:
    """The rows of one size."""
    peers: dict[str, Any] = {"OpenMM CPU": OpenMM(atoms, steps)}
    if jaxmd:
        peers["JAX-MD"] = JaxMD(jaxmd, atoms, steps)
    ours = Ours(atoms, steps)
    before, mine, theirs = ours.energy()[1], np.inf, dict.fromkeys(peers, np.inf)
    for _ in range(rounds):
        mine = min(mine, ours.round())
        for name, peer in peers.items():
            theirs[name] = min(theirs[name], peer.round())
    kT, after = ours.energy()
    if not 0.5 < kT < 0.95 or abs(after - before) > 0.05:
        raise Insane(f"kT = {kT:.3f}, energy an atom from {before:.4f} to {after:.4f}")
    about = {"kT": kT, "steps_per_rebuild": steps / max(1, ours.updates)}
    rows = []
    for name, value in theirs.items():
        wanted = OPENMM_REACH if name == "OpenMM CPU" else reach
        note = name if name == "OpenMM CPU" else f"{name} ({peers[name].format})"
        row = {"row": f"{atoms} atoms, {note}", "ours": mine, "peer": value, "ratio": value / mine, "reach": wanted}
        rows.append({**row, "missed": wanted is not None and value / mine < wanted, **about})
    if jaxmd:
        peers["JAX-MD"].close()
    cost = ours.rebuild(rounds)
    row = {"row": f"{atoms} atoms, a list in force evaluations", "ours": cost, "peer": None, "ratio": None}
    return [*rows, {**row, "reach": REBUILD_REACH, "missed": cost > REBUILD_REACH}]


def text(row: dict[str, Any]) -> str:
    """A row as text."""
    peer, ratio, reach = (f"{row[k]:10.2f}" if row[k] is not None else " " * 10 for k in ("peer", "ratio", "reach"))
    return f"{row['row']:45}{row['ours']:10.2f}{peer}{ratio}{reach}"


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--only", default="", help="only the sizes that contain this")
    parser.add_argument("--rounds", type=int, default=3, help="how many times each runs")
    parser.add_argument("--jaxmd", default="", help="a Python that has JAX-MD; without, its rows are left out")
    options = parser.parse_args()
    if not options.jaxmd:
        print("rows of JAX-MD left out: --jaxmd names no Python that has it", file=sys.stderr)
    chosen = [case for case in CASES if options.only in str(case[0])]
    rows = (row for n, steps, reach in chosen for row in compare(n, steps, reach, options.jaxmd, options.rounds))
    heading = f"{'row, CPU microseconds a step':45}{'ours':>10}{'peer':>10}{'ratio':>10}{'reach':>10}"
    return show(rows, text, lambda row: not row["missed"], options.json, heading)


if __name__ == "__main__":
    sys.exit(main())
