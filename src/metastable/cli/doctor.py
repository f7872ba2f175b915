"""``doctor``: is this installation right? Devices, versions, and tests of some seconds that know their answers."""

import platform
import time
from collections.abc import Callable
from importlib.resources import as_file, files

import jax
import jax.numpy as jnp
import numpy as np

from metastable.cli.directory import versions
from metastable.cli.running import keep_compilations
from metastable.core.frame import Frame
from metastable.core.units import fs, kelvin
from metastable.dynamics.integrators import Langevin, VelocityVerlet
from metastable.dynamics.replicas import Replicas
from metastable.dynamics.state import force, kinetic_energy
from metastable.io.molecules import Molecule, load_molecule
from metastable.loops.run import run


def examine() -> bool:
    """Print everything; whether every test passed."""
    keep_compilations()
    began = time.perf_counter()
    print(f"Python {platform.python_version()} on {platform.platform()}")
    print(
        "versions: " + ", ".join(f"{name} {v}" for name, v in versions().items() if name not in ("python", "machine"))
    )
    print(f"devices: {', '.join(f'{d.device_kind} ({d.platform})' for d in jax.devices())}")
    print(f"precision: single {np.finfo(np.float32).eps:.2g}, double {np.finfo(np.float64).eps:.2g}; "
          f"the default of jax is {jnp.zeros(()).dtype}")  # fmt: skip
    with as_file(files("metastable.cli") / "examples" / "alanine-dipeptide.pdb") as path, jax.enable_x64(True):
        molecule = load_molecule(path, ["amber14/protein.ff14SB.xml"])
        tests = [
            _test("forces are those of OpenMM", lambda: _openmm(path, molecule), 1e-6, "kJ/mol/nm at most"),
            _test("energy is conserved", lambda: _conservation(molecule), 1e-3, "of the kinetic energy"),
        ]
    tests.append(_test("kT / 2 in a harmonic well", _equipartition, 5.0, "standard errors"))
    good = all(tests)
    verdict = "all is well" if good else "something is wrong with this installation"
    print(f"{verdict}, in {time.perf_counter() - began:.0f} s")
    return good


def _test(name: str, measure: Callable[[], float], limit: float, unit: str) -> bool:
    value = measure()
    good = bool(value < limit)
    print(f"  {'ok  ' if good else 'FAIL'}  {name}: off by {value:.2g} {unit} (limit {limit:g})", flush=True)
    return good


def _openmm(path, molecule: Molecule) -> float:
    """The largest difference of a force from that of OpenMM's Reference platform, double precision."""
    import openmm
    from openmm import app
    from openmm.unit import md_unit_system

    file = app.PDBFile(str(path))
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(file.topology)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(file.positions)
    theirs = context.getState(getForces=True).getForces(asNumpy=True).value_in_unit_system(md_unit_system)
    ours = jax.jit(force)(molecule.potential, Frame(jnp.asarray(molecule.frame.positions)))
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())


def _conservation(molecule: Molecule) -> float:
    """The drift of the energy in 1 ps of velocity Verlet at 0.25 fs, as a part of the kinetic energy."""
    system, frame, potential = molecule
    masses = jnp.asarray(system.masses)
    verlet = VelocityVerlet(potential, masses, 0.25 * fs, kT=300 * kelvin)
    start = verlet.init(jax.random.key(0), Frame(jnp.asarray(frame.positions)))

    def energy(state):
        return potential(state.frame) + kinetic_energy(state.momenta, masses)

    _, energies = run(jax.random.key(1), verlet, start, 4000, every=40, observe=energy)
    drift = np.polyfit(np.linspace(0, 1, len(energies)), np.asarray(energies), 1)[0]
    return abs(float(drift)) / (1.5 * len(system) * 300 * kelvin)


def _equipartition() -> float:
    """How far <k x^2 / 2> of Langevin dynamics in a harmonic well is from kT / 2, in standard errors."""
    k, kT, replicas = 1000.0, 300 * kelvin, 1000

    def potential(frame):
        return k * jnp.sum(frame.positions**2) / 2

    period = 2 * np.pi * np.sqrt(12.0 / k)
    many = Replicas(Langevin(potential, jnp.full(1, 12.0), period / 20, kT, 2 / period), replicas)
    start = many.init(jax.random.key(0), Frame(jnp.zeros((1, 3))))
    observe = many.observe(lambda state: state.positions**2)
    _, squares = run(jax.random.key(1), many, start, 1200, every=100, observe=observe)
    sample = np.asarray(squares, float)[2:].ravel() * k / kT  # periods apart: independent, mean 1, variance 2
    return abs(sample.mean() - 1) / np.sqrt(2 / sample.size)
