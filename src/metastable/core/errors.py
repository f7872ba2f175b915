"""Errors that a user may meet. Each gives the value, the limit and the cure, all problems at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input.

    where: the key or the file and line, e.g. ``dynamics.dt`` or ``start.pdb:12``.
    message: the value, what is allowed, and the cure.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class InputError(ValueError):
    """What the user gave cannot be used. Holds every problem found, not the first one only."""

    def __init__(self, *problems: Problem | str):
        self.problems = tuple(p if isinstance(p, Problem) else Problem("input", p) for p in problems)
        super().__init__("\n".join(map(str, self.problems)))


class RunawayError(RuntimeError):
    """A simulation left the finite numbers.

    replica, step: where it was first seen. term: the potential term with the largest energy there.
    """

    def __init__(self, replica: int, step: int, term: str, energy: float):
        self.replica, self.step, self.term, self.energy = replica, step, term, energy
        super().__init__(
            f"replica {replica} blew up at step {step}: the term with the largest energy is "
            f"'{term}' ({energy:.4g} kJ/mol). Minimise the start, or lower the time step."
        )
