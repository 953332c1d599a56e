"""What the report shows of single items: examples of confusions, doubtful labels, conflicts, what is not seen."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from handful.ship.evidence import CLASHES, COPIES, DOUBTED, EACH, MISTAKEN, Evidence, Example
from handful.ship.report_views import Pair, confused_pairs

PLACES = 5
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
_LARGEST = 200_000  # bytes of a thumbnail


@dataclass(frozen=True)
class Seen:
    """An example as the page shows it: its place, its text, its picture as an address that holds it."""

    where: str
    text: str | None = None
    picture: Markup | None = None


def seen(example: Example | None, where: str = "") -> Seen:
    """``example``, or its place alone where there is none."""
    if example is None:
        return Seen(where)
    return Seen(where or example.where, example.text, _picture(example.thumbnail))


def _picture(data: bytes | None) -> Markup | None:
    """A data address; bytes that are neither PNG nor JPEG are not shown."""
    kind = next((kind for mark, kind in _KINDS.items() if data and data.startswith(mark)), None)
    if data is None or kind is None or len(data) > _LARGEST:
        return None
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


@dataclass(frozen=True)
class Mistake:
    """A confused pair with a few of the items in question."""

    pair: Pair
    examples: tuple[Seen, ...]


def mistakes(assessment: Mapping[str, Any], evidence: Evidence, *, measured: bool) -> list[Mistake]:
    """The most frequent confusions with their examples; empty where there is none to show.

    Those ``measured`` on items kept apart show these items if they can, else like ones among what was learnt from.
    """
    found = []
    for pair in confused_pairs(assessment)[:MISTAKEN]:
        which = (pair.true, pair.predicted)
        rows = evidence.confused.get(which, ())[:EACH]
        examples = [evidence.items[row] for row in rows if row in evidence.items]
        if measured and evidence.tested:
            examples = list(evidence.tested.get(which, ())[:EACH])
        found.append(Mistake(pair, tuple(map(seen, examples))))
    return found if any(mistake.examples for mistake in found) else []


@dataclass(frozen=True)
class Doubt:
    """A label that looks wrong: what it says, what the model says, and how probable it holds both for."""

    item: Seen
    given: str
    suggested: str
    p_given: str
    p_suggested: str


def doubts(card: Mapping[str, Any], evidence: Evidence) -> list[Doubt]:
    """The most doubtful labels, at most `DOUBTED`."""
    return [
        Doubt(
            seen(evidence.items.get(row.get("row", -1)), row.get("where") or ""),
            row["given"],
            row["suggested"],
            _probability(row.get("p_given")),
            _probability(row.get("p_suggested")),
        )
        for row in (card.get("suspicious") or ())[:DOUBTED]
    ]


def _probability(p: float | None) -> str:
    return "" if p is None else f"({100 * p:.0f} %)"


@dataclass(frozen=True)
class Clash:
    """Copies of one item that carry different labels: the item, and ``(place, label)`` of each copy."""

    item: Seen
    copies: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    more: int


def clashes(card: Mapping[str, Any], evidence: Evidence) -> list[Clash]:
    """Conflicts, at most `CLASHES`."""
    found = []
    for clash in ((card.get("duplicates") or {}).get("conflicts") or ())[:CLASHES]:
        rows, places, labels = (clash.get(key) or () for key in ("rows", "where", "labels"))
        example = next((evidence.items[row] for row in rows if row in evidence.items), None)
        apiece = labels if len(labels) == len(places) else [""] * len(places)
        copies = tuple(zip(places, apiece, strict=True))
        different = tuple(dict.fromkeys(labels))
        found.append(Clash(seen(example), copies[:COPIES], different, max(len(copies) - COPIES, 0)))
    return found


def copies(card: Mapping[str, Any]) -> str:
    """``"616 examples are 610 different ones: …"``; empty where no example repeats another."""
    found = card.get("duplicates") or {}
    items, units = found.get("items") or 0, found.get("units") or 0
    if not 0 < units < items:
        return ""
    again = items - units
    repeat = f"{again:,} {'repeats' if again == 1 else 'repeat'} another, or nearly so."
    together = (card.get("estimate") or {}).get("groups")
    kept = " Copies never stand on both sides of a split, so the number above owes nothing to them." if together else ""
    return f"{items:,} examples, but only {units:,} different ones: {repeat}{kept}"


@dataclass(frozen=True)
class Blind:
    """Something the encoder cannot see: at how many items, what to do, and where the first of them are."""

    share: str
    message: str
    places: tuple[str, ...]
    more: int


def blind_spots(card: Mapping[str, Any]) -> list[Blind]:
    """What the encoder cannot see of the examples."""
    return [_blind(spot) for spot in card.get("blind_spots") or ()]


def _blind(spot: Mapping[str, Any]) -> Blind:
    n, of = spot.get("n"), spot.get("of")
    part = "" if n is None else f"{n:,} of {of:,} ({100 * min(n / of, 1):.0f} %)" if of else f"{n:,}"
    places: Sequence[str] = spot.get("where") or ()
    more = max(len(places), n or 0) - PLACES if places else 0
    return Blind(part, spot["message"], tuple(places[:PLACES]), max(more, 0))
