"""How well a classifier grows: base and new classes apart, step by step.

Paper 175: Wang, Zhou, Zhang, Zhan, Ye, "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration",
2023.

    base, novel     mean over the base (new) classes of the share of their items that is answered right
    harmonic        2 base novel / (base + novel)
    false negative  share of the items of new classes answered with a base class
    false positive  share of the items of base classes answered with a new class
    average, drop   mean accuracy of the steps; accuracy of the first step less that of the last
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from handful.errors import BadInput
from handful.evaluate.generalised import gzsl_scores, per_class_accuracy


@dataclass(frozen=True)
class Step:
    """What a classifier gets right after one step. What needs new classes is ``None`` as long as there are none.

    Attributes:
        n: items.
        accuracy: share of all items.
        base, novel: mean over classes.
        harmonic: mean of ``base`` and ``novel``; 0 if either is.
        false_negative, false_positive: see the head of this file.
    """

    n: int
    accuracy: float
    base: float
    novel: float | None
    harmonic: float | None
    false_negative: float | None
    false_positive: float | None


@dataclass(frozen=True)
class Incremental:
    """The steps, the mean of their accuracies and how much accuracy falls from the first to the last."""

    steps: tuple[Step, ...]
    average: float
    drop: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"steps": [asdict(step) for step in self.steps], "average": self.average, "drop": self.drop}


def incremental_step(labels: Any, predicted: Any, base: Any) -> Step:
    """Judge one step.

    Args:
        labels: true classes ``[n]`` of items of all classes known so far.
        predicted: answers ``[n]``.
        base: the base classes; every other class is new.

    Raises:
        BadInput: nothing to judge, lengths that differ, no item of a base class.
    """
    labels, predicted, base = np.asarray(labels), np.asarray(predicted), np.unique(np.asarray(base))
    if labels.ndim != 1 or labels.shape != predicted.shape or not len(labels):
        raise BadInput(f"labels and predicted are two lists of one length, not {labels.shape} and {predicted.shape}")
    of_base, as_base, right = np.isin(labels, base), np.isin(predicted, base), labels == predicted
    if not of_base.any():
        raise BadInput("no item is of a base class: judge items of all classes known so far")
    overall = float(right.mean())
    if of_base.all():
        return Step(len(labels), overall, per_class_accuracy(labels, predicted), None, None, None, None)
    novel, seen, harmonic = gzsl_scores(labels, predicted, base)
    false_negative, false_positive = float(as_base[~of_base].mean()), float((~as_base[of_base]).mean())
    return Step(len(labels), overall, seen, novel, harmonic, false_negative, false_positive)


def incremental_report(steps: Sequence[Step]) -> Incremental:
    """Put the steps together, the first being that of the base classes alone.

    Raises:
        BadInput: no steps.
    """
    if not steps:
        raise BadInput("no steps to report: judge at least the base classes first")
    accuracy = [step.accuracy for step in steps]
    return Incremental(tuple(steps), float(np.mean(accuracy)), accuracy[0] - accuracy[-1])
