"""The words of problems: what is allowed, what comes nearest, and values cut short."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any


def not_one_of(value: Any, allowed: Iterable[str]) -> str:
    """That a value is none of those allowed, and which of them it may have meant."""
    allowed = list(allowed)
    listed = ", ".join(allowed) if allowed else "nothing: there is none"
    return f"{short(value)} is not one of: {listed}{nearest(str(value), allowed)}"


def unknown_key(key: str, allowed: Iterable[str], elsewhere: Mapping[str, str] = MappingProxyType({})) -> str:
    """That a key is none of those allowed. elsewhere: keys of other tables, and where they belong."""
    allowed = list(allowed)
    return f"is no key here; allowed: {', '.join(allowed)}{nearest(key, allowed, elsewhere)}"


def nearest(name: str, allowed: Sequence[str], elsewhere: Mapping[str, str] = MappingProxyType({})) -> str:
    """Which of the names, if any, this one was meant to be."""
    lower = {k.lower(): v for k, v in elsewhere.items()} | {a.lower(): a for a in allowed}
    near = difflib.get_close_matches(name[:100].lower(), lower, 1, 0.5)
    return f"; did you mean '{lower[near[0]]}'?" if near else ""


def nearest_file(path: Path) -> str:
    """Which file beside this one, if any, was meant."""
    if not path.parent.is_dir():
        return ""
    return nearest(path.name, [p.name for p in path.parent.iterdir() if p.suffix == path.suffix])


def short(value: Any) -> str:
    """A value as it stands in a sentence."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = f"'{value}'" if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
