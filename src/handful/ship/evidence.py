"""Evidence: the examples a report shows beside its numbers, as short texts and small pictures.

They lie beside the card, never in it: a model file holds no example, a report does unless it is asked not to.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handful.errors import BadInput
from handful.read import Dataset

SIDE = 96
"""Pixels of the longer side of a thumbnail."""
LENGTH = 300
"""Characters of a text."""
MISTAKEN, EACH, DOUBTED, CLASHES, COPIES = 8, 3, 20, 10, 4
"""How many a report shows: confused pairs, examples of each, doubtful labels, conflicts, places of a conflict."""


@dataclass(frozen=True)
class Example:
    """One item: where it stands, and its text or a thumbnail (PNG or JPEG); neither when there is nothing to show."""

    where: str
    text: str | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Evidence:
    """Examples to show.

    Attributes:
        confused: rows of what was learnt from, by confused pair ``(true, predicted)``.
        items: the examples by row.
        tested: examples of the items kept apart, by confused pair; see `mistaken`.
    """

    confused: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    items: Mapping[int, Example] = field(default_factory=dict)
    tested: Mapping[tuple[str, str], Sequence[Example]] = field(default_factory=dict)


def shown_rows(card: Mapping[str, Any], confused: Mapping[tuple[str, str], Sequence[int]]) -> list[int]:
    """The rows that a report of ``card`` would show, in order: what is worth turning into examples."""
    assessments = [(card.get(part) or {}).get("assessment") or {} for part in ("test", "estimate")]
    pairs = [(p["true"], p["predicted"]) for a in assessments for p in (a.get("confused") or ())[:MISTAKEN]]
    rows = [row for pair in pairs for row in confused.get(pair, ())[:EACH]]
    rows += [doubt["row"] for doubt in (card.get("suspicious") or ())[:DOUBTED]]
    clashes = (card.get("duplicates") or {}).get("conflicts") or ()
    rows += [row for clash in clashes[:CLASHES] for row in clash["rows"][:COPIES]]
    return sorted(set(rows))


def mistaken(
    dataset: Dataset, answers: Sequence[str], assessment: Mapping[str, Any]
) -> dict[tuple[str, str], tuple[Example, ...]]:
    """Examples of the most frequent confusions of an ``assessment`` of these labelled items and ``answers``."""
    found: dict[tuple[str, str], tuple[Example, ...]] = {}
    for pair in assessment["confused"][:MISTAKEN]:
        which = (pair["true"], pair["predicted"])
        given = zip(dataset.labels, answers, strict=True)
        rows = [row for row, one in enumerate(given) if one == which][:EACH]
        found[which] = tuple(make_evidence(dataset, rows).values())
    return found


def make_evidence(dataset: Dataset, rows: Iterable[int]) -> dict[int, Example]:
    """The examples at ``rows`` of a data set: texts cut at `LENGTH` characters, pictures at most `SIDE` pixels.

    An item that cannot be read, and one of a features data set, gives an example of its place alone.
    """
    return {int(row): _example(dataset, int(row)) for row in rows}


def _example(dataset: Dataset, row: int) -> Example:
    where, item = (dataset.where[row] if dataset.where else f"item {row}"), dataset.items[row]
    if dataset.modality == "text":
        return Example(where, text=cut(str(item)))
    return Example(where, thumbnail=thumbnail(item) if dataset.modality == "image" else None)


def cut(text: str, length: int = LENGTH) -> str:
    """``text`` on one line, blanks collapsed, of at most ``length`` characters."""
    line = " ".join(text[: 8 * length].split())  # enough: a text of more blanks than that shows nothing anyway
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def thumbnail(item: Any, side: int = SIDE) -> bytes | None:
    """A picture of at most ``side`` pixels, PNG or JPEG, whichever is smaller; ``None`` when ``item`` cannot be read.

    It is drawn anew, so nothing that a photo carries beside its pixels (place, camera) comes along. Very small pictures
    are enlarged by whole pixels, or nobody would see them.
    """
    from PIL import Image

    from handful.read.images import open_image

    try:
        picture = open_image(item)
    except BadInput:
        return None
    picture.info.clear()
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    elif 2 * longest <= side:
        times = side // longest
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    return min(_encoded(picture, "PNG"), _encoded(picture, "JPEG"), key=len)


def _encoded(picture: Any, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, optimize=True, **({"quality": 80} if form == "JPEG" else {}))
    return buffer.getvalue()
