"""How good a head of several labels an item is on new items, from fits that each leave out a fold.

Items are dealt out by their rarest label, rare labels first, whole groups together, so that every fit knows every label
that two items (groups) have; others are not judged. Whatever a fit chooses, thresholds among it, is chosen within the
fit. Probabilities are sigmoids of logits that are spread about what is usual for a label:

    p_l = sigmoid(a (z_l - u_l) + u_l),   u_l = log of (n_l + 1/2) / (n - n_l + 1/2),

with the a that has the least log loss on items left out, their labels hedged as Platt (1999) has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.base import clone

from handful.evaluate.crossfit import as_units, deal
from handful.evaluate.label_set_assessment import LabelSetAssessment
from handful.evaluate.label_sets import assess_label_sets

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head

FOLDS, LARGE, FEW = 10, 2000, 5
"""Folds at most; above so many items, so many."""
SPREAD = (-3.0, 3.0)
"""Of the logarithm of a."""


@dataclass(frozen=True)
class EstimatedSets:
    """What items left out say.

    Attributes:
        assessment: of the labels that can be judged.
        judged: which labels these are ``[L]``.
        logits, said: of each item by a fit that had not seen it ``[n, L]``; NaN and 0 for labels not judged.
        spread: a.
        method: in words.
    """

    assessment: LabelSetAssessment
    judged: np.ndarray
    logits: np.ndarray
    said: np.ndarray
    spread: float
    method: str


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
    units = as_units(groups, len(y))
    judged = units_with(y, units) >= 2
    if judged.sum() < 2:
        return None
    fold = deal_sets(y, units, judged, FOLDS if len(y) <= LARGE else FEW, seed)
    logits, said = np.full(y.shape, np.nan), np.zeros(y.shape, dtype=int)
    for part in range(fold.max() + 1):
        held, rest = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        known = np.flatnonzero(y[rest].any(0))
        fitted = clone(head).fit(features.take(rest), y[np.ix_(rest, known)])
        there = features.take(held)
        logits[np.ix_(held, known)] = fitted.logits(there)
        said[np.ix_(held, known)] = fitted.predict(there)
    logits[:, ~judged], said[:, ~judged] = np.nan, 0
    names = [label for label, known in zip(labels, judged, strict=True) if known]
    truth, scores = y[:, judged], logits[:, judged]
    found = assess_label_sets(truth, scores, said[:, judged], names, groups=groups, seed=seed)
    folds = int(fold.max()) + 1
    method = f"{folds} fits, each without one part of the examples, judged by that part"
    return EstimatedSets(found, judged, logits, said, spread_of(scores, truth, usual(truth)), method)


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


def usual(y: np.ndarray) -> np.ndarray:
    """Log odds of each label among items ``[n, L]``: ``[L]``."""
    n = y.sum(0)
    odds: np.ndarray = np.log(n + 0.5) - np.log(len(y) - n + 0.5)
    return odds


def spread_of(logits: np.ndarray, y: np.ndarray, centre: np.ndarray) -> float:
    """How far logits ``[n, L]`` are to be spread about ``centre [L]`` for the least log loss."""
    n = y.sum(0)
    target = np.where(y > 0, (n + 1) / (n + 2), 1 / (len(y) - n + 2))

    def loss(log_a: float) -> float:
        z = np.exp(log_a) * (logits - centre) + centre
        return float((np.logaddexp(0, z) - target * z).mean())

    return float(np.exp(minimize_scalar(loss, bounds=SPREAD, method="bounded").x))
