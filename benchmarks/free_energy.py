"""CPU seconds until F(phi) of alanine dipeptide is right, against OpenMM's app.Metadynamics on the Reference platform.

    taskset -c 0 python benchmarks/free_energy.py [--json] [--quick] [--seeds 201 202 ...] [--limit SECONDS]

amber99sb in vacuum at 300 K, bonds to hydrogen constrained, steps of 2 fs, Langevin friction 1/ps, both from the same
structure, which is in the basin phi < 0. Right means: the free energy of the phi > 0 basin within 0.5 kJ/mol, and its
barrier within 1 kJ/mol, of umbrella_reference.json (see umbrella_reference.py, which says what is read off a
profile; the same function reads all the profiles here).

The time of a seed is that of the first checkpoint t at which F is right and stays so at all checkpoints until 1.5 t:
the same rule for both, in CPU seconds of the process, spent in the runs alone: working out the estimates is not
counted. Where that is not seen within the limit, the length of the run over 1.5 stands for the time: a lower bound,
marked >= in the table; where it is ours, no ratio is reached.

ours: 64 walkers share one well-tempered metadynamics in phi; F by reweighting all that was recorded (Tiwary and
Parrinello 2015).
peer: one walker; its F is that of ``getFreeEnergy``, averaged over the second half of the checkpoints, which is
better than the last one; the row "as it stands" is for the last one. Its settings are the best of those tried
(see PEER).

Start is everything until the loop runs: interpreter, imports, molecule, compilation; ours with an empty and with a
filled compilation cache, each in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from table import Row, above, options_of, show

HERE = Path(__file__).parent
STRUCTURE = HERE.parent / "examples" / "alanine-dipeptide.pdb"
BASIN_ERROR, BARRIER_ERROR, STAYS = 0.5, 1.0, 1.5
WALKERS, STRIDE, EVERY, BLOCK = 64, 50, 25, 500
OURS = {"height": 0.4, "widths": [0.3], "bias_factor": 8}  # of 0.25, 0.4, 0.8, 1.6 and 6, 7, 8, 10, 12
PEER = {"height": 1.0, "biasFactor": 10, "frequency": 250}  # height 0.5, 1, 1.2, 2; factor 5, 6, 8, 10; 250, 500 steps
PEER_WIDTH, PEER_BLOCK = 0.3, 20_000  # widths 0.25, 0.3, 0.35
Checkpoints = Iterator[tuple[float, dict[str, tuple[float, float]]]]
"""(CPU seconds of the runs so far, (basin, barrier) by the name of the estimate)."""


def build_ours() -> Callable[[int], Checkpoints]:
    """Everything that is compiled once: gives what runs a seed. The block that compiles is thrown away."""
    import jax
    from umbrella_reference import KT, PHI, features, start

    from metastable.core.axis import Axis
    from metastable.core.compiling import filter_jit_once
    from metastable.cvs import Torsion
    from metastable.enhanced.metadynamics import WellTempered
    from metastable.enhanced.walkers import Walkers
    from metastable.estimate.density import density, free_energy
    from metastable.estimate.weights import time_offset
    from metastable.loops.run import run

    _, frame, sampler = start()
    phi, axis = Torsion(*PHI), Axis.angle("phi", 120)
    walkers = Walkers(sampler, phi, WellTempered([Axis(-np.pi, np.pi, 60, True)], **OURS), STRIDE, WALKERS)

    def observe(state):
        seen = walkers.observe(lambda one, bias: (phi(one.frame), bias(phi(one.frame))))(state)
        return *seen, state.bias.offset(KT)

    def block(key, state):
        return jax.block_until_ready(run(key, walkers, state, BLOCK, every=EVERY, observe=observe))

    def init(key):
        return jax.block_until_ready(filter_jit_once(Walkers.init)(walkers, key, frame))

    def seconds_of(seed: int) -> Checkpoints:
        first, *keys = jax.random.split(jax.random.key(seed), 1000)
        begun = time.process_time()
        state, records = init(first), []
        spent = time.process_time() - begun
        for key in keys:
            begun = time.process_time()
            state, record = block(key, state)
            records.append([np.asarray(x) for x in record])
            spent += time.process_time() - begun
            s, bias, offset = (np.concatenate(x) for x in zip(*records, strict=True))
            found = density(s, (axis,), time_offset(bias, offset, KT), resamples=2)
            yield spent, {"reweighted": features(axis.centers, np.asarray(free_energy(found, KT).value))}

    block(jax.random.key(0), init(jax.random.key(0)))
    return seconds_of


def build_peer() -> Callable[[int], Checkpoints]:
    """The same of the peer."""
    from openmm import CustomTorsionForce, LangevinMiddleIntegrator, Platform, app, unit

    pdb = app.PDBFile(str(STRUCTURE))
    forcefield = app.ForceField("amber99sb.xml")
    units: Any = unit
    kelvin, ps = units.kelvin, units.picosecond

    def simulation(seed: int) -> tuple[Any, Any]:
        system = forcefield.createSystem(pdb.topology, constraints=app.HBonds, nonbondedMethod=app.NoCutoff)
        phi = CustomTorsionForce("theta")
        phi.addTorsion(4, 6, 8, 14)
        variable = app.BiasVariable(phi, -np.pi, np.pi, PEER_WIDTH, True)
        metadynamics = app.Metadynamics(system, [variable], 300 * kelvin, **PEER)
        integrator = LangevinMiddleIntegrator(300 * kelvin, 1 / ps, 0.002 * ps)
        integrator.setRandomNumberSeed(seed)
        platform = Platform.getPlatformByName("Reference")
        made = app.Simulation(pdb.topology, system, integrator, platform)
        made.context.setPositions(pdb.positions)
        made.context.setVelocitiesToTemperature(300 * kelvin, seed)
        return metadynamics, made

    def seconds_of(seed: int) -> Checkpoints:
        from umbrella_reference import features

        metadynamics, made = simulation(seed)
        spent, profiles = 0.0, []
        while True:
            begun = time.process_time()
            metadynamics.step(made, PEER_BLOCK)
            spent += time.process_time() - begun
            f = metadynamics.getFreeEnergy().value_in_unit(units.kilojoules_per_mole)[:-1]  # its ends are one point
            profiles.append(f)
            phi = 2 * np.pi * np.arange(len(f)) / len(f) - np.pi
            half = np.mean(profiles[len(profiles) // 2 :], axis=0)
            yield spent, {"averaged": features(phi, half), "as it stands": features(phi, f)}

    simulation(0)
    return seconds_of


def held(times: np.ndarray, right: np.ndarray) -> float:
    """The first time at which F is right and stays so until STAYS times that; infinity where that is not seen."""
    for t in times[right]:
        within = (times >= t) & (times <= STAYS * t)
        if right[within].all():
            return float(t) if STAYS * t <= times[-1] else np.inf
    return np.inf


def measure(checkpoints: Checkpoints, reference: tuple[float, float], limit: float) -> dict[str, tuple[float, bool]]:
    """(time, whether F held) of each estimate; the run ends when all have held, or at the limit."""
    times, right = [], {}
    for spent, estimates in checkpoints:
        times.append(spent)
        for name, (basin, barrier) in estimates.items():
            close = abs(basin - reference[0]) < BASIN_ERROR and abs(barrier - reference[1]) < BARRIER_ERROR
            right.setdefault(name, []).append(close)
        found = {name: held(np.array(times), np.array(r)) for name, r in right.items()}
        if spent > limit or np.isfinite(list(found.values())).all():
            break
    return {name: (min(t, spent / STAYS), bool(np.isfinite(t))) for name, t in found.items()}


def start_of(which: str, cache: str) -> float:
    """CPU seconds of a process that gets as far as the loop."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, __file__, "--start", which]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def starts() -> dict[str, float]:
    """CPU seconds of the start of the peer, and of ours with an empty and a filled cache."""
    with tempfile.TemporaryDirectory() as cache:
        return {"peer": start_of("peer", cache), "cold": start_of("ours", cache), "cached": start_of("ours", cache)}


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, and a limit of 15 s for the peer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[201, 202, 203, 204, 205])
    parser.add_argument("--limit", type=float, default=40.0, help="CPU seconds that the peer has; ours has a quarter")
    parser.add_argument("--start", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        {"ours": build_ours, "peer": build_peer}[options.start]()
        print(time.process_time())
        return 0
    if options.quick:
        options.seeds, options.limit = options.seeds[:2], 15.0
    reference = json.loads((HERE / "umbrella_reference.json").read_text())
    goal = reference["basin"]["value"], reference["barrier"]["value"]
    ours, peer, found = build_ours(), build_peer(), []
    for seed in options.seeds:
        one = measure(ours(seed), goal, options.limit / 4) | measure(peer(seed), goal, options.limit)
        found.append(one)
        if not options.json:
            times = (f"{name} {'' if sure else '>= '}{t:.2f} s;" for name, (t, sure) in one.items())
            print(f"seed {seed}:", *times, flush=True)
    return report(found, starts(), options.json)


def report(found: list[dict[str, tuple[float, bool]]], start: dict[str, float], as_json: bool) -> int:
    """The rows of the table."""
    median = {name: float(np.median([f[name][0] for f in found])) for name in found[0]}
    sure = {name: sorted(f[name] for f in found)[len(found) // 2][1] for name in found[0]}
    mine, its = median["reweighted"], median["averaged"]
    rows = [
        ("F(phi), without start", mine, its, 5, sure["averaged"]),
        ("F(phi), without start, the peer's as it stands", mine, median["as it stands"], 5, sure["as it stands"]),
        ("F(phi), start from the compilation cache", mine + start["cached"], its + start["peer"], 1, sure["averaged"]),
        ("F(phi), start with an empty cache", mine + start["cold"], its + start["peer"], 1, sure["averaged"]),
    ]
    low, bound = "" if sure["reweighted"] else ">=", {row[0]: "" if row[-1] else ">=" for row in rows}

    def text(row: Row) -> str:
        times = f"{low:>2}{row['ours']:7.2f} {bound[row['row']]:>2}{row['peer']:7.2f} CPU s"
        return "{row:48} ".format_map(row) + times + "  ratio {ratio:6.2f}  reach {reach}".format_map(row)

    table = ({"row": name, "ours": x, "peer": y, "ratio": y / x, "reach": reach} for name, x, y, reach, _ in rows)
    return show(table, text, lambda row: above(row) and sure["reweighted"], as_json)


if __name__ == "__main__":
    sys.exit(main())
