"""Energy expressions of OpenMM's custom forces, recognised by their form."""

import re

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def normalise(expression: str) -> str:
    """Without blanks and empty definitions."""
    return ";".join(part for part in re.sub(r"\s+", "", expression).split(";") if part)


def match(template: str, expression: str) -> dict[str, float] | None:
    """The numbers that stand in ``expression`` where ``template`` has ``{name}``, or None where they differ.

    Blanks do not count, everything else does. A name that stands twice must stand for the same number.
    """
    pattern, seen = "", set()
    for piece in re.split(r"(\{\w+\})", normalise(template)):
        if not piece.startswith("{"):
            pattern += re.escape(piece)
            continue
        name = piece[1:-1]
        pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{_NUMBER})"
        seen.add(name)
    found = re.fullmatch(pattern, normalise(expression))
    return None if found is None else {name: float(number) for name, number in found.groupdict().items()}


def first_match(templates: dict[str, str], expression: str) -> tuple[str, dict[str, float]] | None:
    """(key, numbers) of the first template that the expression has the form of, or None."""
    for key, template in templates.items():
        numbers = match(template, expression)
        if numbers is not None:
            return key, numbers
    return None
