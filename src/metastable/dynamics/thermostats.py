"""Thermostats that act on the kinetic energy of the whole system, each with the quantity that it conserves.

Both wrap a velocity Verlet step and hold the total momentum: ``init`` starts at rest, so of the degrees of freedom of a
molecule in empty space three are taken away (where no outside potential and no wall breaks its conservation), and the
angular momentum, which a rescaling does not turn either, stays as conserved as it is without a thermostat. For one
molecule in vacuum prefer :class:`metastable.dynamics.integrators.Langevin`.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metastable.core.contracts import Constraint, Potential
from metastable.core.frame import Frame
from metastable.core.random import normal
from metastable.dynamics.constraints import Unconstrained
from metastable.dynamics.integrators import verlet
from metastable.dynamics.state import State, at_rest, kinetic_energy, prepare, total_energy

_SUZUKI_YOSHIDA = (1 / (2 - 2 ** (1 / 3)), 1 - 2 / (2 - 2 ** (1 / 3)), 1 / (2 - 2 ** (1 / 3)))  # fourth order


class CSVRState(State):
    """heat: what the thermostat has given to the system since ``init``, kJ/mol."""

    heat: Float[Array, "*batch"] = eqx.field(kw_only=True)


class CSVR(eqx.Module):
    """Canonical sampling through velocity rescaling: a Verlet step, then one factor for all momenta.

    K' = c K + (1 - c) kT/2 sum_i R_i^2 + 2 R_1 sqrt(c (1 - c) K kT/2), c = exp(-dt / time), i = 1 ... f,
    with normal R_i: the exact solution of the stochastic equation of the kinetic energy, for any f. The sum of squares
    is drawn as such: up to thousands of degrees of freedom that is cheaper than a gamma deviate by rejection.

    potential: kJ/mol. masses: Da, (atoms,). dt: ps. kT: kJ/mol. time: that of relaxation, ps.
    degrees_of_freedom: f, those that the thermostat acts on. normal: the generator of the noise.

    Bussi, Donadio, Parrinello 2007, doi:10.1063/1.2408420, equation A7, and what is conserved; the sign of the factor:
    Bussi, Parrinello 2008, doi:10.1016/j.cpc.2008.01.006.
    """

    potential: Potential
    masses: Float[Array, " atoms"] = eqx.field(converter=jnp.asarray)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    kT: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    time: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    degrees_of_freedom: int = eqx.field(static=True)
    constraint: Constraint = Unconstrained()
    normal: Callable = eqx.field(static=True, default=normal)

    def init(self, key: PRNGKeyArray, frame: Frame) -> CSVRState:
        """The frame put on the constraints, momenta drawn at kT and their total taken away, and no heat given yet."""
        state = _still(prepare(key, self.potential, frame, self.masses, self.kT, self.constraint), self.masses)
        return CSVRState(state.frame, state.momenta, state.forces, heat=jnp.zeros((), state.positions.dtype))

    def step(self, key: PRNGKeyArray, state: CSVRState) -> CSVRState:
        """One time step, and the rescaling that ends it."""
        dt, kT, time = (jnp.asarray(x, state.positions.dtype) for x in (self.dt, self.kT, self.time))
        new = verlet(state, self.potential, self.masses, dt, self.constraint)
        noise = self.normal(key, (self.degrees_of_freedom,), dt.dtype)
        c, old = jnp.exp(-dt / time), kinetic_energy(new.momenta, self.masses)
        bath = (1 - c) * kT / 2
        first = jnp.sqrt(c * old) + noise[0] * jnp.sqrt(bath)
        kinetic = first**2 + bath * jnp.sum(noise[1:] ** 2)
        scale = jnp.copysign(jnp.sqrt(kinetic / old), first)
        return CSVRState(new.frame, scale * new.momenta, new.forces, heat=state.heat + kinetic - old)

    def conserved(self, state: CSVRState) -> Float[Array, ""]:
        """The energy less the heat that came in, kJ/mol: drifts only by the error of the time step."""
        return total_energy(self.potential, state, self.masses) - state.heat


class NoseHooverState(State):
    """chain: the thermostats' positions, (chain,). velocities: theirs, 1/ps, (chain,)."""

    chain: Float[Array, "*batch chain"] = eqx.field(kw_only=True)
    velocities: Float[Array, "*batch chain"] = eqx.field(kw_only=True)


class NoseHoover(eqx.Module):
    """A chain of Nose-Hoover thermostats: deterministic and time-reversible; half a step of it around a Verlet step.

    dp/dt = F - p v_1,  Q_1 dv_1/dt = 2 K - f kT - Q_1 v_1 v_2,  Q_j dv_j/dt = Q_{j-1} v_{j-1}^2 - kT - Q_j v_j v_{j+1},
    dx_j/dt = v_j, with Q_1 = f kT time^2, Q_j = kT time^2.

    potential: kJ/mol. masses: Da, (atoms,). dt: ps. kT: kJ/mol. time: 1 / the frequency of the thermostat, ps.
    degrees_of_freedom: f, those that the thermostat acts on. length: of the chain.

    Martyna, Tuckerman, Tobias, Klein 1996, doi:10.1080/00268979600100761, sections 2.1 and 4.3, with the fourth-order
    weights of Suzuki and Yoshida.
    """

    potential: Potential
    masses: Float[Array, " atoms"] = eqx.field(converter=jnp.asarray)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    kT: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    time: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    degrees_of_freedom: int = eqx.field(static=True)
    constraint: Constraint = Unconstrained()
    length: int = eqx.field(static=True, default=3)

    def init(self, key: PRNGKeyArray, frame: Frame) -> NoseHooverState:
        """The frame put on the constraints, momenta drawn at kT and their total taken away, and a chain at rest."""
        state = _still(prepare(key, self.potential, frame, self.masses, self.kT, self.constraint), self.masses)
        rest = jnp.zeros(self.length, state.positions.dtype)
        return NoseHooverState(state.frame, state.momenta, state.forces, chain=rest, velocities=rest)

    def step(self, key: PRNGKeyArray, state: NoseHooverState) -> NoseHooverState:
        """One time step; nothing is drawn, so the key does nothing."""
        dt = jnp.asarray(self.dt, state.positions.dtype)
        momenta, chain, velocities = self._thermostat(state.momenta, state.chain, state.velocities, dt / 2)
        new = verlet(State(state.frame, momenta, state.forces), self.potential, self.masses, dt, self.constraint)
        momenta, chain, velocities = self._thermostat(new.momenta, chain, velocities, dt / 2)
        return NoseHooverState(new.frame, momenta, new.forces, chain=chain, velocities=velocities)

    def conserved(self, state: NoseHooverState) -> Float[Array, ""]:
        """The energy of the system and its chain, kJ/mol: K + U + sum_j Q_j v_j^2 / 2 + f kT x_1 + kT sum_{j>1} x_j."""
        inertia, rank = self._inertia(state.chain.dtype)
        kT = jnp.asarray(self.kT, state.chain.dtype)
        chain = jnp.sum(inertia * state.velocities**2 / 2 + kT * rank * state.chain)
        return total_energy(self.potential, state, self.masses) + chain

    def _inertia(self, dtype):
        """Q_j in kJ/mol ps^2, and the degrees of freedom that thermostat j acts on."""
        rank = jnp.ones(self.length, dtype).at[0].set(self.degrees_of_freedom)
        return rank * jnp.asarray(self.kT, dtype) * jnp.asarray(self.time, dtype) ** 2, rank

    def _thermostat(self, momenta, chain, velocities, span):
        """The chain and the factor for the momenta after ``span``; positions stand still."""
        inertia, rank = self._inertia(momenta.dtype)
        kT, last = jnp.asarray(self.kT, momenta.dtype), self.length - 1
        kinetic, scale = kinetic_energy(momenta, self.masses), jnp.ones((), momenta.dtype)
        v, x = [velocities[j] for j in range(self.length)], [chain[j] for j in range(self.length)]

        def push(j, h):  # half a kick between two quarters of the drag by the next thermostat
            pull = 2 * kinetic * scale**2 if j == 0 else inertia[j - 1] * v[j - 1] ** 2
            drag = jnp.exp(-v[j + 1] * h / 4) if j < last else 1
            v[j] = (v[j] * drag + (pull - rank[j] * kT) / inertia[j] * h / 2) * drag

        for weight in _SUZUKI_YOSHIDA:
            h = weight * span
            for j in reversed(range(self.length)):
                push(j, h)
            scale = scale * jnp.exp(-v[0] * h)
            x = [a + h * b for a, b in zip(x, v, strict=True)]
            for j in range(self.length):
                push(j, h)
        return scale * momenta, jnp.stack(x), jnp.stack(v)


def _still(state: State, masses) -> State:
    return State(state.frame, at_rest(state.momenta, masses), state.forces)
