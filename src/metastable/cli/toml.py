"""Tables as TOML text: the few kinds of value that an input holds."""

import json
import re
from typing import Any


def write_toml(tables: dict[str, Any]) -> str:
    """Nested tables as TOML that ``tomllib`` reads back as the same. None is left out."""
    return "\n".join(_lines(tables, ())).strip() + "\n"


def _lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in table.items() if v is not None and not _is_table(v)}
    lines = [f"{_key(k)} = {write_value(v)}" for k, v in plain.items()]
    for name, value in table.items():
        if not _is_table(value):
            continue
        here = (*path, name)
        title = ".".join(map(_key, here))
        for row in value if isinstance(value, list) else [value]:
            inner = _lines(row, here)
            brackets = f"[[{title}]]" if isinstance(value, list) else f"[{title}]"
            only_tables = not isinstance(value, list) and row and all(_is_table(v) for v in row.values())
            lines += inner if only_tables else ["", brackets, *inner]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def write_value(value: Any) -> str:
    """One value: text, a number, true or false, a list of them, or a table in one line."""
    if isinstance(value, str):  # TOML's basic strings escape as JSON's do, but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {write_value(v)}" for k, v in value.items()) + "}"
    return f"[{', '.join(map(write_value, value))}]"
