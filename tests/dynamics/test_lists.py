"""Dynamics with lists: a crystal that melts, lists that are too small, and energy."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from metastable.core.frame import Frame
from metastable.core.pairs import allocate
from metastable.core.search import Cells
from metastable.dynamics.barostats import MonteCarloBarostat
from metastable.dynamics.integrators import Langevin, VelocityVerlet
from metastable.dynamics.lists import Listed, lists, overflowed, regrown
from metastable.dynamics.state import total_energy
from metastable.loops.run import run
from metastable.potentials.analytic import Index
from metastable.potentials.nonbonded import Exceptions, Uniform
from metastable.potentials.periodic import Periodic

CUTOFF, SKIN, KT = 1.6, 0.3, 3.0
NONE = Exceptions(Index([], 2), [], [], [])


def crystal(cells, density=0.8, dtype=np.float64):
    """fcc."""
    length = (4 * cells**3 / density) ** (1 / 3)
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    x = (corner + np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])).reshape(-1, 3) * length / cells
    return Frame(jnp.array(x, dtype), jnp.array(np.eye(3) * length, dtype))


def fluid(atoms, **form):
    return Periodic(np.zeros(atoms), Uniform(1.0, 1.0), NONE, None, CUTOFF, **form)


def sampler(kind, atoms):
    potential, masses = fluid(atoms, shift=True), np.ones(atoms)
    if kind == "verlet":
        return VelocityVerlet(potential, masses, 0.004, kT=KT)
    return Langevin(potential, masses, 0.004, KT, 1.0)


def misses(pairs, positions, box):
    """How many pairs within the cutoff are not in the list, by a tree of a periodic cube."""
    length = float(box[0, 0])
    tree = cKDTree(np.mod(np.asarray(positions, float), length), boxsize=length)
    near = tree.query_pairs(CUTOFF, output_type="ndarray")
    held = np.zeros((len(positions),) * 2, bool)
    for row in np.asarray(pairs.index):
        held[np.arange(len(positions)), row] = True
    return int(np.sum(~held[near[:, 0], near[:, 1]]) + np.sum(~held[near[:, 1], near[:, 0]]))


def ran(key, sampler, state, blocks, steps, observe):
    """Blocks, repeated where a list overflowed; (last state, records of all, how many were repeated)."""
    records, repeated = [], 0
    for block in range(blocks):
        while True:
            after, seen = run(jax.random.fold_in(key, block), sampler, state, steps, every=5, observe=observe)
            if not overflowed(after):
                break
            state, repeated = regrown(state, after), repeated + 1
            assert repeated < 12
        state = after
        records.append(seen)
    return state, records, repeated


@pytest.mark.parametrize(("kind", "cells"), [("verlet", 4), ("langevin", 4), ("verlet", 8)])
def test_a_crystal_melts_with_lists_that_are_too_small(x64, kind, cells):
    """Overflow is seen, room grows, blocks are repeated: to the bit what an ample list gives, and no pair missed."""
    frame = crystal(cells)
    atoms = len(frame.positions)
    mechanics = sampler(kind, atoms)
    ample = mechanics.potential.pairs(frame, SKIN, most=96)
    tight = allocate(frame, CUTOFF, SKIN, most=24, room=1.0)
    assert isinstance(ample.grid, Cells) == isinstance(tight.grid, Cells) == (cells == 8)
    if cells == 8:
        ample = eqx.filter_jit(lambda p, f: p.update(f))(_roomy(ample), frame)
    key, seen = jax.random.key(1), lambda s: (s.positions, s.frame.pairs.index)
    ends = []
    for pairs, overflows in ((ample, False), (tight, True)):
        start = Listed(mechanics, pairs).init(jax.random.key(0), frame)
        end, records, repeated = ran(key, Listed(mechanics, pairs), start, 6 if cells == 4 else 3, 25, seen)
        assert (repeated > 0) == overflows
        assert int(lists(end)[0].updates) > 5
        ends.append(end)
        for x, index in records:
            for k in range(len(x)):
                assert misses(eqx.tree_at(lambda p: p.index, pairs, index[k]), x[k], frame.box) == 0
    first, second = ends
    assert np.array_equal(first.positions, second.positions) and np.array_equal(first.momenta, second.momenta)
    moved = np.linalg.norm(np.asarray(first.positions - frame.positions), axis=1)
    assert np.sqrt(np.mean(moved**2)) > 0.15  # of a distance of 1.2 between neighbours


def _roomy(pairs):
    return replace(pairs, grid=pairs.grid._replace(room=32))


@pytest.mark.parametrize("form", [{"shift": True}, {"switch": 1.3}])
def test_energy_is_conserved(x64, form):
    """NVE of a liquid: the error of velocity Verlet falls as dt^2 where forces are continuous, and does not drift."""
    frame = crystal(4)
    atoms = len(frame.positions)
    potential = fluid(atoms, **form)
    mechanics = VelocityVerlet(potential, np.ones(atoms), 0.004, kT=KT)
    listed = Listed(mechanics, potential.pairs(frame, SKIN, room=1.5))
    state, _ = run(jax.random.key(3), listed, listed.init(jax.random.key(2), frame), 200)
    spread = []
    for dt, steps in ((0.004, 250), (0.002, 500)):
        one = eqx.tree_at(lambda s: s.sampler.dt, listed, jnp.asarray(dt))
        after, energy = run(
            jax.random.key(4), one, state, steps, every=5, observe=lambda s: total_energy(potential, s, np.ones(atoms))
        )
        assert not overflowed(after)
        spread.append(float(jnp.std(energy)) / atoms)
    # a force that is cut off sharply leaves an error of higher order in which no such ratio is seen
    assert spread[0] < (2e-3 if "shift" in form else 1e-3)
    if "switch" in form:
        assert spread[1] < spread[0] / 2.5


def test_a_step_too_far_is_seen(x64):
    """Atoms that fly apart within one step, past the skin: overflow, a wider skin, and in the end an error."""
    frame = crystal(4)
    atoms = len(frame.positions)
    mechanics = VelocityVerlet(fluid(atoms, shift=True), np.ones(atoms), 0.004, kT=KT)
    listed = Listed(mechanics, mechanics.potential.pairs(frame, 0.02, room=2.0))
    start = listed.init(jax.random.key(0), frame)
    end, _ = run(jax.random.key(1), listed, start, 5)
    assert overflowed(end)
    again, rounds = start, 0
    while overflowed(end) and rounds < 10:
        again = regrown(again, end)
        end, _ = run(jax.random.key(1), listed, again, 5)
        rounds += 1
    assert not overflowed(end) and lists(again)[0].skin > 0.04
    ample = Listed(mechanics, mechanics.potential.pairs(frame, SKIN, room=2.0))
    right, _ = run(jax.random.key(1), ample, ample.init(jax.random.key(0), frame), 5)
    assert np.allclose(end.positions, right.positions, atol=1e-12)


def test_without_a_cure(x64):
    frame = crystal(4)
    mechanics = VelocityVerlet(fluid(256), np.ones(256), 10.0, kT=KT)
    listed = Listed(mechanics, mechanics.potential.pairs(frame, SKIN))
    start = listed.init(jax.random.key(0), frame)
    end, _ = run(jax.random.key(1), listed, start, 3)
    assert overflowed(end)
    with pytest.raises(ValueError, match=r"shorten the time step|not finite"):
        for _ in range(10):
            start = regrown(start, end)
            end, _ = run(jax.random.key(1), listed, start, 3)


def test_listed_is_its_sampler(x64):
    frame = crystal(4)
    mechanics = sampler("langevin", 256)
    listed = Listed(mechanics, mechanics.potential.pairs(frame, SKIN, room=1.5))
    assert listed.potential is mechanics.potential and listed.kT is mechanics.kT
    state = listed.init(jax.random.key(0), frame)
    plain = mechanics.init(jax.random.key(0), frame)
    assert np.array_equal(state.momenta, plain.momenta)
    for k in range(5):
        state, plain = listed.step(jax.random.key(k), state), mechanics.step(jax.random.key(k), plain)
    assert np.allclose(state.positions, plain.positions, atol=1e-12)


def test_a_move_of_the_box_leaves_the_next_step_its_margin(x64):
    """Right after a move the list is as good as for the next step, where forces are asked for in its midst."""
    frame = crystal(4)
    atoms = len(frame.positions)
    listed = Listed(sampler("verlet", atoms), allocate(frame, CUTOFF, 0.15, room=1.6))
    barostat = MonteCarloBarostat(listed, 8.0, every=2, size=0.05)
    state = barostat.init(jax.random.key(0), frame)
    state, _ = run(jax.random.key(1), barostat, state, 2000)
    assert not overflowed(state) and int(state.accepted[0]) > 300
    assert 100 < int(lists(state)[0].updates) < 2000
