"""Lists of images against ASE's, and lattices against their sums."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.neighborlist import primitive_neighbor_list

from metastable.core.frame import Frame
from metastable.core.images import Images
from metastable.core.pairs import allocate, enlarged, kept
from metastable.potentials.near import displacements

HEXAGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0], [0, 0, 1.633]])
SHEARED = np.array([[1, 0, 0], [0.9, 0.6, 0], [-0.7, 0.4, 0.8]])  # not reduced: any lattice will do
CELLS = {  # box, atoms, cutoff
    "one atom": (np.eye(3), 1, 2.9),
    "two atoms, hexagonal": (HEXAGONAL, 2, 3.3),
    "sheared": (SHEARED, 5, 1.7),
    "flat": (np.diag([0.4, 5.0, 1.0]), 7, 1.1),
    "many atoms": (np.eye(3) * 1.5, 40, 1.0),
    "large": (np.eye(3) * 4, 33, 1.0),
}
update = eqx.filter_jit(lambda pairs, frame: pairs.update(frame))


def rows(i, j, shift, d):
    """Neighbours as sorted rows (atom, neighbour, shift, vector)."""
    table = np.column_stack([i, j, shift, d])
    return table[np.lexsort(table[:, 4::-1].T)]


def held(frame, cutoff):
    near = jax.jit(lambda frame: displacements(frame, cutoff))(frame)
    k, i = np.nonzero(np.asarray(near.mask))
    shift = np.asarray(frame.pairs.shift)[k, i]
    d = np.moveaxis(np.asarray(near.vectors), 0, -1)[k, i]
    assert np.allclose(np.asarray(near.squared)[k, i], np.sum(d**2, -1), rtol=1e-5)
    assert np.all(np.asarray(near.squared)[~np.asarray(near.mask)] == np.asarray(cutoff**2, d.dtype))
    return rows(i, np.asarray(near.index)[k, i], shift, d)


@pytest.mark.parametrize("name", CELLS)
def test_against_ase(x64, name):
    """Atoms also outside of the cell, by many boxes."""
    box, atoms, cutoff = CELLS[name]
    for seed, boxes in ((0, 0), (1, 6)):
        x = np.random.default_rng(seed).uniform(-boxes, boxes + 1, (atoms, 3)) @ box
        frame = Frame(jnp.array(x), jnp.array(box))
        pairs = allocate(frame, cutoff, 0.0, images=True)
        assert isinstance(pairs.grid, Images) and not bool(pairs.overflow)
        found = held(Frame(frame.positions, frame.box, pairs), cutoff)
        i, j, shift, d = primitive_neighbor_list("ijSD", [True] * 3, box, x, cutoff)
        expected = rows(i, j, shift, d)
        assert len(expected) > atoms and found.shape == expected.shape
        assert np.allclose(found, expected, atol=1e-9)


def test_atoms_on_the_border_in_single_precision():
    """A crystal has atoms on faces, edges and halves, where rounding chooses the side: the list must not care."""
    box = np.eye(3) * 0.37
    for origin in (0.0, 1e-8, -1e-8, 0.185, 7 * 0.37):
        x = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) * 0.37 + origin
        frame = Frame(jnp.array(x, jnp.float32), jnp.array(box, jnp.float32))
        pairs = allocate(frame, 0.5, 0.05, images=True)
        near = displacements(Frame(frame.positions, frame.box, pairs), 0.5)
        assert np.array_equal(np.sum(near.mask, 0), [12 + 6 + 24] * 4)
        assert np.allclose(np.min(near.squared), 0.37**2 / 2, rtol=1e-4)


@pytest.mark.parametrize("structure", ["fcc", "hcp"])
def test_lattice_sums(x64, structure):
    """Sums of r^-12 and r^-6 over a crystal, with the mean of what lies beyond the cutoff, from a primitive cell.

    Kihara, Koba 1952, doi:10.1143/JPSJ.7.348; Kittel, Introduction to Solid State Physics, table 3.4.
    """
    if structure == "fcc":
        box, x = (
            np.array([[1, 0, 0], [0.5, np.sqrt(0.75), 0], [0.5, np.sqrt(1 / 12), np.sqrt(2 / 3)]]),
            np.zeros((1, 3)),
        )
        sums = {12: 12.13188, 6: 14.45392}
    else:
        box = np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])
        x = np.array([[0, 0, 0], [0, np.sqrt(1 / 3), np.sqrt(2 / 3)]])
        sums = {12: 12.13229, 6: 14.45489}
    frame = Frame(jnp.array(x), jnp.array(box))
    errors = []
    for cutoff in (3.3, 9.3):
        near = displacements(Frame(frame.positions, frame.box, allocate(frame, cutoff, 0.0, images=True)), cutoff)
        density = len(x) / np.linalg.det(box)
        for n, expected in sums.items():
            total = float(jnp.sum(jnp.where(near.mask, near.squared ** (-n / 2), 0))) / len(x)
            tail = 4 * np.pi * density * cutoff ** (3 - n) / (n - 3)
            errors.append(abs(total + tail - expected))
    assert errors[2] < 1e-5 and errors[3] < 3e-4 and errors[3] < errors[1] < 1e-2


def test_stale_kept_and_grown(x64):
    """The contract of lists: made anew as needed, nothing missed until then, overflow seen, and cured."""
    box, atoms, cutoff = CELLS["many atoms"]
    rng = np.random.default_rng(0)
    frame = Frame(jnp.array(rng.uniform(0, 1, (atoms, 3)) @ box), jnp.array(box))
    pairs = allocate(frame, cutoff, 0.1, images=True, room=1.5)
    fresh, keep = 0, eqx.filter_jit(kept)
    for _ in range(12):
        bent = box @ (np.eye(3) + 0.02 * rng.uniform() * np.tril(rng.normal(0, 1, (3, 3))))
        moves = rng.normal(0, 1, (atoms, 3))
        moves *= 0.07 * rng.uniform() / np.linalg.norm(moves, axis=1)[:, None]
        there = Frame(
            jnp.array(np.asarray(frame.positions) @ np.linalg.inv(box) @ bent + moves), jnp.array(bent), pairs
        )
        if not bool(pairs.stale(there)):
            fresh += 1
        else:
            there = keep(there)
            assert int(there.pairs.updates) == 2 and not bool(there.pairs.overflow)
        d = primitive_neighbor_list("d", [True] * 3, bent, np.asarray(there.positions), cutoff)
        assert len(held(there, cutoff)) == len(d)
    assert 2 < fresh < 11
    small = allocate(frame, cutoff, 0.1, images=True, most=8)
    assert bool(small.overflow) and int(small.count) == int(pairs.count)
    assert not bool(enlarged(small, small).overflow)
    squeezed = Frame(frame.positions * 0.6, frame.box * 0.6)
    after = update(pairs, squeezed)
    assert bool(after.overflow)
    again = enlarged(pairs, after)
    again = enlarged(again, update(again, squeezed))
    new = update(again, squeezed)
    assert not bool(new.overflow)
    d = primitive_neighbor_list("d", [True] * 3, 0.6 * box, np.asarray(squeezed.positions), cutoff)
    assert len(held(Frame(squeezed.positions, squeezed.box, new), cutoff)) == len(d)


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match="needs a box"):
        allocate(Frame(jnp.zeros((2, 3))), 1.0, images=True)
    with pytest.raises(ValueError, match="excludes no pairs"):
        allocate(Frame(jnp.zeros((2, 3)), jnp.eye(3)), 1.0, images=True, excluded=[(0, 1)])
