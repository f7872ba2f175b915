"""Frame: where the atoms are. It crosses every border of the package."""

import equinox as eqx
from jaxtyping import Array, Float


class Frame(eqx.Module):
    """Positions and, where space is periodic, the box.

    A trajectory is a Frame with a leading time axis, a batch one with a leading replica axis.

    positions: nm, (atoms, 3).
    box: nm, rows are the box vectors, (3, 3); None where space is not periodic.
    """

    positions: Float[Array, "*batch atoms 3"]
    box: Float[Array, "*batch 3 3"] | None = None
