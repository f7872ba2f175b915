"""MBAR against exact harmonic oscillators, against pymbar, and against itself written otherwise."""

import json
import os
import subprocess

import numpy as np
import pytest

from metastable.estimate.mbar import ConvergenceError, refit, solve

STIFFNESS, CENTER, COUNTS = np.array([1.0, 2.0, 4.0, 1.5]), np.array([0.0, 0.8, 1.6, 2.5]), np.array([300, 500, 0, 400])


def oscillators(rng, counts=COUNTS):
    """Reduced energies k (x - x0)^2 / 2 of exact samples: f = ln(k / k_0) / 2."""
    pairs = zip(STIFFNESS, CENTER, counts, strict=True)
    x = np.concatenate([rng.normal(c, 1 / np.sqrt(k), n) for k, c, n in pairs])
    return x, STIFFNESS[:, None] * (x - CENTER[:, None]) ** 2 / 2


def test_the_solution_satisfies_the_equations():
    """f_i = -ln sum_n exp(-u_in) / sum_k N_k exp(f_k - u_kn), eq. 11, also of the state without samples."""
    _, u = oscillators(np.random.default_rng(0))
    found = solve(u, COUNTS)
    mixture = (COUNTS * np.exp(found.f - u.T)).sum(1)
    np.testing.assert_allclose(found.f, -np.log((np.exp(-u) / mixture).sum(1)), atol=1e-8)
    np.testing.assert_allclose(found.weights().sum(1), 1, atol=1e-8)
    np.testing.assert_allclose(found.overlap().sum(1), 1, atol=1e-8)


@pytest.mark.physics
def test_asymptotic_errors_of_oscillators_are_calibrated(calibrated):
    z = []
    exact = np.log(STIFFNESS / STIFFNESS[0]) / 2
    for seed in range(1000):
        x, u = oscillators(np.random.default_rng(seed))
        found = solve(u, COUNTS)
        f, mean, new = found.free_energy(), found.mean(x, u[2]), found.perturb(3.0 * (x - 1.2) ** 2 / 2)
        z.append([
            *((f.value - exact)[1:] / f.error[1:]),
            (mean.value - CENTER[2]) / mean.error,
            (new.value[0] - np.log(3.0) / 2) / new.error[0],
        ])  # fmt: skip
    assert np.abs(np.mean(z, 0)).max() < 0.2
    calibrated(z, slack=0.03)


def test_pymbar_gives_the_same(tmp_path):
    """In a process of its own: pymbar switches the whole of it to double precision."""
    python = os.environ.get("METASTABLE_PYMBAR")
    if not python:
        pytest.skip("METASTABLE_PYMBAR is not set: the python of an environment that has pymbar")
    x, u = oscillators(np.random.default_rng(1))
    new = np.stack([3.0 * (x - 1.2) ** 2 / 2, 0.5 * (x + 0.3) ** 2 / 2])
    np.savez(tmp_path / "in.npz", u=u, n=COUNTS, x=x, new=new)
    script = """
import json, sys, numpy as np, pymbar
d = np.load(sys.argv[1])
m = pymbar.MBAR(d["u"], d["n"], relative_tolerance=1e-12, solver_protocol="robust")
f, mean = m.compute_free_energy_differences(), m.compute_expectations(d["x"])
p = m.compute_perturbed_free_energies(np.concatenate([d["u"][:1], d["new"]]))
o = m.compute_overlap()
out = [f["Delta_f"], f["dDelta_f"], mean["mu"], mean["sigma"], p["Delta_f"][0, 1:], p["dDelta_f"][0, 1:], o["matrix"]]
open(sys.argv[2], "w").write(json.dumps([a.tolist() for a in out]))
"""
    command = [python, "-c", script, str(tmp_path / "in.npz"), str(tmp_path / "out.json")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    theirs = [np.array(a) for a in json.loads((tmp_path / "out.json").read_text())]
    found = solve(u, COUNTS)
    d, means, perturbed = found.differences(), [found.mean(x, row) for row in u], found.perturb(new)
    ours = [d.value, d.error, [m.value for m in means], [m.error for m in means], perturbed.value, perturbed.error]
    for mine, other in zip([*ours, found.overlap()], theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)


def test_a_sample_that_counts_twice_is_two_samples():
    _, u = oscillators(np.random.default_rng(2))
    twice = np.random.default_rng(3).integers(0, 4, u.shape[1])
    state = np.repeat(np.arange(4), COUNTS)
    counts = np.bincount(state, twice, minlength=4)
    one, many = solve(u, counts, twice), solve(np.repeat(u, twice, axis=1), counts)
    np.testing.assert_allclose(one.f, many.f, atol=1e-9)
    np.testing.assert_allclose(one.covariance(), many.covariance(), atol=1e-9)
    np.testing.assert_allclose(np.exp(one.log_weights(u[0])).sum(), 1)
    assert one.mean(u[1]).value == pytest.approx(many.mean(np.repeat(u[1], twice)).value)
    assert one.mean(u[1]).error == pytest.approx(many.mean(np.repeat(u[1], twice)).error)


def test_refitting_many_resamples_at_once_is_solving_each():
    counts = np.array([300, 500, 200, 400])
    _, u = oscillators(np.random.default_rng(4), counts)
    whole = solve(u, counts)
    drawn = np.random.default_rng(5).poisson(1.0, (20, u.shape[1])).astype(float)
    sizes = drawn @ (np.repeat(np.arange(4), counts)[:, None] == np.arange(4))
    f, log_w = refit(whole, drawn, sizes)
    for b in range(20):
        one = solve(u, sizes[b], drawn[b])
        np.testing.assert_allclose(f[b], one.f, atol=1e-5)
        w = np.exp(log_w[b])
        np.testing.assert_allclose(w / w.sum(), np.exp(one.log_weights()), atol=1e-8)


def test_bootstrap_and_asymptotic_errors_agree():
    counts = np.array([3000, 5000, 2000, 4000])
    _, u = oscillators(np.random.default_rng(6), counts)
    whole = solve(u, counts)
    edges = np.cumsum(counts)[:-1]
    rng = np.random.default_rng(7)
    drawn = np.concatenate([rng.multinomial(n, np.full(n, 1 / n), 400) for n in counts], 1).astype(float)
    assert edges[-1] == 10000
    f, _ = refit(whole, drawn, np.tile(counts.astype(float), (400, 1)))
    np.testing.assert_allclose(f.std(0)[1:], whole.free_energy().error[1:], rtol=0.15)  # 4 x 1 / sqrt(800)


def test_free_energies_over_a_thousand_kT():
    """Where the self-consistent equations alone would take for ever."""
    rng, states, n = np.random.default_rng(8), 60, 300
    center = np.arange(states) * 1.5
    x = np.concatenate([rng.normal(c, 1, n) for c in center])
    offset = np.linspace(0, 1500, states)
    u = (x - center[:, None]) ** 2 / 2 + offset[:, None]
    start = [row[k * n : (k + 1) * n].mean() for k, row in enumerate(u)]
    found = solve(u, np.full(states, n), start=np.array(start), iterations=20).free_energy()
    z = (found.value - offset)[1:] / found.error[1:]
    assert np.abs(z).max() < 4


def test_failure_is_said():
    rng = np.random.default_rng(9)
    x = np.concatenate([rng.normal(0, 1, 50), rng.normal(100, 1, 50)])
    with pytest.raises(ValueError, match=r"share no samples: \[0\]; \[1\]"):
        solve(np.stack([x**2 / 2, (x - 100) ** 2 / 2]), np.array([50, 50]))
    _, u = oscillators(rng)
    with pytest.raises(ConvergenceError, match="after 3 iterations"):
        solve(u, COUNTS, iterations=3)
    with pytest.raises(ValueError, match="sum to the number of samples, 1200, not 1201"):
        solve(u, np.array([301, 500, 0, 400]))
    with pytest.raises(ValueError, match="must be numbers"):
        solve(u * np.nan, COUNTS)
    with pytest.raises(ValueError, match=r"must be \(states, samples\)"):
        solve(u, COUNTS[:2])
