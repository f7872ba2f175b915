"""Pressure control: samplers that wrap a sampler and change the box of its state.

The ensembles that they sample are in :mod:`metastable.dynamics.couplings`. A list of near pairs that a frame carries is
made anew where a move of the box makes it stale, before the energy is asked for.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metastable.core.frame import Frame
from metastable.core.pairs import Pairs, kept
from metastable.core.random import normal
from metastable.core.space import volume
from metastable.core.units import bar
from metastable.dynamics.couplings import COUPLINGS, coupling_of, exponential, reduced_again
from metastable.dynamics.lists import AHEAD
from metastable.dynamics.pressure import count, molecular, pressure_tensor, strained, strained_momenta
from metastable.dynamics.rest import of_sampler
from metastable.dynamics.state import force, inverse
from metastable.potentials.analytic import Index

WATER = 4.5e-5 / bar
"""The isothermal compressibility of water at 300 K, nm^3 mol/kJ."""


class CoupledState(eqx.Module):
    """A barostat's: the state of the sampler inside, and the steps since the last move of the box.

    Below zero those that are still to come before the barostat begins.
    """

    inner: Any
    waited: Int[Array, "*batch"]

    @property
    def frame(self) -> Frame:
        """Positions and box, nm."""
        return self.inner.frame

    @property
    def positions(self) -> Float[Array, "*batch atoms 3"]:
        """nm."""
        return self.inner.frame.positions

    @property
    def momenta(self) -> Float[Array, "*batch atoms 3"]:
        """Da nm/ps."""
        return self.inner.momenta

    @property
    def forces(self) -> Float[Array, "*batch atoms 3"] | None:
        """kJ/mol/nm; None with samplers that carry none."""
        return self.inner.forces


class MonteCarloState(CoupledState):
    """sizes: the largest strain that is tried in each mode. tried, accepted: moves since ``init``, of each mode."""

    sizes: Float[Array, "*batch modes"] = eqx.field(kw_only=True)
    tried: Int[Array, "*batch modes"] = eqx.field(kw_only=True)
    accepted: Int[Array, "*batch modes"] = eqx.field(kw_only=True)


class CRescale(eqx.Module):
    """Stochastic cell rescaling: any sampler, and every few steps a move of the box that the pressure drives.

    With e = ln V, the pressure P of the frame, and the shares w_k of the modes,

        d sqrt(V) = beta / (2 time) ((P - p) sqrt(V) + kT / (2 sqrt(V))) dt + sqrt(kT beta / (2 time)) dW

    whose noise does not depend on V, by Euler's method over ``every`` steps, and for the shape, across it,
    de_k = w_k beta / time (P_k - P) dt + sqrt(2 kT w_k beta / (V time)) dW_k. Centres of molecules are scaled, their
    momenta inversely. A triclinic box takes the lower triangular strain (nothing is turned, and the measure's term
    2, 0, -2 of the diagonal is added) and is reduced after each move. The error of the time step is of first order in
    every dt / time. A move costs the derivative of the energy with respect to the box, and the forces anew where
    the sampler carries them; what a thermostat says that it conserves is not conserved.

    sampler: one with a potential, masses, kT and dt, whose state has a frame, momenta and perhaps forces.
    pressure: p, kJ/mol/nm^3, ``1 * bar``. time: of relaxation, ps. compressibility: beta, nm^3 mol/kJ; a wrong one
    changes the time of relaxation alone. groups: the molecule of each atom, (atoms,); None: each is one.
    every: steps between moves. coupling: one of :data:`COUPLINGS`. hold: steps at first during which the box stays.

    Raises ValueError where time or compressibility are not positive, for every < 1, hold < 0, every dt > time / 10, an
    unknown coupling, kT that is not positive, a frame without a box, and molecules without mass.

    Bernetti, Bussi 2020, doi:10.1063/5.0020514, equations 6 to 9; del Tatto, Raiteri, Bernetti, Bussi 2022,
    doi:10.3390/app12031139.
    """

    sampler: Any
    pressure: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    time: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    compressibility: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=WATER)
    groups: Index | None = eqx.field(static=True, converter=molecular, default=None)
    every: int = eqx.field(static=True, default=10)
    coupling: str = eqx.field(static=True, default="isotropic")
    hold: int = eqx.field(static=True, default=0)

    potential, masses, kT, dt = (of_sampler(name) for name in ("potential", "masses", "kT", "dt"))

    def __check_init__(self):
        _check_settings(self)
        _check_positive("CRescale: time", self.time, "ps")
        _check_positive("CRescale: compressibility", self.compressibility, "nm^3 mol/kJ")
        step = self.every * self.dt / self.time
        if _known(step) and np.any(np.asarray(step) > 0.1 + 1e-6):
            raise ValueError(
                f"CRescale: every dt = {np.max(step):.3g} of the relaxation time must be at most 0.1 of it; "
                "raise time or lower every"
            )

    def init(self, key: PRNGKeyArray, frame: Frame) -> CoupledState:
        """The sampler's first state; the box moves after ``hold`` and ``every`` steps.

        frame: with a box, positions (atoms, 3). Raises ValueError for what only a frame shows: no box, groups of
        another number of atoms, a molecule without mass, kT that is not positive.
        """
        _check_start(self, frame)
        return CoupledState(self.sampler.init(key, frame), jnp.asarray(-self.hold, jnp.int32))

    def step(self, key: PRNGKeyArray, state: CoupledState) -> CoupledState:
        """One step of the sampler and, where ``every`` are done, a move of the box."""
        waited, inner = state.waited + 1, self.sampler.step(key, state.inner)
        inner = lax.cond(waited == self.every, lambda s: self._move(jax.random.fold_in(key, 1), s), lambda s: s, inner)
        return CoupledState(inner, jnp.where(waited == self.every, 0, waited))

    def _move(self, key, inner):
        masses = jnp.asarray(self.masses, inner.momenta.dtype)
        stress = pressure_tensor(self.potential, inner.frame, inner.momenta, masses, self.groups)
        noise = normal(key, (len(COUPLINGS[self.coupling].weights),), stress.dtype)
        strain, inverse = exponential(self.amplitudes(stress, volume(inner.frame.box), noise), self.coupling)
        frame = _strained(self, inner, strain, masses)
        return _moved(inner, frame, strained_momenta(inner.momenta, inverse, masses, self.groups), self.potential)

    def amplitudes(
        self, stress: Float[Array, "3 3"], volume: Float[Array, ""], noise: Float[Array, " modes"]
    ) -> Float[Array, " modes"]:
        """How far each mode moves. stress: the pressure tensor, kJ/mol/nm^3. noise: standard normal deviates."""
        generators, swelling, weights, turning = coupling_of(self.coupling, stress.dtype)
        kT, p = jnp.asarray(self.kT, stress.dtype), jnp.asarray(self.pressure, stress.dtype)
        rate = jnp.asarray(self.every * self.dt * self.compressibility / self.time, stress.dtype)
        push = rate * weights * (jnp.sum(generators * stress, (1, 2)) - p * swelling)
        noise, share = jnp.sqrt(weights) * noise, weights * swelling
        total, along = jnp.sum(swelling * push), jnp.sum(swelling * noise)
        growth = total / 2 + kT * rate / (4 * volume) + jnp.sqrt(kT * rate / (2 * volume)) * along  # of sqrt(V)
        across = jnp.sqrt(2 * kT * rate / (volume * (1 + growth))) * (noise - share * along)
        return 2 * share * jnp.log1p(growth) + push - share * total + turning * weights * kT * rate / volume + across


class MonteCarloBarostat(eqx.Module):
    """Any sampler, and every few steps a trial move of the box, accepted by the rule of Metropolis.

    One mode of the coupling is drawn, and its strain e uniformly between -size and size. Accepted with probability
    min(1, exp(-(dU + p dV) / kT + (N + 1) d ln V)), N molecules; in a triclinic box 2 e is added for the x axis, and
    taken away for z. Exact for any size, and needs no virial: two energies a move, and the forces anew where the
    sampler carries them. Momenta stay. In single precision the energy must not be so large that its rounding
    is felt beside kT.

    sampler: one with a potential, masses and kT, whose state has a frame, momenta and perhaps forces.
    pressure: p, kJ/mol/nm^3, ``1 * bar``. groups: the molecule of each atom, (atoms,); None: each is one.
    every: steps between moves. coupling: one of :data:`COUPLINGS`. size: of the first moves, in ln V.
    hold: steps at first during which the box stays.
    tuning: moves of each mode during which its size goes to where 0.44 of them are accepted. After them it stays, and
    only then is the distribution exact: leave them out. 0: never.

    Raises ValueError for every < 1, tuning < 0, hold < 0, a size that is not positive, an unknown coupling, kT that is
    not positive, a frame without a box, and molecules without mass.

    Chow, Ferguson 1995, doi:10.1016/0010-4655(95)00059-O; Aqvist, Wennerstrom, Nervall, Bjelic, Brandsdal 2004,
    doi:10.1016/j.cplett.2003.12.039.
    """

    sampler: Any
    pressure: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    groups: Index | None = eqx.field(static=True, converter=molecular, default=None)
    every: int = eqx.field(static=True, default=25)
    coupling: str = eqx.field(static=True, default="isotropic")
    size: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.01)
    tuning: int = eqx.field(static=True, default=200)
    hold: int = eqx.field(static=True, default=0)

    potential, masses, kT, dt = (of_sampler(name) for name in ("potential", "masses", "kT", "dt"))

    def __check_init__(self):
        _check_settings(self)
        _check_positive("MonteCarloBarostat: size", self.size, "of ln V")
        if self.tuning < 0:
            raise ValueError(f"MonteCarloBarostat: tuning = {self.tuning} moves must be at least 0")

    def init(self, key: PRNGKeyArray, frame: Frame) -> MonteCarloState:
        """The sampler's first state, with ``size`` in each mode and no moves counted.

        frame: with a box, positions (atoms, 3). Raises ValueError for what only a frame shows: no box, groups of
        another number of atoms, a molecule without mass, kT that is not positive.
        """
        _check_start(self, frame)
        modes = len(COUPLINGS[self.coupling].weights)
        sizes = jnp.full(modes, self.size, frame.positions.dtype)
        none = jnp.zeros(modes, jnp.int32)
        inner = self.sampler.init(key, frame)
        waited = jnp.asarray(-self.hold, jnp.int32)
        return MonteCarloState(inner, waited, sizes=sizes, tried=none, accepted=none)

    def step(self, key: PRNGKeyArray, state: MonteCarloState) -> MonteCarloState:
        """One step of the sampler and, where ``every`` are done, a trial move of the box in one mode."""
        waited, inner = state.waited + 1, self.sampler.step(key, state.inner)
        due = waited == self.every
        rest = {"sizes": state.sizes, "tried": state.tried, "accepted": state.accepted}
        new = MonteCarloState(inner, jnp.where(due, 0, waited), **rest)
        return lax.cond(due, lambda s: self._move(jax.random.fold_in(key, 1), s), lambda s: s, new)

    def _move(self, key, state):
        inner, dtype = state.inner, state.positions.dtype
        masses, kT, p = (jnp.asarray(x, dtype) for x in (self.masses, self.kT, self.pressure))
        _, swelling, _, turning = coupling_of(self.coupling, dtype)
        keys = jax.random.split(key, 3)
        chosen = jnp.arange(len(swelling)) == jax.random.randint(keys[0], (), 0, len(swelling))
        amplitudes = jnp.where(chosen, state.sizes * jax.random.uniform(keys[1], (), dtype, -1, 1), 0)
        frame = _strained(self, inner, exponential(amplitudes, self.coupling)[0], masses)
        growth = jnp.sum(swelling * amplitudes)
        work = self.potential(frame) - self.potential(inner.frame) + p * volume(inner.frame.box) * jnp.expm1(growth)
        jacobian = (count(self.groups, len(masses)) + 1) * growth + jnp.sum(turning * amplitudes)
        chance = jnp.nan_to_num(jnp.exp(jnp.minimum(jacobian - work / kT, 0)))  # energies that are not finite: never
        accepted = jax.random.uniform(keys[2], (), dtype) < chance
        gain = jnp.where(chosen & (state.tried < self.tuning), 2 / jnp.sqrt(1 + state.tried.astype(dtype)), 0)
        return MonteCarloState(
            _moved(inner, _chosen(accepted, frame, inner.frame), inner.momenta, self.potential),
            state.waited,
            sizes=jnp.minimum(state.sizes * jnp.exp(gain * (chance - _ACCEPTED)), 1),
            tried=state.tried + chosen,
            accepted=state.accepted + (chosen & accepted),
        )


_ACCEPTED = 0.44  # the best share for moves in one dimension: Gelman, Roberts, Gilks 1996


def _strained(barostat, inner, strain, masses):
    """The frame with another box, reduced again, and a list of pairs that will do for the next step as well."""
    frame = strained(inner.frame, strain, masses, barostat.groups)
    box = reduced_again(frame.box) if barostat.coupling == "triclinic" else frame.box
    speed = jnp.sqrt(jnp.max(jnp.sum((inner.momenta * inverse(masses)[:, None]) ** 2, -1)))
    way = (speed * barostat.dt).astype(frame.positions.dtype)
    return kept(type(frame)(frame.positions, box, frame.pairs), AHEAD * way)


def _chosen(accepted, trial, old):
    """The trial, or the old frame, whose list remembers what room the trial needed."""
    frame = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), trial, old)
    if not isinstance(trial.pairs, Pairs):
        return frame
    needed = lambda f: (f.pairs.count, f.pairs.crowd, f.pairs.overflow)  # noqa: E731
    return eqx.tree_at(needed, frame, needed(trial))


def _moved(inner, frame, momenta, potential):
    """The sampler's state elsewhere: forces that it carries are those of the new frame."""
    inner = eqx.tree_at(lambda s: (s.frame, s.momenta), inner, (frame, momenta))
    if getattr(inner, "forces", None) is None:
        return inner
    return eqx.tree_at(lambda s: s.forces, inner, force(potential, frame))


def _known(value) -> bool:
    return not isinstance(value, Tracer)


def _check_positive(what, value, unit):
    if _known(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{what} = {value} {unit} must be positive")


def _check_settings(barostat):
    name = type(barostat).__name__
    if barostat.coupling not in COUPLINGS:
        raise ValueError(f"{name}: coupling = {barostat.coupling!r} must be one of {', '.join(COUPLINGS)}")
    if barostat.every < 1:
        raise ValueError(f"{name}: every = {barostat.every} must be at least 1 step")
    if barostat.hold < 0:
        raise ValueError(f"{name}: hold = {barostat.hold} steps must be at least 0")
    if _known(barostat.pressure) and not np.all(np.isfinite(barostat.pressure)):
        raise ValueError(f"{name}: pressure = {barostat.pressure} kJ/mol/nm^3 must be finite")


def _check_start(barostat, frame):
    name, atoms = type(barostat).__name__, frame.positions.shape[-2]
    if frame.box is None:
        raise ValueError(f"{name}: the frame has no box whose pressure could be controlled; give it one")
    if barostat.groups is not None and len(barostat.groups) != atoms:
        raise ValueError(f"{name}: groups name the molecules of {len(barostat.groups)} atoms; the frame has {atoms}")
    _check_positive(f"{name}: kT of the sampler", barostat.kT, "kJ/mol")
    if _known(barostat.masses):
        label = np.arange(atoms) if barostat.groups is None else barostat.groups.array
        light = np.flatnonzero(np.bincount(label, np.asarray(barostat.masses)) <= 0)
        if len(light):
            raise ValueError(
                f"{name}: molecule {light[0]} of groups has no mass, and no centre to move it by; put virtual sites "
                "into the molecule that they are built on"
            )
