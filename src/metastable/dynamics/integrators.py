"""Integrators: kick, drift and Ornstein-Uhlenbeck steps, and what they compose to.

Each integrator is a :class:`~metastable.core.contracts.Sampler` that evaluates the forces once a step.
In the names of the splittings B is a kick, A a drift and O an Ornstein-Uhlenbeck step.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metastable.core.contracts import Constraint, Potential
from metastable.core.frame import Frame
from metastable.core.random import normal
from metastable.dynamics.constraints import Unconstrained
from metastable.dynamics.state import State, force, inverse, maxwell_boltzmann, prepare, thermal


def kick(momenta, forces, dt):
    """B: p + dt F."""
    return momenta + dt * forces


def drift(positions, momenta, masses, dt):
    """A: x + dt p / m."""
    return positions + dt * momenta * inverse(masses)[:, None]


def ou(key, momenta, masses, dt, kT, friction, normal=normal):
    """O: c p + sqrt((1 - c^2) m kT) xi with c = exp(-friction dt), exact for any dt."""
    noise = normal(key, momenta.shape, momenta.dtype)
    width = jnp.sqrt(masses)[:, None] * jnp.sqrt(-jnp.expm1(-2 * friction * dt) * kT)
    return jnp.exp(-friction * dt) * momenta + width * noise


def constrain(constraint, free, old, momenta, masses, dt):
    """Put ``free``, the positions after a whole time step from ``old``, on the constraints.

    The momenta get the impulse of the constraint forces, m (x - free) / dt, where x - free is not the difference of
    two rounded positions, whose noise would make the energy wander in single precision.
    """
    moves = constraint.moves(free, old, masses)
    return free + moves, momenta + masses[:, None] * moves / dt


def verlet(state, potential, masses, dt, constraint) -> State:
    """BAB: one step of constant energy, with constraints by RATTLE."""
    masses, dt = _as(state, masses, dt)
    momenta = kick(state.momenta, state.forces, dt / 2)
    free = drift(state.positions, momenta, masses, dt)
    positions, momenta = constrain(constraint, free, state.positions, momenta, masses, dt)
    frame = state.frame.at(positions)
    forces = force(potential, frame)
    momenta = kick(momenta, forces, dt / 2)
    return State(frame, constraint.momenta(momenta, frame, masses), forces)


class VelocityVerlet(eqx.Module):
    """Constant energy dynamics: BAB, second order, symplectic and reversible; RATTLE where constrained.

    potential: kJ/mol. masses: Da, (atoms,). dt: ps. kT: kJ/mol, of the momenta that ``init`` draws.

    Swope, Andersen, Berens, Wilson 1982, doi:10.1063/1.442716; Andersen 1983, doi:10.1016/0021-9991(83)90014-1.
    """

    potential: Potential
    masses: Float[Array, " atoms"] = eqx.field(converter=jnp.asarray)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    constraint: Constraint = Unconstrained()
    kT: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.0)

    def init(self, key: PRNGKeyArray, frame: Frame) -> State:
        """The frame put on the constraints, momenta drawn at kT, and the forces there."""
        return prepare(key, self.potential, frame, self.masses, self.kT, self.constraint)

    def step(self, key: PRNGKeyArray, state: State) -> State:
        """One time step; nothing is drawn, so the key does nothing."""
        return verlet(state, self.potential, self.masses, self.dt, self.constraint)


class Langevin(eqx.Module):
    """Langevin dynamics by the leapfrog middle scheme, BAOA: the integrator to use.

    It has the configurations of BAOAB (exact for a harmonic potential at any stable dt, second order
    otherwise) and better momenta, which are those of the middle of a time step. It carries no forces: a step begins
    with them, so that a potential that changes between steps leaves nothing stale behind, and so that XLA finds the
    positions in memory, instead of working out noise and drift anew in each of the kernels that read them.

    potential: kJ/mol. masses: Da, (atoms,); an atom of mass 0 does not move. dt: ps. kT: kJ/mol.
    friction: 1/ps. normal: the generator of the noise.

    Zhang, Liu, Yan, Tuckerman, Liu 2019, doi:10.1021/acs.jpca.9b02771; with constraints as OpenMM's
    LangevinMiddleIntegrator has them: the momenta that a step leaves still hold kT (1 - c^2) / 8 of noise a constraint,
    c = exp(-friction dt), which the next one projects away. Project them for the temperature where friction is high.
    """

    potential: Potential
    masses: Float[Array, " atoms"] = eqx.field(converter=jnp.asarray)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    kT: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    friction: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    constraint: Constraint = Unconstrained()
    normal: Callable = eqx.field(static=True, default=normal)

    def init(self, key: PRNGKeyArray, frame: Frame) -> State:
        """The frame put on the constraints and momenta drawn at kT; no forces."""
        frame, momenta = thermal(key, frame, self.masses, self.kT, self.constraint)
        return State(frame, momenta, None)

    def step(self, key: PRNGKeyArray, state: State) -> State:
        """One time step, with one evaluation of the forces, at the old positions."""
        masses, dt, kT, friction = _as(state, self.masses, self.dt, self.kT, self.friction)
        momenta = kick(state.momenta, force(self.potential, state.frame), dt)
        momenta = self.constraint.momenta(momenta, state.frame, masses)
        free = drift(state.positions, momenta, masses, dt / 2)
        momenta = ou(key, momenta, masses, dt, kT, friction, self.normal)
        free = drift(free, momenta, masses, dt / 2)
        positions, momenta = constrain(self.constraint, free, state.positions, momenta, masses, dt)
        return State(state.frame.at(positions), momenta)


class BAOAB(eqx.Module):
    """Langevin dynamics by the BAOAB splitting, with the configurations of :class:`Langevin`.

    Unlike there, the momenta that a step gives belong to the same time as the positions, at the price of an error
    of second order in their distribution and, with constraints, of one more projection.

    The arguments, and the treatment of constraints, are those of :class:`Langevin`.

    Leimkuhler, Matthews 2013, doi:10.1063/1.4802990.
    """

    potential: Potential
    masses: Float[Array, " atoms"] = eqx.field(converter=jnp.asarray)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    kT: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    friction: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    constraint: Constraint = Unconstrained()
    normal: Callable = eqx.field(static=True, default=normal)

    def init(self, key: PRNGKeyArray, frame: Frame) -> State:
        """The frame put on the constraints, momenta drawn at kT, and the forces there."""
        return prepare(key, self.potential, frame, self.masses, self.kT, self.constraint)

    def step(self, key: PRNGKeyArray, state: State) -> State:
        """One time step, with one evaluation of the forces, at the new positions."""
        masses, dt, kT, friction = _as(state, self.masses, self.dt, self.kT, self.friction)
        momenta = kick(state.momenta, state.forces, dt / 2)
        momenta = self.constraint.momenta(momenta, state.frame, masses)
        free = drift(state.positions, momenta, masses, dt / 2)
        momenta = ou(key, momenta, masses, dt, kT, friction, self.normal)
        free = drift(free, momenta, masses, dt / 2)
        positions, momenta = constrain(self.constraint, free, state.positions, momenta, masses, dt)
        frame = state.frame.at(positions)
        forces = force(self.potential, frame)
        momenta = kick(momenta, forces, dt / 2)
        return State(frame, self.constraint.momenta(momenta, frame, masses), forces)


class Overdamped(eqx.Module):
    """Brownian dynamics, dx = F / (friction m) dt + sqrt(2 kT / (friction m)) dW: BAOAB's limit of large friction.

    x' = x + h F / (friction m) + sqrt(h / (2 friction)) (p + p') / m, where p' are fresh Maxwell-Boltzmann momenta and
    p those of the step before. Its configurations are of second order in h = dt (Euler-Maruyama's of first) and exact
    for a harmonic potential; its trajectories are of first weak order. The momenta of a state are the noise.

    potential: kJ/mol. masses: Da, (atoms,). dt: ps. kT: kJ/mol. friction: 1/ps; the diffusion constant of an atom is
    kT / (friction m), nm^2/ps. normal: the generator of the noise.

    Leimkuhler, Matthews 2013, doi:10.1093/amrx/abs010.
    """

    potential: Potential
    masses: Float[Array, " atoms"] = eqx.field(converter=jnp.asarray)
    dt: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    kT: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    friction: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    normal: Callable = eqx.field(static=True, default=normal)

    def init(self, key: PRNGKeyArray, frame: Frame) -> State:
        """The frame, noise at kT for the first step, and the forces."""
        return prepare(key, self.potential, frame, self.masses, self.kT, Unconstrained())

    def step(self, key: PRNGKeyArray, state: State) -> State:
        """One time step, with one evaluation of the forces, at the new positions."""
        masses, dt, kT, friction = _as(state, self.masses, self.dt, self.kT, self.friction)
        momenta = maxwell_boltzmann(key, masses, kT, self.normal)
        positions = drift(state.positions, state.forces, masses, dt / friction)
        positions = drift(positions, state.momenta + momenta, masses, jnp.sqrt(dt / (2 * friction)))
        frame = state.frame.at(positions)
        return State(frame, momenta, force(self.potential, frame))


def _as(state: State, *values):
    """The values in the precision of the positions."""
    return [jnp.asarray(value, state.positions.dtype) for value in values]
