"""Periodic space against brute force over images, and molecules put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metastable.core.space import (
    closest_components,
    fractional,
    molecules,
    nearest,
    reach,
    reduced,
    spanning,
    times,
    volume,
    whole,
    wrap,
)

OCTAHEDRON = np.array([[1, 0, 0], [1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(2 / 3)]])
SHIFTS = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3), -1).reshape(-1, 3)

lengths = st.floats(0.5, 3.0)
tilts = st.floats(-0.5, 0.5)


@st.composite
def boxes(draw):
    """Reduced boxes, down to the most oblique."""
    a, b, c = draw(lengths), draw(lengths), draw(lengths)
    return np.array([[a, 0, 0], [draw(tilts) * a, b, 0], [draw(tilts) * a, draw(tilts) * b, c]])


def shortest(d, box):
    """The length of the shortest image of all, by brute force around the images of the fractional parts."""
    f = d @ np.linalg.inv(box)
    images = (f - np.round(f) + SHIFTS) @ box
    return np.sqrt(np.min(np.sum(images**2, -1)))


def is_lattice(vectors, box):
    f = vectors @ np.linalg.inv(box)
    return np.allclose(f, np.round(f), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(boxes(), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_nearest_is_right_within_reach(box, d):
    with jax.enable_x64(True):
        d = np.array(d)
        found = np.asarray(nearest(jnp.array(d), jnp.array(box)))
        best, limit = shortest(d, box), float(reach(jnp.array(box)))
        assert limit == np.diagonal(box).min() / 2
        assert is_lattice(found - d, box)
        length = np.linalg.norm(found)
        assert length >= best - 1e-12
        if best < limit - 1e-9:
            assert np.isclose(length, best, rtol=1e-9, atol=1e-12)
        else:
            assert length >= limit - 1e-9


@settings(max_examples=60, deadline=None)
@given(boxes(), st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_closest_is_right_up_to_the_whole_diagonal(box, d):
    with jax.enable_x64(True):
        found = np.array([float(c) for c in closest_components(*map(jnp.asarray, d), jnp.array(box))])
        best = shortest(np.array(d), box)
        assert is_lattice(found - np.array(d), box)
        if best < np.diagonal(box).min():
            assert np.isclose(np.linalg.norm(found), best, rtol=1e-9, atol=1e-12)


def test_reach_is_sharp():
    """Beyond it, nearest is wrong somewhere: an oblique box in which it takes a longer image."""
    box = np.array([[1.0, 0, 0], [0.5, 1.0, 0], [0, 0, 1.0]])
    rng = np.random.default_rng(0)
    d = rng.uniform(-1, 1, (4000, 3))
    best = np.array([shortest(v, box) for v in d])
    length = np.linalg.norm(np.asarray(nearest(jnp.array(d), jnp.array(box))), axis=1)
    wrong = length > best + 1e-4
    assert wrong.any() and best[wrong].min() >= 0.5


def test_without_a_box_nothing_changes():
    d = jnp.arange(6.0).reshape(2, 3)
    assert nearest(d, None) is d


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wrap_many_boxes_outside(x64, dtype):
    rng = np.random.default_rng(1)
    for box in (OCTAHEDRON * 2.1, np.diag([1.0, 2.0, 3.0])):
        x = rng.uniform(-30, 30, (200, 3)).astype(dtype)
        inside = np.asarray(wrap(jnp.array(x), jnp.array(box, dtype)), float)
        f = inside @ np.linalg.inv(box)
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        assert f.min() > -tolerance and f.max() < 1 + tolerance
        turns = (inside - x) @ np.linalg.inv(box)
        assert np.allclose(turns, np.round(turns), atol=tolerance)


def test_fractional_and_volume(x64):
    box = OCTAHEDRON * 1.7
    x = np.random.default_rng(2).normal(0, 5, (20, 3))
    f = fractional(jnp.array(x), jnp.array(box))
    assert np.allclose(f, x @ np.linalg.inv(box), atol=1e-12)
    assert np.allclose(times(f, jnp.array(box)), x, atol=1e-12)
    assert np.isclose(volume(jnp.array(box)), np.linalg.det(box), rtol=1e-12)
    assert np.allclose(volume(jnp.array([box, 2 * box])), np.linalg.det(box) * np.array([1, 8]), rtol=1e-12)
    assert np.allclose(reach(jnp.array([box, 2 * box])), np.diagonal(box).min() / 2 * np.array([1, 2]))


@settings(max_examples=60, deadline=None)
@given(boxes(), st.lists(st.integers(-4, 4), min_size=3, max_size=3))
def test_reduced_spans_the_same_lattice(box, turns):
    i, j, k = turns
    skewed = np.array([[1, 0, 0], [i, 1, 0], [j, k, 1]]) @ box
    found = reduced(skewed)
    assert is_lattice(found, skewed) and np.isclose(np.linalg.det(found), np.linalg.det(skewed), rtol=1e-9)
    a, b, c = found
    assert abs(b[0]) <= a[0] / 2 * (1 + 1e-9)
    assert abs(c[0]) <= a[0] / 2 * (1 + 1e-9) and abs(c[1]) <= b[1] / 2 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.ones(3), "three vectors"),
        (np.full((3, 3), np.nan), "finite"),
        (-np.eye(3), "rotate"),
        (np.eye(3) + 0.1 * np.eye(3, k=1), "must point along"),
    ],
)
def test_reduced_says_what_is_wrong(vectors, words):
    with pytest.raises(ValueError, match=words):
        reduced(vectors)


def test_molecules_are_made_whole(x64):
    """A chain across several borders, a ring, a lone atom, in a triclinic box: as before they were wrapped."""
    rng = np.random.default_rng(4)
    box = OCTAHEDRON * 1.2
    steps = rng.normal(0, 1, (12, 3))
    chain = np.cumsum(0.15 * steps / np.linalg.norm(steps, axis=1)[:, None], 0)
    ring = 0.14 * np.array([[np.cos(t), np.sin(t), 0] for t in np.arange(6) * np.pi / 3]) + 0.6
    x = np.concatenate([chain, ring, [[5.0, 5.0, 5.0]]])
    order = rng.permutation(len(x))  # bonds in no order, nor atoms
    place = np.argsort(order)
    bonds = [(i, i + 1) for i in range(11)] + [(12 + i, 12 + (i + 1) % 6) for i in range(6)]
    bonds = rng.permutation(np.sort(place[np.array(bonds)], axis=1)[:, ::-1])
    x = x[order]
    tree = spanning(bonds, len(x))
    assert len(tree) == 11 + 5
    seen = set(range(len(x))) - set(tree[:, 1].tolist())
    for parent, child in tree.tolist():
        assert parent in seen
        seen.add(child)
    broken = np.asarray(wrap(jnp.array(x), jnp.array(box)))
    i, j = bonds.T
    assert np.linalg.norm(broken[i] - broken[j], axis=1).max() > 0.5
    found = np.asarray(whole(jnp.array(broken), jnp.array(box), tree))
    assert np.allclose(found[i] - found[j], x[i] - x[j], atol=1e-12)
    assert is_lattice(found - x, box)
    label = molecules(bonds, len(x))
    assert np.array_equal(np.unique(label), np.arange(3)) and label[0] == 0
    assert all(label[i] == label[j] for i, j in bonds.tolist())
    assert np.array_equal(np.bincount(label)[label], np.array([12] * 12 + [6] * 6 + [1])[order])


def test_no_bonds():
    assert spanning(np.zeros((0, 2)), 3).shape == (0, 2)
    assert np.array_equal(molecules(np.zeros((0, 2)), 3), [0, 1, 2])
    x = jnp.ones((3, 3))
    assert np.array_equal(whole(x, jnp.eye(3), spanning(np.zeros((0, 2)), 3)), x)
