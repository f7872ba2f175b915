"""Energies and forces against OpenMM's Reference platform, in double and single precision.

    METASTABLE_DATA=... python benchmarks/agreement.py [--json] [--only WORDS]

Each system is compared at its start and at two frames shaken by 0.005 and 0.02 nm; the worst counts. In a row,
``ours`` and ``peer`` are the energies, or the root mean square forces, of that frame; ``ratio`` is the error and
``reach`` what it must not exceed: 1e-9 of the energy, 1e-6 kJ/mol/nm for the largest error of a force, and in
single precision 1e-5 for the root mean square error of the forces relative to the forces. In single precision both
codes get the same rounded positions.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from table import options_of, show, structures, within

from metastable.core.frame import Frame
from metastable.io.molecules import from_openmm
from metastable.io.parameters import system_from_parameters, system_from_xml
from metastable.io.rules import Implicit, Rules
from metastable.io.structures import read_structure

SHAKEN = (0.0, 0.005, 0.02)


class Case(NamedTuple):
    """A system: its structure, XML files or parameter files, and solvent."""

    structure: str
    files: tuple[str, ...]
    implicit: Implicit | None = None

    @property
    def name(self) -> str:
        """The structure, the files and the solvent, as the rows show them."""
        solvent = "" if self.implicit is None else f", {self.implicit.model}"
        solvent += f" kappa {self.implicit.kappa}" if self.implicit is not None and self.implicit.kappa else ""
        return f"{Path(self.structure).stem}, {' + '.join(Path(f).name for f in self.files)}{solvent}"


CASES = [
    Case("prepared/ala2.pdb", ("amber14-all.xml",)),
    Case("prepared/ala2.pdb", ("amber99sbildn.xml", "amber99_obc.xml")),
    Case("prepared/ala2.pdb", ("amber14-all.xml",), Implicit("HCT")),
    Case("prepared/ala2.pdb", ("amber14-all.xml",), Implicit("OBC1")),
    Case("prepared/ala2.pdb", ("amber14-all.xml",), Implicit("GBn")),
    Case("alanine-dipeptide-implicit.inpcrd", ("alanine-dipeptide-implicit.prmtop",)),
    Case("alanine-dipeptide-implicit.inpcrd", ("alanine-dipeptide-implicit.prmtop",), Implicit("OBC2")),
    Case("alanine-dipeptide-implicit.inpcrd", ("alanine-dipeptide-implicit.prmtop",), Implicit("GBn2")),
    Case("prepared/chignolin_1UAO.pdb", ("charmm36.xml",)),
    Case("prepared/chignolin_1UAO.pdb", ("charmm36_2024.xml",), Implicit("GBn2")),
    Case("prepared/chignolin_1UAO.pdb", ("amber14-all.xml",), Implicit("OBC2", kappa=0.7)),
    Case("prepared/chignolin_1UAO.pdb", ("amber99sbildn.xml", "amber99_obc.xml")),
    Case("prepared/trpcage_1L2Y.pdb", ("amber14-all.xml",), Implicit("GBn2", kappa=0.7)),
    Case("prepared/trpcage_1L2Y.pdb", ("amber19/protein.ff19SB.xml",)),
    Case("prepared/villin_1VII.pdb", ("amber99sbildn.xml",), Implicit("OBC2")),
    Case("prepared/villin_1VII.pdb", ("charmm36.xml",)),
]


class Error(NamedTuple):
    """How far a frame is from the peer: energies and root mean square forces of both, and the errors."""

    energy: tuple[float, float]
    force: tuple[float, float]
    energy_error: float
    largest_error: float
    relative_error: float


def load(case: Case, data: Path) -> tuple[Any, Any, np.ndarray]:
    """(openmm system, topology, positions around the origin) of a case."""
    structure, rules = read_structure(data / case.structure), Rules(implicit=case.implicit)
    if case.files[0].endswith(".xml"):
        system, structure = system_from_xml(structure, case.files, rules)
        topology = structure.topology
    else:
        system, topology = system_from_parameters(structure, [str(data / f) for f in case.files], rules)
    return system, topology, structure.positions - structure.positions.mean(0)


def compare(system: Any, topology: Any, positions: np.ndarray, dtype: Any) -> list[Error]:
    """The errors in a precision at the start and the shaken frames."""
    import openmm

    molecule = from_openmm(system, topology, positions)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    noise = np.random.default_rng(0).normal(size=positions.shape)
    errors = []
    with jax.enable_x64(dtype == jnp.float64):
        ours = eqx.filter_jit(jax.value_and_grad(lambda x, potential: potential(Frame(x))))
        for shaken in SHAKEN:
            frame = (positions + shaken * noise).astype(dtype)
            context.setPositions(frame.astype(float))
            state = context.getState(getEnergy=True, getForces=True)
            energy, gradient = ours(jnp.asarray(frame), molecule.potential)
            errors.append(_error(float(energy), -np.asarray(gradient, float), state.getPotentialEnergy()._value,
                                 np.asarray(state.getForces(asNumpy=True)._value)))  # fmt: skip
    return errors


def _error(energy: float, force: np.ndarray, peer_energy: float, peer_force: np.ndarray) -> Error:
    rms, peer_rms = (float(np.sqrt(np.mean(f**2))) for f in (force, peer_force))
    apart = force - peer_force
    return Error(
        (energy, peer_energy),
        (rms, peer_rms),
        abs(energy - peer_energy) / abs(peer_energy),
        float(np.abs(apart).max()),
        float(np.sqrt(np.mean(apart**2))) / peer_rms,
    )


def rows(case: Case, data: Path) -> Iterator[dict[str, Any]]:
    """The three rows of a case."""
    loaded = load(case, data)
    double, single = compare(*loaded, jnp.float64), compare(*loaded, jnp.float32)
    for what, errors, values, key, reach in (
        ("energy", double, "energy", "energy_error", 1e-9),
        ("forces", double, "force", "largest_error", 1e-6),
        ("forces, single", single, "force", "relative_error", 1e-5),
    ):
        worst = max(errors, key=lambda e: getattr(e, key))
        ours, peer = getattr(worst, values)
        yield {"row": f"{case.name}: {what}", "ours": ours, "peer": peer, "ratio": getattr(worst, key), "reach": reach}


def main() -> int:
    """Print the table; exit 1 where a row does not reach what it should."""
    parser = options_of(__doc__)
    parser.add_argument("--only", default="", help="only the systems whose name contains this")
    options = parser.parse_args()
    data = structures()
    return show(
        (row for case in CASES if options.only in case.name for row in rows(case, data)),
        "{row:82} {ours:13.6g} {peer:13.6g} {ratio:9.1e} {reach:7.0e}".format_map,
        within,
        options.json,
        f"{'row':82} {'ours':>13} {'peer':>13} {'error':>9} {'reach':>7}",
    )


if __name__ == "__main__":
    sys.exit(main())
