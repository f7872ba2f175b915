"""Barostats: what a move does to a frame, a state and a box, and what is refused. Their distributions have a file."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from metastable.core.compiling import filter_jit_tiny
from metastable.core.frame import Frame
from metastable.core.pairs import allocate
from metastable.core.space import nearest, reduced, volume
from metastable.core.system import System, Topology
from metastable.core.units import bar
from metastable.dynamics.barostats import CRescale, MonteCarloBarostat
from metastable.dynamics.constraints import Constraints
from metastable.dynamics.couplings import COUPLINGS, exponential, reduced_again
from metastable.dynamics.integrators import BAOAB, Langevin, VelocityVerlet
from metastable.dynamics.lists import Listed
from metastable.dynamics.replicas import Replicas
from metastable.dynamics.rest import AtRest
from metastable.dynamics.state import force
from metastable.dynamics.thermostats import CSVR
from metastable.enhanced.walkers import Biased
from metastable.loops import run as loops
from metastable.potentials.near import PairPotential
from metastable.testing.conformance import check_sampler

run = filter_jit_tiny(loops.run)
RANDOM = np.random.default_rng(8)
ATOMS, KT = 6, 2.5
GROUPS = np.array([0, 0, 1, 1, 2, 3])
MASSES = np.array([3.0, 9.0, 4.0, 4.0, 20.0, 12.0])
BOX = np.array([[1.3, 0.0, 0.0], [0.3, 1.4, 0.0], [-0.4, 0.5, 1.2]])
CENTRES = np.array([[0.2, 0.2, 0.3], [0.9, 0.3, 0.9], [0.2, 1.0, 0.5], [0.8, 1.0, 0.2]])
POSITIONS = CENTRES[GROUPS] + np.array([0.1, 0, 0]) * np.array([0, 1, 0, 1, 0, 0])[:, None]
NAMES = ("X",) * ATOMS
HELD = System(
    np.ones(ATOMS), MASSES, np.zeros(ATOMS), Topology(*[NAMES] * 4), np.array([[0, 1], [2, 3]]), np.array([0.1, 0.1])
)


def soft(frame):
    i, j = np.triu_indices(ATOMS, 1)
    apart = GROUPS[i] != GROUPS[j]
    d = nearest(frame.positions[i[apart]] - frame.positions[j[apart]], frame.box)
    return 60 * jnp.sum(jnp.maximum(0, 1 - jnp.sum(d * d, -1) / 0.35) ** 3)


def frame():
    return Frame(jnp.asarray(POSITIONS), jnp.asarray(BOX))


LANGEVIN = Langevin(soft, MASSES, 0.002, KT, 2.0, Constraints.from_system(HELD))
BAROSTATS = {
    **{f"C-rescale, {name}": CRescale(LANGEVIN, 20.0, 0.5, 0.02, GROUPS, every=1, coupling=name) for name in COUPLINGS},
    **{
        f"Monte Carlo, {name}": MonteCarloBarostat(LANGEVIN, 20.0, GROUPS, every=1, coupling=name, size=0.02)
        for name in COUPLINGS
    },
}


@pytest.mark.parametrize("make", [
    lambda md: CRescale(md, 20.0, 0.5, 0.02, GROUPS, every=1, coupling="triclinic"),
    lambda md: MonteCarloBarostat(md, 20.0, GROUPS, every=1, coupling="semi-isotropic", size=0.02),
    AtRest,
])  # fmt: skip
def test_contract(make):
    """Around what carries forces; not where the energy has a kink, such as at the edge of its range."""

    def smooth(frame):
        d = nearest(frame.positions[1:] - frame.positions[:-1], frame.box)
        return 5 * jnp.sum(jnp.cos(4 * d)) + jnp.sum(frame.box[0, 0] ** 2)

    check_sampler(make(CSVR(smooth, MASSES, 0.002, KT, 0.1, 3 * ATOMS - 3)), frame())


@pytest.mark.parametrize("name", BAROSTATS)
def test_a_move(x64, name):
    """Molecules keep their shape and constraints, the box its form and, but for triclinic coupling, its angles."""
    barostat = BAROSTATS[name]
    state = barostat.init(jax.random.key(0), frame())
    end, path = run(jax.random.key(1), barostat, state, 60, every=1, observe=lambda s: (s.frame.box, s.positions))
    boxes, positions = map(np.asarray, path)
    assert np.array_equal(boxes, np.tril(boxes))
    assert all(np.allclose(reduced(box), box, atol=1e-12) for box in boxes)
    assert len(np.unique(boxes[:, 0, 0])) > 4
    assert np.max(barostat.sampler.constraint.residual(positions)) < 1e-9
    strain = np.linalg.inv(BOX) @ boxes[-1]
    sides = np.diag(strain)
    coupling = barostat.coupling
    off = strain - np.diag(sides)
    assert (np.abs(off).max() > 1e-3) == (coupling == "triclinic")
    assert (abs(sides[0] - sides[1]) < 1e-12) == (coupling in ("isotropic", "semi-isotropic"))
    assert (abs(sides[0] - sides[2]) < 1e-12) == (coupling == "isotropic")
    if "Carlo" in name:
        assert np.sum(end.tried) == 60
        assert np.all(np.asarray(end.accepted) <= np.asarray(end.tried))


def test_a_move_between_two_steps(x64):
    """Until the first move all is as without; then centres and box are strained, and their momenta inversely."""
    langevin_step = filter_jit_tiny(LANGEVIN.step)  # one program, or it would round differently

    class Stepper(Langevin):
        def step(self, key, state):
            return langevin_step(key, state)

    langevin = Stepper(soft, MASSES, 0.002, KT, 2.0, LANGEVIN.constraint)
    barostat = CRescale(langevin, 200.0, 0.5, 0.02, GROUPS, every=3)
    with_, without = barostat.init(jax.random.key(0), frame()), LANGEVIN.init(jax.random.key(0), frame())
    for k in range(3):
        assert np.array_equal(with_.positions, without.positions)
        assert np.array_equal(with_.momenta, without.momenta)
        key = jax.random.fold_in(jax.random.key(1), k)
        with_, without = barostat.step(key, with_), langevin.step(key, without)
    factor = float(with_.frame.box[0, 0] / BOX[0, 0])
    assert abs(factor - 1) > 1e-4
    for g in range(4):
        own, m = g == GROUPS, MASSES[g == GROUPS]
        before, after = (m @ np.asarray(s.positions)[own] / m.sum() for s in (without, with_))
        assert np.allclose(after, factor * before, atol=1e-12)
        before, after = (np.asarray(s.momenta)[own].sum(0) for s in (without, with_))
        assert np.allclose(after, before / factor, atol=1e-12)


@pytest.mark.parametrize("wrap", [
    lambda md: CRescale(md, 20.0, 0.5, 0.02, every=1), lambda md: MonteCarloBarostat(md, 20.0, every=1, size=0.1)
])  # fmt: skip
def test_forces_that_are_carried_are_those_of_the_new_box(x64, wrap):
    md = BAOAB(soft, MASSES, 0.002, KT, 2.0)
    state, _ = run(jax.random.key(2), wrap(md), wrap(md).init(jax.random.key(0), frame()), 7)
    assert not np.allclose(state.frame.box, BOX)
    assert np.allclose(state.forces, force(soft, state.frame), atol=1e-10)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_exponential(x64, coupling):
    e = 0.02 * RANDOM.normal(size=len(COUPLINGS[coupling].weights))
    strain, inverse = map(np.asarray, exponential(jnp.array(e), coupling))
    exact = expm(np.einsum("k,kij->ij", e, COUPLINGS[coupling].generators))
    assert np.allclose(strain, exact, atol=1e-5)  # third order in what does not commute
    if coupling != "triclinic":
        assert np.allclose(strain, exact, rtol=1e-14)
    assert np.allclose(strain @ inverse, np.eye(3), atol=1e-14)
    assert np.isclose(np.log(np.linalg.det(strain)), e @ COUPLINGS[coupling].swelling, atol=1e-14)


def test_reduction_is_that_of_the_host(x64):
    for _ in range(50):
        box = np.tril(RANDOM.uniform(-3, 3, (3, 3)))
        box[np.diag_indices(3)] = RANDOM.uniform(1, 2, 3)
        assert np.allclose(reduced_again(jnp.array(box)), reduced(box), atol=1e-12)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_amplitudes_are_those_of_the_equations(x64, coupling):
    """Mean and covariance of a short step, against the stochastic equations of e_k in Ito's form."""
    barostat = CRescale(LANGEVIN, 20.0, 0.5, 0.02, GROUPS, every=1, coupling=coupling)
    stress = jnp.array([[25.0, 3.0, 1.0], [3.0, 14.0, -2.0], [1.0, -2.0, 30.0]])
    generators, weights, turning = COUPLINGS[coupling]
    size, modes = 2.0, len(weights)
    of_noise = jax.jit(jax.vmap(lambda noise: barostat.amplitudes(stress, jnp.array(size), noise)))
    nodes = np.concatenate([np.eye(modes), -np.eye(modes)]) * np.sqrt(modes)  # their second moments are those of noise
    e = np.asarray(of_noise(jnp.array(nodes)))
    rate = 0.02 * 0.002 / 0.5
    drift = rate * weights * (np.einsum("kij,ij->k", generators, stress) - 20.0 * COUPLINGS[coupling].swelling)
    drift += turning * weights * KT * rate / size
    assert np.allclose(e.mean(0), drift, atol=5e-6 * np.sqrt(rate))
    assert np.allclose(np.cov(e.T, bias=True), np.diag(2 * KT * rate * weights / size), atol=1e-3 * rate)


def test_sizes_of_moves_are_found_and_then_kept(x64):
    barostat = MonteCarloBarostat(LANGEVIN, 20.0, GROUPS, every=1, coupling="semi-isotropic", size=1e-3, tuning=400)
    state, _ = run(jax.random.key(3), barostat, barostat.init(jax.random.key(0), frame()), 1000)
    assert np.all(np.asarray(state.tried) > 400)
    after, _ = run(jax.random.key(4), barostat, state, 2000)
    assert np.array_equal(after.sizes, state.sizes)
    assert np.all(np.asarray(after.sizes) > 0.02)
    share = (after.accepted - state.accepted) / (after.tried - state.tried)
    assert np.all((share > 0.25) & (share < 0.65)), share


def test_lists_of_pairs_follow_the_box(x64):
    """A path with a list is that of all pairs, though the box strains past the skin; forces are carried."""
    potential = PairPotential(lambda r2, one, other, shared: 60 * jnp.maximum(0, 1 - r2 / 0.1) ** 3, 0.32)
    start = Frame(jnp.asarray(np.random.default_rng(1).uniform(0, 1.5, (40, 3))), jnp.asarray(BOX * 1.15))
    md = BAOAB(potential, np.full(40, 10.0), 0.002, KT, 2.0)
    plain = MonteCarloBarostat(md, 60.0, every=1, coupling="triclinic", size=0.1)
    listed = Listed(plain, allocate(start, 0.32, 0.03, most=39))
    path = filter_jit_tiny(lambda md: loops.run(jax.random.key(5), md, md.init(jax.random.key(0), start), 30)[0])
    without, with_ = path(plain), path(listed)
    assert np.allclose(with_.positions, without.positions, atol=1e-9)
    assert np.allclose(with_.frame.box, without.frame.box, atol=1e-9)
    assert np.allclose(with_.forces, without.forces, atol=1e-8)
    assert np.linalg.norm(with_.frame.box - start.box) > 0.3
    assert int(with_.frame.pairs.updates) > 5


def test_energies_that_are_not_finite_are_never_accepted(x64):
    def walled(frame):
        return jnp.where(volume(frame.box) < 0.95 * np.linalg.det(BOX), jnp.nan, 0.0) + 0 * jnp.sum(frame.positions)

    barostat = MonteCarloBarostat(Langevin(walled, MASSES, 0.002, KT, 2.0), 100.0, every=1, size=0.2)
    state, path = run(jax.random.key(3), barostat, barostat.init(jax.random.key(0), frame()), 500, every=1,
                      observe=lambda s: volume(s.frame.box))  # fmt: skip
    assert np.all(np.asarray(path) >= 0.95 * np.linalg.det(BOX))
    assert 0 < int(state.accepted[0]) < 500
    assert np.isfinite(state.sizes).all()


def test_replicas_have_boxes_of_their_own(x64):
    many = Replicas(BAROSTATS["C-rescale, isotropic"], 4, lanes=2)
    state, _ = run(jax.random.key(1), many, many.init(jax.random.key(0), frame()), 20)
    assert len(np.unique(many.observe(lambda s: s.frame.box[0, 0])(state))) == 4


def test_a_bias_on_the_sampler_is_felt_by_the_barostat():
    """Walkers put their bias in the place of the potential: there is no second one that would miss it."""
    barostat = BAROSTATS["Monte Carlo, isotropic"]
    biased = eqx.tree_at(lambda s: s.potential, barostat, Biased(soft, None, None))
    assert isinstance(biased.potential, Biased)
    assert biased.sampler.potential is biased.potential


def test_at_rest(x64):
    sampler = AtRest(Langevin(soft, MASSES, 0.002, KT, 2.0))
    state = sampler.init(jax.random.key(0), frame())
    assert np.allclose(np.sum(state.momenta, 0), 0, atol=1e-12)
    end, _ = run(jax.random.key(1), sampler, state, 50)
    assert np.allclose(np.sum(end.momenta, 0), 0, atol=1e-12)
    assert np.linalg.norm(end.momenta - state.momenta) > 1
    centre = [MASSES @ np.asarray(s.positions) / MASSES.sum() for s in (state, end)]
    free, _ = run(jax.random.key(1), sampler.sampler, state, 50)
    assert np.linalg.norm(centre[1] - centre[0]) < 0.2 * np.linalg.norm(
        MASSES @ free.positions / MASSES.sum() - centre[0]
    )


@pytest.mark.parametrize("name", ["C-rescale, isotropic", "Monte Carlo, isotropic"])
def test_the_box_is_held_at_first(name):
    sampler = eqx.tree_at(lambda s: s.sampler, replace(BAROSTATS[name], hold=7, every=2), LANGEVIN)
    state = sampler.init(jax.random.key(0), frame())
    _, boxes = run(jax.random.key(1), sampler, state, 14, every=1, observe=lambda s: s.frame.box[0, 0])
    moved = np.flatnonzero(np.diff(boxes, prepend=state.frame.box[0, 0])) + 1
    assert {9, 11, 13} >= set(moved.tolist()) and (9 in moved or name.startswith("Monte"))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda md: CRescale(md, 1 * bar, 0.0), "time = 0.0 ps"),
        (lambda md: CRescale(md, 1 * bar, 0.01), "at most 0.1"),
        (lambda md: CRescale(md, 1 * bar, 1.0, -1.0), "compressibility = -1.0"),
        (lambda md: CRescale(md, 1 * bar, 1.0, coupling="cubic"), "isotropic, semi-isotropic"),
        (lambda md: CRescale(md, np.nan, 1.0), "finite"),
        (lambda md: MonteCarloBarostat(md, 1 * bar, every=0), "every = 0"),
        (lambda md: MonteCarloBarostat(md, 1 * bar, size=0.0), "size = 0.0"),
        (lambda md: MonteCarloBarostat(md, 1 * bar, tuning=-1), "tuning = -1"),
        (lambda md: CRescale(md, 1 * bar, 1.0, hold=-1), "hold = -1"),
        (lambda md: MonteCarloBarostat(md, 1 * bar, GROUPS + 1), "without a gap"),
        (lambda md: MonteCarloBarostat(md, 1 * bar, GROUPS[:4]).init(jax.random.key(0), frame()), "4 atoms"),
        (lambda md: CRescale(md, 1 * bar, 1.0).init(jax.random.key(0), Frame(frame().positions)), "no box"),
        (lambda md: CRescale(VelocityVerlet(soft, MASSES, 1e-3), 1.0, 1.0).init(jax.random.key(0), frame()), "kT of"),
        (
            lambda md: CRescale(eqx.tree_at(lambda s: s.masses, md, jnp.zeros(ATOMS)), 1 * bar, 1.0).init(
                jax.random.key(0), frame()
            ),
            "no mass",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(LANGEVIN)
