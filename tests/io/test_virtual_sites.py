"""Virtual sites of OpenMM: places, energies and forces against the Reference platform; what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metastable.core.errors import InputError
from metastable.core.frame import Frame
from metastable.io.forcefield import terms
from metastable.io.molecules import from_openmm, load_molecule
from metastable.io.sites import sites_of
from metastable.potentials.sites import WithSites
from metastable.potentials.sum import Sum

openmm = pytest.importorskip("openmm")
from openmm import app, unit  # noqa: E402

ATOMS = 6
RNG = np.random.default_rng(3)
START = np.array([[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0.1], [0.3, 0.3, 0.3], [0.1, 0.4, 0.2], [0.4, 0.1, 0.5]])
MODELS = {
    "tip4pew.xml": 1,
    "tip5p.xml": 2,
    "amber14/opc.xml": 1,
    "amber14/tip4pfb.xml": 1,
    "charmm36/tip4p2005.xml": 1,
}  # and the sites of each water


def reference(system, positions):
    """Positions with the sites placed, energy, and forces on the parents, of OpenMM in double precision."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    context.computeVirtualSites()
    state = context.getState(getEnergy=True, getForces=True, getPositions=True)
    forces = state.getForces(asNumpy=True)._value
    return state.getPositions(asNumpy=True)._value, state.getPotentialEnergy()._value, np.array(forces)


def bare(*sites, masses=()):
    """A system of charges of which the last are sites."""
    system, force = openmm.System(), openmm.NonbondedForce()
    rng = np.random.default_rng(1)
    for n in range(ATOMS + len(sites)):
        system.addParticle(12.0 if n < ATOMS else dict(masses).get(n, 0.0))
        force.addParticle(rng.normal(), 0.1, 0.3)
    for n, site in enumerate(sites):
        system.setVirtualSite(ATOMS + n, site)
        for parent in range(ATOMS):
            force.addException(ATOMS + n, parent, 0, 1, 0)
    system.addForce(force)
    return system


def local(parents, seed):
    rng = np.random.default_rng(seed)
    origin, x, y = rng.normal(size=(3, len(parents)))
    return openmm.LocalCoordinatesSite(
        parents, origin - origin.mean() + 1 / len(parents), x - x.mean(), y - y.mean(), openmm.Vec3(0.1, -0.2, 0.3)
    )


KINDS = {  # made anew by each test: a system takes its sites away
    "two": lambda: [openmm.TwoParticleAverageSite(4, 1, 0.3, 0.7)],
    "three": lambda: [openmm.ThreeParticleAverageSite(5, 0, 2, 0.3, 0.9, -0.2)],
    "out of plane": lambda: [openmm.OutOfPlaneSite(1, 3, 5, 0.2, -0.5, 1.7)],
    "local": lambda: [local([0, 2, 4], 0), local([1, 2, 3, 5], 1), local([5, 3, 0], 2)],
    "sites of sites": lambda: [
        openmm.TwoParticleAverageSite(7, 8, 0.4, 0.6),
        openmm.OutOfPlaneSite(8, 3, 5, 0.2, -0.5, 1.7),
        openmm.ThreeParticleAverageSite(5, 0, 2, 0.3, 0.9, -0.2),
        local([8, 1, 2], 1),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_openmms(x64, kind):
    sites = KINDS[kind]()
    system = bare(*sites)
    start = np.concatenate([START, np.full((len(sites), 3), 7.0)])
    placed, energy, forces = reference(system, start)
    found = sites_of(system)
    assert len(found) == len(sites) and sorted(found.index) == list(range(ATOMS, ATOMS + len(sites)))
    np.testing.assert_allclose(eqx.filter_jit(found.place)(jnp.asarray(start)), placed, atol=1e-13)
    potential = WithSites(Sum(terms(system)), found)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: potential(Frame(x))))(jnp.asarray(start))
    assert float(value) == pytest.approx(energy, rel=1e-10)
    np.testing.assert_allclose(-gradient[:ATOMS], forces[:ATOMS], atol=1e-10 * np.abs(forces).max())
    assert np.all(np.asarray(gradient[ATOMS:]) == 0)
    assert np.abs(forces[:ATOMS]).max() > 1


def water_pdb(path, count=9):
    """Waters without sites, at random angles on a lattice."""
    angle = np.deg2rad(104.52)
    one = 0.9572 * np.array([[0, 0, 0], [1, 0, 0], [np.cos(angle), np.sin(angle), 0]])
    lattice = 3.0 * np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)
    lines = []
    for n in range(count):
        for k, x in enumerate(Rotation.random(random_state=n).apply(one) + lattice[n]):
            name, element = (" O  ", " H1 ", " H2 ")[k], "OHH"[k]
            lines.append(f"HETATM{3 * n + k + 1:5d} {name} HOH A{n + 1:4d}    " + "".join(f"{c:8.3f}" for c in x)
                         + f"  1.00  0.00           {element}")  # fmt: skip
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return path


@pytest.mark.parametrize("model", MODELS)
def test_water_models(x64, tmp_path, model):
    path, size = water_pdb(tmp_path / "water.pdb"), 3 + MODELS[model]
    molecule = load_molecule(path, model, constraints="hydrogen-bonds")
    system, frame, potential = molecule
    assert len(system) == 9 * size and len(system.constraints) == 27 and system.degrees_of_freedom == 9 * 6
    assert np.sum(np.asarray(system.masses) == 0) == len(system.sites) == 9 * MODELS[model]
    assert list(potential.terms) == list(potential.energies(frame))
    pdb, forcefield = app.PDBFile(str(path)), app.ForceField(model)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addExtraParticles(forcefield)
    theirs = forcefield.createSystem(modeller.topology, rigidWater=True)
    start = np.array(modeller.positions.value_in_unit(unit.nanometer))
    np.testing.assert_allclose(frame.positions, reference(theirs, start)[0], atol=1e-12)
    site = np.array(system.masses) == 0
    shaken = start + 0.005 * RNG.normal(size=start.shape)
    _, energy, forces = reference(theirs, shaken)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: potential(Frame(x))))(jnp.asarray(shaken))
    assert float(value) == pytest.approx(energy, rel=1e-9)
    np.testing.assert_allclose(-gradient[~site], forces[~site], atol=1e-6)
    assert np.abs(forces[~site]).max() > 100 and np.all(np.asarray(gradient)[site] == 0)


def test_a_structure_that_has_its_sites_keeps_its_order(tmp_path):
    molecule = load_molecule(water_pdb(tmp_path / "water.pdb"), "tip5p.xml")
    topology = app.PDBFile(str(tmp_path / "water.pdb")).topology
    modeller = app.Modeller(topology, app.PDBFile(str(tmp_path / "water.pdb")).positions)
    modeller.addExtraParticles(app.ForceField("tip5p.xml"))
    with (tmp_path / "sites.pdb").open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    again = load_molecule(tmp_path / "sites.pdb", "tip5p.xml")
    assert again.system.topology.atom_names == molecule.system.topology.atom_names
    np.testing.assert_allclose(again.frame.positions, molecule.frame.positions, atol=1e-6)
    assert again.frame.positions.dtype == np.float64


def test_water_that_only_lacks_its_sites_is_not_to_blame(tmp_path):
    path = water_pdb(tmp_path / "water.pdb", 2)
    path.write_text(path.read_text().replace("HOH A   2", "XYZ A   2"))
    lines = [line for line in path.read_text().splitlines() if "H2  XYZ" not in line]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        load_molecule(path, "tip4pew.xml")
    (problem,) = caught.value.problems
    assert "XYZ 2" in str(problem)


def average(one, two, weight=0.5):
    return openmm.TwoParticleAverageSite(one, two, 0.5, weight)


def symmetry():
    axes = [openmm.Vec3(*row) for row in np.eye(3)]
    return openmm.SymmetrySite(0, *axes, openmm.Vec3(0, 0, 1), False)


SPOILT = {
    "its parents are missing": lambda: bare(average(0, 99)),
    "in turn follow it": lambda: bare(average(0, 7), average(0, 6)),
    "add up to 1.2": lambda: bare(average(0, 1, 0.7)),
    "SymmetrySite": lambda: bare(symmetry()),
    "mass 2.0 Da, which must be 0": lambda: bare(average(0, 1), masses=[(ATOMS, 2.0)]),
}


@pytest.mark.parametrize("said", SPOILT)
def test_sites_that_cannot_be_placed(said):
    with pytest.raises(InputError, match=said) as caught:
        terms(SPOILT[said]())
    assert caught.value.problems[0].where == "particle 6"


def test_a_particle_that_nothing_would_ever_move(tmp_path):
    pdb = app.PDBFile(str(water_pdb(tmp_path / "water.pdb", 2)))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    forcefield = app.ForceField("tip4pew.xml")
    modeller.addExtraParticles(forcefield)
    theirs = forcefield.createSystem(modeller.topology)
    orphans = openmm.System()
    for n in range(theirs.getNumParticles()):
        orphans.addParticle(theirs.getParticleMass(n))
    orphans.addForce(openmm.HarmonicBondForce())
    with pytest.raises(InputError, match=r"M of HOH 1 .* no parents") as caught:
        from_openmm(orphans, modeller.topology, modeller.positions)
    assert len(caught.value.problems) == 2
