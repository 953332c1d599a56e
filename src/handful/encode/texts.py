"""What text encoders share: which items are texts, and batches without waste."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from handful.encode.base import Job
from handful.errors import BadInput


def text_content(item: Any) -> bytes:
    """The bytes of a text. Raises `BadInput` when ``item`` is not one or is blank."""
    if not isinstance(item, str):
        raise BadInput(f"a text is needed, not {type(item).__name__}")
    if not item.strip():
        raise BadInput("the text is empty")
    return item.encode("utf-8", "surrogatepass")


def texts_of(jobs: Sequence[Job]) -> list[str]:
    """What a tokenizer is given: half a surrogate pair, which no tokenizer takes, becomes U+FFFD."""
    return [content.decode("utf-8", "replace") for _, content in jobs]


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions, shortest text first, in batches of about ``budget`` tokens (at most one text more).

    A budget of tokens keeps the work of a batch even: many short texts or few long ones. Neighbours in length leave
    nothing, or next to nothing, to pad.
    """
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64)[order])
    for positions in np.split(order, np.flatnonzero(np.diff(ends // budget)) + 1):
        yield positions.tolist()
