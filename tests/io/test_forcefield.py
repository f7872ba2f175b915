"""Forces of OpenMM as potentials: each by itself against the Reference platform, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.core.frame import Frame
from metastable.io.forcefield import terms
from metastable.potentials.sum import Sum

openmm = pytest.importorskip("openmm")

ATOMS = 10
RNG = np.random.default_rng(8)
POSITIONS = 0.2 * RNG.permutation(np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3))[:ATOMS]
POSITIONS = POSITIONS + 0.04 * RNG.normal(size=(ATOMS, 3))
QUADS = [list(map(int, RNG.permutation(ATOMS)[:4])) for _ in range(12)]


def bonds():
    force = openmm.HarmonicBondForce()
    for q in QUADS:
        force.addBond(q[0], q[1], RNG.random(), 100 * RNG.random())
    return force


def angles():
    force = openmm.HarmonicAngleForce()
    for q in QUADS:
        force.addAngle(*q[:3], 3 * RNG.random(), 100 * RNG.random())
    return force


def periodic():
    force = openmm.PeriodicTorsionForce()
    for n, q in enumerate(QUADS):
        force.addTorsion(*q, 1 + n % 6, 6 * RNG.random(), 10 * RNG.random())
    return force


def ryckaert_bellemans():
    force = openmm.RBTorsionForce()
    for q in QUADS:
        force.addTorsion(*q, *RNG.normal(size=6))
    return force


def cmap():
    force = openmm.CMAPTorsionForce()
    for _ in range(2):
        force.addMap(24, RNG.normal(size=576))
    for n, (p, q) in enumerate(itertools.pairwise(QUADS)):
        force.addTorsion(n % 2, *p, *q)
    return force


def impropers(expression):
    def build():
        force = openmm.CustomTorsionForce(expression)
        names = ("theta0", "k") if "thetap" in expression else ("k", "theta0")
        for name in names:
            force.addPerTorsionParameter(name)
        for q in QUADS:
            values = {"k": 100 * RNG.random(), "theta0": 6 * RNG.random() - 3}
            force.addTorsion(*q, [values[n] for n in names])
        return force

    return build


def nonbonded():
    force = openmm.NonbondedForce()
    for _ in range(ATOMS):
        force.addParticle(RNG.normal(), 0.1 + 0.2 * RNG.random(), RNG.random() * (RNG.random() > 0.3))
    force.addException(0, 1, 0, 1, 0)
    force.addException(5, 2, 0.3, 0.2, 0.7)
    return force


def born():
    force = openmm.GBSAOBCForce()
    for _ in range(ATOMS):
        force.addParticle(RNG.normal(), 0.12 + 0.08 * RNG.random(), 0.7 + 0.2 * RNG.random())
    force.setSolventDielectric(60.0)
    return force


def tabulated(expression):
    """A charge-only NonbondedForce, Lennard-Jones over types, and its 1-4 pairs."""

    def build():
        charges, pairs = openmm.NonbondedForce(), openmm.CustomNonbondedForce(expression)
        table = [float(x) for x in (lambda m: m + m.T)(1e-3 * RNG.random((3, 3))).reshape(-1)]
        for name in ("acoef", "bcoef"):
            pairs.addTabulatedFunction(name, openmm.Discrete2DFunction(3, 3, table))
        pairs.addPerParticleParameter("type")
        near = openmm.CustomBondForce("4*epsilon*((sigma/r)^12-(sigma/r)^6)")
        near.addPerBondParameter("sigma")
        near.addPerBondParameter("epsilon")
        for i in range(ATOMS):
            charges.addParticle(RNG.normal(), 1.0, 0.0)
            pairs.addParticle([i % 3])
        for i, j in ((0, 1), (1, 2), (4, 8)):
            charges.addException(i, j, 0.1 * i, 1.0, 0.0)
            pairs.addExclusion(j, i)
        near.addBond(4, 8, [0.25, 0.8])
        return charges, pairs, near

    return build


def geometric():
    charges, pairs = openmm.NonbondedForce(), openmm.CustomNonbondedForce("A1*A2/r^12-C1*C2/r^6")
    pairs.addPerParticleParameter("C")
    pairs.addPerParticleParameter("A")
    near = openmm.CustomBondForce("-C/r^6+A/r^12")
    near.addPerBondParameter("C")
    near.addPerBondParameter("A")
    for _ in range(ATOMS):
        charges.addParticle(RNG.normal(), 1.0, 0.0)
        pairs.addParticle([1e-2 * RNG.random(), 1e-4 * RNG.random()])
    charges.addException(2, 7, 0.2, 1.0, 0.0)
    pairs.addExclusion(2, 7)
    near.addBond(2, 7, [1e-4, 1e-7])
    return charges, pairs, near


FORCES = {
    "bonds": bonds,
    "angles": angles,
    "torsions": periodic,
    "rb": ryckaert_bellemans,
    "cmap": cmap,
    "impropers of charmm36.xml": impropers("k*(theta-theta0)^2"),
    "impropers of a prmtop": impropers(
        f"k*min(dtheta, 2*{np.pi}-dtheta)^2; dtheta = abs(theta-theta0)"  # the number as OpenMM writes it
    ),
    "impropers of a top": impropers(
        "0.5*k*(thetap-theta0)^2; thetap = step(-(theta-theta0+pi))*2*pi+theta+step(theta-theta0-pi)*(-2*pi); "
        f"pi = {np.pi:.15g}"
    ),
    "nonbonded": nonbonded,
    "native Born": born,
    "tables": tabulated("acoef(type1, type2)/r^12 - bcoef(type1, type2)/r^6;"),
    "tables, squared": tabulated("(a/r6)^2-b/r6; r6=r^6;a=acoef(type1, type2);b=bcoef(type1, type2)"),
    "geometric": geometric,
}


def system_of(*forces):
    system = openmm.System()
    for _ in range(ATOMS):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


@pytest.mark.parametrize("name", FORCES)
def test_each_force_is_openmms(x64, name):
    built = FORCES[name]()
    system = system_of(*(built if isinstance(built, tuple) else (built,)))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(POSITIONS)
    state = context.getState(getEnergy=True, getForces=True)
    potential = Sum(terms(system))
    energy, gradient = jax.jit(jax.value_and_grad(lambda x: potential(Frame(x))))(jnp.asarray(POSITIONS))
    forces = np.asarray(state.getForces(asNumpy=True)._value)
    assert np.abs(forces).max() > 0.1
    assert float(energy) == pytest.approx(state.getPotentialEnergy()._value, rel=1e-9)
    np.testing.assert_allclose(-gradient, forces, atol=1e-9 * np.abs(forces).max())


def test_terms_of_the_same_kind_keep_apart_and_centre_of_mass_removal_is_no_energy():
    assert list(terms(system_of(bonds(), bonds(), openmm.CMMotionRemover()))) == ["bonds", "bonds_2"]


def test_every_force_that_is_not_understood_is_named():
    meshed = openmm.NonbondedForce()
    meshed.setNonbondedMethod(openmm.NonbondedForce.LJPME)
    cutoff = openmm.CustomNonbondedForce("A1*A2/r^12-C1*C2/r^6")
    cutoff.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    named = openmm.CustomBondForce("k*r^3")
    named.setName("Cubic")
    system = system_of(
        bonds(),
        openmm.CustomExternalForce("x"),
        openmm.MonteCarloBarostat(1, 300),
        named,
        impropers("k*(theta-theta0)^4")(),
        meshed,
        cutoff,
        openmm.CustomNonbondedForce("1/r^9"),
        openmm.CustomGBForce(),
        openmm.GayBerneForce(),
    )
    with pytest.raises(InputError) as caught:
        terms(system)
    problems = {p.where: p.message for p in caught.value.problems}
    assert set(problems) == {
        "CustomExternalForce", "MonteCarloBarostat", "CustomBondForce 'Cubic'", "CustomTorsionForce", "NonbondedForce",
        "CustomNonbondedForce", "CustomGBForce", "GayBerneForce",
    }  # fmt: skip
    assert "HarmonicBondForce" in problems["CustomExternalForce"]  # what is supported instead
    assert "k*r^3" in problems["CustomBondForce 'Cubic'"]
    assert "Ewald" in problems["NonbondedForce"] and "PME" in problems["NonbondedForce"]
    assert "thermostat" in problems["MonteCarloBarostat"]
    assert len(caught.value.problems) == 9  # two CustomNonbondedForces


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda c, p, n: p.addExclusion(3, 9), "exclude different pairs"),
        (lambda c, p, n: n.addBond(3, 9, [0.1, 0.1]), "do not agree on the pair"),
        (lambda c, p, n: c.setParticleParameters(0, 0.0, 0.3, 0.4), "both have Lennard-Jones"),
        (lambda c, p, n: c.addGlobalParameter("lambda", 1.0), "GlobalParameters"),
    ],
)
def test_nonbonded_forces_that_do_not_fit_together(spoil, said):
    forces = tabulated("acoef(type1, type2)/r^12 - bcoef(type1, type2)/r^6")()
    spoil(*forces)
    with pytest.raises(InputError, match=said):
        terms(system_of(*forces))


def test_empty_systems_are_refused():
    with pytest.raises(InputError, match="no forces"):
        terms(system_of())


def test_altered_born_models_are_refused():
    from openmm.app.internal.customgbforces import GBSAOBC1Force, GBSAOBC2Force

    def built(kind):
        force = kind(SA="ACE")
        for _ in range(ATOMS):
            force.addParticle([0.1, 0.15, 0.8])
        force.finalize()
        return force

    assert list(terms(system_of(built(GBSAOBC2Force)))) == ["solvent"]
    force = built(GBSAOBC2Force)
    name, expression, kind = force.getComputedValueParameters(0)
    force.setComputedValueParameters(0, name, expression.replace("0.25", "0.26"), kind)
    with pytest.raises(InputError, match="integral of another form"):
        terms(system_of(force))
    force = built(GBSAOBC1Force)
    force.addEnergyTerm("charge^2", openmm.CustomGBForce.SingleParticle)
    with pytest.raises(InputError, match="energy of another form"):
        terms(system_of(force))
