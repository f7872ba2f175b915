"""State: what molecular dynamics carries from step to step, and the kinetic quantities of it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metastable.core.contracts import Constraint, Potential
from metastable.core.frame import Frame
from metastable.core.random import normal


class State(eqx.Module):
    """A point in phase space.

    frame: positions in nm, and the box. momenta: Da nm/ps. forces: kJ/mol/nm, those of ``frame``; None with
    integrators that carry none.
    """

    frame: Frame
    momenta: Float[Array, "*batch atoms 3"]
    forces: Float[Array, "*batch atoms 3"] | None = None

    @property
    def positions(self) -> Float[Array, "*batch atoms 3"]:
        """nm: ``frame.positions``."""
        return self.frame.positions


def force(potential: Potential, frame: Frame) -> Float[Array, "atoms 3"]:
    """Minus the gradient of the potential with respect to the positions, kJ/mol/nm."""
    return -jax.grad(lambda positions: potential(frame.at(positions)))(frame.positions)


def inverse(masses: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
    """1 / mass in 1/Da; 0 where the mass is 0, so that such an atom never moves."""
    return jnp.where(masses > 0, 1 / jnp.where(masses > 0, masses, 1), 0)


def kinetic_energy(momenta: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]) -> Float[Array, ""]:
    """sum p^2 / 2m, kJ/mol."""
    masses = jnp.asarray(masses, momenta.dtype)
    return jnp.sum(momenta**2 * inverse(masses)[:, None]) / 2


def total_energy(potential: Potential, state: State, masses: Float[Array, " atoms"]) -> Float[Array, ""]:
    """Kinetic and potential energy, kJ/mol; of use where positions and momenta belong to the same time."""
    return kinetic_energy(state.momenta, masses) + potential(state.frame)


def temperature(
    momenta: Float[Array, "atoms 3"], masses: Float[Array, " atoms"], degrees_of_freedom: int
) -> Float[Array, ""]:
    """The kinetic temperature as an energy, kT = 2 K / degrees of freedom, kJ/mol; divide by ``units.kelvin`` for K."""
    return 2 * kinetic_energy(momenta, masses) / degrees_of_freedom


def maxwell_boltzmann(
    key: PRNGKeyArray, masses: Float[Array, " atoms"], kT: Float[Array, ""], normal: Callable = normal
) -> Float[Array, "atoms 3"]:
    """Momenta from exp(-K / kT), Da nm/ps; constraints are the caller's to apply."""
    masses = jnp.asarray(masses)
    noise = normal(key, (*masses.shape, 3), masses.dtype)
    return jnp.sqrt(masses)[:, None] * jnp.sqrt(jnp.asarray(kT, masses.dtype)) * noise


def at_rest(momenta: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]) -> Float[Array, "atoms 3"]:
    """The momenta with the velocity of the centre of mass taken away: three degrees of freedom fewer."""
    masses = jnp.asarray(masses, momenta.dtype)
    return momenta - masses[:, None] * (jnp.sum(momenta, 0) / jnp.sum(masses))


def thermal(
    key: PRNGKeyArray,
    frame: Frame,
    masses: Float[Array, " atoms"],
    kT: Float[Array, ""],
    constraint: Constraint,
) -> tuple[Frame, Float[Array, "atoms 3"]]:
    """``frame`` put on the constraints, and Maxwell-Boltzmann momenta on them."""
    masses = jnp.asarray(masses, frame.positions.dtype)
    frame = frame.at(constraint.positions(frame.positions, frame.positions, masses))
    return frame, constraint.momenta(maxwell_boltzmann(key, masses, kT), frame, masses)


def prepare(
    key: PRNGKeyArray,
    potential: Potential,
    frame: Frame,
    masses: Float[Array, " atoms"],
    kT: Float[Array, ""],
    constraint: Constraint,
) -> State:
    """The first state of an integrator that carries forces: :func:`thermal`, and the forces."""
    frame, momenta = thermal(key, frame, masses, kT, constraint)
    return State(frame, momenta, force(potential, frame))
