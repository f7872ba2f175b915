"""A sweep over all pairs of atoms: the loop under every fast nonbonded kernel.

A kernel says what one pair does. The sweep goes shift by shift, pairing atom i with atom i + s for all i
at once (s up to half the atoms), so that each unordered pair is met once, whole arrays are worked on, what
is in flight stays in the cache, and sums are additions of shifted arrays: no scatter and no ``reduce``,
which XLA makes a scalar loop on a CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

PairFunction = Callable[..., tuple[Any, Sequence[Array], Sequence[Array]]]
"""(r^2, values of i, values of j, pair values) -> (r dE/dr or None, what atom i gets, what atom j gets)"""


def sweep(
    pair: PairFunction,
    positions: Float[Array, "atoms 3"],
    of_atoms: Sequence[Float[Array, " atoms"]] = (),
    of_pairs: Sequence[Float[Array, "atoms atoms"]] = (),
    *,
    sums: int = 0,
    gradient: bool = True,
) -> tuple[Any, list[Float[Array, " atoms"]]]:
    """Run ``pair`` over all unordered pairs of atoms.

    pair: gets r^2 (nm^2), the values ``of_atoms`` of both partners and those ``of_pairs`` (symmetric
        matrices), as arrays over some pairs; gives r dE/dr (kJ/mol), and ``sums`` numbers for each partner.
    gradient: whether there is a r dE/dr to use.

    Returns the gradient dE/dx (kJ/mol/nm; None where not wanted) and the ``sums`` sums an atom.
    """
    atoms = len(positions)
    half = atoms // 2
    i = np.arange(atoms)
    j = (i + np.arange(1, half + 1)[:, None]) % atoms
    once = np.ones((half, atoms), np.bool_)
    if atoms % 2 == 0:
        once[-1, half:] = False  # the last shift meets each pair twice
    x = positions.T
    components = [positions[:, k] for k in range(3)]  # r^2 from rows of x and of its windows would be a scalar loop
    twice = [jnp.concatenate([v, v], axis=-1) for v in (x, *components, *of_atoms)]

    def window(v, shift):
        return lax.dynamic_slice_in_dim(v, shift, atoms, axis=-1)

    def add_to_window(v, shift, value):
        return lax.dynamic_update_slice_in_dim(v, window(v, shift) + value, shift, axis=-1)

    def turn(carry, row):
        shift, mine, yours = carry
        counts, *of_pair = row
        xj, *of_second = (window(v, shift) for v in twice)
        yours_apart, of_second = of_second[:3], of_second[3:]
        r2 = sum((a - b) ** 2 for a, b in zip(components, yours_apart, strict=True))
        virial, to_first, to_second = pair(r2, of_atoms, of_second, of_pair)
        to_first, to_second = ([jnp.where(counts, v, 0) for v in vs] for vs in (to_first, to_second))
        if gradient:  # the division comes last: XLA recomputes cheap results for each reader, a quotient it keeps
            push = (jnp.where(counts, virial, 0) / r2) * (x - xj)
            to_first, to_second = [push, *to_first], [-push, *to_second]
        mine = [total + value for total, value in zip(mine, to_first, strict=True)]
        yours = [add_to_window(total, shift, value) for total, value in zip(yours, to_second, strict=True)]
        return (shift + 1, mine, yours), None

    mine = [jnp.zeros_like(x)] * gradient + [jnp.zeros_like(x[0])] * sums
    yours = [jnp.concatenate([v, v], axis=-1) for v in mine]
    rows = (once, *(m[i, j] for m in of_pairs))
    (_, mine, yours), _ = lax.scan(turn, (jnp.ones((), jnp.int32), mine, yours), rows)
    totals = [a + b[..., :atoms] + b[..., atoms:] for a, b in zip(mine, yours, strict=True)]
    return (totals.pop(0).T if gradient else None), totals
