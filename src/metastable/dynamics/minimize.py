"""Minimisation: ``fire`` for a rough start, ``lbfgs`` for the last digits. Constraints are kept, by both.

Both end where the largest force on an atom is at most ``tolerance``, kJ/mol/nm, or after ``steps`` force evaluations
(``fire``) or iterations (``lbfgs``); :func:`largest_force` tells which it was. Forces are those along the constrained
surface. Single precision hardly reaches below 0.1 kJ/mol/nm for a molecule.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from metastable.core.contracts import Constraint, Potential
from metastable.core.frame import Frame
from metastable.core.pairs import kept
from metastable.dynamics.constraints import Unconstrained
from metastable.dynamics.state import force, inverse

_DT, _LONGEST_DT = 0.001, 0.01  # ps, for masses of some Da
_FREE = Unconstrained()
_REACH = 0.01  # nm, the farthest that an atom goes in one step: a clash is left without an explosion


@eqx.filter_jit
def largest_force(
    potential: Potential,
    frame: Frame,
    constraint: Constraint = _FREE,
    masses: Float[Array, " atoms"] | float = 12.0,
) -> Float[Array, ""]:
    """The norm of the largest force on an atom, along the constrained surface, kJ/mol/nm."""
    return _largest(constraint.momenta(force(potential, frame), frame, _masses(masses, frame)))


@eqx.filter_jit
def fire(
    potential: Potential,
    frame: Frame,
    tolerance: float = 10.0,
    steps: int = 2000,
    constraint: Constraint = _FREE,
    masses: Float[Array, " atoms"] | float = 12.0,
) -> Frame:
    """The minimum that a fast inertial relaxation engine reaches: dynamics that stops dead when it goes uphill.

    A list of pairs that the frame carries is made anew as needed.
    masses: Da; with constraints those of the system, otherwise any will do.

    Bitzek, Koskinen, Gaehler, Moseler, Gumbsch 2006, doi:10.1103/PhysRevLett.97.170201, with their parameters and
    steps of at most 0.01 nm.
    """
    masses = _masses(masses, frame)
    weights = inverse(masses)[:, None]

    def unfinished(carry):
        i, _, _, largest, *_ = carry
        return (i < steps) & (largest > tolerance)

    def step(carry):  # begins with the forces, so that they are compiled once
        i, here, v, _, dt, mixing, downhill = carry
        here = kept(here)
        positions = here.positions
        forces = constraint.momenta(force(potential, here), here, masses)
        largest = _largest(forces)
        down = jnp.sum(forces * v) > 0
        downhill = jnp.where(down, downhill + 1, 0)
        longer, shorter = jnp.minimum(1.1 * dt, _LONGEST_DT), dt / 2
        dt = jnp.where(down, jnp.where(downhill > 5, longer, dt), shorter)
        mixing = jnp.where(down, jnp.where(downhill > 5, 0.99 * mixing, mixing), 0.1)
        v = jnp.where(down, v, 0) + dt * forces * weights
        v = (1 - mixing) * v + mixing * forces * jnp.sqrt(jnp.sum(v**2) / jnp.sum(forces**2))
        far = dt * jnp.sqrt(jnp.max(jnp.sum(v**2, -1)))
        move = dt * v * jnp.minimum(1, _REACH / far)
        reached = constraint.positions(positions + move, positions, masses)
        v = constraint.momenta(v * masses[:, None], frame.at(reached), masses) * weights
        return i + 1, here.at(jnp.where(largest > tolerance, reached, positions)), v, largest, dt, mixing, downhill

    start = constraint.positions(frame.positions, frame.positions, masses)
    dt, mixing = jnp.asarray(_DT, start.dtype), jnp.asarray(0.1, start.dtype)
    first = (0, frame.at(start), jnp.zeros_like(start), jnp.asarray(jnp.inf, start.dtype), dt, mixing, 0)
    return lax.while_loop(unfinished, step, first)[1]


@eqx.filter_jit
def lbfgs(
    potential: Potential,
    frame: Frame,
    tolerance: float = 1.0,
    steps: int = 1000,
    constraint: Constraint = _FREE,
    masses: Float[Array, " atoms"] | float = 12.0,
) -> Frame:
    """The minimum that limited-memory BFGS with a line search reaches.

    With constraints it is the energy of the constrained positions that is minimised, as a function of free ones.

    masses: Da; with constraints those of the system.

    Liu, Nocedal 1989, doi:10.1007/BF01589116.
    """
    import optax  # a second of every start, which few need

    masses = _masses(masses, frame)

    def constrained(positions):
        return frame.at(constraint.positions(positions, positions, masses))

    def energy(positions):
        return potential(constrained(positions))

    optimizer = optax.lbfgs()

    def unfinished(carry):
        i, _, gradient, _ = carry
        return (i < steps) & (_largest(gradient) > tolerance)

    def step(carry):
        i, positions, gradient, state = carry
        value = optax.tree.get(state, "value")
        moves, state = optimizer.update(gradient, state, positions, value=value, grad=gradient, value_fn=energy)
        return i + 1, positions + moves, optax.tree.get(state, "grad"), state

    start = constrained(frame.positions).positions
    value, gradient = jax.value_and_grad(energy)(start)
    state = optax.tree.set(optimizer.init(start), value=value, grad=gradient)
    end = constrained(lax.while_loop(unfinished, step, (0, start, gradient, state))[1])
    return constrained(end.positions)  # the free positions may have gone farther off than one projection corrects


def _masses(masses, frame: Frame):
    return jnp.broadcast_to(jnp.asarray(masses, frame.positions.dtype), frame.positions.shape[:-1])


def _largest(forces):
    return jnp.sqrt(jnp.max(jnp.sum(forces**2, axis=-1)))
