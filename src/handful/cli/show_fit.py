"""The summary that `handful fit` prints: what was read, what was learnt, how far to trust it, where it lies."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handful.cli import show_label_sets, show_trust
from handful.cli.layout import CELL, METRICS, NAMES, count, facts, faint, in_sentence, measure, short, some, strong
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.text import Text

    from handful.ship.model import Model

Lines = Sequence["str | Text"]
WEAK, TRIED, SKIPPED = 3, 3, 3  # how many are shown


def show_fit(model: Model, out: str | None, report: str | None) -> None:
    """Print the summary of a fitted model."""
    card = model.card
    show(strong(headline(card)), "", facts([*trust(card), *decisions(card), *about(card), *places(model, out, report)]))
    if out is not None and not card.get("experiment"):
        where = model.encoder_name or ""
        name = f" --encoder {visible(shlex.quote(where))}" if where.startswith("hf:") and not model.standalone else ""
        show("", f"Use it:  handful predict {visible(shlex.quote(out))} NEW.csv{name} --out labelled.csv")


def headline(card: Mapping[str, Any]) -> str:
    """``"A text classifier for 14 classes, learnt from 392 labelled examples"``."""
    task = card["task"]
    kind = {"text": "A text classifier", "image": "An image classifier"}.get(task["modality"], "A classifier")
    learnt = f"learnt from {count(task['n'], 'labelled example')}" if task["n"] else "made from class names alone"
    what = "labels, several an item" if card.get("label_sets") else "classes"
    return f"{kind} for {len(task['classes'])} {what}, {learnt}"


def about(card: Mapping[str, Any]) -> list[tuple[str, Lines]]:
    """What was read, and what learnt from it."""
    task, encoder = card["task"], card["encoder"]
    rows: list[tuple[str, Lines]] = []
    if card.get("experiment"):
        drawn = count(card["experiment"]["shots"], "example")
        rows.append(("Experiment", [f"{drawn} a class; without --shots a model learns from all"]))
    rows += [("Privacy", privacy(card.get("private"))), ("Withheld", withheld(card.get("private")))]
    rows += [("Certificate", [visible(c["statement"], 8 * CELL)] if (c := card.get("certificate")) else [])]
    pool = card.get("unlabelled") or {}
    rows.append(("Read", [] if card.get("private") else _read(task, bool(pool.get("n")))))
    rows.append(("Classes", [_classes(task["classes"]), *_several(card.get("label_sets"))]))
    if encoder["name"] is None:
        rows.append(("Features", [f"as given, {count(encoder['dim'], 'number')} each"]))
    else:
        becomes = f"each {task['modality']} becomes {encoder['dim']:,} numbers"
        rows.append(("Encoder", [f"{visible(encoder['name'])}: {becomes}"]))
    rows.append(("Tuning", [visible(t["sentence"], 8 * CELL)] if (t := card.get("tuning")) else []))
    return [
        *rows,
        ("Head", _head(card)),
        ("Unlabelled", _unlabelled(pool)),
        ("Class names", [] if card.get("label_sets") else _names(card["class_text"])),
        ("No examples", _others(card["class_text"].get("others"))),
    ]


def privacy(spent: Mapping[str, Any] | None) -> Lines:
    """What was promised, for whom, and how it was counted."""
    if not spent:
        return []
    promise = f"epsilon {spent['epsilon']:.4g}, delta {spent['delta']:.2g}, for {visible(spent['relation'])}"
    if swapped := spent.get("replace_one"):
        promise += f" (for one that is another: {swapped['epsilon']:.4g} and {swapped['delta']:.2g})"
    counted = f"counted by {visible(spent['accountant'])}; noise of the operating system"
    known = ", ".join(map(visible, spent["public"]))
    told: list[str | Text] = [promise, faint(counted), faint(f"taken as known to everybody: {known}")]
    if searched := spent.get("searched"):
        found = ", ".join(f"{visible(name)} {value:.3g}" for name, value in searched["found"].items())
        told.append(
            f"{100 * searched['share']:.0f} % of the budget for {searched['trials']} trials, which chose {found}"
        )
    return told


def withheld(spent: Mapping[str, Any] | None) -> Lines:
    """What is not told because it would be un-noised."""
    return [f"because un-noised: {'; '.join(map(visible, spent['withheld']))}"] if spent else []


def trust(card: Mapping[str, Any]) -> list[tuple[str, Lines]]:
    """The test on items kept apart, and the estimate; the metric asked for comes first."""
    if card.get("label_sets"):
        return show_label_sets.trust(card)
    first, items = METRICS.get(card["metric"], "accuracy"), show_trust.population(card)
    rows: list[tuple[str, Lines]] = []
    test, estimate = card.get("test"), card.get("estimate")
    if test is not None:
        basis = f"on {items}, measured on {count(test['assessment']['n'], 'item')}: {visible(test['source'])}"
        basis += f" ({visible(test['note'])})" if test.get("note") else ""
        rows.append((NAMES[first], assessed(test["assessment"], first, basis)))
    if estimate is not None and estimate["assessment"] is not None:
        basis = f"on {items}, estimated by {visible(estimate['method'])}{_groups(estimate)}"
        found = assessed(_quoted(estimate), first, basis)
        rows.append((NAMES[first], found) if test is None else ("Estimate", [str(found[0]), found[1]]))
    elif estimate is not None and test is None:
        rows.append((NAMES[first], [visible(estimate["method"])]))
    return rows


def _quoted(estimate: Mapping[str, Any]) -> Mapping[str, Any]:
    """The assessment with the accuracy that is quoted."""
    quoted = estimate.get("accuracy") or estimate["assessment"]["accuracy"]
    return {**estimate["assessment"], "accuracy": quoted}


def _groups(estimate: Mapping[str, Any]) -> str:
    groups = estimate.get("groups")
    return f"; it rests on {count(groups['count'], 'group')}: {visible(groups['by'])}" if groups else ""


def decisions(card: Mapping[str, Any]) -> list[tuple[str, Lines]]:
    """When it answers, and when with none of the classes, what mistakes cost, what more labels would do, which labels
    look wrong, what is not seen."""
    return [
        ("Answers", show_trust.answers(card.get("selective"))),
        ("None", show_trust.none(card.get("reject"))),
        ("Cost", show_trust.cost(card.get("cost"))),
        ("Shots", show_trust.curve(card.get("shots_curve"))),
        ("Labels", show_trust.labels(card)),
        ("Not seen", show_trust.blind(card.get("blind_spots"))),
    ]


def assessed(assessment: Mapping[str, Any], first: str, basis: str) -> Lines:
    """The first metric, how it was found, the classes that suffer most, and the other metrics."""
    lines: list[str | Text] = [strong(measure(first, assessment[first])), faint(basis)]
    weak = [c for c in assessment["per_class"] if c["recall"] and c["recall"]["value"] < 1]
    weak.sort(key=lambda c: c["recall"]["value"])
    if weak:
        worst = [f"{visible(c['class'], CELL)} ({100 * c['recall']['value']:.0f} % of {c['n']} found)" for c in weak]
        lines.append(f"weakest: {', '.join(worst[:WEAK])}")
    if assessment["confused"]:
        pairs = [f"{visible(p['true'], CELL)} for {visible(p['predicted'], CELL)}" for p in assessment["confused"]]
        lines.append(f"mistaken most: {', '.join(pairs[:WEAK])}")
    others = [f"{in_sentence(name)} {short(name, assessment[name])}" for name in NAMES if name != first]
    return [*lines, faint(f"also: {', '.join(others)}")]


def places(model: Model, out: str | None, report: str | None) -> list[tuple[str, Lines]]:
    """Where model and report lie, and how long it took."""
    seconds = model.seconds
    laps = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    return [
        ("Model", ["not saved; --out FILE saves it" if out is None else visible(out)]),
        ("Report", [] if report is None else [visible(report)]),
        ("Seconds", [f"{sum(seconds.values()):.1f}: {laps}"]),
    ]


def _unlabelled(pool: Mapping[str, Any]) -> Lines:
    """What was made of items without labels, which were dropped, and what to beware of."""
    if not pool:
        return []
    lines: list[str | Text] = [visible(pool["use"], 4 * CELL)]
    if pool["dropped"]:
        copies = count(pool["dropped"], "more was", "more were")
        lines.append(f"{copies} dropped: (nearly) equal to a labelled item or one tested on, or in its group")
    if pool["skipped"]:
        lines.append(f"{count(pool['skipped'], 'more', 'more')} could not be read")
    return [*lines, *([strong(f"Warning: {visible(pool['warning'], 8 * CELL)}")] if pool.get("warning") else [])]


def _read(task: Mapping[str, Any], used: bool) -> Lines:
    lines = [some(task["sources"], 3)] if task["sources"] else []
    named = {kind: name for kind, name in task["columns"].items() if name}
    if named.keys() != {"label"} or task["modality"] == "text":  # the labels of an image folder are its folders
        columns = ", ".join(f"{kind} in {some(_list(name))}" for kind, name in named.items())
        lines += [f"columns: {columns}"] if columns else []
    skipped = task["skipped"]
    aside = "" if used else " and left aside"
    counts = f"{task['n']:,} labelled, {task['pool']:,} unlabelled{aside}, {len(skipped):,} skipped"
    lines.append(counts if task["n"] else "no item was learnt from")
    lines += [visible(note, 2 * CELL) for note in task.get("notes", [])]
    lines += [f"skipped: {visible(why, 2 * CELL)}" for why in skipped[:SKIPPED]]
    return [*lines, f"skipped: {len(skipped) - SKIPPED:,} more"] if len(skipped) > SKIPPED else lines


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    sizes = [c["count"] for c in classes if c["count"] is not None]
    if not sizes:
        return some([c["name"] for c in classes])
    few, many = min(sizes), max(sizes)
    if not many:
        return some([c["name"] for c in classes])
    each = f"{few:,} examples each" if few == many else f"{few:,} to {many:,} examples each"
    return f"{each}: {some([c['name'] for c in classes])}"


def _several(sets: Mapping[str, Any] | None) -> Lines:
    if not sets:
        return []
    none = f"; {count(sets['without'], 'example has', 'examples have')} none" if sets["without"] else ""
    return [f"{sets['labels_per_item']:.2f} labels an example on average{none}"]


def _head(card: Mapping[str, Any]) -> Lines:
    head = card["head"]
    key, choice = visible(head["key"]), visible(head["choice"])
    lines: list[str | Text] = [f"{choice if key == choice else f'{key} chose {choice}'}: {visible(head['why'])}"]
    tried = [_candidate(row) for row in card["candidates"]]
    if tried:
        lines.append(faint(f"{len(tried)} were tried and judged by examples left out:"))
        lines += [faint(f"  {line}") for line in tried[:TRIED]]
        lines += [faint(f"  and {len(tried) - TRIED} more")] if len(tried) > TRIED else []
    return lines


def _candidate(row: Mapping[str, Any]) -> str:
    name, accuracy = visible(row["name"]), row.get("accuracy")
    return name if accuracy is None else f"{100 * accuracy:.1f} %  {name}"


def _names(card: Mapping[str, Any]) -> Lines:
    use = f"used, {100 * card['weight']:.0f} % of the answer" if card["used"] else "not used"
    return [f"{use}: {visible(card['reason'])}"]


def _others(card: Mapping[str, Any] | None) -> Lines:
    """Classes that are named but have no examples, and what became of them."""
    return [] if card is None else [some(card["names"]), visible(card["reason"], 4 * CELL)]


def _list(names: Any) -> Sequence[Any]:
    return names if isinstance(names, (list, tuple)) else [names]
