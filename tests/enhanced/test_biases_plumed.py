"""Walls and metadynamics against PLUMED's own numbers, to the digits printed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.core.frame import Frame
from metastable.core.units import kelvin
from metastable.cvs import Angle, Distance, Function, Stack
from metastable.enhanced.biases import LowerWall, UpperWall
from metastable.enhanced.metadynamics import Hills, WellTempered, hills_at

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def examples(data):
    return data / "plumed_examples"


def frames(folder):
    lines = (folder / "trajectory.xyz").read_text().splitlines()
    for i in range(0, len(lines), 110):
        positions = np.array([line.split()[1:4] for line in lines[i + 2 : i + 110]], float)
        yield Frame(positions, np.diag(np.array(lines[i + 1].split(), float)))


def columns(path):
    fields = path.read_text().splitlines()[0].split()[2:]
    return dict(zip(fields, np.loadtxt(path, ndmin=2).T, strict=True))


def forces(path):
    rows = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("X")]
    return np.array(rows, float).reshape(-1, 108, 3)


DISTANCE_AND_VOLUME = Stack(Distance(0, 9), Function(lambda frame: jnp.abs(jnp.linalg.det(frame.box))))


def follow(bias, folder, deposits, kT=300 * kelvin):
    """The bias and the forces at each frame, before its hill; hills are added after the frames in ``deposits``."""

    @jax.jit
    def of_frame(bias, frame):
        s = DISTANCE_AND_VOLUME(frame)
        gradient = jax.grad(lambda x: bias(DISTANCE_AND_VOLUME(Frame(x, frame.box))))(frame.positions)
        return s, bias(s), -gradient

    energies, pushes = [], []
    for i, frame in enumerate(frames(folder)):
        s, energy, push = of_frame(bias, frame)
        energies.append(energy)
        pushes.append(push)
        bias = bias.update(s[None], kT) if i in deposits else bias
    return bias, np.array(energies), np.array(pushes)


def test_walls(examples):
    cvs = Stack(Angle(1, 5, 2), Angle(1, 5, 6, 2))
    upper, lower = UpperWall([0.3], 20.0), LowerWall([0.2], 40.0, exponent=4, eps=0.3, offset=0.1)
    reference = columns(examples / "walls/COLVAR.reference")
    s = np.array([jax.jit(cvs)(frame) for frame in frames(examples / "walls")])
    np.testing.assert_allclose(s.T, [reference["ang1"], reference["ang2"]], atol=5.1e-4)
    for k, (wall, name) in enumerate([(upper, "uwall"), (lower, "lwall")]):
        energy, force = jax.vmap(jax.value_and_grad(wall))(s[:, k : k + 1])
        np.testing.assert_allclose(energy, reference[f"{name}.bias"], atol=5.1e-4)
        np.testing.assert_allclose(force[:, 0] ** 2, reference[f"{name}.force2"], atol=5.1e-4)


def test_metadynamics_of_two_cvs(examples):
    folder = examples / "metad_2cv"
    bias = Hills(8, height=1.0, widths=[0.1, 0.2], bias_factor=math.inf)
    bias, energies, pushes = follow(bias, folder, deposits=[2, 4])  # steps 20 and 40: of those seen, the multiples of 4
    np.testing.assert_allclose(energies, columns(folder / "COLVAR.reference")["md.bias"], atol=5.1e-4)
    np.testing.assert_allclose(pushes, forces(folder / "forces.reference"), atol=5.1e-7)
    hills = columns(folder / "HILLS.reference")
    np.testing.assert_allclose(bias.centers[:2].T, [hills["mu1"], hills["vol"]], atol=5.1e-7)
    np.testing.assert_allclose(bias.heights[:2], hills["height"])


def test_well_tempered_metadynamics_as_a_list_and_on_a_grid(examples):
    folder = examples / "metad_welltempered_grid"
    settings = dict(height=1.0, widths=[0.1, 0.2], bias_factor=10.0)
    exact = Hills(8, **settings)
    grid = WellTempered([Axis(0.0, 2.0, 100), Axis(120.0, 130.0, 100)], **settings)
    reference, printed = columns(folder / "COLVAR.reference"), columns(folder / "HILLS.reference")
    exact, energies, pushes = follow(exact, folder, deposits=range(1, 5))
    np.testing.assert_allclose(energies, reference["md3.bias"], atol=5.1e-4)
    np.testing.assert_allclose(exact.heights[:4] * 10 / 9, printed["height"], atol=3e-4)  # printed: those on the grid
    np.testing.assert_allclose(5 * pushes, forces(folder / "forces.reference"), atol=0.02)  # of five equal biases
    grid, energies, _ = follow(grid, folder, deposits=range(1, 5))
    np.testing.assert_allclose(energies, reference["md3.bias"], atol=3e-3)  # its spacing is half a width


def test_sum_of_hills_of_every_shape(examples):
    folder = examples / "sumhills_2d"
    hills = columns(folder / "HILLS_t1")
    centers = np.stack([hills["t1"], hills["t2"]], -1)
    cholesky = np.zeros((len(centers), 2, 2))
    cholesky[:, 0, 0], cholesky[:, 1, 1] = hills["sigma_t1_t1"], hills["sigma_t2_t2"]
    cholesky[:, 1, 0] = hills["sigma_t2_t1"]
    shapes, period = np.linalg.inv(cholesky), 2 * math.pi
    t1, t2, free, der1, der2 = np.loadtxt(folder / "fes.dat.reference").T
    cells = np.round((np.stack([t1, t2], -1) + math.pi) / period * 99).astype(int)
    near = _within_plumed_reach(cells, centers, cholesky, period / 99)

    def surface(s, near):
        return -hills_at(s, centers, hills["height"] * near, shapes, (period, period))

    points = -math.pi + period / 99 * cells
    energy, slope = jax.jit(lambda *a: jax.lax.map(lambda b: jax.value_and_grad(surface)(*b), a, batch_size=99))(
        points, near
    )
    np.testing.assert_allclose(energy, free, atol=5.1e-8)
    np.testing.assert_allclose(slope, np.stack([der1, der2], -1), atol=5.1e-8)


def _within_plumed_reach(cells, centers, cholesky, spacing):
    """Which hills PLUMED looks at from which point: those in a box around the longest axis of the hill alone,
    which cuts off parts of slanting hills."""
    values, vectors = np.linalg.eigh(cholesky @ cholesky.transpose(0, 2, 1))
    longest = math.sqrt(12.5) * np.sqrt(values[:, 1:]) * np.abs(vectors[:, :, 1])
    away = cells[:, None] - np.floor((centers + math.pi) / spacing).astype(int)
    return np.all(np.abs((away + 49) % 99 - 49) <= np.ceil(longest / spacing), -1)
