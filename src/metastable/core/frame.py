"""Frame: where the atoms are. It crosses every border of the package."""

from typing import Any, Self

import equinox as eqx
from jaxtyping import Array, Float


class Frame(eqx.Module):
    """Positions and, where space is periodic, the box.

    A trajectory is a Frame with a leading time axis, a batch one with a leading replica axis.

    positions: nm, (atoms, 3).
    box: nm, rows are the box vectors, (3, 3), reduced as :mod:`metastable.core.space` says; None where space is not
    periodic.
    pairs: the atoms that are near one another, :class:`metastable.core.pairs.Pairs`; None where nobody keeps a list,
    and a potential of pairs then looks at all of them.
    """

    positions: Float[Array, "*batch atoms 3"]
    box: Float[Array, "*batch 3 3"] | None = None
    pairs: Any = None

    def at(self, positions: Float[Array, "*batch atoms 3"]) -> Self:
        """The same frame with other positions."""
        return type(self)(positions, self.box, self.pairs)
