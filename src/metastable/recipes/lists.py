"""Lists of near pairs between the blocks of a run: made anew at the start of each, enlarged where one did not suffice.

A checkpoint holds no list: the list of a block follows from the positions at its start and from its capacity, which
``lists.json`` keeps where it was enlarged, so that a run that was killed repeats what an uninterrupted one does.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, enlarged
from metastable.core.search import Cells
from metastable.dynamics.lists import Listed, lists, overflowed
from metastable.enhanced.walkers import Walkers, WalkersState
from metastable.loops.checkpoint import write_atomically


class Lists:
    """The lists of all walkers: what ``persist`` is told to do with them.

    pairs: a list of the first frame, whose capacity all walkers have. say: takes a sentence for people.
    """

    def __init__(self, directory: Path, walkers: Walkers, pairs: Pairs, say: Callable[[str], None]):
        self.path, self.walkers, self.pairs, self.say = directory / "lists.json", walkers, pairs, say
        if self.path.exists():
            kept = json.loads(self.path.read_text())
            grid = None
            if kept["grid"] is not None:
                counts, around, room = kept["grid"]
                grid = Cells(tuple(counts), tuple(around), room)
            index = jnp.tile(jnp.arange(pairs.index.shape[1], dtype=jnp.int32), (kept["most"], 1))
            pairs = dataclasses.replace(pairs, index=index, grid=grid, skin=kept["skin"])
            self.pairs = pairs.update(Frame(pairs.reference, pairs.box))

    def open(self, state: WalkersState) -> WalkersState:
        """The state with lists of its own positions."""
        return _opened(self.walkers, state, self.pairs)

    def close(self, state: WalkersState) -> WalkersState:
        """The state without lists."""
        return eqx.tree_at(lambda s: s.walkers.frame.pairs, state, None)

    def again(self, before: WalkersState, after: WalkersState) -> WalkersState | None:
        """Where a list of a block may have missed a pair: the state to repeat it from, with larger lists.

        Raises InputError where no list can be large enough: the box has become too small.
        """
        if not overflowed(after):
            return None
        (pairs,) = lists(after)
        full = int(jnp.max(pairs.count)) > len(self.pairs.index)
        if not full and not np.isfinite(np.asarray(after.walkers.frame.positions)).all():
            return None  # a runaway, which is found out, and told, elsewhere
        worst = dataclasses.replace(
            _smallest(self.walkers.replicas(after.bias).public(pairs), self.pairs),
            count=jnp.max(pairs.count), crowd=jnp.max(pairs.crowd), overflow=jnp.asarray(True),
        )  # fmt: skip
        try:
            self.pairs = enlarged(self.pairs, worst)
        except ValueError as error:
            raise InputError(Problem("molecule.box", str(error))) from error
        grid = self.pairs.grid if isinstance(self.pairs.grid, Cells) else None
        size = {"most": len(self.pairs.index), "skin": self.pairs.skin, "grid": grid}
        write_atomically(self.path, (json.dumps(size) + "\n").encode())
        self.say(f"a list of near pairs was too small: the block is repeated with {len(self.pairs.index)} an atom")
        return self.open(self.close(before))


def list_of(sampler: Any) -> Pairs | None:
    """The list that a sampler begins with, whatever wraps it; None where it keeps none."""
    while sampler is not None:
        if isinstance(sampler, Listed):
            return sampler.pairs
        sampler = getattr(sampler, "sampler", None)
    return None


def _smallest(each: Pairs, otherwise: Pairs) -> Pairs:
    """Of the lists of all walkers that of the smallest box, whose search is the first to become too narrow.

    otherwise: where no walker's positions were finite.
    """
    finite = np.isfinite(np.asarray(each.reference)).all((1, 2))
    if not finite.any():
        return otherwise
    volumes = np.prod(np.diagonal(np.asarray(each.box), axis1=1, axis2=2), 1)
    smallest = int(np.argmin(np.where(finite, volumes, np.inf)))
    return jax.tree.map(lambda x: x[smallest], each)


@eqx.filter_jit
def _opened(walkers: Walkers, state: WalkersState, pairs: Pairs) -> WalkersState:
    def listed(one):
        frame = Frame(one.frame.positions, one.frame.box)
        return eqx.tree_at(lambda s: s.frame, one, Frame(frame.positions, frame.box, pairs.update(frame)))

    return eqx.tree_at(lambda s: s.walkers, state, walkers.replicas(state.bias).change(listed)(state.walkers))
