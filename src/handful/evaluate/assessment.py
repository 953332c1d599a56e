"""What `handful.evaluate.assess` finds, as plain records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.core.intervals import Estimate

if TYPE_CHECKING:
    from handful.evaluate.generalised import Generalised
    from handful.evaluate.require import Verdict


@dataclass(frozen=True)
class ClassScore:
    """One class: how many items it has; ``None`` where nothing can be said (no items, nothing predicted)."""

    name: str
    n: int
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        scores = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"class": self.name, "n": self.n} | {k: None if e is None else e.as_dict() for k, e in scores.items()}


@dataclass(frozen=True)
class Confused:
    """``n`` items of class ``true`` answered as ``predicted``, and their share of the class."""

    true: str
    predicted: str
    n: int
    rate: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"true": self.true, "predicted": self.predicted, "n": self.n, "rate": self.rate.as_dict()}


@dataclass(frozen=True)
class Bin:
    """Items whose confidence is within ``[low, high]``: their mean confidence, and how many of them are right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**self.__dict__, "accuracy": self.accuracy.as_dict()}


@dataclass(frozen=True)
class Assessment:
    """What `assess` finds.

    Attributes:
        n: items judged.
        groups: how many groups they come in; ``None`` when items stand for themselves.
        classes: C names, as rows and columns of ``confusion``.
        accuracy, balanced_accuracy, macro_f1, log_loss, calibration_error: with 95 % intervals. Balanced accuracy is
            the mean recall of the classes with items; macro-F1 the mean F1 of the classes with items or answers.
        per_class: one entry a class.
        confusion: counts ``[C, C]``, rows true, columns predicted.
        confused: its non-zero cells off the diagonal, most frequent first.
        reliability: confidence against accuracy, bins of equal mass.
        verdicts: on the requirements that were stated, if any; not part of `as_dict`.
        generalised: U, S and H where some of the items are of classes that the model has had no example of; likewise.
    """

    n: int
    groups: int | None
    classes: tuple[str, ...]
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    log_loss: Estimate
    calibration_error: Estimate
    per_class: tuple[ClassScore, ...]
    confusion: np.ndarray
    confused: tuple[Confused, ...]
    reliability: tuple[Bin, ...]
    verdicts: tuple[Verdict, ...] = ()
    generalised: Generalised | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; every estimate is ``{"value", "low", "high"}``."""
        metrics = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
        return {
            "n": self.n,
            "groups": self.groups,
            "classes": list(self.classes),
            **{name: getattr(self, name).as_dict() for name in metrics},
            "per_class": [score.as_dict() for score in self.per_class],
            "confusion": self.confusion.tolist(),
            "confused": [cell.as_dict() for cell in self.confused],
            "reliability": [part.as_dict() for part in self.reliability],
        }
