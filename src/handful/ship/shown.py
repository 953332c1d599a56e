"""How the report writes things: estimates with their intervals, and text from data with nothing hidden in it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DASH = "–"
_LONGEST = 400
# Control characters, characters that reorder or hide text, and lone surrogates, which no file can hold. The joiners
# U+200C and U+200D stay: scripts and emoji need them.
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: object, limit: int = _LONGEST) -> str:
    """``text`` with control, reordering and invisible characters spelt out, cut at ``limit`` characters.

    >>> visible("pay\\x1b[31m\\u202e")
    'pay⟨U+001B⟩[31m⟨U+202E⟩'
    """
    line = str(text)
    cut = f"… ({len(line) - limit:,} more characters)" if len(line) > limit else ""
    return HIDDEN.sub(_spell, line[:limit]) + cut


def _spell(match: re.Match[str]) -> str:
    return f"⟨U+{ord(match.group()):04X}⟩"


@dataclass(frozen=True)
class Shown:
    """An estimate as the page shows it: its text, and where it lies on an axis from 0 to 100.

    ``value`` is "82 %" or "0.62", ``interval`` "[78, 86]"; ``at``, ``low`` and ``high`` are positions.
    """

    value: str
    interval: str
    at: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """``"82 % [78, 86]"``."""
        return f"{self.value} {self.interval}"

    @property
    def width(self) -> float:
        """Length of the interval on the axis; what a bar draws, never nothing."""
        return max(self.high - self.low, 0.4)


def share(estimate: Mapping[str, float] | None) -> Shown | None:
    """An estimate between 0 and 1 in per cent, with one decimal when the interval is narrow enough to bear it."""
    if (numbers := _numbers(estimate)) is None:
        return None
    value, low, high = (100 * x for x in numbers)
    digits = 1 if high - low < 5 and value not in (0, 100) else 0
    if 0 < value < 100 and round(value, digits) in (0, 100):  # 99.6 % is not 100 %
        digits += 1
    at, left, right = (min(max(x, 0.0), 100.0) for x in (value, low, high))
    return Shown(f"{value:.{digits}f} %", f"[{low:.{digits}f}, {high:.{digits}f}]", at, left, right)


def amount(estimate: Mapping[str, float] | None, top: float) -> Shown | None:
    """An estimate that is no share, such as a log loss, on an axis from 0 to ``top``."""
    if (numbers := _numbers(estimate)) is None:
        return None
    at, left, right = (min(max(100 * x / top, 0.0), 100.0) for x in numbers)
    value, low, high = numbers
    return Shown(f"{value:.2f}", f"[{low:.2f}, {high:.2f}]", at, left, right)


def _numbers(estimate: Mapping[str, float] | None) -> tuple[float, float, float] | None:
    if estimate is None:
        return None
    value, low, high = (float(math.nan if (x := estimate.get(key)) is None else x) for key in ("value", "low", "high"))
    return (value, low, high) if all(map(math.isfinite, (value, low, high))) else None


def plain(value: Any) -> str:
    """Any JSON value in a few characters: yes and no, four digits of a float, an estimate with its interval."""
    if value is None or value == [] or value == {}:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if (numbers := _numbers(value) if {"value", "low", "high"} <= value.keys() else None) is not None:
            return "{:.4g} [{:.4g}, {:.4g}]".format(*numbers)
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)
