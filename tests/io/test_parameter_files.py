"""CHARMM psf and GROMACS top: small made-up chains with every kind of term, against OpenMM's Reference platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.core.frame import Frame
from metastable.io.molecules import load_molecule
from metastable.io.parameters import system_from_parameters
from metastable.io.rules import Implicit, Rules
from metastable.io.structures import read_structure

openmm = pytest.importorskip("openmm")

POSITIONS = np.array([[0.00, 0.00, 0.0], [0.14, 0.03, 0.0], [0.21, 0.16, 0.02], [0.36, 0.15, 0.07], [0.42, 0.29, 0.05],
                      [0.57, 0.30, 0.13], [0.15, 0.27, -0.06]])  # fmt: skip

PSF = """PSF

       1 !NTITLE
 REMARKS a chain of six atoms with a branch

       7 !NATOM
       1 S    1    CHN  C1   TA     0.300000       12.0110           0
       2 S    1    CHN  C2   TB    -0.200000       12.0110           0
       3 S    1    CHN  C3   TC     0.100000       12.0110           0
       4 S    1    CHN  C4   TB    -0.300000       12.0110           0
       5 S    1    CHN  C5   TA     0.250000       12.0110           0
       6 S    1    CHN  C6   TA     0.050000       12.0110           0
       7 S    1    CHN  O1   TO    -0.200000       15.9990           0

       6 !NBOND: bonds
       1       2       2       3       3       4       4       5
       5       6       3       7

       6 !NTHETA: angles
       1       2       3       2       3       4       3       4       5
       4       5       6       2       3       7       4       3       7

       5 !NPHI: dihedrals
       1       2       3       4       2       3       4       5
       3       4       5       6       1       2       3       7
       7       3       4       5

       1 !NIMPHI: impropers
       3       2       4       7

       0 !NDON: donors


       0 !NACC: acceptors


       0 !NNB

       0       0       0       0       0       0       0

       1       0 !NGRP NST2
       0       0       0

       1 !NCRTERM: cross-terms
       1       2       3       4       3       4       5       6

"""


def parameters(nbfix: bool) -> str:
    rng = np.random.default_rng(0)
    table = "\n".join(" ".join(f"{x:8.4f}" for x in row) for row in rng.normal(size=(24 * 24 // 6, 6)))
    return f"""* made up
*

ATOMS
MASS 1 TA 12.0110
MASS 2 TB 12.0110
MASS 3 TC 12.0110
MASS 4 TO 15.9990

BONDS
TA TB 300.0 1.45
TB TC 280.0 1.50
TA TA 310.0 1.52
TC TO 600.0 1.23

ANGLES
TA TB TC 50.0 112.0
TB TC TB 45.0 115.0 22.0 2.50
TC TB TA 50.0 112.0
TB TA TA 40.0 110.0 11.0 2.56
TB TC TO 60.0 121.0

DIHEDRALS
TA TB TC TB 1.2 1 180.0
TA TB TC TB 0.4 3 0.0
TB TC TB TA 0.8 2 180.0
TC TB TA TA 0.3 3 0.0
TA TB TC TO 0.9 2 35.0
TO TC TB TA 0.7 1 0.0

IMPROPER
TC TB TB TO 40.0 0 5.0

CMAP
TA TB TC TB TC TB TA TA 24
{table}

NONBONDED nbxmod 5 atom cdiel fshift vatom vdistance vfswitch -
cutnb 14.0 ctofnb 12.0 ctonnb 10.0 eps 1.0 e14fac 1.0 wmin 1.5
TA 0.0 -0.08 2.06 0.0 -0.01 1.9
TB 0.0 -0.05 2.17
TC 0.0 -0.11 2.00
TO 0.0 -0.12 1.70 0.0 -0.12 1.40
{"NBFIX" if nbfix else ""}
{"TA TO -0.3 3.2" if nbfix else ""}

END
"""


def top(rule: int, nbfix: bool) -> str:
    # rule 1 gives C6 and C12, the others sigma and epsilon
    first, second = ("0.0026", "2.6e-6") if rule == 1 else ("0.33", "0.40")
    pairs = "TA TB 1 0.36 0.9\n" if nbfix else ""
    return f"""[ defaults ]
1 {rule} yes 0.5 0.8333
[ atomtypes ]
TA 6 12.011 0.0 A {first} {second}
TB 6 12.011 0.0 A {"0.0031" if rule == 1 else "0.30"} {"3.9e-6" if rule == 1 else "0.55"}
{"[ nonbond_params ]" if nbfix else ""}
{pairs}
[ bondtypes ]
TA TB 1 0.145 250000.0
TA TA 1 0.152 260000.0
[ angletypes ]
TA TB TA 1 111.0 400.0
TB TA TA 5 109.0 380.0 0.25 9000.0
[ dihedraltypes ]
TA TB TA TA 3 9.28 12.16 -13.12 -3.06 26.24 -31.5
TB TA TA TB 9 180.0 2.5 2
TB TA TA TB 9 0.0 1.5 1
[ moleculetype ]
CHN 3
[ atoms ]
1 TA 1 CHN C1 1 0.3 12.011
2 TB 1 CHN C2 1 -0.2 12.011
3 TA 1 CHN C3 1 0.1 12.011
4 TA 1 CHN C4 1 -0.3 12.011
5 TB 1 CHN C5 1 0.25 12.011
6 TA 1 CHN C6 1 0.05 12.011
7 TA 1 CHN C7 1 -0.2 12.011
[ bonds ]
1 2 1
2 3 1
3 4 1
4 5 1
5 6 1
3 7 1 0.16 240000.0
[ pairs ]
1 4 1
2 5 1
3 6 1
[ angles ]
1 2 3 1
2 3 4 5
3 4 5 5
4 5 6 1
2 3 7 1 115.0 300.0
4 3 7 1 120.0 300.0
[ dihedrals ]
1 2 3 4 3
2 3 4 5 9
3 4 5 6 3
[ dihedrals ]
3 2 4 7 2 175.0 300.0
[ system ]
chain
[ molecules ]
CHN 1
"""


@pytest.fixture
def structure(tmp_path):
    lines = [f"    1CHN  {f'C{i + 1}':>5}{i + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}" for i, (x, y, z) in enumerate(POSITIONS)]
    path = tmp_path / "chain.gro"
    path.write_text("chain\n    7\n" + "\n".join(lines) + "\n   5.0 5.0 5.0\n")
    return path


def check(structure, files, implicit=None):
    """The molecule is what OpenMM has, at the start and shaken."""
    rules = Rules(implicit=implicit)
    system, _ = system_from_parameters(read_structure(structure), list(map(str, files)), rules)
    molecule = load_molecule(structure, parameters=files, implicit=implicit)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    ours = jax.jit(jax.value_and_grad(lambda x: molecule.potential(Frame(x))))
    for shaken in (0.0, 0.02):
        x = POSITIONS + shaken * np.random.default_rng(1).normal(size=POSITIONS.shape)
        context.setPositions(x)
        state = context.getState(getEnergy=True, getForces=True)
        energy, gradient = ours(jnp.asarray(x))
        assert float(energy) == pytest.approx(state.getPotentialEnergy()._value, rel=1e-9)
        np.testing.assert_allclose(-gradient, state.getForces(asNumpy=True)._value, atol=1e-6)
    return molecule


@pytest.mark.parametrize("nbfix", [False, True])
def test_charmm(x64, tmp_path, structure, nbfix):
    (tmp_path / "chain.psf").write_text(PSF)
    (tmp_path / "chain.prm").write_text(parameters(nbfix))
    molecule = check(structure, [tmp_path / "chain.psf", tmp_path / "chain.prm"])
    assert set(molecule.potential.terms) == {
        "bonds", "bonds_2", "angles", "torsions", "impropers", "cmap", "nonbonded"
    }  # fmt: skip
    np.testing.assert_allclose(molecule.system.charges, [0.3, -0.2, 0.1, -0.3, 0.25, 0.05, -0.2])
    assert molecule.system.numbers.tolist() == [6] * 6 + [8]


def test_charmm_in_implicit_solvent(x64, tmp_path, structure):
    (tmp_path / "chain.psf").write_text(PSF)
    (tmp_path / "chain.prm").write_text(parameters(False))
    check(structure, [tmp_path / "chain.psf", tmp_path / "chain.prm"], Implicit("OBC2", kappa=0.5, surface=False))


@pytest.mark.parametrize("rule, nbfix", [(1, False), (2, False), (3, False), (2, True)])
def test_gromacs(x64, tmp_path, structure, rule, nbfix):
    (tmp_path / "chain.top").write_text(top(rule, nbfix))
    molecule = check(structure, [tmp_path / "chain.top"])
    assert {"bonds", "angles", "torsions", "ryckaert_bellemans", "impropers", "nonbonded"} <= set(
        molecule.potential.terms
    )


def test_what_cannot_be(tmp_path, structure):
    (tmp_path / "chain.top").write_text(top(2, False))
    with pytest.raises(InputError, match="not available for a GROMACS top"):
        load_molecule(structure, parameters=tmp_path / "chain.top", implicit="OBC2")
    (tmp_path / "short.gro").write_text("chain\n    1\n    1CHN     C1    1   0.000   0.000   0.000\n   5.0 5.0 5.0\n")
    with pytest.raises(InputError, match=r"has 1 atoms, but .* describes 7"):
        load_molecule(tmp_path / "short.gro", parameters=tmp_path / "chain.top")
    (tmp_path / "odd.txt").write_text("hello")
    with pytest.raises(InputError, match="no Amber prmtop"):
        load_molecule(structure, parameters=tmp_path / "odd.txt")
    (tmp_path / "bad.top").write_text("[ nonsense")
    with pytest.raises(InputError, match=r"bad\.top"):
        load_molecule(structure, parameters=tmp_path / "bad.top")
    with pytest.raises(InputError, match=r"fix: .*complete the structure first"):
        load_molecule(structure, parameters=tmp_path / "chain.top", fix=True)
