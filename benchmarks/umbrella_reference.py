"""The reference of free_energy.py: F(phi) of alanine dipeptide by umbrella windows and MBAR, with errors.

    python benchmarks/umbrella_reference.py [--time PS] [--write]

amber99sb in vacuum at 300 K, bonds to hydrogen constrained, steps of 2 fs, Langevin friction 1/ps. 64 windows of phi,
in each of them 8 replicas that start from 8 values of psi, a whole turn apart. Narrow windows (300 kJ/mol/rad^2) give
a first F; its negative, a bias common to all windows, then allows wide ones (10 kJ/mol/rad^2), in which psi finds
the places where it turns easily: held at one phi it takes far longer to forget where it started, and narrow windows
alone gave errors twice as large. MBAR joins the wide windows. What is read from F:

- basin: -kT ln(P(0 < phi < 2.2) / P(all other phi)), kJ/mol: both limits lie at the tops of barriers;
- barrier: F at the summit between -0.7 and 0.7 less F at its lowest, kJ/mol; see ``extremum``.

The error is the standard error over the 8 replicas, each of which is a whole umbrella calculation with a psi of its own
to start from. ``halves`` is by how much the second half in time differs from the first. ``--write`` puts all
this into umbrella_reference.json beside this file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metastable.core.axis import Axis
from metastable.core.frame import Frame
from metastable.core.units import fs, kelvin
from metastable.cvs import Stack, Torsion
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.replicas import Replicas
from metastable.enhanced.biases import Harmonic, Select, Sum
from metastable.enhanced.metadynamics import WellTempered
from metastable.enhanced.walkers import Biased
from metastable.estimate.density import free_energy
from metastable.estimate.umbrella import Umbrella, umbrella
from metastable.io.molecules import load_molecule
from metastable.loops.run import run

STRUCTURE = Path(__file__).parents[1] / "examples" / "alanine-dipeptide.pdb"
FORCEFIELD = ["amber99sb.xml"]
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
KT, DT, FRICTION = 300 * kelvin, 2 * fs, 1.0
BASIN, SUMMIT = (0.0, 2.2), (-0.7, 0.7)
WINDOWS, STARTS, NARROW, WIDE = 64, 8, 300.0, 10.0  # how many; kJ/mol/rad^2
POINTS = 120  # of the common bias and of the profile
EVERY, BLOCK = 100, 500  # steps between two recorded frames, and of a run
DRAG = 20  # pieces of the way from the start to a window
PILOT, RELAX = 10.0, 20.0  # ps in narrow windows, and in wide ones before what is used


def features(phi: np.ndarray, f: np.ndarray) -> tuple[float, float]:
    """(basin, barrier) of a profile at evenly spaced points of one turn of phi, kJ/mol."""
    p = np.exp(-(f - np.nanmin(f)) / KT)
    inside = (phi > BASIN[0]) & (phi < BASIN[1])
    basin = -KT * np.log(np.nansum(p[inside]) / np.nansum(p[~inside]))
    return float(basin), extremum(phi, f, SUMMIT, 1) + extremum(phi, f, (-np.pi, np.pi), -1)


def extremum(phi: np.ndarray, f: np.ndarray, region: tuple[float, float], sign: int) -> float:
    """The largest value of sign * f within a region: of a cubic through the points less than 0.25 from the largest.

    NaN where not all of these points have been seen.
    """
    value = np.where((phi >= region[0]) & (phi <= region[1]) & np.isfinite(f), sign * f, -np.inf)
    x = (phi - phi[np.argmax(value)] + np.pi) % (2 * np.pi) - np.pi
    near = np.abs(x) < 0.25
    if not (np.isfinite(value).any() and np.isfinite(f[near]).all()):
        return np.nan
    fine = np.linspace(-0.1, 0.1, 201)
    return float(np.polyval(np.polyfit(x[near], sign * f[near], 3), fine).max())


def start() -> tuple[Any, Frame, Any]:
    """(molecule, its frame in single precision, a Langevin sampler of it)."""
    molecule = load_molecule(STRUCTURE, FORCEFIELD, constraints="hydrogen-bonds")
    frame = Frame(jnp.asarray(molecule.frame.positions, jnp.float32))
    system = molecule.system
    sampler = Langevin(molecule.potential, system.masses, DT, KT, FRICTION, Constraints.from_system(system))
    return molecule, frame, sampler


def sample(time: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """phi of all replicas in wide windows, and the common bias there, kJ/mol: both (frames, windows, starts)."""
    _, frame, sampler = start()
    cv = Stack(Torsion(*PHI), Torsion(*PSI))
    grid = WellTempered([Axis(-np.pi, np.pi, POINTS, True)], height=0.0, widths=[0.2], bias_factor=2)
    bias = Sum(Harmonic(np.zeros(2), np.zeros(2), cv.periods), Select(grid, [0]))
    sampler = eqx.tree_at(lambda s: s.potential, sampler, Biased(sampler.potential, cv, bias))
    replicas = Replicas(sampler, WINDOWS * STARTS, varying=lambda s: [s.potential.bias.biases[0].center])
    here = np.asarray(cv(frame), float)
    ways = np.stack(np.meshgrid(window_centers(), turn(STARTS), indexing="ij"), -1).reshape(-1, 2) - here
    ways = (ways + np.pi) % (2 * np.pi) - np.pi

    def held(share, kappas, common):
        def places(replicas):
            harmonic, flat = replicas.sampler.potential.bias.biases
            return harmonic.center, harmonic.kappa, flat.bias.spline.coefficients

        new = (here + ways * share, kappas, common)
        return eqx.tree_at(places, replicas, tuple(jnp.asarray(x, jnp.float32) for x in new))

    none = np.zeros(POINTS)
    observe = held(1, (0, 0), none).observe(lambda state: cv(state.frame)[0])
    keys = iter(jax.random.split(jax.random.key(seed), 100_000))
    state = eqx.filter_jit(Replicas.init)(held(0, (NARROW, NARROW), none), next(keys), frame)

    def go(state, picoseconds, sampler):
        records = []
        for _ in range(round(picoseconds / DT / BLOCK)):
            state, phi = run(next(keys), sampler, state, BLOCK, every=EVERY, observe=observe)
            records.append(np.asarray(phi).reshape(-1, WINDOWS, STARTS))
        return state, np.concatenate(records)

    for i in range(DRAG):
        state, _ = go(state, BLOCK * DT, held((i + 1) / DRAG, (NARROW, NARROW), none))
    state, phi = go(state, PILOT, held(1, (NARROW, 0), none))
    axis, found = profile(phi, NARROW, np.zeros(phi.shape))
    common = -np.interp(turn(POINTS), axis.centers, np.asarray(free_energy(found.density, KT).value), period=2 * np.pi)
    wide = held(1, (WIDE, 0), common)
    state, _ = go(state, RELAX, wide)
    state, phi = go(state, time, wide)
    flat = wide.sampler.potential.bias.biases[1].bias
    return phi, np.asarray(jax.jit(jax.vmap(flat))(phi.reshape(-1, 1)), float).reshape(phi.shape)


def turn(points: int) -> np.ndarray:
    """Evenly spaced angles, from -pi."""
    return 2 * np.pi * np.arange(points) / points - np.pi


def window_centers() -> np.ndarray:
    """Of the windows of phi, rad, (windows,)."""
    return turn(WINDOWS)


def profile(phi: np.ndarray, kappa: float, common: np.ndarray) -> tuple[Axis, Umbrella]:
    """MBAR over windows of phi with a common bias: both (frames, windows, replicas)."""
    axis = Axis.angle("phi", POINTS)
    trajectories = phi.reshape(len(phi), -1).T.astype(float)
    apart = trajectories.ravel() - window_centers()[:, None]
    bias = kappa / 2 * ((apart + np.pi) % (2 * np.pi) - np.pi) ** 2 + common.reshape(len(phi), -1).T.ravel()
    window = np.repeat(np.arange(WINDOWS), phi.shape[2]).tolist()
    found = umbrella(list(trajectories[..., None]), bias, (axis,), KT, window=window, length=len(phi) // 5, resamples=2)
    return axis, found


def read(phi: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(basin and barrier, F at its points less F at its lowest), kJ/mol."""
    axis, found = profile(phi, WIDE, common)
    f = np.asarray(free_energy(found.density, KT).value)
    return np.array(features(axis.centers, f)), f


def main() -> None:
    """Sample, estimate, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=float, default=100.0, help="ps that are used of each replica")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the result into umbrella_reference.json")
    options = parser.parse_args()
    phi, common = sample(options.time, options.seed)
    value, f = read(phi, common)
    alone = [read(phi[..., i : i + 1], common[..., i : i + 1]) for i in range(STARTS)]
    error, f_error = (np.std(x, axis=0, ddof=1) / np.sqrt(STARTS) for x in zip(*alone, strict=True))
    half = len(phi) // 2
    apart = read(phi[half:], common[half:])[0] - read(phi[:half], common[:half])[0]
    axis = Axis.angle("phi", POINTS)
    result = {"unit": "kJ/mol", "windows": WINDOWS, "replicas": WINDOWS * STARTS, "ps each": options.time}
    for i, name in enumerate(("basin", "barrier")):
        found = {"value": value[i], "error": error[i], "halves": apart[i], "replicas": [float(a[i]) for a, _ in alone]}
        result[name] = {k: np.round(v, 4).tolist() for k, v in found.items()}
        print(f"{name:8} {value[i]:8.3f} +- {error[i]:.3f} kJ/mol; second half less first {apart[i]:+.3f}")
    result["phi"], result["F"] = np.round(axis.centers, 5).tolist(), np.round(f, 3).tolist()
    result["F error"] = np.round(f_error, 3).tolist()
    for x, y, z in zip(axis.centers[::4], f[::4], f_error[::4], strict=True):
        print(f"phi {x:6.3f}  F {y:7.3f} +- {z:.3f}")
    if options.write:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
