"""Text from data is hostile: what it may do to a terminal, and how it is made harmless."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from handful.ship.shown import HIDDEN

_JOINERS = "\u200c\u200d"  # shape letters and emoji, move nothing


def visible(text: object, limit: int | None = None) -> str:
    """``text`` on one line with nothing in it that steers a terminal or cannot be seen, cut at ``limit`` characters.

    Blanks collapse; escape sequences, right-to-left overrides and the like show as ``\\x1b`` or ``\\u202e``.
    """
    line = " ".join(str(text).split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 1] + "…"
    return _escaped(line, lambda c: c.encode("unicode_escape").decode())


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of ``value``; characters that steer a terminal are escaped, numbers that JSON lacks become ``null``."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    # What is escaped can stand only within a JSON string; line ends are those of an indented text.
    return "\n".join(_escaped(line, lambda c: json.dumps(c)[1:-1]) for line in text.split("\n"))


def _escaped(line: str, escape: Callable[[str], str]) -> str:
    if line.isprintable() and not HIDDEN.search(line):
        return line
    return "".join(c if c in _JOINERS or (c.isprintable() and not HIDDEN.match(c)) else escape(c) for c in line)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value
