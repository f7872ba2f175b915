"""How many contacts there are between two groups of atoms."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metastable.core.frame import Frame
from metastable.cvs.geometry import check_range, indices, norm
from metastable.cvs.periodic import minimum_image
from metastable.cvs.variable import Component, Variable


class Coordination(Variable):
    """The coordination number: the sum over i in a, j in b, i != j, of switching(r_ij). It has no unit.

    As in PLUMED, a pair of atoms that stands in both groups counts twice. With no second group each pair of the
    first counts once. All pairs are computed: for thousands of atoms it is slow.
    """

    a: tuple[int, ...] = eqx.field(static=True)
    b: tuple[int, ...] | None = eqx.field(static=True)
    switching: Callable[[Float[Array, "*n"]], Float[Array, "*n"]]
    label: str = eqx.field(static=True)
    pbc: bool = eqx.field(static=True)

    def __init__(
        self,
        a: Sequence[int],
        b: Sequence[int] | None = None,
        *,
        switching: Callable,
        label: str = "coordination",
        pbc: bool = True,
    ):
        self.a, self.b = indices(a), None if b is None else indices(b)
        self.switching, self.label, self.pbc = switching, label, pbc

    @property
    def components(self):
        """One, a plain number."""
        return (Component(self.label),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        a, b = np.array(self.a), np.array(self.a if self.b is None else self.b)
        check_range(frame, (*a, *b))
        delta = frame.positions[b][None] - frame.positions[a][:, None]
        r = norm(minimum_image(delta, frame.box) if self.pbc else delta)
        count = (a[:, None] != b[None]) * (0.5 if self.b is None else 1.0)
        return jnp.sum(jnp.asarray(count, r.dtype) * self.switching(r))[None]
