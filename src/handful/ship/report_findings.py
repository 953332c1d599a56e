"""The report in short: one sentence for each part that has something to say, in the order of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handful.ship.report_items import blind_spots, copies
from handful.ship.report_none import none_sentence
from handful.ship.report_quoted import Quoted
from handful.ship.report_trust import answers_sentence, curve_sentence
from handful.ship.report_views import reliability, weakest_first
from handful.ship.shown import visible

NAME = 60  # characters of a class name


@dataclass(frozen=True)
class Finding:
    """A sentence, and the part of the page (its anchor and name) that says more."""

    anchor: str
    part: str
    sentence: str


def findings(card: Mapping[str, Any], first: Quoted | None, weakest_label: str = "") -> list[Finding]:
    """What a reader in a hurry should know; parts that say nothing are left out.

    Args:
        card: of the model.
        first: what is quoted of a model of one label an item.
        weakest_label: what to say of labels where an item has several.
    """
    task, assessment = card.get("task") or {}, first.assessment if first else {}
    told = (
        ("classes", "Classes", _weakest(assessment)),
        ("classes", "Labels", weakest_label),
        ("confidence", "Confidence", _confidence(assessment)),
        ("answers", "Answers", answers_sentence(card.get("selective") or {})),
        ("none", "None of these", none_sentence(card.get("reject"))),
        ("cost", "Cost", _cost(card.get("cost") or {})),
        ("curve", "More labels", curve_sentence(card.get("shots_curve"))),
        ("doubts", "Labels", _doubts(card, int(task.get("n") or 0))),
        ("copies", "Copies", _copies(card)),
        ("blind", "Encoder", _blind(card)),
        ("made", "Unlabelled", _unlabelled(card.get("unlabelled") or {})),
        ("provenance", "Left out", _skipped(task)),
    )
    return [Finding(*row) for row in told if row[2]]


def _weakest(assessment: Mapping[str, Any]) -> str:
    row, recall = next(((row, row.recall) for row in weakest_first(assessment) if row.recall), (None, None))
    if row is None or recall is None:
        return ""
    if recall.at >= 100:
        return "Every judged item got its right label."
    taken = f", mostly taken for {visible(row.taken_for[0][0], NAME)}" if row.taken_for else ""
    return f"{visible(row.name, NAME)} is found least often, {recall.text} of the time{taken}."


def _confidence(assessment: Mapping[str, Any]) -> str:
    found = reliability(assessment)
    return f"Its confidence is {found.verdict}." if found else ""


def _cost(cost: Mapping[str, Any]) -> str:
    mean, plain = cost.get("mean"), cost.get("plain")
    if not mean or mean.get("value") is None:
        return ""
    instead = f", instead of {plain['value']:.3g} for the most probable class" if plain and plain.get("value") else ""
    return f"Deciding by cost, an item costs {mean['value']:.3g} on average{instead}."


def _doubts(card: Mapping[str, Any], n: int) -> str:
    doubtful = len(card.get("suspicious") or ())
    if not doubtful:
        return ""
    labels = f"of {n:,} labels" if n >= doubtful else "label" if doubtful == 1 else "labels"
    return f"{doubtful:,} {labels} {'looks' if doubtful == 1 else 'look'} wrong."


def _copies(card: Mapping[str, Any]) -> str:
    clashing = len((card.get("duplicates") or {}).get("conflicts") or ())
    again = copies(card).partition(":")[0]
    clash = f"{clashing:,} {'set' if clashing == 1 else 'sets'} of copies with different labels" if clashing else ""
    return "; ".join(part for part in (again, clash) if part) + "." if again or clash else ""


def _blind(card: Mapping[str, Any]) -> str:
    spots = blind_spots(card)
    return " ".join(f"{visible(spot.message).strip().rstrip('.')}." for spot in spots[:2])


def _unlabelled(pool: Mapping[str, Any]) -> str:
    warning = visible(pool.get("warning") or "").strip()
    return f"{warning[:1].upper()}{warning[1:]}." if warning else ""


def _skipped(task: Mapping[str, Any]) -> str:
    n = len(task.get("skipped") or ())
    return f"{n:,} {'item' if n == 1 else 'items'} could not be used." if n else ""
