"""The lists of walkers between blocks, where a box has changed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metastable.core.frame import Frame
from metastable.core.pairs import allocate
from metastable.core.search import Cells
from metastable.cvs import Volume
from metastable.dynamics.integrators import Langevin
from metastable.dynamics.lists import Listed, lists, overflowed
from metastable.enhanced import biases
from metastable.enhanced.walkers import Walkers
from metastable.recipes.lists import Lists


def nothing(frame):
    """The energy of atoms that do not feel one another."""
    return 0.0 * jnp.sum(frame.positions)


def test_a_box_that_shrank_gets_a_search_that_suits_it_and_keeps_the_skin(tmp_path):
    atoms, edge = 4000, 4.6
    x = edge * jax.random.uniform(jax.random.key(0), (atoms, 3), jnp.float32)
    frame = Frame(x, edge * jnp.eye(3, dtype=jnp.float32))
    pairs = allocate(frame, 0.5, 0.1, room=1.6)
    assert isinstance(pairs.grid, Cells)
    sampler = Listed(Langevin(nothing, np.ones(atoms, np.float32), 0.002, 2.5, 1.0), pairs)
    walkers = Walkers(sampler, Volume(), biases.Sum(), 10, 2, lanes=1)
    before = walkers.init(jax.random.key(1), frame)
    said = []
    held = Lists(tmp_path, walkers, pairs, said.append)
    assert held.again(before, before) is None

    shrink = jnp.array([1.0, 0.9])  # the second walker alone
    moved = eqx.tree_at(
        lambda s: (s.walkers.frame.positions, s.walkers.frame.box), before,
        replace_fn=lambda a: a * shrink.reshape(2, *[1] * (a.ndim - 1)),
    )  # fmt: skip
    after = held.open(held.close(moved))
    assert overflowed(after)  # its cells have become thinner than what they are to find
    repeated = held.again(before, after)
    assert repeated is not None and not overflowed(repeated) and len(said) == 1
    assert held.pairs.skin == pairs.skin and held.pairs.grid != pairs.grid
    assert not overflowed(held.open(held.close(moved)))
    again = Lists(tmp_path, walkers, pairs, said.append)  # as a run that is gone on with reads it
    assert again.pairs.grid == held.pairs.grid and len(again.pairs.index) == len(held.pairs.index)
    assert len(lists(after)) == 1
