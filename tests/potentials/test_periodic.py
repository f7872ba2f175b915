"""Lennard-Jones and Coulomb in a box against OpenMM's Reference platform, and derivatives against differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openmm as mm
import pytest

from metastable.core.frame import Frame
from metastable.core.pairs import allocate
from metastable.core.replicas import last, replicate
from metastable.dynamics.state import force
from metastable.potentials.analytic import Index
from metastable.potentials.nonbonded import Combined, Exceptions, Geometric, Tabulated, Uniform
from metastable.potentials.periodic import MeshEwald, Periodic, PlainEwald, ReactionField

CUTOFF, ATOMS = 0.9, 240
pull, value = eqx.filter_jit(force), eqx.filter_jit(lambda potential, frame: potential(frame))
CUBE = np.diag([2.1, 2.3, 2.5])
TRICLINIC = np.array([[2.2, 0, 0], [0.7, 2.1, 0], [-0.8, 0.9, 2.3]])
METHODS = {
    "pme": mm.NonbondedForce.PME,
    "ewald": mm.NonbondedForce.Ewald,
    "reaction field": mm.NonbondedForce.CutoffPeriodic,
    "none": mm.NonbondedForce.CutoffPeriodic,
}


def system_of(box, seed=0):
    """Diatomic molecules on a lattice, 1-4 exceptions between some of the next: positions, atoms, exceptions."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)[: ATOMS // 2] / 5
    centres = grid @ box + rng.normal(0, 0.02, (ATOMS // 2, 3))
    centres += rng.integers(-2, 3, (ATOMS // 2, 3)) @ box  # many boxes outside
    way = rng.normal(0, 1, (ATOMS // 2, 3))
    way *= 0.05 / np.linalg.norm(way, axis=1)[:, None]
    x = np.stack([centres - way, centres + way], 1).reshape(-1, 3)
    kind = np.arange(ATOMS) % 2
    charge = rng.choice([-0.5, 0.4], ATOMS // 2)
    atoms = np.column_stack([
        np.stack([charge, -charge + 0.01], 1).ravel(), np.array([0.25, 0.15])[kind], np.array([0.6, 0.2])[kind]
    ])  # fmt: skip
    excluded = [(2 * i, 2 * i + 1, 0.0, 1.0, 0.0) for i in range(ATOMS // 2)]
    special = [(4 * i, 4 * i + 2, 0.8 * atoms[4 * i, 0] * atoms[4 * i + 2, 0], 0.22, 0.3) for i in range(0, 60, 3)]
    return x, atoms, np.array(excluded + special)


def reference(x, box, atoms, rows, method, switch=None, tail=False):
    """OpenMM's energy, forces, and the parameters of its Ewald sum."""
    system, f = mm.System(), mm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*box)
    for q, s, e in atoms:
        system.addParticle(1.0)
        f.addParticle(q, s, e)
    for i, j, q, s, e in rows:
        f.addException(int(i), int(j), q, s, e)
    f.setNonbondedMethod(METHODS[method])
    f.setCutoffDistance(CUTOFF)
    f.setEwaldErrorTolerance(1e-4)
    f.setUseDispersionCorrection(tail)
    f.setExceptionsUsePeriodicBoundaryConditions(True)
    if switch:
        f.setUseSwitchingFunction(True)
        f.setSwitchingDistance(switch)
    system.addForce(f)
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(x)
    state = context.getState(getEnergy=True, getForces=True)
    alpha, *grid = f.getPMEParametersInContext(context) if method == "pme" else (0.0, 0, 0, 0)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value), alpha, tuple(grid)


def potential_of(atoms, rows, coulomb, form=None, **options):
    form = form or Combined(atoms[:, 1].copy(), atoms[:, 2].copy())
    special = Exceptions(Index(rows[:, :2].astype(int), 2), *(rows[:, k].copy() for k in (2, 3, 4)))
    return Periodic(atoms[:, 0].copy(), form, special, coulomb, CUTOFF, **options)


def rms(a, b):
    return np.sqrt(np.mean((np.asarray(a) - b) ** 2) / np.mean(np.asarray(b) ** 2))


CASES = [
    ("pme", CUBE, {}),
    ("pme", TRICLINIC, {"switch": 0.7, "tail": True}),
    ("reaction field", CUBE, {"switch": 0.75}),
    ("reaction field", TRICLINIC, {"tail": True}),
    ("none", CUBE, {"tail": True, "switch": 0.7}),
    ("none", TRICLINIC, {}),
]


def prepared(method, box, options, dtype=np.float64):
    x, atoms, rows = system_of(box)
    if method == "none":
        atoms[:, 0], rows[:, 2] = 0, 0
    energy, forces, alpha, grid = reference(x, box, atoms, rows, method, **options)
    coulomb = {"pme": lambda: MeshEwald(alpha, grid), "reaction field": ReactionField, "none": lambda: None}[method]()
    potential = potential_of(atoms, rows, coulomb, **options)
    frame = Frame(jnp.array(x, dtype), jnp.array(box, dtype))
    return potential, frame, energy, forces


@pytest.mark.parametrize(("method", "box", "options"), CASES)
def test_against_openmm(x64, method, box, options):
    potential, frame, energy, forces = prepared(method, box, options)
    listed = Frame(frame.positions, frame.box, potential.pairs(frame))
    evaluate = jax.jit(lambda f: (potential(f), force(potential, f)))
    for one in (frame, listed):
        found, pull = evaluate(one)
        assert np.isclose(found, energy, rtol=1e-10, atol=1e-8)
        assert rms(pull, forces) < 1e-9


@pytest.mark.parametrize(("method", "box", "options"), [CASES[1], CASES[2], CASES[4]])
def test_single_precision(method, box, options):
    potential, frame, energy, forces = prepared(method, box, options, np.float32)
    listed = Frame(frame.positions, frame.box, potential.pairs(frame))
    found, pull = jax.jit(lambda f: (potential(f), force(potential, f)))(listed)
    assert found.dtype == pull.dtype == np.float32
    assert abs(found - energy) < 1e-5 * ATOMS * 10
    assert rms(pull, forces) < 1e-5


def test_ewald_against_openmm(x64):
    """The plain sum, within OpenMM's tolerance; the mesh, and other widths, against it converged.

    Energies are differences of terms of 12,000 kJ/mol, self-energies of the charges.
    """
    x, atoms, rows = system_of(CUBE)
    energy, forces, *_ = reference(x, CUBE, atoms, rows, "ewald")
    alpha = np.sqrt(-np.log(2e-4)) / CUTOFF
    frame = Frame(jnp.array(x), jnp.array(CUBE))
    exact = potential_of(atoms, rows, PlainEwald(alpha, (10, 10, 10)))
    assert np.isclose(value(exact, frame), energy, atol=0.1) and rms(pull(exact, frame), forces) < 1e-3
    mesh = potential_of(atoms, rows, MeshEwald(alpha, (48, 48, 48)))
    assert np.isclose(value(mesh, frame), value(exact, frame), atol=5e-3)
    assert rms(pull(mesh, frame), pull(exact, frame)) < 1e-5
    wider = potential_of(atoms, rows, PlainEwald(1.2 * alpha, (12, 12, 12)))
    sharper = potential_of(atoms, rows, PlainEwald(1.35 * alpha, (13, 13, 13)))
    assert np.isclose(value(wider, frame), value(sharper, frame), atol=5e-3)


@pytest.mark.parametrize("box", [CUBE, TRICLINIC])
def test_forms_agree(x64, box):
    """The same coefficients by each rule of combination: a table, products, one kind."""
    x, atoms, rows = system_of(box)
    kinds = np.arange(ATOMS) % 2
    frame = Frame(jnp.array(x), jnp.array(box))
    combined = potential_of(atoms, rows, None, tail=True, switch=0.7)
    first = np.array([0, 1])
    table = Combined(atoms[first, 1], atoms[first, 2]).coefficients()
    found = potential_of(atoms, rows, None, Tabulated(kinds, *table), tail=True, switch=0.7)
    assert np.isclose(found(frame), combined(frame), rtol=1e-12)
    assert np.allclose(pull(found, frame), pull(combined, frame), rtol=1e-9, atol=1e-9)
    atoms[:, 1:] = 0.2, 0.5
    combined = potential_of(atoms, rows, None, tail=True)
    a, b = 4 * 0.5 * 0.2**12, 4 * 0.5 * 0.2**6
    products = Geometric(np.full(ATOMS, np.sqrt(a)), np.full(ATOMS, np.sqrt(b)))
    for form in (products, Uniform(0.2, 0.5)):
        found = potential_of(atoms, rows, None, form, tail=True)
        assert np.isclose(found(frame), combined(frame), rtol=1e-12)
        assert np.allclose(pull(found, frame), pull(combined, frame), rtol=1e-9, atol=1e-9)


def test_shift(x64):
    """Each pair within the cutoff loses the value there, and no force changes."""
    x, atoms, rows = system_of(CUBE)
    frame = Frame(jnp.array(x), jnp.array(CUBE))
    plain, shifted = (potential_of(atoms, rows[:0], None, shift=s) for s in (False, True))
    i, j = np.triu_indices(ATOMS, 1)
    d = x[i] - x[j]
    d -= np.round(d / np.diagonal(CUBE)) * np.diagonal(CUBE)
    near = np.linalg.norm(d, axis=1) < CUTOFF
    s6 = ((atoms[i, 1] + atoms[j, 1]) / 2 / CUTOFF) ** 6
    lost = np.sum((4 * np.sqrt(atoms[i, 2] * atoms[j, 2]) * (s6**2 - s6))[near])
    assert np.isclose(plain(frame) - shifted(frame), lost, rtol=1e-6) and abs(lost) > 1
    assert np.allclose(pull(plain, frame), pull(shifted, frame), rtol=1e-12)


@pytest.mark.parametrize("method", ["pme", "reaction field"])
def test_derivatives_in_parameters_and_box(x64, method):
    potential, frame, *_ = prepared(method, TRICLINIC, {"switch": 0.7, "tail": True})
    frame = Frame(frame.positions, frame.box, potential.pairs(frame))
    places = {
        "charge": (lambda p: p.charges, 5),
        "sigma": (lambda p: p.lennard_jones.sigma, 7),
        "epsilon": (lambda p: p.lennard_jones.epsilon, 8),
        "1-4": (lambda p: p.exceptions.charges, ATOMS // 2 + 3),
    }
    for name, (where, k) in places.items():

        def of(value):
            changed = jnp.asarray(where(potential)).at[k].set(value)
            return eqx.tree_at(where, potential, changed)(frame)

        of, value = jax.jit(of), float(where(potential)[k])
        h = 1e-5 * max(1, abs(value))
        slope = (of(value + h) - of(value - h)) / (2 * h)
        assert np.isclose(jax.grad(of)(value), slope, rtol=1e-5, atol=1e-6), name
    scaled = jax.jit(lambda s: potential(Frame(frame.positions * s, frame.box * s, frame.pairs)))
    slope = (scaled(1 + 1e-6) - scaled(1 - 1e-6)) / 2e-6
    assert np.isclose(jax.grad(scaled)(1.0), slope, rtol=1e-5) and abs(slope) > 1


def test_replicas(x64):
    potential, frame, *_ = prepared("reaction field", CUBE, {"switch": 0.7})
    pairs = potential.pairs(frame)
    xs = frame.positions + 1e-3 * jnp.array(np.random.default_rng(0).normal(0, 1, (3, ATOMS, 3)))
    one = lambda x: (potential(Frame(x, frame.box, pairs)), force(potential, Frame(x, frame.box, pairs)))  # noqa: E731
    energies, forces = jax.jit(replicate(one))(last(xs))
    for k in range(3):
        energy, pull = jax.jit(one)(xs[k])
        assert np.isclose(energies[k], energy, rtol=1e-12) and rms(forces[..., k], pull) < 1e-11


def test_what_makes_no_sense():
    x, atoms, rows = system_of(CUBE)
    potential = potential_of(atoms, rows, None)
    with pytest.raises(ValueError, match=r"needs a box, and the frame has none: give Frame\(positions, box\)"):
        potential(Frame(jnp.array(x)))
    with pytest.raises(ValueError, match=r"cutoff of 0\.9 nm.*1\.7 nm.*at least 1\.8 nm"):
        potential.pairs(Frame(jnp.array(x), jnp.eye(3) * 1.7))
    short = allocate(Frame(jnp.array(x), jnp.array(CUBE)), 0.8, excluded=rows[:, :2])
    with pytest.raises(ValueError, match=r"goes to 0\.8 nm, and a potential needs 0\.9 nm"):
        potential(Frame(jnp.array(x), jnp.array(CUBE), short))
    bare = allocate(Frame(jnp.array(x), jnp.array(CUBE)), 0.9)
    with pytest.raises(ValueError, match="excludes none"):
        potential(Frame(jnp.array(x), jnp.array(CUBE), bare))
    with pytest.raises(ValueError, match=r"switch = 1\.0 nm must lie between 0 and the cutoff, 0\.9 nm"):
        potential_of(atoms, rows, None, switch=1.0)


def test_each_atom_has_its_share_of_the_derivative_of_the_tail():
    """Against the tail of a system in which that one atom is of a kind of its own."""
    sigma, epsilon = np.repeat([0.3, 0.2], [10, 20]), np.repeat([0.5, 0.1], [10, 20])
    none = Exceptions(Index([], 2), [], [], [])

    def tail(values):
        form = Combined(values, epsilon)
        return Periodic(np.zeros(30), form, none, None, 0.9, switch=0.8, tail=True)

    with jax.enable_x64(True):
        frame = Frame(jnp.zeros((30, 3)), 3 * jnp.eye(3))
        plain = tail(sigma)
        slope = jax.grad(lambda s: eqx.tree_at(lambda p: p.lennard_jones.sigma, plain, s)._tail(frame))(
            jnp.asarray(sigma)
        )
        for atom in (0, 15):
            step = 1e-5 * (np.arange(30) == atom)
            exact = (float(tail(sigma + step)._tail(frame)) - float(tail(sigma - step)._tail(frame))) / 2e-5
            assert np.isclose(slope[atom], exact, rtol=1e-6)


def gas(atoms, density, seed):
    """Atoms placed one after the other, none closer than 0.9 to another; g(r) is near 1 at 2.5."""
    rng, edge = np.random.default_rng(seed), (atoms / density) ** (1 / 3)
    x = np.empty((0, 3))
    while len(x) < atoms:
        new = rng.uniform(0, edge, 3)
        d = x - new
        if not len(x) or np.min(np.sum((d - edge * np.round(d / edge)) ** 2, 1)) > 0.81:
            x = np.vstack([x, new])
    return Frame(jnp.array(x), edge * jnp.eye(3))


@pytest.mark.parametrize("form", [{}, {"shift": True}, {"switch": 2.0}, {"switch": 2.0, "shift": True}])
def test_the_pressure_of_the_tail_is_that_of_energies_at_two_volumes(x64, form):
    """Pairs that cross a sharp cutoff as the box breathes add 2 pi / 3 rho^2 rc^3 u(rc), seven errors and more here."""
    none, atoms, density = Exceptions(Index(np.zeros((0, 2), int), 2), [], [], []), 800, 0.3
    potential = Periodic(np.zeros(atoms), Uniform(1.0, 1.0), none, None, 2.5, tail=True, **form)
    energy = jax.jit(lambda frame, s: potential(Frame(frame.positions * s, frame.box * s)))
    slope, step, apart = jax.jit(jax.grad(energy, 1)), 2e-3, []
    for seed in range(6):
        frame = gas(atoms, density, seed)
        finite = (energy(frame, 1 + step) - energy(frame, 1 - step)) / (2 * step)
        apart.append(float(finite - slope(frame, 1.0)) / (3 * atoms / density))
    error = np.std(apart, ddof=1) / np.sqrt(len(apart))
    crossing = 2 * np.pi / 3 * density**2 * 2.5**3 * 4 * (2.5**-12 - 2.5**-6)
    assert error < abs(crossing) / 7 and abs(np.mean(apart)) < 4 * error + 1e-3  # of the finite step


def test_the_tail_makes_up_for_every_form(x64):
    """Of atoms that are anywhere: with its tail the energy does not depend on how it is cut off."""
    none, atoms, density = Exceptions(Index(np.zeros((0, 2), int), 2), [], [], []), 800, 0.3
    found = []
    for seed in range(6):
        frame = gas(atoms, density, seed)
        forms = [{}, {"shift": True}, {"switch": 2.0}, {"switch": 2.0, "shift": True}]
        found.append([float(Periodic(np.zeros(atoms), Uniform(1.0, 1.0), none, None, 2.5, tail=True, **form)(frame))
                      for form in forms])  # fmt: skip
    apart = np.array(found)[:, 1:] - np.array(found)[:, :1]
    left_out = 2 * np.pi * density * atoms * 2.5**3 / 3 * 4 * 2.5**-6  # what the shift takes off
    assert np.all(np.abs(apart.mean(0)) < 0.05 * left_out) and left_out > 30
