"""Parts of lists against sets of pairs made on the host."""

import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, allocate
from metastable.core.subsets import between, half
from metastable.potentials.near import displacements


def seen(frame, pairs, cutoff=1.0):
    """(atom, neighbour, x, y, z) of every pair that is closer than the cutoff."""
    near = displacements(Frame(frame.positions, frame.box, pairs), cutoff)
    k, i = np.nonzero(np.asarray(near.mask))
    vectors = np.round(np.moveaxis(np.asarray(near.vectors), 0, -1)[k, i], 9)
    return {
        (a, b, *d) for a, b, d in zip(i.tolist(), np.asarray(near.index)[k, i].tolist(), vectors.tolist(), strict=True)
    }


def turned(pair):
    return (pair[1], pair[0], *(-x for x in pair[2:]))


@pytest.fixture(params=[False, True], ids=["nearest", "images"])
def made(request, x64):
    images = request.param
    edge, atoms = (0.9, 5) if images else (2.5, 60)
    frame = Frame(jnp.array(np.random.default_rng(0).uniform(0, edge, (atoms, 3))), edge * jnp.eye(3))
    return frame, allocate(frame, 1.0, 0.1, images=images)


def test_half_has_each_pair_once(made):
    frame, pairs = made
    whole, some = seen(frame, pairs), seen(frame, half(pairs))
    assert isinstance(half(pairs), Pairs) and 2 * len(some) == len(whole) > 100
    assert some | {turned(p) for p in some} == whole


def test_between_two_types(made):
    frame, pairs = made
    first = np.arange(len(frame.positions)) % 3 == 0
    second = np.arange(len(frame.positions)) % 3 == 1
    assert seen(frame, between(pairs, first, second)) == {p for p in seen(frame, pairs) if first[p[0]] and second[p[1]]}
    assert seen(frame, between(pairs, first, first)) == {p for p in seen(frame, pairs) if first[p[0]] and first[p[1]]}
