"""Items that are the same item twice, and duplicates that have different labels.

A copy on the other side of a split is an answer that was seen before, so that copies count as one item: they form a
unit, which is never split. Equal are texts that differ only in case, blanks and punctuation, the same image files, and
equal rows of features; nearly equal, see `handful.evaluate.near_texts` and `handful.evaluate.near_images`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from handful.encode.images import image_content
from handful.errors import BadInput
from handful.evaluate.near_images import near_images
from handful.evaluate.near_texts import near_texts, normal


@dataclass(frozen=True)
class Conflict:
    """Duplicates that disagree: the rows of one unit that have labels, and the label of each."""

    rows: tuple[int, ...]
    labels: tuple[str, ...]


def near_duplicates(
    items: Sequence[Any] | np.ndarray, features: np.ndarray, modality: Literal["text", "image", "features"]
) -> np.ndarray:
    """The unit of each item ``[n]``: 0, 1, … in the order of first items; an item alone is a unit of its own.

    Args:
        items: n texts, images or rows of features, see `handful.read.Dataset`.
        features: ``[n, d]`` of the items, by the encoder that is used; they confirm that near duplicates mean the same.
        modality: of the items.
    """
    rows = np.asarray(features, dtype=np.float32)
    first, unit = _distinct(_keys(items, rows, modality))
    if modality == "features" or len(first) < 2:
        return unit
    some = [items[i] for i in first]
    pairs = near_texts(list(map(normal, some)), rows[first]) if modality == "text" else near_images(some, rows[first])
    return _numbered(_components(len(first), pairs)[unit])


def merge_units(groups: Sequence[Hashable] | np.ndarray | None, units: np.ndarray) -> np.ndarray:
    """Units ``[n]`` that keep together whatever shares a group or a unit, directly or by way of others."""
    if groups is None:
        return _numbered(units)
    group = _distinct(list(groups))[1]
    unit = _numbered(units)
    joined = _components(len(unit) + len(group), np.stack([unit, len(unit) + group], axis=1))
    return _numbered(joined[unit])


def conflicts(units: np.ndarray, labels: Sequence[str | None]) -> list[Conflict]:
    """Units whose items have more than one label, in the order of their first rows. Unlabelled items do not count."""
    rows: dict[int, list[int]] = {}
    for row, (unit, label) in enumerate(zip(np.asarray(units).tolist(), labels, strict=True)):
        if label is not None:
            rows.setdefault(unit, []).append(row)
    found = [Conflict(tuple(some), tuple(str(labels[row]) for row in some)) for some in rows.values()]
    return sorted((conflict for conflict in found if len(set(conflict.labels)) > 1), key=lambda each: each.rows)


def _keys(items: Sequence[Any] | np.ndarray, features: np.ndarray, modality: str) -> list[Hashable]:
    """What is equal for equal items."""
    if modality == "text":
        return [normal(text) or text.strip() for text in items]
    given = np.asarray(items) if modality == "features" else features
    keys: list[Hashable] = [(row + 0.0).tobytes() for row in given]  # 0.0: minus zero is zero
    if modality == "features":
        return keys
    seen = Counter(keys)  # only images that look alike to the encoder are worth reading again
    return [(key, _content(item)) if seen[key] > 1 else key for key, item in zip(keys, items, strict=True)]


def _content(item: Any) -> bytes:
    """Digest of an image; of one that cannot be read any more, of nothing."""
    with suppress(BadInput):
        return hashlib.blake2b(image_content(item)).digest()
    return b""


def _distinct(keys: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the first of each key, and for every key which of them it equals."""
    number: dict[Hashable, int] = {}
    unit = np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)
    first = np.unique(unit, return_index=True)[1]
    return first, unit


def _components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Component of each of n nodes that pairs ``[p, 2]`` connect."""
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    found: np.ndarray = connected_components(graph, directed=False)[1]
    return found


def _numbered(units: np.ndarray) -> np.ndarray:
    """The same partition, numbered in the order of first items."""
    return _distinct(np.asarray(units).tolist())[1]
