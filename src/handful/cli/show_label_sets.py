"""What `handful fit` and `handful evaluate` print of several labels an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handful.cli import show_trust
from handful.cli.layout import CELL, count, facts, faint, measure, short, some, strong, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.text import Text

    from handful.evaluate.label_set_assessment import LabelSetAssessment

NAMES = {
    "micro_f1": "Micro-F1",
    "macro_f1": "Macro-F1",
    "mean_average_precision": "Mean average precision",
    "exact_match": "Exact match",
}
WEAK, LABELS = 3, 30  # how many are shown


def trust(card: Mapping[str, Any]) -> list[tuple[str, Sequence[str | Text]]]:
    """The test on items kept apart and the estimate, and which labels could not be judged."""
    found, first = card["label_sets"], card["metric"].replace("-", "_")
    test, estimate, items = found["test"], found["estimate"], show_trust.population(card)
    rows: list[tuple[str, Sequence[str | Text]]] = []
    if test is not None:
        basis = f"on {items}, measured on {count(test['assessment']['n'], 'item')}: {visible(test['source'])}"
        basis += f" ({visible(test['note'])})" if test["note"] else ""
        rows.append((NAMES[first], _assessed(test["assessment"], first, basis)))
    if estimate["assessment"] is not None:
        groups = estimate["groups"]
        rest = f"; it rests on {count(groups['count'], 'group')}: {visible(groups['by'])}" if groups else ""
        basis = f"on {items}, estimated by {visible(estimate['method'])}{rest}"
        lines = _assessed({**estimate["assessment"], **estimate["quoted"]}, first, basis)
        rows.append((NAMES[first], lines) if test is None else ("Estimate", [str(lines[0]), lines[1]]))
    elif test is None:
        rows.append((NAMES[first], [visible(estimate["method"])]))
    if found["not_judged"] and estimate["assessment"] is not None:
        few = count(len(found["not_judged"]), "label has", "labels have")
        rows.append(("Not judged", [f"{few} a single example (or group): {some(found['not_judged'])}"]))
    return rows


def _assessed(found: Mapping[str, Any], first: str, basis: str) -> list[str | Text]:
    """The first measure, how it was found, the weakest labels, how many are given, and the other measures."""
    weak = sorted((row for row in found["per_label"] if row["f1"]), key=lambda row: row["f1"]["value"])
    told = [f"{visible(r['label'], CELL)} (F1 {100 * r['f1']['value']:.0f} %, {r['n']} items)" for r in weak[:WEAK]]
    others = [f"{name[0].lower() + name[1:]} {short(key, found[key])}" for key, name in NAMES.items() if key != first]
    return [
        strong(measure(first, found[first])),
        faint(basis),
        *([f"weakest: {', '.join(told)}"] if told else []),
        f"an item has {found['labels_per_item']:.2f} labels on average, and is given {found['said_per_item']:.2f}",
        faint(f"also: {', '.join(others)}"),
    ]


def show_label_sets(assessment: LabelSetAssessment) -> None:
    """Print an assessment."""
    found = assessment.as_dict()
    groups = "" if found["groups"] is None else f" in {count(found['groups'], 'group')}"
    lines = [(name, [measure(key, found[key])]) for key, name in NAMES.items()]
    given = f"{found['labels_per_item']:.2f} on average, given {found['said_per_item']:.2f}"
    show(
        strong(f"{count(found['n'], 'labelled item')}{groups}, {len(found['labels'])} labels, several an item"),
        "",
        facts([*lines, ("Labels an item", [given])]),
        "",
    )
    if assessment.verdicts:
        show(*(show_trust.verdict(verdict.passed, verdict.sentence) for verdict in assessment.verdicts), "")
    rows = sorted((r for r in found["per_label"] if r["n"]), key=lambda row: row["f1"]["value"])
    scores = ("recall", "precision", "f1", "average_precision")
    cells = [(r["label"], f"{r['n']:,}", *(short(key, r[key]) for key in scores)) for r in rows]
    columns = ["label, weakest first", "items", "found", "right when given", "F1", "average precision"]
    show(table(columns, cells[:LABELS], right=[1]))
    if len(rows) > LABELS:
        show(f"and {len(rows) - LABELS} more; --json lists all")
