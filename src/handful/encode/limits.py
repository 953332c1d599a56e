"""What an encoder cannot see: ends of long texts, languages it does not speak, small details of large photographs."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from handful.encode.frames import Frame
from handful.encode.language import foreign
from handful.protocols import Encoder
from handful.read.dataset import ImageFile
from handful.read.places import one_line

SHRUNK = 4.0
"""Pixels of a picture a side for one that the network reads, above which details count as lost. At 4 to 1 a stroke or
a hairline crack of 4 pixels is one pixel or less, and averaging with its surroundings leaves nothing of it."""
LEAST_SHARE = 0.01
"""Of the texts in another language, below which it is not worth a word: about as many are false alarms."""
MOST_UNKNOWN = 0.3
"""Of a text's tokens, above which a tokenizer that has no pieces for them does not know its script."""
MOST_PICTURES = 1000
"""That are looked at, evenly spread: opening them takes time."""


@dataclass(frozen=True)
class BlindSpot:
    """Something that ``n`` of ``of`` items have and the encoder does not see.

    Args:
        kind: ``"cut"``, ``"language"`` or ``"shrunk"``.
        n: how many items have it.
        of: how many were looked at.
        message: one line that says what is not seen and what to do.
        rows: positions of the items that have it, in order.
    """

    kind: Literal["cut", "language", "shrunk"]
    n: int
    of: int
    message: str
    rows: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, field by field."""
        return {**asdict(self), "rows": list(self.rows)}


@runtime_checkable
class ReadsTexts(Protocol):
    """A text encoder that can say what it reads of a text."""

    max_tokens: int

    def truncated(self, items: Sequence[str]) -> np.ndarray:
        """For each text whether it has more tokens than are read [n]."""
        ...

    def unknown(self, items: Sequence[str]) -> np.ndarray:
        """For each text the share of its tokens that the tokenizer has no piece for [n]."""
        ...


@runtime_checkable
class ReadsEnglish(Protocol):
    """A text encoder that learned from English."""

    def pieces(self, words: Sequence[str]) -> Sequence[int]:
        """Into how many pieces its tokenizer cuts each word."""
        ...


@runtime_checkable
class ReadsPictures(Protocol):
    """An image encoder that can say how large a square its network reads."""

    side: int
    frame: Frame


def blind_spots(encoder: Encoder, items: Sequence[Any], where: Sequence[str] = ()) -> list[BlindSpot]:
    """What ``encoder`` does not see of ``items``; empty when it sees all, as far as that can be told.

    Items that cannot be read are passed over: `Encoder.encode` names them.

    Args:
        encoder: any; of one that cannot say what it reads nothing is known.
        items: n texts or images.
        where: their places, such as ``"tickets.csv row 17"``, for an example in each message.
    """
    if isinstance(encoder, ReadsTexts):
        rows = [i for i, item in enumerate(items) if isinstance(item, str) and item.strip()]
        found = _of_texts(encoder, [items[i] for i in rows])
    elif isinstance(encoder, ReadsPictures):
        rows = np.unique(np.linspace(0, len(items) - 1, min(len(items), MOST_PICTURES)).astype(int)).tolist()
        found = _of_pictures(encoder, [items[i] for i in rows])
    else:
        return []
    return [_spot(kind, [rows[i] for i in hits], len(rows), message, where) for kind, hits, message in found]


Found = tuple[Literal["cut", "language", "shrunk"], np.ndarray, str]
"""Kind, positions of the items that have it, and what to say of them."""


def _of_texts(encoder: Any, texts: Sequence[str]) -> Iterable[Found]:
    if not texts:
        return
    if encoder.options.get("long", "first") == "first" and len(cut := np.flatnonzero(encoder.truncated(texts))):
        what = f"longer than the {encoder.max_tokens} tokens that are read"
        yield "cut", cut, f"{what}; the rest of them is not seen: --long mean reads all of it"
    if isinstance(encoder, ReadsEnglish):
        others, what = foreign(texts, encoder.pieces), "not in English, the one language this encoder knows"
    else:
        others, what = encoder.unknown(texts) > MOST_UNKNOWN, "in a script that this encoder has no pieces for"
    if others.mean() >= LEAST_SHARE:
        cure = "--encoder hf:NAME takes one that knows their language"
        yield "language", np.flatnonzero(others), f"{what}; their vectors mean little: {cure}"


def _of_pictures(encoder: Any, pictures: Sequence[Any]) -> Iterable[Found]:
    sides = np.array([_side(encoder.frame, picture) for picture in pictures])
    shrunk = np.flatnonzero(sides > SHRUNK * encoder.side)
    if len(shrunk):
        typical = float(np.median(sides[shrunk]))
        lost = f"details of less than {typical / encoder.side:.0f} pixels vanish"
        cure = "--crop x,y,w,h shows a part, --tiles RxC all of it in parts"
        yield "shrunk", shrunk, f"shrunk from {typical:.0f} to {encoder.side} pixels a side; {lost}: {cure}"


def _spot(
    kind: Literal["cut", "language", "shrunk"], rows: Sequence[int], of: int, message: str, where: Sequence[str]
) -> BlindSpot:
    what = "pictures" if kind == "shrunk" else "texts"
    example = f" (such as {one_line(where[rows[0]])})" if where else ""
    share = f"{100 * len(rows) / of:.0f} %" if 100 * len(rows) >= of else "less than 1 %"
    line = f"{len(rows):,} of {of:,} {what} ({share}) are {message}{example}"
    return BlindSpot(kind, len(rows), of, line, tuple(rows))


def _side(frame: Frame, picture: Any) -> float:
    """Pixels a side of the smallest square shown of a picture; 0 when it cannot be told."""
    size = _size(picture)
    try:
        left, top, right, bottom = frame.box(*size)
    except ValueError:
        return 0.0
    return frame.side(right - left, bottom - top)


def _size(picture: Any) -> tuple[int, int]:
    """Width and height, upright, from the header of a file; (0, 0) when there is none to be had."""
    from PIL.Image import Image
    from PIL.Image import open as open_header

    from handful.read.images import FORMATS

    if isinstance(picture, np.ndarray):
        return (picture.shape[1], picture.shape[0]) if picture.ndim >= 2 else (0, 0)
    if isinstance(picture, Image):
        return picture.size
    try:
        if isinstance(picture, ImageFile):
            plain = picture.path is not None and picture.member is None and picture.data is None
            picture = picture.path if plain else picture.read_bytes()
        with open_header(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS) as image:
            sideways = image.getexif().get(0x0112, 1) >= 5
            return (image.height, image.width) if sideways else image.size
    except Exception:  # whatever is wrong with the file, encoding it said it
        return (0, 0)
