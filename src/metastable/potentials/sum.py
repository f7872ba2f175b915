"""A sum of named potentials: what a molecule's energy is."""

from collections.abc import Mapping

import equinox as eqx
from jaxtyping import Array, Float

from metastable.core.contracts import Potential
from metastable.core.frame import Frame


class Sum(eqx.Module):
    """The sum of its terms, kJ/mol. Terms keep their names, so that energies can be told apart."""

    terms: dict[str, Potential]

    def __init__(self, terms: Mapping[str, Potential]):
        if not terms:
            raise ValueError("Sum needs at least one term")
        self.terms = dict(terms)

    def __call__(self, frame: Frame) -> Float[Array, ""]:
        first, *rest = (term(frame) for term in self.terms.values())
        return sum(rest, start=first)

    def energies(self, frame: Frame) -> dict[str, Float[Array, ""]]:
        """Energy of each term, kJ/mol, by name."""
        return {name: term(frame) for name, term in self.terms.items()}
