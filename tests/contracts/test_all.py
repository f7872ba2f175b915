"""Everything that the package has of each kind, through the contract battery. What is new is added to a list here."""

import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.cvs import (
    RMSD,
    Angle,
    Center,
    Coordination,
    Cosinus,
    Cubic,
    Displacement,
    Distance,
    Exponential,
    Function,
    Gaussian,
    Position,
    RadiusOfGyration,
    Rational,
    Smap,
    Stack,
    Tanh,
    Torsion,
)
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.integrators import BAOAB, Langevin, Overdamped, VelocityVerlet
from metastable.dynamics.replicas import Replicas
from metastable.dynamics.thermostats import CSVR, NoseHoover
from metastable.enhanced.biases import Harmonic, LowerWall, MovingHarmonic, Select, UpperWall
from metastable.enhanced.biases import Sum as BiasSum
from metastable.enhanced.metadynamics import Hills, WellTempered
from metastable.enhanced.walkers import Biased, Walkers
from metastable.potentials import Sum
from metastable.potentials.bonded import (
    HarmonicAngles,
    HarmonicBonds,
    HarmonicTorsions,
    PeriodicTorsions,
    RyckaertBellemansTorsions,
    TorsionMaps,
)
from metastable.potentials.implicit import GeneralizedBorn, Neck, Rescaling
from metastable.potentials.nonbonded import Combined, Exceptions, Geometric, Nonbonded, Tabulated
from metastable.testing.conformance import check_bias, check_cv, check_potential, check_sampler
from metastable.testing.surfaces import DoubleWell, MuellerBrown

RANDOM = np.random.default_rng(5)
ATOMS = 8
TURN = np.arange(ATOMS)[:, None]
CHAIN = np.hstack([0.2 * np.cos(1.7 * TURN), 0.2 * np.sin(1.7 * TURN), 0.12 * TURN])
FRAME = Frame(jnp.asarray(CHAIN + 0.02 * RANDOM.normal(size=(ATOMS, 3))))
BOX = jnp.array([[1.3, 0.0, 0.0], [0.2, 1.4, 0.0], [-0.3, 0.1, 1.2]])
PERIODIC = Frame(FRAME.positions + 0.5, BOX)
ONE = Frame(jnp.array([[0.4, 0.2, 0.1]]))

BONDS = np.array([[i, i + 1] for i in range(ATOMS - 1)])
ANGLES = np.array([[i, i + 1, i + 2] for i in range(ATOMS - 2)])
TORSIONS = np.array([[i, i + 1, i + 2, i + 3] for i in range(ATOMS - 3)])
CHARGES = RANDOM.normal(size=ATOMS) / 3


def nonbonded(lennard_jones):
    return Nonbonded(CHARGES, lennard_jones, Exceptions(BONDS, np.zeros(7), np.ones(7), np.zeros(7)))


def born(**options):
    given = dict(rescaling=None, neck=None, solute=1.0, solvent=78.5) | options
    return GeneralizedBorn(CHARGES, RANDOM.uniform(0.12, 0.2, ATOMS), RANDOM.uniform(0.7, 0.9, ATOMS), **given)


OBC = Rescaling(np.full(ATOMS, 1.0), np.full(ATOMS, 0.8), np.full(ATOMS, 4.85))
NECK = Neck(np.arange(ATOMS) % 2, np.full((2, 2), 0.35), np.array([[0.5, 0.6], [0.7, 0.8]]), 0.36, 0.68)
BOND = HarmonicBonds(BONDS, np.full(7, 0.3), np.full(7, 500.0))
SIGMA = np.full(ATOMS, 0.2)

POTENTIALS = {
    "bonds": BOND,
    "angles": HarmonicAngles(ANGLES, np.full(6, 1.9), np.full(6, 80.0)),
    "periodic torsions": PeriodicTorsions(TORSIONS, [1, 2, 3, 4, 2], RANDOM.uniform(1, 9, 5), np.zeros(5) + 0.3),
    "Ryckaert-Bellemans torsions": RyckaertBellemansTorsions(TORSIONS, RANDOM.normal(size=(5, 6))),
    "harmonic torsions": HarmonicTorsions(TORSIONS, RANDOM.uniform(-1, 1, 5), np.full(5, 30.0)),
    "torsion maps": TorsionMaps(TORSIONS[:1], TORSIONS[1:2], [0], RANDOM.normal(size=(1, 24, 24))),
    "nonbonded": nonbonded(Combined(SIGMA, np.full(ATOMS, 0.4))),
    "nonbonded, geometric": nonbonded(Geometric(SIGMA**6, SIGMA**3)),
    "nonbonded, tabulated": nonbonded(Tabulated(np.arange(ATOMS) % 2, np.full((2, 2), 1e-9), np.full((2, 2), 1e-4))),
    "HCT": born(),
    "OBC with surface and salt": born(rescaling=OBC, tension=28.4, kappa=0.7, inside=True),
    "GBn": born(rescaling=OBC, neck=NECK),
    "sum": Sum({"bonds": BOND, "born": born(rescaling=OBC)}),
    "biased": Biased(BOND, Torsion(0, 1, 2, 3), Harmonic([0.5], 20.0, [2 * np.pi])),
}
SURFACES = {"double well": DoubleWell(tilt=0.5), "Mueller-Brown": MuellerBrown(scale=0.1)}
SWITCHES = {
    "rational": Rational(0.3),
    "rational, with its own exponents": Rational(0.3, 0.05, 4, 9),
    "exponential": Exponential(0.3, dmax=1.5),
    "gaussian": Gaussian(0.3),
    "smap": Smap(0.3, a=3, b=2),
    "tanh": Tanh(0.3),
    "cosinus": Cosinus(0.8),
    "cubic": Cubic(0.1, 1.5),
}
PHI, PSI = Torsion(0, 1, 2, 3), Torsion(3, 4, 5, 6)
CVS = {
    "distance": Distance(0, 5),
    "distance of centers": Distance(Center((0, 1, 2), (12.0, 1.0, 1.0)), Center((5, 6))),
    "angle": Angle(0, 2, 5),
    "angle of four": Angle(0, 2, 5, 7),
    "torsion": PHI,
    "torsion of six": Torsion(0, 1, 2, 3, 6, 7),
    "radius of gyration": RadiusOfGyration(range(ATOMS)),
    "RMSD": RMSD(range(ATOMS), CHAIN, align=np.arange(1, 9), displace=np.arange(8, 0, -1)),
    **{f"coordination, {name}": Coordination([0, 1, 2], [4, 5, 6], switching=f) for name, f in SWITCHES.items()},
    "arithmetic": (PHI - 2 * PSI) ** 2 / Distance(0, 5),
    "function": Function(jnp.sin, PHI),
    "stack": Stack(PHI, PSI, Distance(1, 6)),
    "plain function": lambda frame: jnp.sum((frame.positions[0] - frame.positions[4]) ** 2)[None],
}
POSITIONS = {"position": Position(3), "position of a center": Position(Center((1, 2, 6)))}

GRID = WellTempered([Axis(-np.pi, np.pi, 40, True)] * 2, height=1.2, widths=[0.35, 0.35], bias_factor=8.0)
S = np.array([[0.4, -1.0], [0.9, -0.8], [-2.9, 3.0]])
BIASES = {
    "harmonic": Harmonic([0.5, -1.5], [20.0, 30.0], [2 * np.pi, None]),
    "moving": MovingHarmonic([0, 10], [[0.0, 0.0], [1.0, 1.0]], [10.0, 20.0], stride=3),
    "upper wall": UpperWall([0.2, -1.5], 50.0, exponent=4, offset=0.1, eps=0.5),
    "lower wall": LowerWall([0.8, -0.5], 50.0),
    "well-tempered, grid": GRID,
    "well-tempered, hills": Hills(9, height=1.2, widths=[0.35, 0.35], bias_factor=8.0, periods=[2 * np.pi] * 2),
    "sum and select": BiasSum(GRID, Select(UpperWall([-1.5], 10.0), [1])),
}

MASSES = RANDOM.uniform(1, 16, ATOMS)
TOPOLOGY = Topology(*[("X",) * ATOMS] * 4)
LENGTHS = np.linalg.norm(np.diff(FRAME.positions, axis=0), axis=1)
HELD = System(np.ones(ATOMS), MASSES, CHARGES, TOPOLOGY, BONDS[[0, 2, 3]], LENGTHS[[0, 2, 3]])
CLUSTER = System(np.ones(ATOMS), MASSES, CHARGES, TOPOLOGY, BONDS, LENGTHS)
FEW = Constraints.from_system(HELD)
MANY = Constraints.from_system(CLUSTER, positions=FRAME.positions)
MD = dict(potential=POTENTIALS["bonds"], masses=MASSES, dt=0.001, kT=2.5)
SAMPLERS = {
    "Langevin": Langevin(**MD, friction=1.0),
    "Langevin, large cluster": Langevin(**MD, friction=1.0, constraint=MANY),
    "BAOAB": BAOAB(**MD, friction=1.0),
    "BAOAB, constrained": BAOAB(**MD, friction=1.0, constraint=FEW),
    "Overdamped": Overdamped(**MD, friction=100.0),
    "CSVR": CSVR(**MD, time=0.1, degrees_of_freedom=3 * ATOMS - 3),
}
DETERMINISTIC = {
    "velocity Verlet": VelocityVerlet(**MD),
    "Nose-Hoover": NoseHoover(**MD, time=0.1, degrees_of_freedom=3 * ATOMS - 3),
}
ENSEMBLES = {
    "replicas": Replicas(SAMPLERS["Langevin"], 4, lanes=2),
    "walkers": Walkers(SAMPLERS["Langevin"], Stack(PHI, PSI), GRID, stride=2, size=4, lanes=2),
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_potential(name):
    check_potential(POTENTIALS[name], FRAME)


@pytest.mark.parametrize("name", SURFACES)
def test_surface(name):
    check_potential(SURFACES[name], ONE, symmetries=())


@pytest.mark.parametrize("name", CVS)
def test_cv(name):
    check_cv(CVS[name], FRAME)


@pytest.mark.parametrize(
    "name", ["distance of centers", "angle", "torsion", "radius of gyration", "coordination, rational"]
)
def test_cv_in_a_box(name):
    check_cv(CVS[name], PERIODIC)


@pytest.mark.parametrize("name", POSITIONS)
def test_position(name):
    check_cv(POSITIONS[name], FRAME, symmetries=())


def test_displacement():
    check_cv(Displacement(0, 5), FRAME, symmetries=["translation"])


def test_equal_atoms_may_be_exchanged():
    check_cv(RadiusOfGyration(range(ATOMS)), FRAME, exchangeable=[(0, 5), (2, 3)])
    check_cv(Coordination([0, 1, 2], [4, 5, 6], switching=Rational(0.3)), FRAME, exchangeable=[(0, 1), (4, 6)])


@pytest.mark.parametrize("name", BIASES)
def test_bias(name):
    check_bias(BIASES[name], S)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler(name):
    check_sampler(SAMPLERS[name], FRAME)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_sampler(name):
    check_sampler(DETERMINISTIC[name], FRAME, random=False)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble(name):
    check_sampler(ENSEMBLES[name], FRAME, lifts=False)
