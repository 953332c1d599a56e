"""`handful forecast`: what more labels would bring, how many a target takes, and of which classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handful.commands.fitted import refuse_label_sets
from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.forecast import FARTHEST, Forecast, Pilot, binomial_spread, card_spread
from handful.evaluate.forecast import forecast as forecast_of
from handful.evaluate.laws import checked_target, required
from handful.read.columns import first_usual
from handful.read.delimited import decode
from handful.read.formats import TABLES
from handful.read.jsons import parse
from handful.read.places import columns_are, existing, file_bytes, quoted
from handful.ship.model import Model

AHEAD = (2, 4)
"""Times the labels there are."""
SHOTS = ("shots", "shot", "k", "labels_per_class", "per_class")
ACCURACY = ("accuracy", "acc", "score")
LABELS = ("n", "labels", "examples")
TESTED = ("tested", "n_test", "test", "queries")
"""Usual names of the columns of results."""
NAMED = 5
"""Classes that are named as those to label first."""
SHRINK = 4.0
"""Items at the mean recall that are added to each class: a class of two items says little of itself."""


@dataclass(frozen=True)
class Outlook:
    """What `forecast` finds.

    Attributes:
        source: what it rests on.
        now: shots, labels and accuracy (with its interval) at the end of the curve.
        ahead: at two and four times the labels: shots, labels, accuracy with a 90 % interval, and the power law's.
        target: accuracy that is asked for, or ``None``.
        need: labels to add for it: expected, least and most; ``None`` beyond the horizon, or without a target.
        power_need: what the plain power law says of it.
        weakest: classes to label first: name, recall, how many labels there are, and their part of what is needed.
        horizon: shots and labels up to which the forecast is to be trusted, and whether that is beyond what there is.
        notes: what a reader should know.
    """

    source: str
    now: Mapping[str, Any]
    ahead: tuple[Mapping[str, Any], ...]
    target: float | None
    need: Mapping[str, Any] | None
    power_need: float | None
    weakest: tuple[Mapping[str, Any], ...]
    horizon: Mapping[str, Any]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        names = ("source", "now", "target", "need", "power_need", "horizon")
        lists = {name: list(getattr(self, name)) for name in ("ahead", "weakest", "notes")}
        return {name: getattr(self, name) for name in names} | lists


def forecast(
    results: Model | str | Path | Sequence[Mapping[str, Any]],
    *,
    target: float | None = None,
    ways: int | None = None,
) -> Outlook:
    """Expected accuracy with more labels, and how many a target takes.

    Args:
        results: a `Model` or its file, whose card holds accuracy with fewer labels; or a JSON or CSV file (or a list)
            of points: columns ``shots`` (labels a class), ``accuracy`` and ``tested`` (on how many items), perhaps
            ``n`` (labels in all).
        target: accuracy to reach, between 0 and 1.
        ways: how many classes; needed for results that do not give ``n``.

    Returns:
        An `Outlook`. Intervals hold 90 %; they are for one model that learns from so many labels, drawn as those were.

    Raises:
        BadInput: the results cannot be read, hold fewer than three points, or the target is no accuracy.
    """
    if target is not None:
        checked_target(target)
    name, card = "results", {}
    if isinstance(results, (str, Path)):
        name, path = str(results), existing(Path(results))
        points = path.suffix.lower() == ".json" or path.suffix.lower() in TABLES
        results = _points_of(path) if points else Model.load(path)
    if isinstance(results, Model):
        refuse_label_sets(results, "handful forecast")
        card = results.card
        if ways is not None:
            raise BadInput("--ways is for results; a model knows its classes")
        pilot, labels = _of_card(results)
    else:
        pilot, labels = _of_points(list(results), name, ways)
    return _outlook(name, forecast_of(pilot), labels, target, card)


def _outlook(name: str, found: Forecast, labels: float, target: float | None, card: Mapping[str, Any]) -> Outlook:
    pilot, last = found.pilot, found.pilot.shots[-1]
    each = labels / last  # labels a shot: classes, or fewer where some have fewer
    seen = found.at(last)
    now = {"shots": last, "labels": labels, "measured": pilot.accuracy[-1], "accuracy": seen.as_dict()}
    ahead = tuple(
        {
            "times": k,
            "shots": k * last,
            "labels": k * labels,
            "accuracy": found.at(k * last).as_dict(),
            "power_law": None if found.power is None else float(found.power.accuracy([k * last])[0]),
            "trusted": k * last <= found.horizon * (1 + 1e-9),
        }
        for k in AHEAD
    )
    need = power = None
    notes = []
    if target is not None:
        need = _need(found.required(target), last, each)
        power = None if found.power is None else max(required(found.power, target) - last, 0.0) * each
        if need["more"] is None:
            notes.append(
                f"{100 * target:g} % is not expected within what can be trusted: label up to "
                f"{round(found.horizon * each):,} in all and ask again"
                if found.horizon > last * 1.05
                else f"the curve is too uncertain to say what {100 * target:g} % takes: label more, and ask again"
            )
    if found.power is not None and float(found.power.final_slope) > 0:
        notes.append("errors grow along the measured curve: noise, or labels that do not belong together")
    if found.power is None:
        notes.append("an accuracy of 1 has no power law")
    horizon = {
        "shots": found.horizon,
        "labels": found.horizon * each,
        "times": found.horizon / last,
        "checked": FARTHEST,
        "families": found.seen.families,
    }
    more = None if need is None else need["more"]
    return Outlook(name, now, ahead, target, need, power, weakest(card, more), horizon, tuple(notes))


def _need(shots: Estimate, last: float, each: float) -> dict[str, Any]:
    """Labels to add; ``None`` for more than can be said."""

    def more(s: float) -> int | None:
        return None if math.isinf(s) else math.ceil((s - last) * each - 1e-9)

    return {"more": more(shots.value), "low": more(shots.low), "high": more(shots.high)}


def weakest(card: Mapping[str, Any], more: int | None) -> tuple[dict[str, Any], ...]:
    """Classes whose items are missed most, and their part of ``more`` labels by what they miss."""
    rows = ((card.get("estimate") or {}).get("assessment") or {}).get("per_class") or []
    rows = [row for row in rows if row.get("n")]
    if not rows:
        return ()
    n = np.array([row["n"] for row in rows], float)
    recall = np.array([row["recall"]["value"] for row in rows], float)
    mean = float((n * recall).sum() / n.sum())
    missed = 1 - (n * recall + SHRINK * mean) / (n + SHRINK)
    counts = {row["name"]: row["count"] for row in card["task"]["classes"]}
    order = np.argsort(-missed, kind="stable")[: min(NAMED, max(1, len(rows) // 2))]
    share = missed[order] / max(missed.sum(), 1e-12)
    return tuple(
        {
            "class": rows[i]["class"],
            "recall": rows[i]["recall"],
            "labels": counts.get(rows[i]["class"], 0),
            "more": None if more is None else math.ceil(more * s),
        }
        for i, s in zip(order, share, strict=True)
    )


def _of_card(model: Model) -> tuple[Pilot, float]:
    points = model.card.get("shots_curve") or []
    if len(points) < 3:
        raise BadInput(
            "the model's card has no curve of three points to forecast from: that takes 3 labels or more of each class "
            "and an estimate (fit without --time-limit)"
        )
    best = {float(p["shots"]): p for p in points}  # of two points with as many shots, the later: all labels
    shots = sorted(best)
    if len(shots) < 3:
        raise BadInput(f"the model's card has accuracy at {len(shots)} numbers of shots; a forecast needs 3")
    low, high, value = (np.array([best[s]["accuracy"][k] for s in shots]) for k in ("low", "high", "value"))
    pilot = Pilot(tuple(shots), tuple(value), tuple(card_spread(low, high)), len(model.classes), True)
    return pilot, float(model.card["task"]["n"])


def _points_of(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a JSON or a table file."""
    if path.suffix.lower() == ".json":
        value = parse(decode(file_bytes(path), path.name), path.name)
        if isinstance(value, dict):
            value = value.get("shots_curve", value.get("points"))
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise BadInput(
                f'{path.name} holds no list of points such as {{"shots": 4, "accuracy": 0.8, "tested": 500}}'
            )
        return value
    from handful.evaluate.written import written_table

    return [dict(row) for row in written_table(path).frame.to_dicts()]


def _of_points(rows: Sequence[Mapping[str, Any]], name: str, ways: int | None) -> tuple[Pilot, float]:
    name = Path(name).name
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shots_, accuracy_ = (first_usual(usual, columns) for usual in (SHOTS, ACCURACY))
    tested_, labels_ = (first_usual(usual, columns) for usual in (TESTED, LABELS))
    if shots_ is None or accuracy_ is None:
        raise BadInput(f"{name} needs columns called shots and accuracy; {columns_are(columns)}")
    found: dict[float, list[Mapping[str, Any]]] = {}
    for i, row in enumerate(rows):
        found.setdefault(_number(row.get(shots_), f"{name} point {i + 1}, {quoted(shots_)}"), []).append(row)
    shots = sorted(found)
    points = [found[s] for s in shots]
    own = all(isinstance(row.get(accuracy_), dict) for group in points for row in group)
    pairs = list(zip(shots, points, strict=True))
    if own:  # as a card has them
        value, low, high = (
            np.array([_number(g[-1][accuracy_].get(k), f"{name}, {k} of accuracy at {s:g} shots") for s, g in pairs])
            for k in ("value", "low", "high")
        )
        spread = card_spread(low, high)
    else:
        each = [[_number(row.get(accuracy_), f"{name}, accuracy at {s:g} shots") for row in g] for s, g in pairs]
        value = np.array([np.mean(v) for v in each])
        if tested_ is None:
            raise BadInput(f"{name} does not say on how many items accuracy was found: add a column called tested")
        tested = [_number(g[-1].get(tested_), f"{name}, {quoted(tested_)} at {s:g} shots") for s, g in pairs]
        if min(tested) < 1:
            raise BadInput(f"{name}: accuracy is found on at least 1 item, not {min(tested):g}")
        spread = binomial_spread(np.clip(value, 0, 1), np.array(tested))
    last = points[-1][-1]
    labels = None if labels_ is None or last.get(labels_) is None else _number(last[labels_], f"{name}, labels")
    if ways is None:
        if labels is None:
            raise BadInput(f"{name} does not say how many classes there are: give --ways, or a column n of all labels")
        ways = round(labels / shots[-1]) if shots and shots[-1] > 0 else 0
    pilot = Pilot(tuple(shots), tuple(value), tuple(spread), ways, own)
    return pilot, labels if labels is not None else ways * shots[-1]


def _number(cell: Any, place: str) -> float:
    from handful.evaluate.written import number

    return number(cell, place)
