"""OPES against PLUMED's numbers, against its own grid, and on a double well."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metastable.core.axis import Axis
from metastable.core.frame import Frame
from metastable.core.units import kelvin
from metastable.dynamics.integrators import Langevin
from metastable.enhanced.kernels import Kernels
from metastable.enhanced.opes import OPES
from metastable.enhanced.walkers import Walkers
from metastable.loops.run import run
from metastable.testing.conformance import check_bias

pytestmark = pytest.mark.usefixtures("x64")
KT = 300 * kelvin
TURN = 2 * math.pi


def columns(path):
    fields = path.read_text().splitlines()[0].split()[2:]
    return dict(zip(fields, np.loadtxt(path, ndmin=2).T, strict=True))


def test_plumed(data):
    """A kernel every fifth frame, each frame's bias that before its kernel; nothing merges."""
    folder = data / "plumed_examples/opes_metad"
    seen, kept = columns(folder / "Colvar.data.reference"), columns(folder / "KERNELS.reference")
    plain = Kernels(20, (TURN, TURN), 6.0, recursive=False)
    bias = OPES([0.15, 0.15], barrier=20.0, kT=KT, bias_factor=math.inf, kernels=plain, epsilon=0.001,
                fixed_widths=True, normalize=False)  # fmt: skip
    s = np.stack([seen["phi"], seen["psi"]], -1)
    s[1:] = np.stack([kept["phi"], kept["psi"]], -1)  # to more digits
    for i, place in enumerate(jnp.asarray(s)):
        assert float(bias(place)) == pytest.approx(seen["opes.bias"][i], abs=2e-4)
        if i:
            bias = bias.update(place[None], jnp.asarray(KT))
            assert float(bias.kernels.heights[i - 1]) == pytest.approx(kept["height"][i - 1], abs=1.1e-6)
            assert float(bias.offset(KT)) == pytest.approx(seen["opes.rct"][i], abs=1e-5)
            assert float(bias.effective_size) == pytest.approx(seen["opes.neff"][i], abs=1e-5)
            assert int(bias.kernels.count) == seen["opes.nker"][i]


def test_kernels_that_merge_keep_mass_mean_and_variance():
    """By hand, also across the border of a period; and what merges with three at once."""
    kernels = Kernels(5, (TURN,), 5.0)
    add = jax.jit(lambda k, c, w, h: k.add(jnp.array([c]), jnp.array([w]), jnp.asarray(h)))
    kernels = add(add(kernels, 3.1, 0.2, 2.0), -3.1, 0.1, 1.0)
    gap = TURN - 6.2
    assert int(kernels.count) == 1
    mean, second = gap / 3, (2 * 0.04 + 0.01 + gap**2) / 3
    assert float(kernels.centers[0, 0]) == pytest.approx(3.1 + mean)
    assert float(kernels.widths[0, 0]) == pytest.approx(math.sqrt(second - mean**2))
    assert float(kernels.heights[0]) == 3.0
    for recursive, left in ((True, 2), (False, 3)):
        chain = Kernels(5, (None,), 5.0, recursive=recursive)
        for c in (0.0, 1.2, 2.4, 0.7):
            chain = add(chain, c, 1.0, 1.0)
        assert int(chain.count) == left and float(chain.heights.sum()) == 4.0
        if recursive:
            place = int(jnp.argmax(chain.heights))
            assert float(chain.centers[place, 0]) == pytest.approx(1.9 / 3)
            assert float(chain.widths[place, 0]) ** 2 == pytest.approx(1 + np.var([0.0, 1.2, 0.7]))


def test_without_room_nothing_is_lost():
    kernels = Kernels(2, (None,), 5.0)
    for c in (0.0, 10.0, 20.0):
        kernels = kernels.add(jnp.array([c]), jnp.array([0.1]), jnp.asarray(1.0))
    assert bool(kernels.overflow) and float(kernels.heights.sum()) == 3.0


@pytest.mark.parametrize("explore", [False, True])
def test_the_grid_is_the_kernels(explore):
    axes = [Axis.angle("phi", 120), Axis(-1.0, 1.0, 120, False, "x", "nm")]
    bias = OPES([0.3, 0.1], barrier=20.0, kT=KT, axes=axes, explore=explore, capacity=60)
    rng = np.random.default_rng(0)
    check_bias(bias, jnp.asarray(rng.uniform(-1, 1, (3, 2))))
    update = eqx.filter_jit(lambda bias, s: bias.update(s, jnp.asarray(KT)))
    for _ in range(20):
        bias = update(bias, jnp.asarray(rng.normal([2.8, 0.2], [0.4, 0.3], (3, 2))))
    s = jnp.asarray(rng.uniform([-3.1, -1], [3.1, 1], (400, 2)))
    grid, kernels = (jax.vmap(jax.value_and_grad(f))(s) for f in (bias, bias.exact))
    assert float(kernels[0].max() - kernels[0].min()) > 15
    assert np.sqrt(np.mean((grid[0] - kernels[0]) ** 2)) < 0.02
    apart, size = np.abs(grid[1] - kernels[1]), np.sqrt(np.mean(kernels[1] ** 2))
    assert np.median(apart) < 2e-3 * size  # and more where a kernel ends with a kink
    assert np.sqrt(np.mean(apart**2)) < 0.06 * size
    assert float(jnp.min(bias.free_energy())) == 0


@pytest.mark.parametrize(
    "options, words",
    [
        ({"barrier": 1.0}, "barrier = 1.0 kJ/mol must be above"),
        ({"widths": [0.1, 0.0]}, "must be positive"),
        ({"bias_factor": 0.5}, "bias_factor = 0.5"),
        ({"explore": True, "bias_factor": math.inf}, "finite"),
        ({"axes": [Axis.angle("phi")]}, "2 widths for 1 axes"),
        ({"periods": [None]}, "2 widths for 1 CVs"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        OPES(**({"widths": [0.1, 0.1], "barrier": 20.0, "kT": KT} | options))


def well(frame):
    """Of 14 kT between its minima at -0.5 and 0.5, the right one 2 kT higher."""
    x = frame.positions[0]
    return KT * (14 * ((x[0] / 0.5) ** 2 - 1) ** 2 + 2 * x[0] + 20 * jnp.sum(x[1:] ** 2))


@pytest.mark.parametrize("explore", [False, True])
def test_it_finds_the_free_energy_of_a_double_well(explore):
    """The difference of the two wells from reweighted frames, within three standard errors over four runs."""
    bias = OPES([0.1], barrier=16 * KT, kT=KT, axes=[Axis(-1.0, 1.0, 80, False, "x", "nm")], explore=explore)
    md = Langevin(well, jnp.array([12.0]), 0.005, KT, 5.0)
    walkers = Walkers(md, lambda frame: frame.positions[0, :1], bias, 100, 16)
    x = np.linspace(-1, 1, 4001)
    boltzmann = np.exp(-(14 * ((x / 0.5) ** 2 - 1) ** 2 + 2 * x))
    exact = -np.log(boltzmann[x > 0].sum() / boltzmann[x < 0].sum())
    found = []
    for seed in range(4):
        starts = jnp.array([[[-0.5, 0.0, 0.0]], [[0.5, 0.0, 0.0]]] * 8)
        state = walkers.init(jax.random.key(seed), Frame(starts))
        observe = walkers.observe(lambda state, bias: (state.positions[0, 0], bias(state.positions[0, :1])))
        _, (place, raised) = run(jax.random.key(10 + seed), walkers, state, 60_000, every=100, observe=observe)
        late = slice(150, None)
        weights = np.exp(np.asarray(raised[late]) / KT)
        right = np.asarray(place[late]) > 0
        found.append(-np.log(weights[right].sum() / weights[~right].sum()))
    error = np.std(found, ddof=1) / 2
    assert error < 0.2 and abs(np.mean(found) - exact) < 3 * error + 0.02
