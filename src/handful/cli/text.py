"""Text from data is hostile: what it may do to a terminal, and how it is made harmless."""

from __future__ import annotations

import json
from typing import Any

_JOINERS = "\u200c\u200d"  # shape letters and emoji, move nothing


def visible(text: object, limit: int | None = None) -> str:
    """``text`` on one line with nothing in it that steers a terminal, cut at ``limit`` characters.

    Blanks collapse; escape sequences, right-to-left overrides and the like show as ``\\x1b`` or ``\\u202e``.
    """
    line = " ".join(str(text).split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1] + "…"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in line)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of ``value``; characters that steer a terminal are escaped, numbers that JSON lacks become ``null``."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    if text.isprintable():
        return text
    # All of these can stand only within a JSON string, but for the line ends of an indented text.
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value
