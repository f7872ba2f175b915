"""Energies with a hand-written gradient beside them, and the sum of forces on atoms without a scatter."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

UNROLLED = 128
"""Contributions to an atom up to which their sum is written out, which XLA makes one vectorised loop on a CPU."""


class Index:
    """Atom indices that never change: a host array, hashable, so that it is part of a program and not its input.

    An equinox field that holds one is static: kernels may build tables from it while they are traced.
    """

    def __init__(self, index: Any, columns: int | None = None):
        array = np.array(index, np.int32)
        self.array = array.reshape(-1, columns) if columns else array
        self.array.setflags(write=False)
        self._hash = hash((self.array.shape, self.array.tobytes()))

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)

    def __len__(self) -> int:
        return len(self.array)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other) -> bool:
        return self is other or (isinstance(other, Index) and np.array_equal(self.array, other.array))

    def __repr__(self) -> str:
        return f"Index{self.array.shape}"


def leaf(values: Any) -> Any:
    """A parameter as it is kept: arrays of jax as they are, all else as a host array of doubles.

    Host arrays serve double and single precision alike; :func:`cast` brings them to the positions' precision.
    """
    return values if values is None or isinstance(values, jax.Array) else np.asarray(values, float)


def cast(parameters: Any, dtype) -> Any:
    """The floating leaves of a tree in the precision of the positions; the others as they are."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, parameters
    )


def with_gradient(
    energy: Callable[[Any, Any], Any], gradient: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Float[Array, ""]]:
    """Join ``energy(positions, parameters)`` with a kernel for its gradient in the positions.

    The result is the plain energy; its derivative along (dx, dp) is

        dE = gradient(x, p) . dx + (dE/dp) dp,

    the second part from the plain energy, and only for the parameters that vary. Forward and reverse mode
    work, and so do higher orders: derivatives of forces are derivatives of the kernel, exact in the
    parameters too, as long as the kernel is the gradient of the energy.

    energy: kJ/mol. gradient: kJ/mol/nm, (atoms, 3), in plain jax operations.
    """

    @jax.custom_jvp
    def joined(positions, parameters):
        return energy(positions, parameters)

    def jvp(primals, tangents):
        (positions, parameters), (along, varying) = primals, tangents
        value = joined(positions, parameters)
        change: Any = jnp.zeros_like(value)
        if not isinstance(along, SymbolicZero):
            change += jnp.vdot(gradient(positions, parameters), along)
        leaves, tree = jax.tree.flatten(parameters)
        rates = jax.tree.leaves(varying, is_leaf=lambda x: isinstance(x, SymbolicZero))
        moving = [i for i, rate in enumerate(rates) if not isinstance(rate, SymbolicZero)]
        if moving:

            def of_moving(*values):
                full = list(leaves)
                for i, value in zip(moving, values, strict=True):
                    full[i] = value
                return energy(positions, jax.tree.unflatten(tree, full))

            change += jax.jvp(of_moving, [leaves[i] for i in moving], [rates[i] for i in moving])[1]
        return value, change

    joined.defjvp(jvp, symbolic_zeros=True)
    return lambda positions, parameters: joined(jnp.asarray(positions), parameters)


def accumulate(contributions: Sequence[Float[Array, "terms n"]], index: Any, atoms: int) -> Float[Array, "atoms n"]:
    """Add the contribution of each term to each of its k atoms: out[a] = sum over index[t, i] == a of c[i][t].

    contributions: k arrays. index: (terms, k), known on the host. Each atom gathers its own through a padded table:
    there is no scatter, and no ``reduce`` of few terms, both of which XLA makes scalar loops on a CPU.
    """
    flat = np.asarray(index).T.reshape(-1)
    rows = jnp.concatenate([*contributions, jnp.zeros_like(contributions[0], shape=(1, contributions[0].shape[1]))])
    table = _contributors(flat, atoms)
    if table.shape[1] > UNROLLED:
        return rows[table].sum(1)
    first, *rest = (rows[column] for column in table.T)
    return sum(rest, start=first)


def _contributors(flat: np.ndarray, atoms: int) -> np.ndarray:
    """For each atom the rows that contribute to it, filled up with the number of rows, (atoms, most)."""
    order = np.argsort(flat, kind="stable")
    counts = np.bincount(flat, minlength=atoms)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((atoms, max(1, counts.max(initial=0))), len(flat), np.int32)
    table[flat[order], place] = order
    return table
