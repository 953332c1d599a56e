"""What the report and the terminal say of the answer "none of these"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handful.ship.shown import Shown, share, visible

NAME = 60  # characters of what such items are called


@dataclass(frozen=True)
class NoneOf:
    """How often known items are called none of the classes, and how often unknown ones are."""

    sentence: str
    method: str
    rows: tuple[tuple[str, Shown | None], ...]


def none_of(card: Mapping[str, Any]) -> NoneOf | None:
    """The part of a card that tells of it; ``None`` where the model never answers so."""
    found = card.get("reject")
    if not found or not found.get("kind"):
        return None
    rows = (
        ("Items of the classes that it calls so", share(found.get("false_alarms"))),
        ("Items of none of the classes that it calls so", share(found.get("found"))),
        ("AUROC: an unknown item looks less known than a known one", share(found.get("auroc"))),
        ("FPR95: unknown items taken for known where 95 % of the known ones are", share(found.get("fpr95"))),
    )
    source = f" ({visible(found['source'])})" if found.get("source") else ""
    method = f"By {found['kind']}. Unknown items: {found.get('method') or 'none'}{source}"
    return NoneOf(none_sentence(found), method, rows)


def none_sentence(found: Mapping[str, Any] | None) -> str:
    """``"Of items of none of the classes, 71 % [60, 80] are called other; of the others, 4.1 % [2.5, 6.3]."``"""
    alarms = share((found or {}).get("false_alarms"))
    if not found or alarms is None:
        return ""
    name, caught = visible(found.get("other") or "", NAME), share(found.get("found"))
    if caught is None:
        return f"It calls {alarms.text} of the items of its classes {name}."
    return f"Of items of none of its classes, {caught.text} are called {name}; of items of its classes, {alarms.text}."
