"""What `handful grow` prints: which classes came, how they do, which old classes pay for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handful.cli.layout import CELL, count, facts, faint, measure, some, strong, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.text import Text

    from handful.ship.model import Model

HURT = 10  # old classes that are shown


def show_grow(model: Model, out: str | None) -> None:
    """Print the summary of a model that has grown."""
    step, test = model.card["grown"][-1], model.card["grown"][-1]["test"]
    rows = [*(_tested(test) if test else _judged(step["judged"])), ("New", _new(step))]
    if step["unlabelled"] is not None:
        rows += [("Unlabelled", [visible(step["unlabelled"]["use"], 2 * CELL)])]
    rows += [("Note", [visible(note, 2 * CELL) for note in step["notes"]])]
    rows += [("Model", ["not saved; --out FILE saves it" if out is None else visible(out)])]
    more = f"{count(len(step['classes']), 'class', 'classes')} more, {len(model.classes)} in all"
    show(strong(f"{more}, learnt from {count(step['n'], 'labelled example')}"), "", facts(rows))
    if test and test["hurt"]:
        cells = [
            (one["name"], f"{one['n']:,}", f"{100 * one['before']:.0f} %", f"{100 * one['after']:.0f} %")
            for one in test["hurt"][:HURT]
        ]
        show("", table(["old class that lost, worst first", "items", "before", "after"], cells, right=[1, 2, 3]))
        if len(test["hurt"]) > HURT:
            show(f"and {len(test['hurt']) - HURT} more; --json lists all")
    if out is not None:
        show("", f"Use it:  handful predict {visible(shlex.quote(out))} NEW.csv --out labelled.csv")


def _tested(test: Mapping[str, Any]) -> list[tuple[str, Sequence[str | Text]]]:
    """Base, novel and harmonic-mean accuracy on items kept apart."""
    basis = f"mean over classes, measured on {count(test['n'], 'item')}: {visible(test['source'])}"
    basis += f" ({visible(test['note'])})" if test["note"] else ""
    rows: list[tuple[str, Sequence[str | Text]]] = []
    for name, key in (("Harmonic mean", "harmonic"), ("Old classes", "base"), ("New classes", "novel")):
        if test[key] is None:
            if key != "harmonic":
                rows.append((name, ["not judged: the test set has none of their items"]))
            continue
        lines: list[str | Text] = [strong(measure("accuracy", test[key]))]
        if key == "base":
            lines.append(f"before growing {measure('accuracy', test['before'])}")
            if test["false_positive"] is not None:
                lines.append(f"taken for a new class: {100 * test['false_positive']:.1f} %")
        if key == "novel":
            lines.append(f"taken for an old class: {100 * test['false_negative']:.1f} %")
        rows.append((name, lines))
    return [*rows, ("Test", [faint(basis)])]


def _judged(judged: Mapping[str, Any]) -> list[tuple[str, Sequence[str | Text]]]:
    """New classes by their own examples; of the old ones nothing is known."""
    lines: list[str | Text] = [visible(judged["method"], 2 * CELL)]
    if judged["novel"] is not None:
        taken = f"taken for an old class: {100 * judged['false_negative']:.1f} %"
        lines = [strong(measure("accuracy", judged["novel"])), taken, faint(f"mean over classes, {lines[0]}")]
    old = "not known: their examples are not in the model; --test FILE with items of old and new classes says"
    return [("New classes", lines), ("Old classes", [old])]


def _new(step: Mapping[str, Any]) -> list[str]:
    sizes = [row["count"] for row in step["classes"]]
    few, many = min(sizes), max(sizes)
    each = count(few, "example") if few == many else f"{few:,} to {many:,} examples"
    lines = [f"{each} each: {some([row['name'] for row in step['classes']])}"]
    return [some(step["sources"], 3), *lines] if step["sources"] else lines
