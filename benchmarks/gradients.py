"""Derivatives of an average over a trajectory, against central finite differences, in double precision.

    python benchmarks/gradients.py [--json]

Alanine dipeptide in vacuum (ff14SB), bonds of hydrogens constrained, 100 steps of 2 fs of Langevin dynamics at 300 K.
The mean distance of the two methyl carbons over the steps is differentiated with respect to a torsion barrier, a
charge, the stiffness of an angle and of a bond, and the friction, each in units of itself: in reverse mode all at
once, in forward mode one after the other. In a row, ``ours`` is the derivative, ``peer`` the finite difference,
``ratio`` the relative error, and ``reach`` what it must not exceed.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from table import options_of, show, within

from metastable.core.frame import Frame
from metastable.core.units import fs, kelvin, ps
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.minimize import fire
from metastable.io.molecules import Molecule, load_molecule
from metastable.loops.run import run

MOLECULE = Path(__file__).parents[1] / "examples" / "alanine-dipeptide.pdb"
STEPS, REACH = 100, 1e-5
WHAT = ("torsion barrier", "charge", "angle stiffness", "bond stiffness", "friction")


def load() -> Molecule:
    """Alanine dipeptide, at a minimum of its energy."""
    molecule = load_molecule(MOLECULE, ["amber14/protein.ff14SB.xml"], constraints="hydrogen-bonds")
    system, frame, potential = molecule
    constraint = Constraints.from_system(system, positions=frame.positions)
    start = Frame(jnp.asarray(frame.positions, float))
    return molecule._replace(frame=fire(potential, start, constraint=constraint, masses=jnp.asarray(system.masses)))


def average_of(molecule: Molecule) -> Callable[[Any], Any]:
    """The average, nm, as a function of what the five parameters are multiplied with."""
    system, start = molecule.system, molecule.frame
    potential: Any = molecule.potential
    constraint = Constraints.from_system(system, positions=start.positions)
    names, torsions = system.topology.atom_names, potential.terms["torsions"]
    ends = names.index("CH3"), len(names) - 1 - names[::-1].index("C")
    entries = (int(np.argmax(np.abs(torsions.barriers))), names.index("O"), 0, 0)

    def leaves(p):
        bonds, angles = p.terms["bonds"], p.terms["angles"]
        return [p.terms["torsions"].barriers, p.terms["nonbonded"].charges, angles.stiffness, bonds.stiffness]

    def average(scales):
        values = [
            jnp.asarray(x).at[n].multiply(scale)
            for x, n, scale in zip(leaves(potential), entries, scales[:-1], strict=True)
        ]
        changed = eqx.tree_at(leaves, potential, values)
        sampler = Langevin(changed, system.masses, 2 * fs, 300 * kelvin, scales[-1] / ps, constraint)
        state = sampler.init(jax.random.key(0), start)

        def distance(state):
            return jnp.linalg.norm(state.positions[ends[0]] - state.positions[ends[1]])

        return jnp.mean(run(jax.random.key(1), sampler, state, STEPS, every=1, observe=distance)[1])

    return average


def finite_difference(function: Callable[[Any], Any], point: Any, n: int, h: float = 1e-3) -> float:
    """By four points, so that the error is of order h^4."""
    shift = h * jnp.eye(len(point))[n]
    one, two = (function(point + k * shift) - function(point - k * shift) for k in (1, 2))
    return float(8 * one - two) / (12 * h)


def rows() -> Iterator[dict[str, Any]]:
    """Two rows a parameter."""
    with jax.enable_x64(True):
        average, point = average_of(load()), jnp.ones(len(WHAT))
        plain, unit = jax.jit(average), jnp.eye(len(WHAT))
        reverse = jax.jit(jax.grad(average))(point)
        forward = jax.jit(lambda v: jax.jvp(average, (point,), (v,))[1])
        for n, what in enumerate(WHAT):
            peer = finite_difference(plain, point, n)
            for mode, ours in (("reverse", float(reverse[n])), ("forward", float(forward(unit[n])))):
                yield {"row": f"derivative in {what}, {mode} mode", "ours": ours, "peer": peer,
                       "ratio": abs(ours / peer - 1), "reach": REACH}  # fmt: skip


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    options = options_of(__doc__).parse_args()
    heading = f"{'row':45} {'ours':>17} {'difference':>17} {'error':>9} {'reach':>7}"
    line = "{row:45} {ours:17.10g} {peer:17.10g} {ratio:9.1e} {reach:7.0e}".format_map
    return show(rows(), line, within, options.json, heading)


if __name__ == "__main__":
    sys.exit(main())
