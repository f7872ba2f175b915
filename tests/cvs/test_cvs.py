"""Every collective variable: derivatives, invariances, replicas; exact values, awkward geometries, arithmetic."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metastable.core.frame import Frame
from metastable.core.replicas import replicate
from metastable.cvs import (
    RMSD,
    Angle,
    Center,
    Component,
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
    minimum_image,
)

pytestmark = pytest.mark.usefixtures("x64")
ATOMS = 9
RANDOM = np.random.default_rng(0)
POSITIONS = RANDOM.uniform(-0.5, 0.5, (ATOMS, 3))
REFERENCE = RANDOM.uniform(-0.5, 0.5, (6, 3))
WEIGHTS = RANDOM.uniform(0.5, 2, 6)
SKEWED = np.array([[1.1, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.5, 0.3, 0.9]])


def end_to_end(frame):
    return jnp.sum((frame.positions[0] - frame.positions[-1]) ** 2)


INVARIANT = {
    "distance": lambda: Distance(0, 5),
    "distance of centers": lambda: Distance(Center((0, 1, 2)), Center((4, 8), (1.0, 3.0))),
    "angle": lambda: Angle(0, 1, 2),
    "angle of four": lambda: Angle(0, 1, 2, 3),
    "torsion": lambda: Torsion(0, 1, 2, 3),
    "torsion of six": lambda: Torsion(0, 1, 2, 3, 4, 5),
    "radius of gyration": lambda: RadiusOfGyration(range(6), WEIGHTS),
    "rmsd": lambda: RMSD(range(6), REFERENCE),
    "weighted rmsd": lambda: RMSD(range(6), REFERENCE, WEIGHTS, WEIGHTS[::-1]),
    "coordination": lambda: Coordination(range(3), range(3, 9), switching=Rational(0.5)),
    "coordination in a group": lambda: Coordination(range(9), switching=Smap(0.4, a=4, b=3)),
    "arithmetic": lambda: Stack(Torsion(0, 1, 2, 3) - 2 * Torsion(4, 5, 6, 7), Distance(0, 1) ** 2 / 3, end_to_end),
    "function": lambda: Function(jnp.sin, Torsion(0, 1, 2, 3)) * Distance(0, 1) - end_to_end,
}
OTHERS = {"position": lambda: Position(3), "displacement": lambda: Displacement(1, 7)[:2]}
ALL = INVARIANT | OTHERS


@pytest.fixture(params=ALL)
def name(request):
    return request.param


@pytest.fixture
def cv(name, x64):
    return ALL[name]()


def test_derivatives_replicas_and_components(cv, name):
    box = None if name in ("arithmetic", "function", "angle of four", "torsion of six") else SKEWED
    together = eqx.filter_jit(replicate(lambda x: (cv(Frame(x, box)), jax.jacrev(lambda x: cv(Frame(x, box)))(x))))
    directions = np.random.default_rng(1).normal(size=(3, ATOMS, 3))
    steps = [np.zeros((ATOMS, 3))] + [sign * 1e-6 * d for d in directions for sign in (1, -1)]
    s, slope = together(jnp.asarray(np.stack([POSITIONS + step for step in steps], -1)))
    assert s.shape == (len(cv.components), 7)
    for k, direction in enumerate(directions):
        numerical = (s[:, 1 + 2 * k] - s[:, 2 + 2 * k]) / 2e-6
        np.testing.assert_allclose(np.sum(slope[..., 0] * direction, (1, 2)), numerical, atol=2e-8, rtol=1e-7)
    np.testing.assert_allclose(cv(Frame(jnp.asarray(POSITIONS), box)), s[:, 0], rtol=1e-12, atol=1e-14)  # not compiled


def test_single_precision_stays_single(cv):
    assert jax.eval_shape(lambda x: cv(Frame(x)), jnp.zeros((ATOMS, 3), jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("name", INVARIANT)
def test_translation_and_rotation_change_nothing(cv):
    turn = Rotation.random(random_state=3).as_matrix()
    moved = jax.jit(lambda x: (cv(Frame(x)), cv(Frame(x @ turn.T + jnp.array([1.0, -2.0, 0.3])))))
    before, after = moved(POSITIONS)
    np.testing.assert_allclose(after, before, rtol=1e-9)


def test_known_torsions_and_angles():
    for degrees in (-170, -60, 0.001, 35, 90, 179):
        turn = math.radians(degrees)
        x = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [math.cos(turn), math.sin(turn), 1.5]])
        # seen along the axis from the front atom, a clockwise turn of the rear one is positive (IUPAC)
        assert float(Torsion(0, 1, 2, 3)(Frame(x))[0]) == pytest.approx(turn)
        y = jnp.array([[1.0, 0, 0], [0, 0, 0], [2 * math.cos(turn), 2 * math.sin(turn), 0]])
        assert float(Angle(0, 1, 2)(Frame(y))[0]) == pytest.approx(abs(turn))


@pytest.mark.parametrize(
    "cv, value",
    [
        (Distance(0, 1), 0.0),
        (Angle(3, 2, 4), 0.0),
        (Angle(2, 3, 4), math.pi),
        (Torsion(1, 2, 3, 4), 0.0),
        (RadiusOfGyration((0, 1)), 0.0),
        (Coordination((0,), (1,), switching=Rational(0.3)), 1.0),
    ],
)
def test_degenerate_geometries_have_finite_derivatives(cv, value):
    line = np.array([[0.0, 0, 0], [0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]])
    s, slope = jax.value_and_grad(lambda x: cv(Frame(x))[0])(line)
    assert float(s) == pytest.approx(value, abs=1e-7)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("weighted", [False, True])
def test_rmsd_is_that_of_the_best_rotation(weighted):
    w = WEIGHTS if weighted else np.ones(6)
    x, y = POSITIONS[:6], REFERENCE
    x, y = (a - np.average(a, axis=0, weights=w) for a in (x, y))
    turned = Rotation.align_vectors(x, y, weights=w)[0].apply(y)
    exact = math.sqrt(np.average(np.sum((x - turned) ** 2, 1), weights=w))
    assert float(RMSD(range(6), REFERENCE, w)(Frame(jnp.asarray(POSITIONS)))[0]) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("displace", [None, WEIGHTS])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_rmsd_of_the_reference_itself_and_of_awkward_shapes(displace, dtype):
    mirror = REFERENCE * np.array([1, 1, -1])
    line = np.outer(np.arange(6.0), [1, 2, 3]) / 10
    turned = Rotation.random(random_state=5).apply(REFERENCE) + 3
    value_and_slope = jax.jit(
        jax.value_and_grad(lambda x, reference: RMSD(range(6), reference, None, displace)(Frame(x))[0])
    )
    for x, reference, near in [
        (REFERENCE, REFERENCE, 0),
        (turned, REFERENCE, 0),
        (line, line, 0),
        (mirror, REFERENCE, None),
        (np.zeros((6, 3)), REFERENCE, None),
        (-line, line + 0.01 * REFERENCE, None),
    ]:
        s, slope = value_and_slope(jnp.asarray(x, dtype), reference)
        assert s.dtype == dtype and np.isfinite(s) and np.all(np.isfinite(slope))
        if near is not None:
            assert abs(float(s)) < (2e-6 if dtype == jnp.float32 else 1e-12)
        assert np.linalg.norm(slope) <= 2


def test_second_derivatives_of_the_rmsd_know_that_the_rotation_follows():
    cv = RMSD(range(6), REFERENCE)
    slope = jax.jit(jax.grad(lambda x: cv(Frame(x))[0]))
    direction = np.random.default_rng(2).normal(size=(ATOMS, 3))
    second = jax.jit(lambda x: jax.jvp(slope, (x,), (direction,))[1])(POSITIONS)
    numerical = (slope(POSITIONS + 1e-6 * direction) - slope(POSITIONS - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(second, numerical, atol=1e-8)


def test_images_are_the_shortest_of_all():
    rng = np.random.default_rng(4)
    images = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    shortest = jax.jit(minimum_image)
    for _ in range(20):
        box = rng.uniform(-1, 1, (3, 3)) + np.eye(3)
        delta = rng.uniform(-1, 1, (50, 3)) @ box
        every = np.linalg.norm(delta[:, None] + images @ box, axis=-1)
        found = np.asarray(shortest(delta, box))
        np.testing.assert_array_less(np.linalg.norm(found, axis=-1), every.min(1) + 1e-9)
        turns = (found - delta) @ np.linalg.inv(box)
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-8)


def test_a_molecule_across_the_border_is_whole():
    chain = np.cumsum(np.random.default_rng(6).uniform(-0.3, 0.3, (ATOMS, 3)), 0)
    torn = chain + np.random.default_rng(7).integers(-2, 3, (ATOMS, 3)) @ SKEWED
    for cv in (RadiusOfGyration(range(6)), RMSD(range(6), REFERENCE), Distance(Center(range(3)), Center((4, 5)))):
        whole, split = (eqx.filter_jit(cv)(Frame(jnp.asarray(x), SKEWED)) for x in (chain, torn))
        np.testing.assert_allclose(split, whole, rtol=1e-9)
        np.testing.assert_allclose(whole, eqx.filter_jit(cv)(Frame(jnp.asarray(chain))), rtol=1e-9)


@pytest.mark.parametrize(
    "switching, r, value",
    [
        (Rational(0.5), 0.5, (0.5 - 1 / 100001) / (1 - 1 / 100001)),
        (Rational(0.5, n=6, m=10, dmax=9.0, stretch=False), 0.5, 0.6),
        (Exponential(0.5, 0.1), 0.6, math.exp(-1)),
        (Gaussian(0.5, 0.1), 0.6, math.exp(-0.5)),
        (Smap(0.5, a=10, b=2), 0.5, 0.5),
        (Smap(0.5, 0.1, 2.0, a=6, b=3), 2.0, 0.0),
        (Tanh(0.5), 0.5, 1 - math.tanh(1)),
        (Cosinus(0.5, 0.2), 0.45, 0.5),
        (Cubic(0.2, 0.8), 0.5, 0.5),
        (Cubic(0.2, 0.8), 0.9, 0.0),
    ],
)
def test_switching_functions(switching, r, value):
    r = jnp.asarray([r, 0.05, 0.31, 0.77, 50.0])
    s, slope = jax.jit(jax.vmap(jax.value_and_grad(switching)))(r)
    assert float(s[0]) == pytest.approx(value, abs=1e-12)
    assert np.all(np.isfinite(slope)) and abs(float(s[-1])) < 1e-4
    assert np.all(np.diff(np.asarray(s)[[1, 2, 3, 4]]) <= 0)
    numerical = (switching(r[1:4] + 1e-6) - switching(r[1:4] - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope[1:4], numerical, atol=1e-8)


def test_arithmetic_knows_labels_units_and_periods():
    phi, psi, d = Torsion(0, 1, 2, 3, label="phi"), Torsion(1, 2, 3, 4, label="psi"), Distance(0, 1, label="d")
    assert Stack(phi, d).components == (Component("phi", "rad", 2 * math.pi), Component("d", "nm", None))
    difference = phi - 2 * psi
    assert difference.components == (Component("(phi - 2 * psi)", "rad", 2 * math.pi),)
    assert (phi / 2).periods == (math.pi,)
    assert (phi + 1.0).periods == (2 * math.pi,) and (d + 1.0).periods == (None,)
    assert Function(jnp.sin, phi).components == (Component("sin(phi)", "", None),)
    assert (Position(0)[1] - d).units == ("nm",)
    assert Stack(end_to_end, phi).labels == ("end_to_end", "phi")
    values = [cv(Frame(jnp.asarray(POSITIONS)))[0] for cv in (phi, psi, difference)]
    assert abs(values[2]) <= math.pi
    turns = (values[0] - 2 * values[1] - values[2]) / (2 * math.pi)
    assert float(turns) == pytest.approx(round(float(turns)), abs=1e-12)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Distance(0, 99)(Frame(jnp.asarray(POSITIONS))), "atom 99, but the frame has 9 atoms"),
        (lambda: Distance(0, -1), "integers from 0"),
        (lambda: RadiusOfGyration([]), "at least one"),
        (lambda: Torsion(0, 1, 2), "4 or 6 atoms, not 3"),
        (lambda: Angle(0, 1), "3 or 4 atoms, not 2"),
        (lambda: RMSD([0, 1], REFERENCE), r"shape \(6, 3\), not \(2, 3\)"),
        (lambda: RadiusOfGyration([0, 1], [0.0, 0.0]), "sum must be positive"),
        (lambda: Rational(1.0, n=6, m=6), "0 < n < m"),
        (lambda: Torsion(0, 1, 2, 3) + 0.3 * Torsion(0, 1, 2, 3), "no simple common one"),
        (lambda: Function(lambda f: f.positions[0])(Frame(jnp.asarray(POSITIONS))), r"shape \(3,\), but has 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
