"""Logits of every item by a head that has not seen it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import clone

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold logits ``[n, C]`` (NaN where there are none), which items have them ``[n]``, and how many folds."""

    logits: np.ndarray
    judged: np.ndarray
    folds: int


def cross_fit(
    head: Head,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> CrossFit | None:
    """Fit an unfitted copy of ``head`` without each fold in turn, whatever it chooses included.

    Every item of a class with at least two items (groups) is judged once, by a fit that knows its class and has seen
    nothing of its group. A class too small to lose an item, by what the head needs, stays in every fit and is not
    judged. ``None`` when that leaves fewer than two classes to judge.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    units = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.array([len(np.unique(units[codes == c])) for c in range(len(classes))])
    folds = min(folds, int(counts.max()))
    if folds < 2:
        return None
    enough = (counts >= 2) & (counts - np.ceil(counts / folds) >= head.needs.min_shots)
    whole = np.bincount(units, weights=~enough[codes]) == 0  # a group with an item that cannot leave stays as a whole
    judged = whole[units]
    if len(np.unique(codes[judged])) < 2:
        return None
    fold = np.where(judged, deal(codes, units, judged, folds, seed), -1)
    logits = np.full((len(codes), len(classes)), np.nan)
    for part in range(fold.max() + 1):
        held, rest = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        fitted = clone(head).fit(features.take(rest), labels[rest])
        spread = fitted.spread(features.take(rest), labels[rest])  # strengths chosen anew change how far logits spread
        logits[held] = spread * np.asarray(fitted.logits(features.take(held)))
    return CrossFit(logits, judged & np.isfinite(logits).all(axis=1), int(fold.max()) + 1)


def deal(codes: np.ndarray, units: np.ndarray, judged: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each item ``[n]``: groups are dealt out like cards, class after class, at random within a class.

    A group goes with its most frequent class. Where groups mix classes, a fold may get all groups of one; it is cut in
    two then, so that each fit knows every class.
    """
    table = np.zeros((int(units.max()) + 1, int(codes.max()) + 1), dtype=np.int64)
    np.add.at(table, (units, codes), 1)
    dealt = np.unique(units[judged])
    order = np.lexsort((np.random.default_rng(seed).random(len(dealt)), table[dealt].argmax(axis=1)))
    fold = np.full(len(table), -1)
    fold[dealt[order]] = np.arange(len(dealt)) % folds
    for c in range(table.shape[1]):
        holders = np.flatnonzero(table[:, c])
        if len(holders) > 1 and fold[holders[0]] >= 0 and (fold[holders] == fold[holders[0]]).all():
            fold[holders[: len(holders) // 2]] = fold.max() + 1
    of_items: np.ndarray = fold[units]
    return of_items
