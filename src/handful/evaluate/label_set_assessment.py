"""What `handful.evaluate.label_sets.assess_label_sets` finds, as plain records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handful.core.intervals import Estimate

if TYPE_CHECKING:
    from handful.evaluate.require import Verdict

MEASURES = ("micro_f1", "macro_f1", "mean_average_precision", "exact_match")


@dataclass(frozen=True)
class LabelScore:
    """One label: how many items have it and how many were said to; ``None`` where nothing can be said."""

    label: str
    n: int
    said: int
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    average_precision: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        scores = {name: getattr(self, name) for name in ("precision", "recall", "f1", "average_precision")}
        shown = {name: None if score is None else score.as_dict() for name, score in scores.items()}
        return {"label": self.label, "n": self.n, "said": self.said, **shown}


@dataclass(frozen=True)
class LabelSetAssessment:
    """Answers of several labels an item, judged.

    Attributes:
        n: items judged.
        groups: how many groups they come in; ``None`` when items stand for themselves.
        labels: the L labels that are judged.
        micro_f1: F1 of all pairs of an item and a label; macro_f1: the mean F1 of the labels that some item has.
        mean_average_precision: the mean, over these labels, of the average precision of items by their score.
        exact_match: the share of items with every label right. All with 95 % intervals.
        labels_per_item, said_per_item: how many labels an item has, and how many are said, on average.
        per_label: one entry a label.
        verdicts: on the requirements that were stated, if any; not part of `as_dict`.
    """

    n: int
    groups: int | None
    labels: tuple[str, ...]
    micro_f1: Estimate
    macro_f1: Estimate
    mean_average_precision: Estimate
    exact_match: Estimate
    labels_per_item: float
    said_per_item: float
    per_label: tuple[LabelScore, ...]
    verdicts: tuple[Verdict, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; every estimate is ``{"value", "low", "high"}``."""
        return {
            "n": self.n,
            "groups": self.groups,
            "labels": list(self.labels),
            **{name: getattr(self, name).as_dict() for name in MEASURES},
            "labels_per_item": self.labels_per_item,
            "said_per_item": self.said_per_item,
            "per_label": [score.as_dict() for score in self.per_label],
        }
