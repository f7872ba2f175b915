"""Coulomb's law in periodic boxes: Madelung constants, and forces against OpenMM's Reference platform.

    METASTABLE_DATA=... python benchmarks/electrostatics.py [--json]

Double precision. The force rows take alpha and grid from the tolerance 1e-6 and a cutoff of 0.9 nm, each program its
own (OpenMM's grids are not made friendly to Fourier transforms): charges alone, with all exceptions of the force field
left out. ours, peer: a constant, or the rms force, kJ/mol/nm. error: absolute of constants; of forces the rms
difference relative to the peer's rms. --speed adds CPU milliseconds of the reciprocal part for 2,053 atoms, single
precision.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import openmm
from openmm import app
from openmm.unit import nanometer  # type: ignore[attr-defined]
from table import options_of, show

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.core.units import coulomb
from metastable.potentials import Sum
from metastable.potentials.ewald import DirectSum, Ewald, Excluded, choose_alpha, choose_grid, choose_kmax
from metastable.potentials.pme import PME

STRUCTURES = Path(os.environ.get("METASTABLE_DATA", ".")) / "structures"
TOLERANCE, CUTOFF = 1e-6, 0.9
FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])

# cations, where the anions are from them (fractions of the cube), nearest distance, Madelung constant (OEIS A085469 and
# A181152; Sakamoto 1958, doi:10.1063/1.1744060, for zinc blende)
CRYSTALS = {
    "NaCl": (FCC, 0.5 * np.eye(3)[0], 0.5, 1.7475645946331822),
    "CsCl": (FCC[:1], 0.5 * np.ones(3), np.sqrt(0.75), 1.7626747730709884),
    "ZnS": (FCC, 0.25 * np.ones(3), np.sqrt(3 / 16), 1.6380550533887892),
}


class Charges(NamedTuple):
    """Charges (e), positions and box (nm), and the pairs that do not interact."""

    values: np.ndarray
    positions: np.ndarray
    box: np.ndarray
    excluded: np.ndarray


def madelung() -> Iterator[dict[str, Any]]:
    """The cube of each crystal, summed by Ewald."""
    for name, (cations, shift, distance, wanted) in CRYSTALS.items():
        charges = np.repeat([1.0, -1.0], len(cations))
        frame = Frame(jnp.asarray(np.concatenate([cations, cations + shift])), jnp.eye(3))
        energy = Ewald(charges, 3.2, (12, 12, 12))(frame) + DirectSum(charges, 3.2, cells=3)(frame)
        ours = float(-energy / (coulomb * len(cations)) * distance)
        yield {"row": f"Madelung constant of {name}", "ours": ours, "peer": wanted,
               "error": abs(ours - wanted), "reach": 1e-9}  # fmt: skip


def solvated(protein: str, shape: str) -> Charges:
    """A protein in TIP3P water, 0.7 nm on all sides, without ions."""
    forcefield = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    pdb = app.PDBFile(str(STRUCTURES / "prepared" / protein))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(forcefield, padding=0.7 * nanometer, boxShape=shape, neutralize=False)
    return charges_of(modeller.topology, modeller.positions, forcefield)


def triclinic_water(size: float = 3.4) -> Charges:
    """TIP3P water in a truncated octahedron, whose box vectors are ``size`` long, nm.

    In smaller ones, 2.6 and 3.0 nm, the list of OpenMM's Reference platform misses a few pairs within the cutoff.
    """
    forcefield = app.ForceField("amber14/tip3p.xml")
    modeller = app.Modeller(app.Topology(), [] * nanometer)
    box = size * np.array([[1, 0, 0], [1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(2 / 3)]])
    modeller.addSolvent(forcefield, boxVectors=tuple(openmm.Vec3(*v) for v in box.tolist()) * nanometer)
    return charges_of(modeller.topology, modeller.positions, forcefield)


def water_box() -> Charges:
    """895 TIP3P molecules in a cube."""
    pdb = app.PDBFile(str(STRUCTURES / "tip3p-box-openmm.pdb"))
    return charges_of(pdb.topology, pdb.positions, app.ForceField("amber14/tip3p.xml"))


def charges_of(topology, positions, forcefield) -> Charges:
    """What matters here of a system."""
    system = forcefield.createSystem(topology, nonbondedMethod=app.PME, nonbondedCutoff=CUTOFF)
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    charges = [force.getParticleParameters(i)[0]._value for i in range(force.getNumParticles())]
    excluded = [force.getExceptionParameters(n)[:2] for n in range(force.getNumExceptions())]
    box = np.array([v.value_in_unit(nanometer) for v in system.getDefaultPeriodicBoxVectors()])
    return Charges(
        np.array(charges), np.array(positions.value_in_unit(nanometer)), box, np.array(excluded).reshape(-1, 2)
    )


def of_openmm(charges: Charges) -> np.ndarray:
    """Forces, kJ/mol/nm."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for charge in charges.values.tolist():
        system.addParticle(1)
        force.addParticle(charge, 1, 0)
    for i, j in charges.excluded.tolist():
        force.addException(i, j, 0, 1, 0)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setExceptionsUsePeriodicBoundaryConditions(True)
    force.setEwaldErrorTolerance(TOLERANCE)
    force.setCutoffDistance(CUTOFF)
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*v) for v in charges.box.tolist()))
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatform("Reference"))
    context.setPositions(charges.positions)
    return context.getState(forces=True).getForces(asNumpy=True)._value


def of_ours(charges: Charges, mesh: bool = True) -> np.ndarray:
    """Forces, kJ/mol/nm, with PME or with the plain sum over waves."""
    alpha = choose_alpha(CUTOFF, TOLERANCE)
    grid, kmax = (choose(charges.box, alpha, TOLERANCE) for choose in (choose_grid, choose_kmax))
    term = Sum({
        "direct": DirectSum(charges.values, alpha, charges.excluded, CUTOFF),
        "excluded": Excluded(charges.values, alpha, charges.excluded),
        "reciprocal": PME(charges.values, alpha, grid) if mesh else Ewald(charges.values, alpha, kmax),
    })  # fmt: skip
    box = jnp.asarray(charges.box)
    return -np.asarray(jax.jit(jax.grad(lambda x: term(Frame(x, box))))(jnp.asarray(charges.positions)))


def forces() -> Iterator[dict[str, Any]]:
    """Each system with PME against OpenMM's, and one against the plain sum."""
    systems = {
        "water box": water_box(),
        "water, triclinic cell": triclinic_water(),
        "chignolin (5AWL) in water": solvated("chignolin_5AWL.pdb", "cube"),
        "villin (1VII) in water, dodecahedron": solvated("villin_1VII.pdb", "dodecahedron"),
    }
    for name, charges in systems.items():
        what = f"{name}: {len(charges.values)} atoms, {charges.values.sum():+.0f} e"
        ours = of_ours(charges)
        yield force_row(f"{what}, OpenMM", ours, of_openmm(charges))
        if len(charges.values) < 4000:
            yield force_row(f"{what}, Ewald", ours, of_ours(charges, mesh=False))


def force_row(name: str, ours: np.ndarray, peer: np.ndarray) -> dict[str, Any]:
    """The comparison of two sets of forces."""
    rms = [float(np.sqrt(np.mean(f**2))) for f in (ours, peer, ours - peer)]
    return {"row": name, "ours": rms[0], "peer": rms[1], "error": rms[2] / rms[1], "reach": 1e-5}


def speed(atoms: int = 2053, length: float = 2.74, replicas: int = 16) -> Iterator[dict[str, Any]]:
    """CPU milliseconds of the reciprocal part, the best of many; without a peer."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(length * rng.random((atoms, 3)), jnp.float32)
    box = length * jnp.eye(3, dtype=jnp.float32)
    charges = rng.normal(size=atoms)

    for n in (32, 36):

        def energy(x, box, n=n):
            return PME(charges, 3.0, (n, n, n))(Frame(x, box))

        several = (jnp.stack([v] * replicas, -1) for v in (x, box))
        cases = {
            "energy": (energy, (x, box), 1),
            "forces": (jax.grad(energy), (x, box), 1),
            "energy and forces": (jax.value_and_grad(energy), (x, box), 1),
            "energy, forces and virial": (jax.value_and_grad(energy, (0, 1)), (x, box), 1),
            f"forces, one of {replicas} replicas": (replicate(jax.grad(energy)), tuple(several), replicas),
        }
        for name, (function, arguments, share) in cases.items():
            milliseconds = 1e3 * cpu_seconds(jax.jit(function), arguments) / share
            yield {
                "row": f"PME {n}^3, {name}, CPU ms",
                "ours": milliseconds,
                "peer": None,
                "error": None,
                "reach": None,
            }


def cpu_seconds(function, arguments, rounds: int = 10, calls: int = 10) -> float:
    """Of one call, the best of ``rounds``."""
    jax.block_until_ready(function(*arguments))
    best = np.inf
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            jax.block_until_ready(function(*arguments))
        best = min(best, (time.process_time() - start) / calls)
    return best


def rows(fast: bool) -> Iterator[dict[str, Any]]:
    """All rows; fast: those of speed too, first, while the process is fresh."""
    if fast:
        yield from speed()
    with jax.enable_x64(True):
        yield from madelung()
        yield from forces()


def text(row: dict[str, Any]) -> str:
    """A row as text."""
    if row["reach"] is None:
        return "{row:68} {ours:16.3f}".format_map(row)
    return "{row:68} {ours:16.12g} {peer:16.12g} {error:9.1e} {reach:7.0e}".format_map(row)


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--speed", action="store_true", help="time the reciprocal part too; run under taskset -c 0")
    options = parser.parse_args()
    return show(rows(options.speed), text, lambda r: r["reach"] is None or r["error"] <= r["reach"], options.json)


if __name__ == "__main__":
    sys.exit(main())
