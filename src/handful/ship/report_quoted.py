"""What the report quotes: the number, the population it speaks of, and what both rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.ship.report_views import Measure, measures
from handful.ship.shown import Shown, share

_FIRST = {"accuracy": "accuracy", "balanced": "balanced_accuracy", "macro-f1": "macro_f1", "log-loss": "log_loss"}
_SAME_SOURCE = "from the same source, in the same mix of classes"


@dataclass(frozen=True)
class Quoted:
    """An assessment and where it comes from.

    Attributes:
        assessment: as `Assessment.as_dict` makes it.
        basis: "measured on test.csv" or "estimated by 5 folds".
        measured: on items kept apart, else estimated by resampling.
        measures: every measure by its key; the accuracy is the quoted one.
        counted: accuracy as counted in the assessment, where the quoted one says something else.
        groups: how many groups it rests on, and what they are, in words.
        note: what else to know about it.
    """

    assessment: Mapping[str, Any]
    basis: str
    measured: bool
    measures: Mapping[str, Measure]
    counted: Shown | None = None
    groups: str = ""
    note: str = ""

    @property
    def n(self) -> int:
        """How many items were judged."""
        return int(self.assessment.get("n") or 0)


def quoted(card: Mapping[str, Any]) -> list[Quoted]:
    """What is quoted, then what stands beside it: a test on items kept apart comes before the estimate."""
    test, estimate, found = card.get("test") or {}, card.get("estimate") or {}, []
    if assessment := test.get("assessment"):
        basis, note = f"measured on {test.get('source') or 'items kept apart'}", test.get("note") or ""
        rests_on = groups_text(assessment, {})
        found.append(Quoted(assessment, basis, True, measures(assessment), groups=rests_on, note=note))
    if assessment := estimate.get("assessment"):
        basis = f"estimated by {estimate.get('method') or 'resampling'}"
        number, counted = share(estimate.get("accuracy")), share(assessment.get("accuracy"))
        told = measures({**assessment, "accuracy": estimate["accuracy"]} if number else assessment)
        beside = counted if number and counted and counted.text != number.text else None
        groups = groups_text(assessment, estimate.get("groups") or {})
        found.append(Quoted(assessment, basis, False, told, beside, groups))
    return found


def groups_text(assessment: Mapping[str, Any], groups: Mapping[str, Any]) -> str:
    """``"41 groups (customer), the largest with 12 items"``; nothing where items stand for themselves."""
    count = groups.get("count") or assessment.get("groups")
    if not count:
        return ""
    by = f" ({groups['by']})" if groups.get("by") else ""
    largest = f", the largest with {groups['largest']:,} items" if groups.get("largest") else ""
    return f"{count:,} groups{by}{largest}"


def first_measure(card: Mapping[str, Any]) -> str:
    """The key of the measure that comes first."""
    return _FIRST.get(card.get("metric") or "accuracy", "accuracy")


def population(card: Mapping[str, Any]) -> str:
    """Of which items the numbers speak, to go on after "new items": ``"with the classes as often as …"``."""
    sentence = ((card.get("population") or {}).get("sentence") or "").strip().rstrip(".")
    return f"with {sentence}" if sentence else _SAME_SOURCE


def first_sentence(measure: Measure, card: Mapping[str, Any]) -> str:
    """What the quoted number says, and of which population."""
    items, shown = f"new items {population(card)}", measure.shown
    if shown is None:
        return f"For {items}, {measure.name.lower()} cannot be told."
    if measure.key == "accuracy":
        return f"Of 100 {items}, on average {between(shown)} get the right label."
    return f"For {items}, {measure.name[0].lower() + measure.name[1:]} is {shown.value}, {measure.meaning}."


def between(shown: Shown) -> str:
    """``"78 to 86"``: an interval in whole per cent, or about one number where it is that narrow."""
    low, high = f"{shown.low:.0f}", f"{shown.high:.0f}"
    return f"about {low}" if low == high else f"{low} to {high}"


def title(task: Mapping[str, Any], *, several: bool = False) -> str:
    """``"A text classifier for 14 classes from 392 labelled examples"``; with ``several`` labels an item it says so."""
    kind = {"text": "A text classifier", "image": "An image classifier"}.get(task.get("modality") or "", "A classifier")
    ways = len(task.get("classes") or ())
    what = f" for {ways:,} {'labels, several an item,' if several else 'classes'}" if ways else ""
    return kind + what + (f" from {task['n']:,} labelled examples" if task.get("n") else "")


def counts(classes: Sequence[Mapping[str, Any]], what: str = "class") -> str:
    """``"8 a class"`` or ``"3 to 40 a class"``."""
    sizes = [int(c["count"]) for c in classes if c.get("count") is not None]
    if not any(sizes):
        return ""
    few, many = min(sizes), max(sizes)
    return f"{few:,} a {what}" if few == many else f"{few:,} to {many:,} a {what}"
