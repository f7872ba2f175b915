"""The ensembles of thermostats and barostats: exact laws of volume and shape, and the ratio tests of Shirts (2013)."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metastable.core.frame import Frame
from metastable.core.random import spread
from metastable.core.replicas import replicate
from metastable.core.space import nearest_components, volume
from metastable.core.system import System, Topology
from metastable.dynamics.barostats import CRescale, MonteCarloBarostat
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.couplings import COUPLINGS
from metastable.dynamics.integrators import BAOAB, Langevin
from metastable.dynamics.rest import AtRest
from metastable.dynamics.state import kinetic_energy
from metastable.dynamics.thermostats import CSVR, NoseHoover
from metastable.estimate.correlation import mean
from metastable.loops.run import run
from metastable.testing.ensembles import check_ratio

pytestmark = pytest.mark.physics

KT = 2.5

# ---- an ideal gas in a box whose shape is held by springs: all laws are known

GAS, PRESSURE, SPRING = 8, 1.0, 50 * KT


def shape(box):
    """ln(ax / cz), ln(by / cz) and the tilts in units of the vectors before them."""
    a, b, c = box
    return jnp.stack([jnp.log(a[0] / c[2]), jnp.log(b[1] / c[2]), b[0] / a[0], c[0] / a[0], c[1] / b[1]])


def springs(frame):
    return SPRING / 2 * jnp.sum(shape(frame.box) ** 2) + 0.0 * jnp.sum(frame.positions)


def gas(thermostat):
    if thermostat == "Langevin":
        return Langevin(springs, np.ones(GAS), 0.01, KT, 5.0)
    if thermostat == "at rest":
        return AtRest(Langevin(springs, np.ones(GAS), 0.01, KT, 5.0))
    return CSVR(springs, np.ones(GAS), 0.01, KT, 0.1, 3 * GAS - 3)


CASES = [
    *(("C-rescale", coupling, "Langevin", GAS + 1) for coupling in COUPLINGS),
    ("C-rescale", "isotropic", "CSVR", GAS),
    ("C-rescale", "isotropic", "at rest", GAS),
    *(("Monte Carlo", coupling, "Langevin", GAS + 1) for coupling in COUPLINGS),
    ("Monte Carlo", "isotropic", "CSVR", GAS + 1),
]


@pytest.mark.parametrize("barostat, coupling, thermostat, order", CASES)
def test_volume_and_shape_of_an_ideal_gas(barostat, coupling, thermostat, order):
    """p V / kT is Gamma(N + 1) whatever the shape does, or Gamma(N); each ratio and tilt normal of variance kT / k.

    The mean of ln(ax / cz) in a triclinic box is 2 kT / k: the measure ax^2 / cz^2 of boxes that are free to turn.
    """
    wrap = {
        "C-rescale": lambda md: CRescale(md, PRESSURE, 1.0, 1 / PRESSURE, every=1, coupling=coupling),
        "Monte Carlo": lambda md: MonteCarloBarostat(md, PRESSURE, every=1, coupling=coupling, size=0.3, tuning=100),
    }[barostat]
    sampler, side = wrap(gas(thermostat)), (GAS * KT / PRESSURE) ** (1 / 3)
    start = Frame(jnp.asarray(np.random.default_rng(0).uniform(0, side, (GAS, 3))), side * jnp.eye(3))

    def path(key):
        state, _ = run(key, sampler, sampler.init(key, start), 2000)
        return volume(state.frame.box), shape(state.frame.box)

    volumes, shapes = map(np.asarray, jax.jit(replicate(path))(spread(jax.random.key(0), 2048)))
    assert stats.kstest(volumes * PRESSURE / KT, stats.gamma(order).cdf).pvalue > 1e-3
    wrong = 2 * GAS + 1 - order
    assert stats.kstest(volumes * PRESSURE / KT, stats.gamma(wrong).cdf).pvalue < 1e-6  # the test could tell
    free = {"isotropic": 0, "semi-isotropic": 1, "anisotropic": 2, "triclinic": 5}[coupling]
    springs = 2 if coupling == "semi-isotropic" else 1  # both logarithms are the same there
    for k in range(free):
        centre = 2 * KT / SPRING if coupling == "triclinic" and k == 0 else 0
        assert stats.kstest(shapes[k], stats.norm(centre, np.sqrt(KT / SPRING / springs)).cdf).pvalue > 1e-3, k
    assert np.allclose(shapes[max(free, springs) :], 0, atol=1e-4)
    assert springs == 1 or np.allclose(shapes[0], shapes[1], atol=1e-4)


# ---- rigid dimers of soft spheres: a fluid of molecules with constraints

DIMERS, SIGMA, BOND, MASS, DT = 16, 0.3, 0.2, 20.0, 0.004
LABEL = np.repeat(np.arange(DIMERS), 2)
MASSES = np.tile([MASS, MASS / 2], DIMERS)
OTHER = LABEL[:, None] != LABEL[None, :]


def repulsion(frame):
    """4 epsilon ((sigma / r)^12 - (sigma / r)^6) + epsilon up to its minimum, 1 kJ/mol, between dimers."""
    x = frame.positions
    x, y, z = nearest_components(*(x[:, k][:, None] - x[:, k][None, :] for k in range(3)), frame.box)
    r2 = jnp.where(OTHER, x * x + y * y + z * z, 1.0)
    s6 = (SIGMA**2 / r2) ** 3
    return 0.5 * jnp.sum(jnp.where(OTHER & (s6 > 0.5), 4 * (s6 * s6 - s6) + 1, 0.0))


def dimers(side):
    """On a lattice."""
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(2), np.arange(2), indexing="ij"), -1).reshape(-1, 3)
    first = grid * side / np.array([4, 2, 2])
    positions = np.stack([first, first + np.array([0, BOND, 0])], 1).reshape(-1, 3)
    return Frame(jnp.asarray(positions, jnp.float32), side * jnp.eye(3, dtype=jnp.float32))


NAMES = ("X",) * 2 * DIMERS
HELD = Constraints.from_system(
    System(
        np.ones(2 * DIMERS),
        MASSES,
        np.zeros(2 * DIMERS),
        Topology(*[NAMES] * 4),
        np.arange(2 * DIMERS).reshape(-1, 2),
        np.full(DIMERS, BOND),
    )
)
FREEDOM = 5 * DIMERS - 3
THERMOSTATS = {
    "Langevin": lambda kT: Langevin(repulsion, MASSES, DT, kT, 2.0, HELD),
    "BAOAB": lambda kT: BAOAB(repulsion, MASSES, DT, kT, 2.0, HELD),
    "CSVR": lambda kT: CSVR(repulsion, MASSES, DT, kT, 0.2, FREEDOM, HELD),
    "Nose-Hoover": lambda kT: NoseHoover(repulsion, MASSES, DT, kT, 0.2, FREEDOM, HELD),
}
BAROSTATS = {
    "C-rescale": lambda md, p: CRescale(md, p, 0.4, 0.007, LABEL, every=1),
    "Monte Carlo": lambda md, p: MonteCarloBarostat(md, p, LABEL, every=2, size=0.1, tuning=200),
}


def sample(make, points, replicas, side, steps, every, observe):
    """Records of many replicas at several points, all in one program: each (points, time, replicas)."""

    def path(key, *point):
        sampler = make(*point)
        state, _ = run(key, sampler, sampler.init(key, dimers(side)), 800)
        return run(jax.random.fold_in(key, 1), sampler, state, steps, every=every, observe=observe)[1]

    values = jnp.repeat(jnp.asarray(points, jnp.float32), replicas, 0).T
    records = jax.jit(replicate(path))(spread(jax.random.key(7), len(points) * replicas), *values)
    return [np.asarray(x, float).reshape(len(x), len(points), replicas).swapaxes(0, 1) for x in records]


@cache
def at_pressures(barostat, thermostat):
    """Volumes and potential energies at two pressures, and at two temperatures."""
    points = [(KT, 50.0), (KT, 90.0), (2.1, 70.0), (3.3, 70.0)]

    def make(kT, p):
        return BAROSTATS[barostat](THERMOSTATS[thermostat](kT), p)

    return sample(make, points, 48, 1.44, 3000, 10, lambda s: (volume(s.frame.box), repulsion(s.frame)))


@cache
def at_volume(thermostat):
    """Kinetic and potential energies at two temperatures."""
    energies = lambda s: (kinetic_energy(s.momenta, MASSES), repulsion(s.frame))  # noqa: E731
    return sample(THERMOSTATS[thermostat], [(2.0,), (3.0,)], 64, 1.2, 4000, 20, energies)


DEVIATIONS = []
PAIRS = [(barostat, thermostat) for barostat in BAROSTATS for thermostat in ("Langevin", "CSVR")]


@pytest.mark.parametrize("barostat, thermostat", PAIRS)
def test_ratio_of_volumes_and_enthalpies(barostat, thermostat):
    volumes, energies = at_pressures(barostat, thermostat)
    DEVIATIONS.append(check_ratio(volumes[0], volumes[1], (50 - 90) / KT))
    cold, hot = (energies[k] + 70 * volumes[k] for k in (2, 3))
    DEVIATIONS.append(check_ratio(cold, hot, 1 / 2.1 - 1 / 3.3))


@pytest.mark.parametrize("thermostat", THERMOSTATS)
def test_ratio_of_energies(thermostat):
    kinetic, energies = at_volume(thermostat)
    for x in (kinetic, energies, kinetic + energies):
        DEVIATIONS.append(check_ratio(x[0], x[1], 1 / 2 - 1 / 3, sensitivity=0.15))


def test_ratios_together():
    """The deviations of all of the above are those of chance."""
    if len(DEVIATIONS) < 2 * len(PAIRS) + 3 * len(THERMOSTATS):
        pytest.skip("the tests before this one did not all run")
    print("\n" + " ".join(f"{z:+.1f}" for z in DEVIATIONS))
    assert stats.chi2(len(DEVIATIONS)).sf(np.sum(np.square(DEVIATIONS))) > 1e-3


@pytest.mark.parametrize("thermostat", ["Langevin", "CSVR"])
def test_barostats_agree(thermostat):
    """In the mean volume, and where the total momentum is free: at rest C-rescale has one molecule fewer to push."""
    for point in range(4):
        first, second = (
            mean(at_pressures(barostat, thermostat)[0][point]) for barostat in ("C-rescale", "Monte Carlo")
        )
        error = np.hypot(first.error, second.error)
        assert error < 0.01 * second.value
        missing = 0.0 if thermostat == "Langevin" else -_compressibility(thermostat, point) * second.value
        assert abs(first.value - second.value - missing) < 3.5 * error, (first, second, missing)


def _compressibility(thermostat, point):
    """What a kT / V less of pressure takes from ln V: var(V) / V^2, by the fluctuations of the Monte Carlo barostat."""
    volumes = at_pressures("Monte Carlo", thermostat)[0][point]
    return np.var(volumes) / np.mean(volumes) ** 2
