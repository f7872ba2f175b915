"""Lists of pairs against brute force over images, and when they are stale.

Nearly all the time is compilation: frames of one size, one cutoff, one skin and one room share a program.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, _update, allocate, enlarged, kept, partners
from metastable.core.replicas import last, replicate
from metastable.core.search import WORD, Cells

OCTAHEDRON = np.array([[1, 0, 0], [1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(2 / 3)]])
SKEWED = np.array([[1, 0, 0], [-0.5, 1, 0], [0.5, -0.5, 1]])
STEPS = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 3)
stale = eqx.filter_jit(Pairs.stale)


def distances(positions, box, within=4.0):
    """Of the nearest images of all, (atoms, atoms); inf beyond ``within`` and for an atom itself."""
    x = np.asarray(positions, float)
    if box is None:
        images, steps = x, 1
    else:
        f = x @ np.linalg.inv(box)
        x = (f - np.floor(f)) @ box
        images, steps = (x + (STEPS @ box)[:, None]).reshape(-1, 3), len(STEPS)
        within = min(within, np.diagonal(box).min())
    near = np.all((images > x.min(0) - within) & (images < x.max(0) + within), -1)
    found = cKDTree(x).sparse_distance_matrix(cKDTree(images[near]), within, output_type="coo_matrix")
    r = np.full((len(x), len(x)), np.inf)
    np.minimum.at(r, (found.row, np.tile(np.arange(len(x)), steps)[near][found.col]), found.data)
    np.fill_diagonal(r, np.inf)
    return r


def listed(pairs):
    """The list as a matrix, and that nothing is listed twice."""
    index, atoms = np.asarray(pairs.index), pairs.index.shape[1]
    held = np.zeros((atoms, atoms), int)
    for row in index:
        held[np.arange(atoms), row] += row != np.arange(atoms)
    assert held.max(initial=0) <= 1 and np.array_equal(held, held.T)
    return held.astype(bool)


def assert_right(pairs, frame, excluded=(), tolerance=1e-5):
    """All pairs closer than cutoff + skin, no other, none that is excluded."""
    box = None if frame.box is None else np.asarray(frame.box, float)
    r = distances(frame.positions, box, pairs.cutoff + pairs.skin + 0.1)
    for i, j in excluded:
        r[i, j] = r[j, i] = np.inf
    held, distance = listed(pairs), pairs.cutoff + pairs.skin
    assert np.all(held[r < distance - tolerance]), "a pair is missing"
    assert not np.any(held[r > distance + tolerance]), "a pair is too far apart"
    assert held.any() and not bool(pairs.overflow)


def gas(atoms, box, seed=0, boxes=0):
    """Atoms anywhere, also some boxes outside."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-boxes, 1 + boxes, (atoms, 3)) @ box


def start(name):
    """The first frame of a case, and a list of it with room for all that is likely."""
    box, atoms, cutoff, skin, _ = CASES[name]
    frame = Frame(jnp.array(gas(atoms, box)), jnp.array(box))
    return frame, allocate(frame, cutoff, skin, most=min(atoms - 1, 104), room=1.5)


SMALL = 90, 1.0, 0.3, False
CASES = {  # box, atoms, cutoff, skin, whether in cells
    "cube": (np.eye(3) * 2.2, *SMALL),
    "slab": (np.diag([2.1, 2.4, 6.0]), *SMALL),
    "barely": (np.eye(3) * 2.001, *SMALL),
    "octahedron": (OCTAHEDRON * 3.3, *SMALL),  # of a reach that suffices
    "barely octahedron": (OCTAHEDRON * 2.46, *SMALL),  # of one that does not
    "skewed": (SKEWED * 2.05, *SMALL),
    "liquid in cells": (np.diag([14.0, 15.0, 16.0]), 3000, 1.2, 0.2, True),
    "gas in cells": (np.diag([20.0, 22.0, 25.0]), 3000, 1.5, 0.3, True),
    "octahedron in cells": (OCTAHEDRON * 18.0, 3000, 1.7, 0.2, True),
    "skewed in cells": (SKEWED * 16.0, 3000, 1.2, 0.2, True),
    "needle in cells": (np.array([[6.0, 0, 0], [2.9, 7.0, 0], [-2.9, 3.4, 40.0]]), 3000, 1.0, 0.1, True),
}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_against_all_images(name, double):
    """Of the frame that the list was made for, and of other gases, some boxes outside, in the same list."""
    box, atoms, _, skin, in_cells = CASES[name]
    with jax.enable_x64(double):
        frame, pairs = start(name)
        assert frame.positions.dtype == (np.float64 if double else np.float32)
        assert isinstance(pairs.grid, Cells) == in_cells and pairs.skin == skin
        tolerance = 1e-10 if double else 1e-4
        assert_right(pairs, frame, tolerance=tolerance)
        for seed, boxes in ((5, 1), (6, 4)):
            there = Frame(jnp.array(gas(atoms, box, seed, boxes)), frame.box)
            assert_right(_update(pairs, there), there, tolerance=tolerance)


@pytest.mark.parametrize("name", ["cube", "liquid in cells"])
def test_the_room_that_is_guessed(x64, name):
    box, atoms, cutoff, skin, _ = CASES[name]
    frame = Frame(jnp.array(gas(atoms, box, 1)), jnp.array(box))
    pairs = allocate(frame, cutoff, skin)
    assert_right(pairs, frame)
    assert int(pairs.count) < len(pairs.index) < 1.1 * int(pairs.count) + 13


@pytest.mark.parametrize("atoms", [2, 31, 32, 33, 150])
def test_without_a_box(x64, atoms):
    frame = Frame(jnp.array(gas(atoms, np.eye(3) * atoms ** (1 / 3) * 0.5, atoms)))
    pairs = allocate(frame, 0.9, 0.1, most=atoms - 1)
    assert pairs.box is None
    assert_right(pairs, frame)


def test_one_atom():
    for box in (None, np.eye(3) * 4):
        pairs = allocate(Frame(jnp.zeros((1, 3)), box), 1.0, most=1)
        assert (
            np.array_equal(pairs.index, [[0]]) and not pairs.overflow and not pairs.stale(Frame(jnp.zeros((1, 3)), box))
        )


def test_crowded_and_empty(x64):
    """A drop in an empty box: cells are full or empty, and the search among all takes over where they cannot be."""
    rng = np.random.default_rng(0)
    box = np.eye(3) * 14
    drop = rng.uniform(5, 8.5, (1200, 3))
    frame = Frame(jnp.array(drop), jnp.array(box))
    assert_right(allocate(frame, 1.0, 0.1, most=400), frame)


@pytest.mark.parametrize("name", ["cube", "liquid in cells"])
def test_excluded(x64, name):
    box, atoms, cutoff, skin, _ = CASES[name]
    frame = Frame(jnp.array(gas(atoms, box)), jnp.array(box))
    i, j = np.nonzero(np.triu(distances(frame.positions, box, cutoff) < cutoff, 1))
    chosen = np.random.default_rng(0).choice(len(i), len(i) // 10, replace=False)
    excluded = np.stack([j[chosen], i[chosen]], 1)
    assert_right(allocate(frame, cutoff, skin, excluded=excluded, most=min(atoms - 1, 104)), frame, excluded.tolist())


def test_partners():
    table = partners([(0, 2), (2, 3)], 5)
    assert [set(column) - {atom} for atom, column in enumerate(table.T.tolist())] == [{2}, set(), {0, 3}, {2}, set()]
    assert partners((), 3).shape == (0, 3)


@pytest.mark.parametrize("name", ["cube", "octahedron", "barely octahedron", "skewed", "liquid in cells"])
def test_nothing_is_missed_until_stale(x64, name):
    """Random moves and strains, as far as the skin allows: either the list is stale, or every pair is in it."""
    box, atoms, cutoff, _, _ = CASES[name]
    rng = np.random.default_rng(1)
    frame, pairs = start(name)
    far = 0.25 * pairs.skin / (pairs.cutoff + pairs.skin)
    fresh = 0
    for _ in range(25):
        strain = np.tril(rng.normal(0, 1, (3, 3))) * rng.uniform(0, far) * rng.integers(2)
        new_box = box @ (np.eye(3) + strain)
        moves = rng.normal(0, 1, (atoms, 3))
        moves *= rng.uniform(0, 0.7) * pairs.skin / np.linalg.norm(moves, axis=1)[:, None]
        x = np.asarray(frame.positions) @ np.linalg.inv(box) @ new_box + moves
        there = Frame(jnp.array(x), jnp.array(new_box))
        if not stale(pairs, there):
            fresh += 1
            r = distances(x, new_box, cutoff)
            assert np.all(listed(pairs)[r < cutoff])
    assert 3 < fresh < 22


def test_a_strain_of_a_column_counts_in_full(x64):
    """Where all box vectors turn to x, a diagonal pair comes closer by more than any one vector strains."""
    cutoff, skin, box = 1.0, 0.1, np.eye(3) * 4
    direction = np.ones(3) / np.sqrt(3)
    strain = np.tile([-0.055, 0, 0], (3, 1))  # rows of 0.055; the diagonal shortens by up to sqrt(3) times that
    x = np.array([1.0, 1, 1]) + np.array([np.zeros(3), direction * 1.1001])
    after = x @ (np.eye(3) + strain)
    pairs = allocate(Frame(jnp.array(x), jnp.array(box)), cutoff, skin, most=1)
    assert not listed(pairs).any()
    for share in np.linspace(0, 3, 31):
        bent = np.eye(3) + share * strain
        after = x @ bent
        if np.linalg.norm(after[1] - after[0]) < cutoff:
            assert stale(pairs, Frame(jnp.array(after), jnp.array(box @ bent)))
            break
    else:
        pytest.fail("the pair never came close")


def test_margin_and_what_is_not_a_number(x64):
    frame, pairs = start("cube")

    def moved(x, margin=0.0):
        return bool(stale(pairs, frame.at(frame.positions.at[3, 0].add(x)), jnp.asarray(margin)))

    assert not moved(0.0) and not moved(0.1) and moved(0.1, 0.06) and not moved(0.1, 0.04)
    assert moved(jnp.nan)
    assert moved(2.2)  # wrapped by somebody: the list is made anew


def test_kept(x64):
    frame, pairs = start("cube")
    assert kept(Frame(frame.positions, frame.box)).pairs is None
    keep = eqx.filter_jit(kept)
    for way, updates in ((0.1, 1), (0.2, 2)):
        there = Frame(frame.positions.at[:, 1].add(way * (-1.0) ** jnp.arange(90)), frame.box, pairs)
        new = keep(there)
        assert int(new.pairs.updates) == updates and np.array_equal(new.positions, there.positions)
        assert_right(new.pairs, frame if updates == 1 else there)


def test_overflow_is_seen_and_stays(x64):
    frame, ample = start("liquid in cells")
    pairs = allocate(frame, 1.2, 0.2, most=8, room=1.5)
    assert bool(pairs.overflow) and int(pairs.count) > 8
    lattice = np.stack(np.unravel_index(np.arange(3000), (14, 15, 16)), -1) + 0.25
    apart = Frame(jnp.array(lattice), frame.box)
    assert bool(_update(pairs, apart).overflow)
    again = enlarged(pairs, pairs, room=104 / int(pairs.count))
    assert again.index.shape == ample.index.shape and np.array_equal(again.index, ample.index)
    assert_right(again, frame)
    assert int(again.updates) == int(pairs.updates)


def test_cells_too_full_are_seen(x64):
    """Atoms that gather in a corner: the cells overflow though the neighbours would find room."""
    frame, pairs = start("liquid in cells")
    assert pairs.grid.room < 24
    crowd = np.asarray(frame.positions).copy()
    crowd[:45] = 2.2 + 0.05 * np.random.default_rng(0).normal(0, 1, (45, 3))
    there = Frame(jnp.array(crowd), frame.box)
    after = _update(pairs, there)
    assert bool(after.overflow) and int(after.crowd) > pairs.grid.room
    again = enlarged(pairs, after)
    assert again.grid.counts == pairs.grid.counts and again.grid.room > WORD  # two words a cell
    assert np.array_equal(again.index, pairs.index)
    assert_right(_update(again, there), there)
    crowd[:80] = 2.2 + 0.05 * np.random.default_rng(0).normal(0, 1, (80, 3))
    there = Frame(jnp.array(crowd), frame.box)
    again = enlarged(pairs, _update(pairs, there))
    assert again.grid is None
    assert_right(_update(again, there), there)


@pytest.mark.parametrize("name", ["liquid in cells", "skewed in cells"])
def test_a_box_that_shrinks(x64, name):
    """Either every pair within the reach of the list is in it, or the overflow is set."""
    (frame, pairs), lost = start(name), 0
    for scale in (0.995, 0.98, 0.9):
        there = Frame(frame.positions * scale, frame.box * scale)
        new = _update(pairs, there)
        lost += bool(new.overflow)
        if not bool(new.overflow):
            assert_right(new, there)
        else:
            assert_right(_update(enlarged(pairs, new), there), there)
    assert 0 < lost < 3


def test_a_box_that_shrinks_below_twice_the_cutoff(x64):
    frame, pairs = start("cube")
    after = _update(pairs, Frame(frame.positions * 0.9, frame.box * 0.9))
    assert bool(after.overflow)
    with pytest.raises(ValueError, match=r"1\.98 nm, and must be at least 2 nm"):
        enlarged(pairs, after)


def test_an_atom_that_moved_too_far_gets_a_wider_skin(x64):
    box = np.eye(3) * 4
    frame = Frame(jnp.array(gas(60, box)), jnp.array(box))
    pairs = allocate(frame, 1.0, 0.1, excluded=[(0, 1)], most=59)
    after = eqx.tree_at(lambda p: p.overflow, pairs, jnp.asarray(True))
    again = enlarged(pairs, after)
    assert np.isclose(again.skin, 0.15) and not bool(again.overflow)
    assert_right(again, frame, [(0, 1)])
    with pytest.raises(ValueError, match="not finite"):
        enlarged(pairs, eqx.tree_at(lambda p: p.reference, after, frame.positions * jnp.nan))


def test_a_skin_is_at_most_as_wide_as_the_cutoff(x64):
    """It grows by half each time, which is refused in the end."""
    box = np.eye(3) * 4
    pairs = allocate(Frame(jnp.array(gas(60, box)), jnp.array(box)), 1.0, 0.7, most=59)
    with pytest.raises(ValueError, match=r"cutoff of 1 nm.*shorten the time step"):
        enlarged(pairs, eqx.tree_at(lambda p: p.overflow, pairs, jnp.asarray(True)))


def test_replicas(x64):
    """Each with its own box and positions: as one after the other, in cells and among all."""
    for name in ("octahedron", "liquid in cells"):
        (box, atoms, *_), (_, pairs) = CASES[name], start(name)
        scales = (1.0, 1.01, 1.02)
        xs = jnp.stack([jnp.array(gas(atoms, box * s, i)) for i, s in enumerate(scales)])
        boxes = jnp.stack([jnp.array(box * s) for s in scales])

        def one(x, box):
            new = pairs.update(Frame(x, box))
            return new.index, new.overflow, new.stale(Frame(x + 0.01, box))

        index, overflow, stale = jax.jit(replicate(one))(last(xs), last(boxes))
        for k in range(3):
            alone = _update(pairs, Frame(xs[k], boxes[k]))
            assert np.array_equal(index[..., k], alone.index)
        assert not overflow.any() and not stale.any()


@pytest.mark.parametrize(
    ("box", "cutoff", "skin", "words"),
    [
        (np.diag([1.9, 3, 3]), 1.0, 0.1, r"cutoff of 1 nm.*1\.9 nm.*at least 2 nm.*at most 0\.95 nm.*images=True"),
        (OCTAHEDRON * 2.4, 1.0, 0.1, r"1\.96 nm.*enlarge"),
        (None, -1.0, 0.1, "cutoff = -1.0 nm must be positive"),
        (None, 1.0, -0.1, "skin = -0.1 nm not negative"),
    ],
)
def test_what_makes_no_sense(box, cutoff, skin, words):
    with pytest.raises(ValueError, match=words):
        allocate(Frame(jnp.zeros((4, 3)), None if box is None else jnp.array(box)), cutoff, skin)
