"""What the report shows of a model of several labels an item: measures, and labels from the weakest up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handful.ship.report_quoted import groups_text
from handful.ship.report_views import Measure
from handful.ship.shown import Shown, share, visible

NAME = 60  # characters of a label in a sentence
MEASURES = {
    "micro_f1": ("Micro-F1", "which joins precision and recall of all labels it gives, frequent ones counting most"),
    "macro_f1": ("Macro-F1", "the mean of all labels' F1: rare labels count like others"),
    "mean_average_precision": (
        "Mean average precision",
        "how well it ranks items by each label, whatever the threshold, on average over labels",
    ),
    "exact_match": ("Exact match", "items that get every label right and no other"),
}
"""Name and meaning of each measure."""
_FIRST = {key.replace("_", "-"): key for key in MEASURES}


@dataclass(frozen=True)
class LabelRow:
    """A label: how many of the judged items have it, how many it was given to, and how well."""

    label: str
    n: int
    said: int
    recall: Shown | None
    precision: Shown | None
    f1: Shown | None
    average_precision: Shown | None


@dataclass(frozen=True)
class Judged:
    """An assessment of label sets and where it comes from; ``rows`` are its labels, the weakest first."""

    basis: str
    measured: bool
    n: int
    measures: Mapping[str, Measure]
    rows: tuple[LabelRow, ...]
    groups: str
    note: str
    counts: str


@dataclass(frozen=True)
class LabelSetsView:
    """All of it.

    Attributes:
        first: key of the measure that comes first.
        judged: on items kept apart, then by leaving examples out; either may be missing.
        why_not: why there is no estimate, where there is none.
        not_judged: labels of which too few examples are there.
        lead: what the first number says.
        weakest: the label with the lowest F1, in a sentence.
    """

    first: str
    judged: tuple[Judged, ...]
    why_not: str
    not_judged: tuple[str, ...]
    lead: str
    weakest: str


def label_sets_view(card: Mapping[str, Any]) -> LabelSetsView | None:
    """The part of a card that tells of it; ``None`` for a model of one label an item."""
    found = card.get("label_sets")
    if not found:
        return None
    first = _FIRST.get(card.get("metric") or "", "micro_f1")
    test, estimate = found.get("test") or {}, found.get("estimate") or {}
    judged = []
    if test.get("assessment"):
        basis = f"measured on {test.get('source') or 'items kept apart'}"
        judged.append(_judged(test["assessment"], basis, True, {}, test.get("note") or ""))
    if estimate.get("assessment"):
        basis = f"estimated by {estimate.get('method') or 'resampling'}"
        told = {**estimate["assessment"], **(estimate.get("quoted") or {})}
        counted = share(estimate["assessment"].get(first)) if estimate.get("quoted") else None
        note = "" if counted is None else f"Counted in these fits, which learn from fewer examples: {counted.text}"
        judged.append(_judged(told, basis, False, estimate.get("groups") or {}, note))
    return LabelSetsView(
        first,
        tuple(judged),
        estimate.get("method") or "no estimate was made",
        tuple(found.get("not_judged") or ()),
        _lead(judged[0].measures[first], card) if judged else "",
        _weakest(judged[0]) if judged else "",
    )


def _judged(assessment: Mapping[str, Any], basis: str, measured: bool, groups: Mapping[str, Any], note: str) -> Judged:
    measures = {
        key: Measure(key, name, meaning, share(assessment.get(key))) for key, (name, meaning) in MEASURES.items()
    }
    rows = [
        LabelRow(
            row["label"],
            row["n"],
            row.get("said") or 0,
            *(share(row.get(key)) for key in ("recall", "precision", "f1", "average_precision")),
        )
        for row in assessment.get("per_label") or ()
    ]
    rows.sort(key=lambda row: (math.inf if row.f1 is None else row.f1.at, -row.n, row.label))
    has, said = assessment.get("labels_per_item"), assessment.get("said_per_item")
    counts = "" if has is None or said is None else f"Items have {has:.2f} labels on average, and are given {said:.2f}."
    told = groups_text(assessment, groups)
    return Judged(basis, measured, int(assessment.get("n") or 0), measures, tuple(rows), told, note, counts)


def _lead(measure: Measure, card: Mapping[str, Any]) -> str:
    sentence = (card.get("population") or {}).get("sentence") or ""
    items = f"new items with {sentence}" if sentence else "new items"
    if measure.shown is None:
        return f"For {items}, {measure.name.lower()} cannot be told."
    return f"For {items}, {measure.name[0].lower() + measure.name[1:]} is {measure.shown.value}, {measure.meaning}."


def _weakest(judged: Judged) -> str:
    row, f1 = next(((row, row.f1) for row in judged.rows if row.f1), (None, None))
    if row is None or f1 is None:
        return ""
    if f1.at >= 100:
        return "Every judged item got each label right."
    found = f": it is found {row.recall.text} of the time" if row.recall else ""
    right = f", and right {row.precision.text} when given" if row.precision else ", and never given" * (row.said == 0)
    return f"{visible(row.label, NAME)} has the lowest F1, {f1.text}{found}{right}."
