"""How far a model is to be trusted, in a few lines: what `handful fit` and `handful evaluate` both print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handful.cli.layout import CELL, count, faint, short, strong
from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.text import Text

Lines = Sequence["str | Text"]
Row = tuple[str, Lines]
SHOWN, CURVE = 3, 6  # how many of each are shown


def answers(selective: Mapping[str, Any] | None) -> Lines:
    """``"71.0 % [64.0, 77.0] at 95 % precision, where it is at least 0.62 sure"``, or coverage against precision."""
    if not selective:
        return []
    target, at = selective.get("target"), selective.get("threshold")
    note = [faint(visible(selective["note"], 4 * CELL))] if selective.get("note") else []
    if target is not None and at is not None and selective.get("coverage"):
        found = f"{short('coverage', selective['coverage'])} of items, where it is at least {at:.2f} sure"
        right = f"{short('precision', selective.get('precision'))} of these are right; asked for {100 * target:.4g} %"
        return [found, right, *note]
    rows = list(selective.get("table") or ())
    if target is None and len(rows) > 1:
        rows = [row for row in rows if row["coverage"]["value"] < 1][:: max(len(rows) // SHOWN, 1)][:SHOWN]
        told = [f"{_whole(row['precision'])} of the surest {_whole(row['coverage'])}" for row in rows]
        return [f"right: {', '.join(told)}"] if told else []
    return note


def none(found: Mapping[str, Any] | None) -> Lines:
    """``"other for 71.0 % [60.0, 80.0] of items of none of the classes, and for 4.1 % [2.5, 6.3] of others"``."""
    if not found:
        return []
    name = visible(found["other"], CELL)
    alarms = f"{short('share', found['false_alarms'])} of items of the classes; asked for {100 * found['asked']:.4g} %"
    lines: list[str | Text] = []
    if found.get("found"):
        lines.append(f"{name} for {short('share', found['found'])} of items of none of the classes,")
        lines.append(f"and for {alarms}")
        scores = f"AUROC {short('auroc', found['auroc'])}, FPR95 {short('fpr95', found['fpr95'])}"
        lines.append(f"by {visible(found['kind'], CELL)}: {scores}")
    else:
        lines.append(f"{name} for {alarms}")
    return [*lines, faint(visible(found["method"], 4 * CELL))]


def _whole(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:.0f} %"


def cost(found: Mapping[str, Any] | None) -> Lines:
    """Mean cost of an item, and what it would be for the most probable class."""
    if not found or not found.get("mean"):
        return []
    mean, plain = found["mean"], found.get("plain")
    line = f"{mean['value']:.3g} an item, 95 % interval {mean['low']:.3g} to {mean['high']:.3g}"
    instead = f"; the most probable class would cost {plain['value']:.3g}" if plain else ""
    return [line + instead]


def curve(points: Sequence[Mapping[str, Any]] | None) -> Lines:
    """``"1: 54.2, 2: 63.0, 4: 71.5, 8: 78.9 % accuracy"``, by examples a class."""
    known = [p for p in points or () if p.get("accuracy")][-CURVE:]
    if len(known) < 2:
        return []
    told = ", ".join(f"{p['shots']:,}: {100 * p['accuracy']['value']:.1f}" for p in known)
    return [f"accuracy by examples a class, in %: {told}"]


def labels(card: Mapping[str, Any]) -> Lines:
    """Labels that look wrong, and copies with different labels; the first few of each."""
    doubts, found = card.get("suspicious") or [], card.get("duplicates") or {}
    clashes, again = found.get("conflicts") or [], (found.get("items") or 0) - (found.get("units") or 0)
    lines: list[str | Text] = []
    if doubts:
        lines.append(f"{count(len(doubts), 'label looks', 'labels look')} wrong:")
        lines += [faint(f"  {_doubt(doubt)}") for doubt in doubts[:SHOWN]]
        lines += [faint(f"  and {len(doubts) - SHOWN:,} more, in the report")] if len(doubts) > SHOWN else []
    if again > 0:
        lines.append(f"{count(again, 'example repeats', 'examples repeat')} another, or nearly so")
    if clashes:
        lines.append(f"{count(len(clashes), 'set', 'sets')} of copies with different labels:")
        lines += [faint(f"  {_clash(clash)}") for clash in clashes[:SHOWN]]
    return lines


def _doubt(doubt: Mapping[str, Any]) -> str:
    given, suggested = visible(doubt["given"], CELL), visible(doubt["suggested"], CELL)
    where = visible(doubt.get("where") or f"item {doubt.get('row')}", 2 * CELL)
    return f"{where}: {given}, more like {suggested} ({100 * doubt['p_suggested']:.0f} %)"


def _clash(clash: Mapping[str, Any]) -> str:
    where = ", ".join(visible(place, CELL) for place in clash["where"][:SHOWN])
    return f"{where}: {', '.join(visible(label, CELL) for label in dict.fromkeys(clash['labels'][: 2 * SHOWN]))}"


def blind(spots: Sequence[Mapping[str, Any]] | None) -> Lines:
    """What the encoder cannot see."""
    return [visible(spot["message"], 4 * CELL) for spot in (spots or ())[:SHOWN]]


def verdict(passed: bool, sentence: str) -> Text:
    """A requirement and whether it is proven; the sentence begins with PASS or FAIL."""
    line = strong(visible(sentence, 8 * CELL))
    line.stylize("green" if passed else "red", 0, 4)
    return line


def population(card: Mapping[str, Any]) -> str:
    """Of which items the numbers speak: ``"new items with the classes as often as among the labels"``."""
    sentence = visible((card.get("population") or {}).get("sentence") or "", 4 * CELL)
    return f"new items with {sentence}" if sentence else "new items"
