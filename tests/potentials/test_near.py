"""Sums over near pairs: by hand, with lists of both kinds and without, and their derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.core.pairs import allocate
from metastable.core.replicas import last, replicate
from metastable.dynamics.state import force
from metastable.potentials.near import PairPotential, displacements, near_sum

pull = eqx.filter_jit(force)
TRICLINIC = np.array([[2.3, 0, 0], [0.8, 2.4, 0], [-0.9, 1.0, 2.2]])


def law(r2, one, other, shared):
    """Smooth, ends at 0 at a distance of 1 with two derivatives."""
    return shared * one[0] * other[0] * jnp.maximum(1 - r2, 0) ** 3


def frame_of(atoms=50, box=TRICLINIC, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 2, (atoms, 3)) @ (np.eye(3) * 2 if box is None else box)
    return Frame(jnp.array(x), None if box is None else jnp.array(box)), rng.uniform(0.5, 1.5, atoms)


def by_hand(x, box, charges, excluded=()):
    """All images in two boxes on each side, pair by pair."""
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), -1).reshape(-1, 3)
    total = 0.0
    for i in range(len(x)):
        for j in range(i):
            if (i, j) in excluded or (j, i) in excluded:
                continue
            d = x[i] - x[j]
            if box is not None:
                f = d @ np.linalg.inv(box)
                d = (f - np.round(f) + steps) @ box
            total += 2.5 * charges[i] * charges[j] * np.sum(np.maximum(1 - np.sum(d * d, -1), 0) ** 3)
    return total


@pytest.mark.parametrize("box", [None, np.diag([2.0, 2.5, 3.0]), TRICLINIC])
def test_with_and_without_a_list(x64, box):
    frame, charges = frame_of(box=box)
    excluded = [(3, 7), (20, 1)]
    potential = PairPotential(law, 1.0, (charges,), 2.5, excluded)
    listed = Frame(frame.positions, frame.box, allocate(frame, 1.0, 0.1, excluded=excluded))
    expected = by_hand(np.asarray(frame.positions), box, charges, excluded)
    assert expected > 1
    assert np.isclose(potential(frame), expected, rtol=1e-12)
    assert np.isclose(potential(listed), expected, rtol=1e-12)
    assert np.allclose(pull(potential, frame), pull(potential, listed), rtol=1e-10, atol=1e-12)
    assert np.isclose(eqx.filter_jit(potential)(listed), expected, rtol=1e-12)


def plain(potential, frame):
    """The same energy through displacements and jax's own derivative, without the kernel."""
    near = displacements(frame, potential.cutoff, potential.excluded)
    q = jnp.asarray(potential.features[0])
    r2 = jnp.where(near.mask, jnp.sum(near.vectors**2, 0), 4.0)
    return 0.5 * jnp.sum(law(r2, (q,), (q[near.index],), potential.parameters))


@pytest.mark.parametrize("images", [False, True])
def test_kernel_is_the_gradient(x64, images):
    frame, charges = frame_of()
    potential = PairPotential(law, 1.0, (charges,), 2.5)
    listed = Frame(frame.positions, frame.box, allocate(frame, 1.0, 0.1, images=images))
    assert np.isclose(plain(potential, listed), potential(listed), rtol=1e-12)
    assert np.allclose(force(potential, listed), force(lambda f: plain(potential, f), listed), rtol=1e-10, atol=1e-11)
    of = lambda p: jax.jit(lambda box: p(Frame(listed.positions, box, listed.pairs)))  # noqa: E731
    found = jax.grad(of(potential))(listed.box)
    assert np.allclose(found, jax.grad(of(lambda f: plain(potential, f)))(listed.box), rtol=1e-10, atol=1e-11)
    h, bent = 1e-5, np.zeros((3, 3))
    bent[2, 1] = h
    slope = (of(potential)(listed.box + bent) - of(potential)(listed.box - bent)) / (2 * h)
    assert np.isclose(found[2, 1], slope, rtol=1e-6) and abs(slope) > 0.1
    rate = jax.grad(lambda q: PairPotential(law, 1.0, (q,), 2.5)(listed))(jnp.array(charges))
    h = 1e-5
    above, below = (charges + s * h * (np.arange(50) == 4) for s in (1, -1))
    slope = (PairPotential(law, 1.0, (above,), 2.5)(listed) - PairPotential(law, 1.0, (below,), 2.5)(listed)) / (2 * h)
    assert np.isclose(rate[4], slope, rtol=1e-7)
    direction = jnp.array(np.random.default_rng(1).normal(0, 1, (50, 3)))
    forces = jax.jit(lambda x: force(potential, listed.at(x)))
    twice = jax.jvp(forces, [listed.positions], [direction])[1]
    change = (forces(listed.positions + 1e-6 * direction) - forces(listed.positions - 1e-6 * direction)) / 2e-6
    assert np.allclose(twice, change, rtol=1e-5, atol=1e-4)


def test_a_primitive_cell_is_its_crystal(x64):
    """Energy an atom, forces of all copies, and stress: one small cell with images, and a supercell of 4 x 4 x 4."""
    box = np.array([[0.8, 0, 0], [0.3, 0.9, 0], [-0.2, 0.35, 0.7]])
    x = np.random.default_rng(2).uniform(0, 1, (3, 3)) @ box
    charges = np.array([1.0, 0.7, 1.2])
    steps = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    small = Frame(jnp.array(x), jnp.array(box))
    large = Frame(jnp.array((x + steps @ box).reshape(-1, 3)), jnp.array(4 * box))
    of_small, of_large = (PairPotential(law, 1.0, (q,), 2.5) for q in (charges, np.tile(charges, 64)))
    small = Frame(small.positions, small.box, allocate(small, 1.0, 0.05, images=True))
    large = Frame(large.positions, large.box, allocate(large, 1.0, 0.05))
    assert np.isclose(64 * of_small(small), of_large(large), rtol=1e-12)
    assert np.allclose(np.tile(pull(of_small, small), (64, 1)), pull(of_large, large), atol=1e-10)
    assert np.isclose(of_small(small), by_images(x, box, charges), rtol=1e-12)

    def strained(potential, frame):
        def of(strain):
            bent = jnp.eye(3) + strain
            return potential(Frame(frame.positions @ bent, frame.box @ bent, frame.pairs))

        return np.tril(jax.grad(of)(jnp.zeros((3, 3))))

    assert np.allclose(64 * strained(of_small, small), strained(of_large, large), rtol=1e-9, atol=1e-9)


def by_images(x, box, charges):
    steps = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), -1).reshape(-1, 3) @ box
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            r2 = np.sum((x[j] - x[i] + steps) ** 2, -1)
            r2 = r2[r2 > 1e-12]
            total += 0.5 * 2.5 * charges[i] * charges[j] * np.sum(np.maximum(1 - r2, 0) ** 3)
    return total


def test_more_atoms_than_a_part(x64):
    """The kernel takes atoms in parts: a gas of more than one, whose number divides nothing."""
    box = np.diag([9.0, 9.5, 10.0])
    frame, charges = frame_of(2053, box)
    potential = PairPotential(law, 1.0, (charges,), 2.5)
    listed = Frame(frame.positions, frame.box, allocate(frame, 1.0, 0.1))
    assert np.isclose(plain(potential, listed), potential(listed), rtol=1e-12)
    found, expected = pull(potential, listed), jax.jit(lambda f: force(lambda g: plain(potential, g), f))(listed)
    assert np.allclose(found, expected, rtol=1e-10, atol=1e-11)
    assert np.allclose(np.sum(found, 0), 0, atol=1e-9)


@pytest.mark.parametrize("images", [False, True])
def test_replicas(x64, images):
    frame, charges = frame_of()
    potential = PairPotential(law, 1.0, (charges,), 2.5)
    pairs = allocate(frame, 1.0, 0.2, room=1.5, images=images)
    xs = frame.positions + 0.01 * jnp.array(np.random.default_rng(3).normal(0, 1, (3, 50, 3)))
    one = lambda x: (potential(Frame(x, frame.box, pairs)), force(potential, Frame(x, frame.box, pairs)))  # noqa: E731
    energies, forces = jax.jit(replicate(one))(last(xs))
    for k in range(3):
        energy, expected = jax.jit(one)(xs[k])
        assert np.isclose(energies[k], energy, rtol=1e-12)
        assert np.allclose(forces[..., k], expected, rtol=1e-10, atol=1e-11)


def test_single_precision():
    frame, charges = frame_of()
    assert frame.positions.dtype == np.float32
    potential = PairPotential(law, 1.0, (charges,), 2.5)
    listed = Frame(frame.positions, frame.box, allocate(frame, 1.0, 0.1))
    energy, forces = potential(listed), force(potential, listed)
    assert energy.dtype == forces.dtype == np.float32
    assert np.isclose(energy, by_hand(np.asarray(frame.positions, float), TRICLINIC, charges), rtol=1e-5)


def test_lists_that_do_not_suit():
    frame, _ = frame_of()
    listed = Frame(frame.positions, frame.box, allocate(frame, 0.8, 0.1))
    with pytest.raises(ValueError, match=r"goes to 0\.8 nm, and a potential needs 1 nm: allocate it with the largest"):
        near_sum(law, listed, 1.0, (jnp.ones(50),), 1.0)
    with pytest.raises(ValueError, match="excludes none, and a potential excludes 1"):
        near_sum(law, listed, 0.8, (jnp.ones(50),), 1.0, [(0, 1)])
