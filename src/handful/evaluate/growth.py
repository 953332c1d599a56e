"""What growing did: how the old and the new classes fare afterwards, and which old classes pay for it.

Paper 175's measures (see `handful.evaluate.incremental`), with intervals: old and new accuracy are means over classes,
and the interval of their harmonic mean H = 2 b n / (b + n) puts theirs together. Old and new classes have different
items, so that errors add up as squares (the method of variance estimates recovery):

    low  = H - sqrt((H_b (b - b_low))^2 + (H_n (n - n_low))^2),   H_b = 2 n^2 / (b + n)^2,   high likewise
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.generalised import harmonic_mean
from handful.evaluate.metrics import assess


@dataclass(frozen=True)
class OldClass:
    """An old class: its items, the shares found before and after, and how many were lost and won."""

    name: str
    n: int
    before: float
    after: float
    lost: int
    won: int


@dataclass(frozen=True)
class Growth:
    """How a model does that has grown; ``None`` where there is no item to say.

    Attributes:
        n: items.
        before: accuracy on old classes before, mean over classes.
        base, novel: accuracy on old and new classes after, mean over classes.
        harmonic: of ``base`` and ``novel``.
        false_negative: share of the items of new classes answered with an old class.
        false_positive: share of the items of old classes answered with a new class.
        hurt: old classes that lost more items than they won, the worst first.
    """

    n: int
    before: Estimate | None
    base: Estimate | None
    novel: Estimate | None
    harmonic: Estimate | None
    false_negative: float | None
    false_positive: float | None
    hurt: tuple[OldClass, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "hurt": [asdict(one) for one in self.hurt]}


def growth(
    labels: Sequence[str],
    before: np.ndarray,
    after: np.ndarray,
    old: Sequence[str],
    classes: Sequence[str],
    groups: Sequence[Any] | None = None,
) -> Growth:
    """Judge a model that has grown on items of its classes.

    Args:
        labels: n true classes.
        before: probabilities ``[n, len(old)]`` by the model as it was.
        after: probabilities ``[n, len(classes)]`` by the grown model.
        old, classes: the classes before and after.
        groups: n group names; items of a group are not independent, and the intervals know it.

    Raises:
        BadInput: no items, or a label that is no class.
    """
    true, units = np.asarray(labels, dtype=str), None if groups is None else np.asarray(groups)
    if unknown := sorted(set(true.tolist()) - set(classes)):
        raise BadInput(f"the test set has class {unknown[0]!r}, which the model does not know")
    if not len(true):
        raise BadInput("nothing to judge: no items")
    of_old = np.isin(true, np.asarray(old))

    def balanced(rows: np.ndarray, proba: np.ndarray, names: Sequence[str]) -> Estimate | None:
        if not rows.any():
            return None
        found = assess(true[rows], proba[rows], names, None if units is None else units[rows])
        return found.balanced_accuracy

    base, novel = balanced(of_old, after, classes), balanced(~of_old, after, classes)
    answers, answered = np.asarray(classes)[after.argmax(1)], np.asarray(old)[before.argmax(1)]
    as_old = np.isin(answers, old)
    return Growth(
        n=len(true),
        before=balanced(of_old, before, old),
        base=base,
        novel=novel,
        harmonic=None if base is None or novel is None else harmonic(base, novel),
        false_negative=None if of_old.all() else float(as_old[~of_old].mean()),
        false_positive=float((~as_old[of_old]).mean()) if of_old.any() else None,
        hurt=_hurt(true[of_old], answered[of_old] == true[of_old], answers[of_old] == true[of_old]),
    )


def harmonic(base: Estimate, novel: Estimate) -> Estimate:
    """The harmonic mean of two independent accuracies."""
    b, n = base.value, novel.value
    if b + n == 0:
        return Estimate(0.0, 0.0, harmonic_mean(base.high, novel.high))
    by_base, by_novel = 2 * n**2 / (b + n) ** 2, 2 * b**2 / (b + n) ** 2
    below = np.hypot(by_base * (b - base.low), by_novel * (n - novel.low))
    above = np.hypot(by_base * (base.high - b), by_novel * (novel.high - n))
    value = harmonic_mean(b, n)
    return Estimate(value, max(0.0, value - float(below)), min(1.0, value + float(above)))


def _hurt(true: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[OldClass, ...]:
    found = []
    for name in np.unique(true).tolist():
        was, is_ = before[true == name], after[true == name]
        lost, won = int((was & ~is_).sum()), int((is_ & ~was).sum())
        if lost > won:
            found.append(OldClass(name, len(was), float(was.mean()), float(is_.mean()), lost, won))
    return tuple(sorted(found, key=lambda one: (one.after - one.before, one.name)))
