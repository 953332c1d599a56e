"""How good a head of several labels an item is on new items, from fits that each leave out a fold.

Items are dealt out by their rarest label, rare labels first, whole groups together, so that every fit knows every label
that two items (groups) have; others are not judged. Whatever a fit chooses, thresholds among it, is chosen within the
fit. As for one label an item (`handful.evaluate.estimate`):

    correction   error of all labels = error x k^b, k being the share of a label's items that the fits knew; b of each
                 measure from fits that know half, drawn to `DECAY` as far as few items say little
    interval     variance `MODEL` times that of the items judged, and that of the correction, since b is known roughly

Probabilities are ``sigmoid(a z_l + c)`` with the a and c that have the least log loss on items left out, where a share
1 / (n L + 2) of every label is left to its opposite, so that n L right answers do not make the next one certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from sklearn.base import clone

from handful.core.intervals import Estimate
from handful.evaluate.crossfit import as_units, deal
from handful.evaluate.curve import MODEL, Point
from handful.evaluate.estimate import decay
from handful.evaluate.label_set_assessment import MEASURES, LabelSetAssessment
from handful.evaluate.label_sets import assess_label_sets

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head

FOLDS, LARGE, FEW = 10, 2000, 5
"""Folds at most; above so many items, so many."""
SPREAD = (-3.0, 3.0)
"""Of the logarithm of a."""
HALVES, Z = 2, 1.96


@dataclass(frozen=True)
class EstimatedSets:
    """What items left out say.

    Attributes:
        assessment: of the labels that can be judged, as counted in the folds.
        quoted: its measures by name, for the head that learns from all items; their intervals are for this head.
        judged: which labels these are ``[L]``.
        logits, said: of each item by a fit that had not seen it ``[n, L]``; NaN and 0 for labels not judged.
        spread, shift: a and c.
        method: in words.
    """

    assessment: LabelSetAssessment
    quoted: dict[str, Estimate]
    judged: np.ndarray
    logits: np.ndarray
    said: np.ndarray
    spread: float
    shift: float
    method: str


@dataclass(frozen=True)
class Dealt:
    """Items dealt out to folds.

    Attributes:
        units: which items belong together ``[n]``.
        judged: which labels can be judged ``[L]``: those that two units hold.
        fold: of each item ``[n]``.
    """

    units: np.ndarray
    judged: np.ndarray
    fold: np.ndarray


@dataclass(frozen=True)
class Answers:
    """Logits and answers ``[n, L]`` of each item by a fit without its fold; NaN and 0 for labels it did not know."""

    logits: np.ndarray
    said: np.ndarray


Halves = Sequence[tuple[LabelSetAssessment, np.ndarray]]
"""Of fits that know about half: what they are worth, and the share of each label's items that they knew ``[L]``."""


def estimate_label_sets(
    head: Head, features: Features, y: np.ndarray, labels: list[str], groups: np.ndarray | None, *, seed: int = 0
) -> EstimatedSets | None:
    """Judge ``head`` by fits without each fold; ``None`` where fewer than two labels can be judged.

    Args:
        head: unfitted, or fitted: copies are made.
        features: of n items.
        y: ``[n, L]``, 0 or 1.
        labels: L names.
        groups: ``[n]``, items that belong together, near-duplicates among them.
        seed: of the folds and of the replicates.
    """
    dealt = deal_out(y, groups, FOLDS if len(y) <= LARGE else FEW, seed)
    if dealt is None:
        return None
    halves = by_halves(head, features, y, labels, groups, seed=seed)
    return estimated(left_out(head, features, y, dealt.fold), dealt, halves, y, labels, groups, seed=seed)


def deal_out(y: np.ndarray, groups: np.ndarray | None, folds: int, seed: int) -> Dealt | None:
    """At most so many folds; ``None`` where fewer than two labels can be judged."""
    units = as_units(groups, len(y))
    judged = units_with(y, units) >= 2
    return None if judged.sum() < 2 else Dealt(units, judged, deal_sets(y, units, judged, folds, seed))


def by_halves(
    head: Head, features: Features, y: np.ndarray, labels: list[str], groups: np.ndarray | None, *, seed: int = 0
) -> Halves:
    """What fits of ``head`` on about half of the items are worth, which says how fast errors fall."""
    found = []
    for at in range(seed, seed + HALVES):
        dealt = deal_out(y, groups, 2, at)
        if dealt is not None:
            answers = left_out(head, features, y, dealt.fold)
            found.append((assessed(answers, dealt, y, labels, groups, seed=at), known_of(dealt, y)))
    return found


def estimated(
    answers: Answers, dealt: Dealt, halves: Halves, y: np.ndarray, labels: list[str], groups: np.ndarray | None, *,
    seed: int = 0,
) -> EstimatedSets:  # fmt: skip
    """What answers to items left out say of a head that learns from all items; arguments as above."""
    judged, truth = dealt.judged, y[:, dealt.judged]
    found, shares = assessed(answers, dealt, y, labels, groups, seed=seed), known_of(dealt, y)
    told = quoted(found, shares, halves, len(np.unique(dealt.units)))
    logits, said = answers.logits.copy(), answers.said.copy()
    logits[:, ~judged], said[:, ~judged] = np.nan, 0
    spread, shift = spread_of(logits[:, judged], truth)
    pooled = float(np.average(shares, weights=truth.sum(0)))
    method = (
        f"{int(dealt.fold.max()) + 1} fits, each without one part of the examples and judged by it; corrected from "
        f"{100 * pooled:.0f} % of the labels to all of them, by fits that know half"
    )
    return EstimatedSets(found, told, judged, logits, said, spread, shift, method)


def assessed(
    answers: Answers, dealt: Dealt, y: np.ndarray, labels: list[str], groups: np.ndarray | None, *, seed: int = 0
) -> LabelSetAssessment:
    """The answers as counted, for labels that can be judged."""
    judged = dealt.judged
    names = [label for label, can in zip(labels, judged, strict=True) if can]
    logits, said = answers.logits[:, judged], answers.said[:, judged]
    return assess_label_sets(y[:, judged], logits, said, names, groups=groups, seed=seed)


def known_of(dealt: Dealt, y: np.ndarray) -> np.ndarray:
    """`known_share` of the labels that can be judged."""
    return known_share(y[:, dealt.judged], dealt.units, dealt.fold)


def left_out(head: Head, features: Features, y: np.ndarray, fold: np.ndarray) -> Answers:
    """Answers to each item by a copy of ``head`` that was fitted without its ``fold [n]``."""
    logits, said = np.full(y.shape, np.nan), np.zeros(y.shape, dtype=int)
    for part in range(fold.max() + 1):
        held, rest = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        told = np.flatnonzero(y[rest].any(0))
        fitted = clone(head).fit(features.take(rest), y[np.ix_(rest, told)])
        there = features.take(held)
        logits[np.ix_(held, told)] = fitted.logits(there)
        said[np.ix_(held, told)] = fitted.predict(there)
    return Answers(logits, said)


def quoted(
    found: LabelSetAssessment,
    known: np.ndarray,
    halves: Halves,
    items: int,
) -> dict[str, Estimate]:
    """The measures of a head that learns from all items.

    Args:
        found, known: of fits that knew the shares ``known [L]`` of each label's items.
        halves: the same of fits that knew about half.
        items: how many independent ones were judged.
    """
    n = np.array([score.n for score in found.per_label])
    share, half = (
        float(np.average(part, weights=n)) for part in (known, np.mean([part for _, part in halves], axis=0))
    )
    labelwise = {"macro_f1": "f1", "mean_average_precision": "average_precision"}

    def of(name: str) -> Estimate:
        seen, before = getattr(found, name), float(np.mean([getattr(part, name).value for part, _ in halves]))
        curve = [Point(round(1000 * half), items, Estimate(before, before, before))]  # in thousandths of the shots
        b = decay(curve, 1 - seen.value, 1000 * share, items)
        values, shares = np.array([seen.value]), np.array([share])
        if name in labelwise:
            values, shares = np.array([getattr(score, labelwise[name]).value for score in found.per_label]), known
        left = (1 - values) * shares**b.value
        rough = Z * abs(float((left * np.log(shares)).mean())) * (b.high - b.low) / 2
        down, up = (
            float(np.hypot(MODEL**0.5 * part, rough)) for part in (seen.value - seen.low, seen.high - seen.value)
        )
        value = 1 - float(left.mean())
        return Estimate(value, max(0.0, value - down), min(1.0, value + up))

    return {name: of(name) for name in MEASURES}


def known_share(y: np.ndarray, units: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The share of each label's units that the fits knew which judged its items, on average over these ``[L]``."""
    fold_of = np.zeros(int(units.max()) + 1, dtype=int)
    fold_of[units] = fold
    shares = []
    for column in y.T:
        sizes = np.bincount(fold_of[np.unique(units[column > 0])])
        shares.append(1 - float(np.square(sizes).sum()) / sizes.sum() ** 2)
    return np.array(shares)


def units_with(y: np.ndarray, units: np.ndarray) -> np.ndarray:
    """How many units hold an item with each label ``[L]``."""
    return np.array([len(np.unique(units[column > 0])) for column in y.T])


def deal_sets(y: np.ndarray, units: np.ndarray, judged: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each item ``[n]``, such that no fold has all units of a label that is to be ``judged [L]``.

    A fold that had would be cut in two.
    """
    size = y.sum(0)
    rarest = np.where(y > 0, size, size.max() + 1).argmin(1)
    kind = np.where(y.any(1), rarest, y.shape[1])
    kind = np.unique(kind, return_inverse=True)[1]
    everything = np.ones(len(y), dtype=bool)
    fold = deal(kind, units, everything, min(folds, int(units.max()) + 1), seed)
    for label in np.flatnonzero(judged):
        holders = np.unique(units[y[:, label] > 0])
        where = np.unique(fold[np.isin(units, holders)])
        if len(where) == 1:
            fold = np.where(np.isin(units, holders[: len(holders) // 2]), fold.max() + 1, fold)
    dealt: np.ndarray = np.unique(fold, return_inverse=True)[1]
    return dealt


def spread_of(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """a and c of ``sigmoid(a z + c)`` with the least log loss of ``y [n, L]`` by the logits z ``[n, L]``."""
    hedge = 1 / (y.size + 2)
    target = np.where(y > 0, 1 - hedge, hedge)

    def loss(at: np.ndarray) -> float:
        z = np.exp(at[0]) * logits + at[1]
        return float((np.logaddexp(0, z) - target * z).mean())

    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[SPREAD, (None, None)]).x
    return float(np.exp(found[0])), float(found[1])
