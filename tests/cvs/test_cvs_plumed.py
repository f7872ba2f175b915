"""Collective variables against PLUMED's own numbers, to the digits printed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.frame import Frame
from metastable.cvs import (
    RMSD,
    Center,
    Coordination,
    Displacement,
    Distance,
    Exponential,
    Function,
    Gaussian,
    RadiusOfGyration,
    Rational,
    Stack,
    Torsion,
)

pytestmark = pytest.mark.usefixtures("x64")


def values(cv, frames):
    cv = eqx.filter_jit(cv)
    return np.array([cv(frame) for frame in frames])


def derivatives(cv, frames):
    """ds/dx, (frames, atoms, 3), and PLUMED's virial, minus the derivative by a strain, (frames, 3, 3)."""

    @jax.jit
    def both(x, box):
        def strained(x, strain):
            stretch = jnp.eye(3) + strain
            return cv(Frame(x @ stretch, box @ stretch))[0]

        return jax.grad(strained, (0, 1))(x, jnp.zeros((3, 3)))

    by_x, by_strain = zip(*(both(f.positions, f.box) for f in frames), strict=True)
    return np.array(by_x), -np.array(by_strain)


def test_torsions_and_their_arithmetic(plumed):
    example = plumed("torsion")
    center = Center(range(10))
    t1, t2 = Torsion(0, 5, 9, 14), Torsion(5, 0, 5, 9, 9, 14)
    t3 = Torsion(5, 0, 19, 6, 9, center)
    cc1 = Function(lambda a, b: a**2 + b + 1, t1, t2)  # the third enters to the power 0
    cc3 = t1**2 + t2**2
    everything = Function(lambda *s: sum(s) / 6, t1, t2, t3, cc1, Function(jnp.zeros_like, t1), cc3)
    frames, reference = example.frames(), example.columns("COLVAR.reference")
    for cv, name in [(t1, "t1"), (t2, "t2"), (t3, "t3"), (cc1, "cc1"), (cc3, "cc3"), (everything, "all")]:
        np.testing.assert_allclose(values(cv, frames)[:, 0], reference[name], atol=5.1e-6)
    np.testing.assert_allclose(-derivatives(everything, frames)[0], example.forces(), atol=5.1e-7)


def test_distances_in_a_cubic_and_in_a_skewed_box(plumed):
    example = plumed("distance_pbc")
    frames, reference = example.frames(), example.columns("COLVAR.reference")
    for k in range(2, 9):
        cv = Distance(0, k - 1)
        np.testing.assert_allclose(values(cv, frames)[:, 0], reference[f"d{k}"], atol=5.1e-7)
        printed = example.columns(f"der{k}.reference")[f"d{k}"].reshape(2, 15)
        by_x, virial = derivatives(cv, frames)
        found = np.concatenate([by_x[:, 0], by_x[:, k - 1], virial.reshape(2, 9)], 1)
        np.testing.assert_allclose(found, printed, atol=5.1e-3)


def test_components_of_distances(plumed):
    example = plumed("metad_2cv")
    cv = Stack(Torsion(9, 11, 13, 15), Displacement(9, 14)[0], Displacement(14, 9)[0])
    reference = example.columns("ranges.reference")
    expected = np.stack([reference["t1"], reference["d1.x"], reference["d2.x"]], -1)
    np.testing.assert_allclose(values(cv, example.frames()), expected, atol=5.1e-7)


@pytest.mark.parametrize(
    "name, switching",
    [
        ("c", Rational(1.0)),
        ("d", lambda r: 1 / (1 + r**6)),
        ("e", Rational(1.0, 0.1, n=7)),
        ("f", lambda r: 1 / (1 + jnp.maximum(r - 0.1, 0) ** 7)),
        ("g", Exponential(1.0)),
    ],
)
def test_coordination_in_boxes_of_every_shape(plumed, name, switching):
    example = plumed("coordination_variants")
    cv = Coordination(range(108), range(108), switching=switching)
    frames = example.frames()
    assert len(frames) == 108
    np.testing.assert_allclose(
        values(cv, frames)[:, 0], example.columns(f"check_{name}.reference")[name], atol=5.1e-5, rtol=0
    )


def test_forces_and_virial_of_a_coordination(plumed):
    example = plumed("coordination_variants")
    cv = Coordination(range(108), range(108), switching=Rational(1.0))
    cv = cv + Coordination(range(108), range(108), switching=lambda r: 1 / (1 + r**6))
    forces = example.forces("ff.reference")
    virials = [line.split() for line in (example.folder / "ff.reference").read_text().splitlines()[1::110]]
    chosen = [27, 60, 107]  # the first 27 are a lattice, where images tie and the force is a matter of choice
    by_x, virial = derivatives(cv, [example.frames()[i] for i in chosen])
    np.testing.assert_allclose(-by_x, forces[chosen], atol=5.1e-6)
    np.testing.assert_allclose(-virial.reshape(3, 9), np.array(virials, float)[chosen], atol=5.1e-6)


@pytest.mark.parametrize(
    "folder, make",
    [
        ("switch_rational", lambda stretch: Rational(1.3, n=5, m=11, dmax=2.6, stretch=stretch)),
        ("switch_gaussian", lambda stretch: Gaussian(1.0, 0.3, 2.6, stretch)),
    ],
)
def test_switching_functions_and_their_derivatives(plumed, folder, make):
    example = plumed(folder)
    frames, reference = example.frames("switchtraj.xyz"), example.columns("COLVAR.reference")
    printed = example.columns("deriv.reference")
    for name, stretch in [("c", False), ("cs", True)]:
        cv = Coordination([0], [1], switching=make(stretch))
        np.testing.assert_allclose(values(cv, frames)[:, 0], reference[name], atol=5.1e-7)
        found = np.concatenate([d.reshape(len(frames), -1) for d in derivatives(cv, frames)], 1)
        np.testing.assert_allclose(found.ravel(), printed[name], atol=5.1e-5)


def test_radius_of_gyration(plumed):
    example = plumed("gyration_all_types")
    atoms = [12, 14, 16, 0, 2]
    frames, cv = example.frames(), RadiusOfGyration(atoms)
    np.testing.assert_allclose(values(cv, frames)[:, 0], example.columns("COLVAR.reference")["rgyr"], atol=5.1e-4)
    printed = example.columns("DERIVATIVES0.reference")["rgyr"].reshape(5, 24)
    by_x, virial = derivatives(cv, frames)
    found = np.concatenate([by_x[:, atoms].reshape(5, -1), virial.reshape(5, -1)], 1)
    np.testing.assert_allclose(found, printed, atol=5.1e-5)


def test_optimal_rmsd_with_all_its_weights(plumed):
    example = plumed("rmsd_optimal_stats")
    frames, reference = example.frames(), example.columns("COLVAR.reference")
    found = []
    for i in range(5):
        cv = RMSD.from_pdb(example.folder / f"test{i}.pdb", pbc=False)
        found.append(values(cv, frames)[:, 0])
        np.testing.assert_allclose(found[-1], reference[f"rmsd{i}"], atol=5.1e-4)
    target, found = np.array([1.496, 1.496, 1.337, 1.336, 2.329]), np.array(found)
    np.testing.assert_allclose(np.sum((found.T - target) ** 2, 1), reference["stat.sqdevsum"], atol=5.1e-4)
