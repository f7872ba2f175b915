"""The recipes on one atom in wells whose free energies are integrals, and runaways whose moment is known."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.core.errors import RunawayError
from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.core.units import kelvin
from metastable.cvs import Component, Function
from metastable.dynamics.integrators import VelocityVerlet
from metastable.dynamics.replicas import Replicas
from metastable.dynamics.state import temperature
from metastable.enhanced.biases import Harmonic, MovingHarmonic, Sum, UpperWall
from metastable.enhanced.metadynamics import WellTempered
from metastable.enhanced.opes import OPES
from metastable.enhanced.walkers import Walkers
from metastable.io.molecules import Molecule
from metastable.loops.run import Block, run
from metastable.potentials.sum import Sum as Terms
from metastable.recipes.dynamics import dynamics
from metastable.recipes.metadynamics import conclude, metadynamics
from metastable.recipes.opes import opes
from metastable.recipes.plan import INTEGRATORS, Plan
from metastable.recipes.recording import degrees_of_freedom, learning_of, recentered, sampler_of, walkers_of
from metastable.recipes.runaway import health, inspection
from metastable.report.sinks import read_arrays

KT = 300 * kelvin
X = Function(lambda frame: frame.positions[0, 0], components=Component("x", "nm"))
PLAN = Plan(KT, dt=0.004, friction=2.0, walkers=16, blocks=40, steps=1000, every=25, pace=50, frames=20,
            bins=(50,), ranges=((-0.5, 0.5),), minimize=False)  # fmt: skip


def molecule(*terms, x=0.0):
    """One argon atom, somewhere on the x axis, and terms of its energy."""
    system = System(np.array([18]), np.array([40.0]), np.zeros(1), Topology(("AR",), ("AR",), ("1",), ("A",)))
    named = {getattr(t, "__name__", str(i)): t for i, t in enumerate(terms)}
    return Molecule(system, Frame(np.array([[x, 0.0, 0.0]])), Terms(named))


def double_well(frame):
    x, y, z = frame.positions[0]
    return 3000 * (x**2 - 0.09) ** 2 + 10 * x + 200 * (y**2 + z**2)


def tube(frame):
    return 200 * jnp.sum(frame.positions[0, 1:] ** 2)


def harmonic(frame):
    return 60 * jnp.sum(frame.positions[0] ** 2)


@pytest.mark.physics
def test_metadynamics_finds_the_free_energy_of_a_double_well(tmp_path):
    bias = WellTempered([Axis(-0.5, 0.5, 100)], height=0.3, widths=[0.04], bias_factor=8)
    found = metadynamics(PLAN, molecule(double_well, x=-0.3), X, bias, tmp_path)
    x = np.linspace(-0.5, 0.5, 20_001)
    p = np.exp(-(3000 * (x**2 - 0.09) ** 2 + 10 * x) / KT)
    top = x[np.argmin(np.where(np.abs(x) < 0.2, p, np.inf))]
    exact = -KT * np.log(p[x > top].sum() / p[x < top].sum())
    assert len(found.basins) == 2
    estimate = found.basins.free_energy[1]
    assert abs(estimate.value - exact) < 4 * estimate.error + 0.1 and estimate.error < 1.0
    barrier = found.basins.barrier[0, 1]
    height = KT * np.log(p.max() / p[np.argmin(np.abs(x - top))])
    assert abs(barrier.value - height) < 4 * barrier.error + 0.8
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["estimates"][0]["value"] == pytest.approx(float(estimate.value), rel=1e-5)
    assert conclude(PLAN, molecule(double_well), X, tmp_path).basins.free_energy[1].value == estimate.value


@pytest.mark.physics
@pytest.mark.parametrize("explore", [False, True])
def test_opes_finds_the_free_energy_of_a_double_well(tmp_path, explore):
    bias = OPES([0.04], barrier=30.0, kT=KT, axes=[Axis(-0.5, 0.5, 150)], explore=explore)
    found = opes(PLAN, molecule(double_well, x=-0.3), X, bias, tmp_path)
    x = np.linspace(-0.5, 0.5, 20_001)
    p = np.exp(-(3000 * (x**2 - 0.09) ** 2 + 10 * x) / KT)
    exact = -KT * np.log(p[x > 0.01].sum() / p[x < 0.01].sum())
    assert len(found.basins) == 2
    estimate = found.basins.free_energy[1]
    assert abs(estimate.value - exact) < 4 * estimate.error + 0.1 and estimate.error < 1.0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["recipe"] == "opes" and "OPES" in str(results["cite"])
    arrays = read_arrays(tmp_path / "arrays.h5")
    assert arrays["kernels"].max() < 60 and arrays["effective_size"][-1] > arrays["effective_size"][5]
    page = (tmp_path / "report.html").read_text()
    assert "Effective samples in the kernels" in page and "Offset of the bias" in page


@pytest.mark.physics
def test_dynamics_undoes_its_restraints(tmp_path):
    """A harmonic well under a restraint and a wall: reweighted, its free energy is that of the bare well."""
    bias = Sum(Harmonic([0.15], 120.0), UpperWall([0.3], 500.0))
    found = dynamics(PLAN, molecule(harmonic), X, bias, tmp_path)
    f, error = found.free_energy.value, found.free_energy.error
    x = found.axes[0].centers
    use = (error < 0.5) & (np.abs(x) < 0.3)
    assert use.sum() > 12
    off = f - 60 * x**2
    off -= np.average(off[use], weights=error[use] ** -2)
    assert np.mean((off[use] / error[use]) ** 2) < 3  # neighbouring cells are correlated


def test_a_moving_restraint_gives_no_landscape_and_drags(tmp_path):
    plan = Plan(KT, walkers=2, blocks=2, steps=500, every=25, pace=25, bins=(10,), minimize=False)
    bias = MovingHarmonic([0, 1000], [0.0, 1.0], [20000.0, 20000.0], stride=25)
    assert dynamics(plan, molecule(tube), X, bias, tmp_path) is None
    results = json.loads((tmp_path / "results.json").read_text())
    assert "landscape" not in results and results["recipe"] == "dynamics"
    last = np.array(results["frames"]["cvs"])[-1, 0]
    assert last == pytest.approx(1.0, abs=0.1) and (tmp_path / "report.html").exists()


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_walkers_are_put_back_to_the_origin_and_nothing_else_changes(integrator):
    plan = Plan(KT, dt=0.002, walkers=4, integrator=integrator)
    two = System(np.array([18, 18]), np.full(2, 40.0), np.zeros(2), Topology(*(("AR", "AR"),) * 4))
    tie = Terms({"tie": lambda frame: jnp.sum((frame.positions[0] - frame.positions[1]) ** 2)})
    whole = Molecule(two, Frame(np.array([[90.0, 0, 0], [90.4, 0, 0]])), tie)
    cv = Function(lambda f: f.positions[1, 0] - f.positions[0, 0], components=Component("d", "nm"))
    walkers = walkers_of(plan, whole, cv, Sum())
    before = walkers.init(jax.random.key(0), Frame(jnp.asarray(whole.frame.positions, float)))
    after = recentered(before)
    positions = walkers.observe(lambda one, bias: one.frame.positions)(after)
    assert np.allclose(positions, [[-0.2, 0, 0], [0.2, 0, 0]], atol=1e-5)
    back = eqx.tree_at(lambda s: s.walkers.frame.positions, after, before.walkers.frame.positions)
    assert eqx.tree_equal(back, before)


def test_the_hills_of_a_bias_are_found_in_a_sum():
    bias = WellTempered([Axis(-1, 1, 50)], height=1, widths=[0.1], bias_factor=5)
    assert learning_of(Sum(Harmonic([0.0], 1.0), bias)) is bias and learning_of(Sum(Harmonic([0.0], 1.0))) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"walkers": 0}, "walkers = 0"),
        ({"every": 33}, "divide steps"),
        ({"dt": 0.0}, "above 0"),
        ({"discard": 1.0}, "1.0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Plan(KT, **values)


@pytest.mark.parametrize("integrator", [i for i in INTEGRATORS if i != "verlet"])
def test_every_integrator_of_a_plan_holds_the_temperature(integrator):
    """Four atoms on springs; the temperature of 64 replicas, within four standard errors of their own spread."""
    four = molecule(lambda frame: 500 * jnp.sum(jnp.diff(frame.positions, axis=0) ** 2))
    names = [4 * field for field in (("AR",), ("AR",), ("1",), ("A",))]
    system = System(np.full(4, 18), np.full(4, 40.0), np.zeros(4), Topology(*names))
    four = four._replace(system=system, frame=Frame(0.1 * np.arange(12.0).reshape(4, 3)))
    plan = Plan(KT, dt=0.004, friction=5.0, integrator=integrator)
    many = Replicas(sampler_of(plan, four), 64)
    free = degrees_of_freedom(plan, four)
    state = many.init(jax.random.key(0), Frame(jnp.asarray(four.frame.positions, jnp.float32)))
    observe = many.observe(lambda one: temperature(one.momenta, system.masses, free))
    _, found = run(jax.random.key(1), many, state, 6000, every=20, observe=observe)
    means = np.mean(found[100:], axis=0, dtype=float)
    assert abs(means.mean() - KT) < 4 * means.std() / 8 + 0.003 * KT  # and the error of the time step


def test_overdamped_dynamics_refuses_constraints():
    bound = molecule(harmonic)
    system = System(np.array([18, 18]), np.full(2, 40.0), np.zeros(2), Topology(*[2 * ("A",)] * 4),
                    np.array([[0, 1]]), np.array([0.1]))  # fmt: skip
    with pytest.raises(ValueError, match="'overdamped' keeps no constraints"):
        sampler_of(Plan(KT, integrator="overdamped"), bound._replace(system=system))


def cliff(frame):
    """Nothing up to x = 1 nm, and no number beyond."""
    return jnp.where(frame.positions[0, 0] > 1, jnp.nan, 1.0)


def spring(frame):
    return 1e-6 * jnp.sum(frame.positions**2) - 7.0


@pytest.mark.parametrize("every", [10, 50])
def test_a_runaway_is_named_by_replica_step_and_term(every):
    """Three free atoms fly at known speeds: the quickest is the first over the cliff."""
    plan = Plan(KT, dt=0.002, walkers=3, steps=100, blocks=4, every=every, pace=10)
    whole = molecule(cliff, spring)
    verlet = VelocityVerlet(whole.potential, whole.system.masses, plan.dt, kT=KT)
    walkers = Walkers(verlet, X, Sum(), plan.pace, 3)
    start = walkers.init(jax.random.key(0), Frame(jnp.array([[0.8, 0.0, 0.0]])))
    speeds = jnp.array([0.30, 0.62, 0.60])
    momenta = jnp.zeros_like(start.walkers.momenta).at[0, 0, 0].set(40.0 * speeds)
    start = eqx.tree_at(lambda state: state.walkers.momenta, start, momenta)
    key = jax.random.key(5)

    def observe(state):
        return walkers.observe(lambda one, bias: {"potential": whole.potential(one.frame)})(state) | {
            "temperature": health(whole, walkers)(state)
        }

    inspect = inspection(key, plan, whole, walkers)
    state = start
    with pytest.raises(RunawayError) as error:
        for index in range(4):
            after, records = run(jax.random.fold_in(key, index), walkers, state, 100, every=every, observe=observe)
            inspect(state, Block(index, after, jax.tree.map(np.asarray, records)))
            state = after
    assert error.value.replica == 1 and error.value.term == "cliff"
    assert error.value.step == 162 and np.isnan(error.value.energy)  # 0.2 nm in steps of 0.62 nm/ps 0.002 ps
