"""Answer only when sure: from which confidence on, how many items that leaves, and how many of the answers are right.

An answer is given where the largest probability reaches a threshold (Chow, "On optimum recognition error and reject
tradeoff", 1970). For a target precision the threshold is the lowest one with

    (errors + 1) / (answers + 1)  <=  1 - target

over the answers from it upwards: one error more than was seen, so that a few lucky answers never reach the target: 95 %
takes 19 without an error. With groups or weights "one" is one group, or one item of the weight such items have.

The precision that is quoted is not read off at the threshold, which was picked for looking good there: the threshold is
chosen anew without each fold and applied to it. Its interval holds the one read off as well, since the threshold is one
of those that could have been chosen, not their mean. The coverage needs no labels and is read off. The table has
thresholds fixed by coverage, which nothing was picked by.

The model that ships learnt from more examples than those of the folds: at one threshold it answers more. Where its
accuracy is known to differ from theirs, the probabilities are sharpened until they say so, for coverage alone; by what
that adds to the mean confidence of the answers, their precision is raised. All intervals are wider by as much as the
one of that accuracy is wider than plain counts would have it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handful.core.intervals import Estimate
from handful.core.shares import Shares, checked_weights
from handful.errors import BadInput
from handful.evaluate.answers import Answers, sharpened

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
"""Of the rows of the table."""


@dataclass(frozen=True)
class Level:
    """One row of the table: of all items, how many have at least this confidence, and how many of those are right."""

    threshold: float
    coverage: Estimate
    precision: Estimate
    n: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        estimates = {"coverage": self.coverage.as_dict(), "precision": self.precision.as_dict()}
        return {"threshold": self.threshold, **estimates, "n": self.n}


@dataclass(frozen=True)
class Selective:
    """What `selective` finds.

    Attributes:
        target: the precision asked for, if any.
        threshold: answer when the largest probability is at least this; ``None`` without a target, and when the target
            is not reached.
        coverage, precision: what to expect of that threshold on new items, with 95 % intervals.
        table: coverage against precision, from all items to the surest few.
        note: why there is no threshold although there is a target.
    """

    target: float | None
    threshold: float | None
    coverage: Estimate | None
    precision: Estimate | None
    table: tuple[Level, ...]
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "target": self.target,
            "threshold": self.threshold,
            "coverage": None if self.coverage is None else self.coverage.as_dict(),
            "precision": None if self.precision is None else self.precision.as_dict(),
            "table": [level.as_dict() for level in self.table],
            "note": self.note,
        }


def selective(
    labels: np.ndarray,
    proba: np.ndarray,
    fold: np.ndarray,
    *,
    target: float | None = None,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    accuracy: Estimate | None = None,
) -> Selective:
    """Coverage against precision, and the threshold for a target precision.

    Args:
        labels: true class of each item, integers ``[n]``.
        proba: probabilities ``[n, C]`` by a model that has not seen the item.
        fold: integers ``[n]``; a group is in one fold.
        target: the precision wanted, above 0 and below 1.
        groups: ``[n]``; items of a group are not independent.
        weights: ``[n]``, see `handful.evaluate.assess`.
        accuracy: the number quoted for the model that ships (`handful.evaluate.estimate.estimate`); by default the
            plain share of right answers, as if these were its own.

    Raises:
        BadInput: no items, shapes that do not fit, or a target that is no share.
    """
    labels, proba, fold = np.asarray(labels), np.asarray(proba, dtype=float), np.asarray(fold)
    n = len(labels)
    if not n or len(proba) != n or fold.shape != (n,) or (groups is not None and len(groups) != n):
        raise BadInput(f"{n} labels do not fit {len(proba)} rows of probabilities and {len(fold)} folds")
    if target is not None and not 0 < target < 1:
        hint = f"; write {target / 100:g}" if 1 < target < 100 else ""
        raise BadInput(f"--target-precision must be above 0 and below 1, not {target:g}{hint}")
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    weight = None if weights is None else checked_weights(weights, n)
    answers = Answers(
        proba.max(axis=1),
        proba.argmax(axis=1) == labels,
        np.arange(n) if units is None else units,
        np.ones(n) if weight is None else weight,
    )
    shipped = _Shipped.of(answers, proba, accuracy, Shares(units, weight))
    table = shipped.table()
    if target is None:
        return Selective(None, None, None, None, table, None)
    threshold, held_out = answers.threshold(target), _held_out(answers, fold, target)
    if threshold is None or not shipped.share.any(held_out):
        return Selective(target, None, None, None, table, _not_reached(answers, target))
    precision = shipped.precision(threshold, held_out)
    return Selective(target, threshold, shipped.coverage(threshold), precision, table, None)


@dataclass(frozen=True)
class _Shipped:
    """What the answers of the folds say of the model that ships: its confidence in each item ``[n]`` beside theirs."""

    answers: Answers
    confidence: np.ndarray
    share: Shares

    @classmethod
    def of(cls, answers: Answers, proba: np.ndarray, accuracy: Estimate | None, share: Shares) -> _Shipped:
        if accuracy is None:
            return cls(answers, answers.confidence, share)
        plain = share(answers.right, np.ones(len(proba), bool))
        wider = max(1.0, (accuracy.high - accuracy.low) / (plain.high - plain.low))
        sure = float(np.average(answers.confidence, weights=answers.weight)) + accuracy.value - plain.value
        confidence = sharpened(proba, sure, answers.weight).max(axis=1)
        return cls(answers, confidence, replace(share, each=1 / wider**2))

    def coverage(self, threshold: float) -> Estimate:
        return self.share(self.confidence >= threshold, np.ones(len(self.confidence), bool))

    def precision(self, threshold: float, held_out: np.ndarray | None = None) -> Estimate:
        """Of answers from ``threshold`` on; its value that of the items ``held_out [n]``, where they are given."""
        given = self.answers.confidence >= threshold
        seen = self.share(self.answers.right, given)
        quoted = seen if held_out is None else self.share(self.answers.right, held_out)
        surer = self._mean(self.confidence, threshold) - self._mean(self.answers.confidence, threshold)
        raised = (quoted.value + surer, min(quoted.low, seen.low) + surer, max(quoted.high, seen.high) + surer)
        return Estimate(*(float(np.clip(x, 0, 1)) for x in raised))

    def _mean(self, confidence: np.ndarray, threshold: float) -> float:
        """Mean confidence of the answers from a threshold on; 0 where there are none."""
        given = (confidence >= threshold) & (self.answers.weight > 0)
        return float(np.average(confidence[given], weights=self.answers.weight[given])) if given.any() else 0.0

    def table(self) -> tuple[Level, ...]:
        """A row a coverage; equal confidences together, so that rows may coincide and then are one."""
        order = np.argsort(-self.confidence, kind="stable")
        reached = np.cumsum(self.answers.weight[order]) / self.answers.weight.sum()
        last = np.minimum(np.searchsorted(reached, np.array(COVERAGES) - 1e-9), len(order) - 1)
        thresholds = [0.0, *(float(t) for t in self.confidence[order][last[1:]])]
        levels: list[Level] = []
        for threshold in thresholds:
            n = int((self.confidence >= threshold).sum())
            judged = self.share.any(self.answers.confidence >= threshold)
            if judged and not (levels and n == levels[-1].n):
                levels.append(Level(threshold, self.coverage(threshold), self.precision(threshold), n))
        return tuple(levels)


def _held_out(answers: Answers, fold: np.ndarray, target: float) -> np.ndarray:
    """Which items ``[n]`` are answered with the threshold that the other folds choose."""
    given = np.zeros(len(fold), bool)
    for part in np.unique(fold):
        threshold = answers.take(fold != part).threshold(target)
        if threshold is not None:
            given |= (fold == part) & (answers.confidence >= threshold)
    return given


def _not_reached(answers: Answers, target: float) -> str:
    """What is the best there is, for a target that is not reached."""
    n, errors, one = answers.sums()
    best = int(((errors + one) / (n + one)).argmin())
    flawless = int(np.ceil(target / (1 - target) - 1e-9))
    return (
        f"a precision of {target:.4g} is not reached on these labels: the best is {1 - errors[best] / n[best]:.3f}, on "
        f"the surest {best + 1:,} of {len(n):,} items, and one further error is counted; without any error it takes "
        f"{flawless:,} answers"
    )
