"""Bond constraints: distances that the dynamics keeps."""

import equinox as eqx
from jaxtyping import Array, Float

from metastable.core.frame import Frame


class Unconstrained(eqx.Module):
    """No constraint: gives back what it is given."""

    def positions(
        self, new: Float[Array, "atoms 3"], old: Float[Array, "atoms 3"], masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        return new

    def momenta(
        self, momenta: Float[Array, "atoms 3"], frame: Frame, masses: Float[Array, " atoms"]
    ) -> Float[Array, "atoms 3"]:
        return momenta
