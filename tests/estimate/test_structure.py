"""Radial distributions: against counting by hand, lattices, the ideal gas, mdtraj on real water, and a known liquid."""

import numpy as np
import pytest

from metastable.core.space import reduced
from metastable.estimate.structure import radial_distribution

TRICLINIC = np.array([[3.0, 0, 0], [1.2, 2.8, 0], [-1.1, 1.0, 2.7]])


def gas(rng, frames, atoms, box):
    """Atoms anywhere, in any image, of boxes that change in size and in shape."""
    boxes = box * rng.uniform(0.9, 1.1, (*frames, 1, 1))
    return (rng.uniform(0, 1, (*frames, atoms, 3)) + rng.integers(-2, 3, (*frames, atoms, 3))) @ boxes, boxes


def counted(positions, boxes, first, second, edges, molecules):
    """Pairs in shells, from all images of a supercell: no nearest image is trusted."""
    shifts = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3)
    total = np.zeros(len(edges) - 1)
    for x, box in zip(positions, boxes, strict=True):
        for i in first:
            others = [j for j in second if molecules[j] != molecules[i]]
            d = x[others][:, None] - x[i] + shifts @ box
            total += np.histogram(np.linalg.norm(d, axis=-1), edges)[0]
    return total


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        (range(8), None, 1),
        (range(9), None, 3),
        (range(3), range(3, 9), 1),
        (range(5, 9), range(7), 2),
        ([4, 2], [2, 4], 1),
    ],
)
def test_pairs_are_those_counted_by_hand(first, second, size):
    """Groups of even and odd size, alone, apart and overlapping; molecules of one atom and of more."""
    rng = np.random.default_rng(0)
    (x, boxes), molecules = gas(rng, (4,), 9, TRICLINIC), np.arange(9) // size
    found = radial_distribution(x, boxes, first, second, limit=1.2, bins=6, molecules=molecules, length=1)
    edges = np.linspace(0, 1.2, 7)
    exact = counted(x, boxes, first, second or first, edges, molecules)
    np.testing.assert_allclose(found.coordination.values, np.cumsum(exact) / len(first) / 4)
    pairs = sum(molecules[i] != molecules[j] for i in first for j in second or first)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    ideal = pairs * shells * np.sum(1 / np.linalg.det(boxes))
    np.testing.assert_allclose(found.g.values, exact / ideal)


@pytest.mark.parametrize("atoms", [2, 5])
def test_an_ideal_gas_has_none_even_where_it_is_tiny(atoms):
    x, boxes = gas(np.random.default_rng(1), (2000, 3), atoms, TRICLINIC)
    g = radial_distribution(x, boxes, range(atoms), bins=12, length=100).g.estimate
    z = (g.value - 1) / g.error
    assert np.sum(z**2) < 12 + 4 * np.sqrt(24)  # chi squared of 12 bins
    assert g.error[-1] < 0.06  # without N - 1 in place of N it would be 0.5 or 0.8


@pytest.mark.parametrize(
    ("cell", "neighbours"),
    [
        (np.eye(3), {1.2: 6, 1.5: 18, 1.85: 26, 2.1: 32}),  # simple cubic
        (
            np.array([[1, 0, 0], [0.5, 0.75**0.5, 0], [0.5, 0.75**0.5 / 3, (2 / 3) ** 0.5]]),
            {1.2: 12, 1.5: 18, 1.85: 42},
        ),
        (
            np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, (2 / 3) ** 0.5]]),
            {1.07: 8, 1.3: 14, 1.7: 26},
        ),
    ],
    ids=["cubic", "face-centred", "body-centred"],
)
def test_lattices_have_their_coordination_numbers(cell, neighbours):
    """In the primitive cell, so that the box of two of the three is triclinic."""
    n = 6
    lattice = np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 3) @ cell
    limit = list(neighbours)[-1]
    shells = radial_distribution(lattice[None], reduced(n * cell), range(n**3), limit=limit, bins=400).coordination
    for r, number in neighbours.items():
        assert np.interp(r, shells.x, shells.values) == pytest.approx(number, abs=1e-9)
    assert np.isnan(shells.estimate.error).all()  # of one frame


def test_neighbours_belong_to_the_first_group():
    x, boxes = gas(np.random.default_rng(2), (20,), 12, np.eye(3))
    few, many = range(3), range(3, 12)
    one, other = (radial_distribution(x, boxes, *groups) for groups in ((few, many), (many, few)))
    np.testing.assert_allclose(one.g.values, other.g.values)
    np.testing.assert_allclose(one.coordination.values * 3, other.coordination.values * 9)


def test_many_calls_make_one_histogram(monkeypatch):
    x, boxes = gas(np.random.default_rng(3), (7, 2), 11, np.eye(3))
    whole = radial_distribution(x, boxes, range(11)).coordination.values
    monkeypatch.setattr("metastable.estimate.structure._PAIRS", 30)
    monkeypatch.setattr("metastable.estimate.structure._ATOMS", 50)
    np.testing.assert_array_equal(radial_distribution(x, boxes, range(11)).coordination.values, whole)


def test_errors_see_that_frames_are_alike(calibrated):
    """An ideal gas whose atoms hardly move from frame to frame."""
    rng = np.random.default_rng(4)
    steps = rng.normal(0, 0.04, (1000, 4, 300, 8, 3))
    x = rng.uniform(0, 1, (4, 300, 8, 3)) + np.cumsum(steps, 0)
    found = [radial_distribution(x[:, :, i], np.eye(3), range(8), bins=3) for i in range(300)]
    z = [(f.g.estimate.value - 1) / f.g.estimate.error for f in found]
    calibrated(z, slack=0.03)
    volumes = 4 / 3 * np.pi * found[0].coordination.x ** 3
    z = [(f.coordination.estimate.value - 7 * volumes) / f.coordination.estimate.error for f in found]
    calibrated(z, slack=0.03)
    naive = np.sqrt(found[0].g.values / (8 * 7 / 2 * 4000 * np.diff(volumes, prepend=0)))
    assert np.all(found[0].g.estimate.error > 1.5 * naive)  # that of frames taken as independent


def test_the_distributions_of_many_walkers_spread_as_their_errors_say(unit_spread):
    x = np.random.default_rng(6).uniform(0, 1, (400, 15, 64, 6, 3))
    found = [radial_distribution(y, np.eye(3), range(6), bins=3) for y in x]
    unit_spread([f.g.estimate[2] for f in found], 1.0, 64)
    unit_spread([f.coordination.estimate[1] for f in found], 5 * 4 / 3 * np.pi / 27, 64)


def test_what_cannot_be_counted_is_refused():
    x = np.zeros((2, 4, 3))
    with pytest.raises(ValueError, match=r"limit = 0.6 nm must lie between 0 and 0.5 nm"):
        radial_distribution(x, np.stack([np.eye(3), 2 * np.eye(3)]), range(4), limit=0.6)
    with pytest.raises(ValueError, match="no pair"):
        radial_distribution(x, np.eye(3), range(4), molecules=np.zeros(4))
    with pytest.raises(ValueError, match="each once"):
        radial_distribution(x, np.eye(3), [0, 0, 1])
    with pytest.raises(ValueError, match="from 0 to 3"):
        radial_distribution(x, np.eye(3), [0, 4])
    with pytest.raises(ValueError, match=r"box \(3, 3, 3\)"):
        radial_distribution(x, np.ones((3, 3, 3)), range(4))
    with pytest.raises(ValueError, match="reduced"):
        radial_distribution(x, np.array([[1.0, 0, 0], [0.8, 1, 0], [0, 0, 1]]), range(4))
    with pytest.raises(ValueError, match="bins = 0"):
        radial_distribution(x, np.eye(3), range(4), bins=0)
    with pytest.raises(ValueError, match="finite"):
        radial_distribution(np.full((2, 4, 3), np.nan), np.eye(3), range(4))


def mdtraj_rdf(x, boxes, pairs, limit, bins):
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(x.shape[1]):
        topology.add_atom("O", mdtraj.element.oxygen, residue)
    trajectory = mdtraj.Trajectory(x, topology)
    trajectory.unitcell_vectors = boxes
    return mdtraj.compute_rdf(trajectory, pairs, r_range=(0, limit), n_bins=bins)[1]


def test_water_is_that_of_mdtraj(data):
    """Real frames of 64 waters whose box changes from one to the next: oxygens, and oxygens with other hydrogens."""
    folder = data / "deepmd_water/water_tensor/dipole/training_data_reformat/global_system"
    x = np.load(folder / "set.000/coord.npy").reshape(-1, 192, 3) / 10
    boxes = np.load(folder / "set.000/box.npy").reshape(-1, 3, 3) / 10
    kind = np.loadtxt(folder / "type.raw", int)
    oxygens, hydrogens = np.flatnonzero(kind == kind[0]), np.flatnonzero(kind != kind[0])
    assert (len(oxygens), len(hydrogens)) == (64, 128) and boxes[:, 0, 0].std() > 0.005
    for first, second in ((oxygens, None), (oxygens, hydrogens)):
        other = oxygens if second is None else second
        pairs = [(i, j) for i in first for j in other if i < j or (second is not None)]
        g = radial_distribution(x, boxes, first, second, limit=0.58, bins=116).g
        exact = mdtraj_rdf(x, boxes, pairs, 0.58, 116)
        np.testing.assert_allclose(g.values, exact, rtol=2e-3, atol=2e-3)  # a pair at an edge falls to either side
        assert exact.max() > 2.5


def test_triclinic_boxes_are_those_of_mdtraj():
    x, boxes = gas(np.random.default_rng(5), (30,), 40, TRICLINIC)
    pairs = [(i, j) for i in range(40) for j in range(i)]
    g = radial_distribution(x, boxes, range(40), limit=1.2, bins=30).g
    np.testing.assert_allclose(g.values, mdtraj_rdf(x, boxes, pairs, 1.2, 30), rtol=1e-3, atol=1e-3)


@pytest.mark.physics
def test_the_lennard_jones_liquid_is_that_of_another_code(data, liquid):
    """Positions from OpenMM, g(r) against the curve that others publish, which is smeared over 0.03."""
    r, exact = np.loadtxt(data / "lj_rdf_vacf/LJ_data/rdf_rho0.845_T1.0_dt0.01.csv", delimiter=",")
    x, _, box = liquid
    g = radial_distribution(x[::10], box, range(x.shape[1]), bins=330, limit=3.3).g.estimate
    middle = (np.arange(330) + 0.5) / 100
    kernel = np.exp(-(((r[:, None] - middle) / (r[1] - r[0])) ** 2) / 2)
    smeared = kernel @ g.value / kernel.sum(1)
    away = np.abs(smeared - exact)
    assert np.sqrt(np.mean(away**2)) < 0.02 and away.max() < 0.08, (away.max(), np.sqrt(np.mean(away**2)))
