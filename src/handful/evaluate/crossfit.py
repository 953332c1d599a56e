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
    """What fits say that each leave out a fold.

    Attributes:
        logits: of each item by the fit that left it out ``[n, C]``, the fit's own spread in them; NaN where there are
            none.
        judged: which items have logits ``[n]``.
        fold: which fold an item is in ``[n]``, -1 for items of every fit.
        known: the share of the item's class (in groups) that was in the fit that judged it ``[n]``; 1 where none did.
        folds: how many.
    """

    logits: np.ndarray
    judged: np.ndarray
    fold: np.ndarray
    known: np.ndarray
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
    units = as_units(groups, len(codes))
    counts = units_of_classes(codes, units)
    folds = min(folds, int(counts.max()))
    if folds < 2:
        return None
    judged = judgeable(codes, units, counts - np.ceil(counts / folds) >= head.needs.min_shots)
    if len(np.unique(codes[judged])) < 2:
        return None
    fold = np.where(judged, deal(codes, units, judged, folds, seed), -1)
    logits, known = np.full((len(codes), len(classes)), np.nan), np.ones(len(codes))
    for part in range(fold.max() + 1):
        held, rest = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        logits[held] = answers(head, features, labels, rest, held)
        known[held] = (units_of_classes(codes[rest], units[rest], len(classes)) / counts)[codes[held]]
    return CrossFit(logits, judged & np.isfinite(logits).all(axis=1), fold, known, int(fold.max()) + 1)


def answers(head: Head, features: Features, labels: np.ndarray, learn: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Logits of the rows ``held`` by a copy of ``head`` fitted on the rows ``learn``, which hold every class."""
    known = features.take(learn)
    fitted = clone(head).fit(known, labels[learn])
    spread = fitted.spread(known, labels[learn])  # strengths chosen anew change how far logits spread
    logits: np.ndarray = spread * np.asarray(fitted.logits(features.take(held)))
    return logits


def as_units(groups: np.ndarray | None, n: int) -> np.ndarray:
    """Integers ``[n]`` from 0 that say which items belong together; without groups each stands for itself."""
    units: np.ndarray = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    return units


def units_of_classes(codes: np.ndarray, units: np.ndarray, ways: int | None = None) -> np.ndarray:
    """How many units hold an item of each class ``[C]``."""
    pairs = np.unique(np.stack([codes, units]), axis=1)
    return np.bincount(pairs[0], minlength=int(codes.max()) + 1 if ways is None else ways)


def judgeable(codes: np.ndarray, units: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Items ``[n]`` that can be left out: of a class with two units and ``enough [C]`` items, whose group has no item
    that must stay."""
    able = enough & (units_of_classes(codes, units) >= 2)
    whole = np.bincount(units, weights=~able[codes]) == 0
    items: np.ndarray = whole[units]
    return items


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
