"""What text encoders share: which items are texts, batches without waste, windows over long texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np

from handful.encode.base import Batch, Job, unit
from handful.errors import BadInput, nearest

Long = Literal["first", "mean"]
"""What is read of a text with more tokens than the encoder takes at once: its beginning, or all of it, in windows."""
_WINDOWS = 64
"""Of long texts that are worked on at a time: enough for even batches, and few enough for progress to be seen."""


def checked_long(long: str) -> Long:
    """``long`` itself. Raises `BadInput` when it is neither ``"first"`` nor ``"mean"``."""
    if long not in get_args(Long):
        raise BadInput(f"long is {long!r}{nearest(str(long), get_args(Long))}; it is 'first' or 'mean'")
    return long  # type: ignore[return-value]  # just checked


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
        if len(positions):
            yield positions.tolist()


def read_windows(
    owner: np.ndarray,
    lengths: Sequence[int],
    vectors: Callable[[list[int]], np.ndarray],
    *,
    budget: int,
    unit_length: bool,
) -> Iterator[Batch]:
    """Vectors of texts, each read in one window or in several: then the mean of the windows' vectors.

    A window counts as much as it has tokens, so that a short last one does not speak for a whole one.

    Args:
        owner: position [w] of the text that each window is part of, in order.
        lengths: tokens of each window.
        vectors: [k, d] of the windows at k places.
        budget: tokens a batch.
        unit_length: whether vectors are unit; the mean then is too.
    """
    count = np.bincount(owner)
    start = np.cumsum(count) - count
    alone = np.flatnonzero(count == 1)
    for batch in token_batches([lengths[i] for i in start[alone]], budget):
        texts = alone[batch]
        yield texts.tolist(), {"pooled": vectors(start[texts].tolist())[:, None]}
    several = np.flatnonzero(count > 1)
    for batch in token_batches(count[several].tolist(), _WINDOWS):
        texts = several[batch]
        places = np.concatenate([np.arange(start[i], start[i] + count[i]) for i in texts])
        weight = np.asarray(lengths, dtype=np.float64)[places]
        found = _all(places, weight.astype(int).tolist(), vectors, budget)
        ends = np.cumsum(count[texts]) - count[texts]
        mean = np.add.reduceat(found * weight[:, None], ends) / np.add.reduceat(weight, ends)[:, None]
        yield texts.tolist(), {"pooled": (unit(mean) if unit_length else mean.astype(np.float32))[:, None]}


def _all(
    places: np.ndarray, lengths: Sequence[int], vectors: Callable[[list[int]], np.ndarray], budget: int
) -> np.ndarray:
    batches = list(token_batches(lengths, budget))
    found = np.concatenate([vectors(places[batch].tolist()) for batch in batches])
    order = np.concatenate([np.asarray(batch) for batch in batches])
    return found[np.argsort(order)]
