"""Tables as TOML text: the few kinds of value that an input holds."""

import json
import re
from typing import Any


def write_toml(tables: dict[str, Any]) -> str:
    """Nested tables as TOML that ``tomllib`` reads back as the same. None is left out."""
    return "\n".join(_lines(tables, ())).strip() + "\n"


def _lines(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in table.items() if v is not None and not _is_table(v)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
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


def _value(value: Any) -> str:
    if isinstance(value, str):  # TOML's basic strings escape as JSON's do, but for one control character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return f"[{', '.join(map(_value, value))}]"
