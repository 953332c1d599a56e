"""What the report shows beside the assessment: answers by confidence, what mistakes cost, accuracy against shots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.ship.shown import Shown, amount, share

SURE = 80.0
"""Per cent of the items that are answered where no precision is asked for."""
MOST_COSTS = 12
"""Classes; a larger table of costs is not printed."""


@dataclass(frozen=True)
class Step:
    """If only answers at least this sure are given: how many are, and how often they are right."""

    threshold: str
    coverage: Shown | None
    precision: Shown | None
    n: str
    chosen: bool


@dataclass(frozen=True)
class Answers:
    """Coverage against precision; ``sentence`` says what the target comes to, if one was asked for."""

    sentence: str
    note: str
    steps: tuple[Step, ...]


def answers(selective: Mapping[str, Any] | None) -> Answers | None:
    """How often the model answers and how often it is then right; ``None`` when the card does not say."""
    if not selective or not (selective.get("table") or selective.get("note")):
        return None
    at, rows = selective.get("threshold"), list(selective.get("table") or ())
    chosen = [row for row in rows if at is not None and math.isclose(row["threshold"], at, abs_tol=1e-9)]
    if at is not None and not chosen:
        chosen = [{key: selective.get(key) for key in ("threshold", "coverage", "precision")}]
        rows += chosen
    rows.sort(key=lambda row: row["threshold"])
    digits = next((d for d in (2, 3) if _apart([row["threshold"] for row in rows], d)), 4)
    steps = tuple(
        Step(
            f"{row['threshold']:.{digits}f}",
            share(row.get("coverage")),
            share(row.get("precision")),
            "" if row.get("n") is None else f"{row['n']:,}",
            row in chosen,
        )
        for row in rows
    )
    return Answers(answers_sentence(selective), selective.get("note") or "", steps)


def _apart(thresholds: Sequence[float], digits: int) -> bool:
    """Whether thresholds still differ with so few digits, from each other and, below it, from 1."""
    shown = [f"{t:.{digits}f}" for t in thresholds]
    return len(set(shown)) == len(shown) and not any(float(s) >= 1 > t for s, t in zip(shown, thresholds, strict=True))


def answers_sentence(selective: Mapping[str, Any]) -> str:
    """What the target comes to; without a target, how often the surest answers are right."""
    target, at = selective.get("target"), selective.get("threshold")
    coverage, precision = share(selective.get("coverage")), share(selective.get("precision"))
    if target is None:
        return _surest(selective.get("table") or ())
    if at is None:
        return f"A precision of {_per_cent(target)} is not within reach."
    if coverage is None or precision is None:
        return f"For a precision of {_per_cent(target)} it answers where it is at least {at:.2f} sure."
    return (
        f"For a precision of {_per_cent(target)} it answers where it is at least {at:.2f} sure: that is "
        f"{coverage.text} of items, and {precision.text} of its answers are right."
    )


def _surest(rows: Sequence[Mapping[str, Any]]) -> str:
    known = [(c, p) for row in rows if (c := share(row.get("coverage"))) and (p := share(row.get("precision")))]
    coverage, precision = min(known, key=lambda pair: abs(pair[0].at - SURE), default=(None, None))
    if coverage is None or precision is None or coverage.at >= 100:
        return ""
    return f"Of the surest {coverage.at:.0f} % of its answers, {precision.text} are right."


def _per_cent(part: float) -> str:
    return f"{100 * part:.4g} %"


@dataclass(frozen=True)
class Cost:
    """Mean cost of an item as the model decides, and as it would if it always named the most probable class."""

    source: str
    mean: Shown | None
    plain: Shown | None
    matrix: tuple[tuple[str, tuple[str, ...]], ...]


def cost(card: Mapping[str, Any]) -> Cost | None:
    """What mistakes cost; the table only where it is small and fits the classes."""
    given = card.get("cost")
    if not given:
        return None
    estimates = [e for e in (given.get("mean"), given.get("plain")) if e]
    top = 1.05 * max((float(e.get("high") or 0.0) for e in estimates), default=1.0) or 1.0
    names = [c["name"] for c in (card.get("task") or {}).get("classes") or ()]
    rows: Sequence[Sequence[float]] = given.get("matrix") or ()
    fits = len(rows) == len(names) <= MOST_COSTS and all(len(row) == len(names) for row in rows)
    matrix = tuple((name, tuple(f"{x:g}" for x in row)) for name, row in zip(names, rows, strict=True)) if fits else ()
    return Cost(given.get("source") or "", amount(given.get("mean"), top), amount(given.get("plain"), top), matrix)


@dataclass(frozen=True)
class Point:
    """Accuracy at a number of examples a class, and where it lies in the drawing."""

    shots: int
    n: str
    accuracy: Shown
    x: float
    y: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Curve:
    """Accuracy against examples a class. The drawing is ``WIDE`` by ``HIGH``; its plot starts at ``LEFT``, ``TOP``."""

    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]
    sentence: str

    @property
    def path(self) -> str:
        """The line through the points, as SVG says it."""
        return "M" + "L".join(f"{p.x:.1f} {p.y:.1f}" for p in self.points)

    @property
    def band(self) -> str:
        """The area of the intervals."""
        there = [f"{p.x:.1f} {p.top:.1f}" for p in self.points]
        back = [f"{p.x:.1f} {p.bottom:.1f}" for p in reversed(self.points)]
        return "M" + "L".join(there + back) + "Z"


WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 340, 240, 40, 12, 12, 40
NEAREST_MARKS = 22
_STEPS = (1, 2, 5, 10, 20, 25)


def curve(points: Sequence[Mapping[str, Any]] | None) -> Curve | None:
    """The drawing of two or more points, shots on a logarithmic axis."""
    known = [(p, s) for p in points or () if p["shots"] >= 1 and (s := share(p["accuracy"])) is not None]
    known.sort(key=lambda pair: pair[0]["shots"])
    if len(known) < 2 or known[0][0]["shots"] == known[-1][0]["shots"]:
        return None
    first, last = math.log(known[0][0]["shots"]), math.log(known[-1][0]["shots"])
    low, high, step = _axis(min(s.low for _, s in known), max(s.high for _, s in known))

    def x_of(shots: float) -> float:
        return LEFT + (WIDE - LEFT - RIGHT) * (math.log(shots) - first) / (last - first)

    def y_of(value: float) -> float:
        return HIGH - BOTTOM - (HIGH - BOTTOM - TOP) * (value - low) / (high - low)

    placed = tuple(
        Point(
            int(p["shots"]),
            "" if p.get("n") is None else f"{int(p['n']):,}",
            s,
            x_of(p["shots"]),
            y_of(s.at),
            y_of(s.high),
            y_of(s.low),
        )
        for p, s in known
    )
    ticks = tuple((y_of(v), str(v)) for v in range(low, high + 1, step))
    return Curve(placed, ticks, _marks(placed), curve_sentence(points))


def _axis(low: float, high: float) -> tuple[int, int, int]:
    """Whole numbers that hold ``low`` and ``high``, in at most five steps of a round size."""
    for step in _STEPS:
        bottom, top = step * math.floor(low / step), step * max(math.ceil(high / step), 1)
        if (top - bottom) / step <= 5:
            return bottom, max(top, bottom + step), step
    return 0, 100, 25


def _marks(points: Sequence[Point]) -> tuple[tuple[float, str], ...]:
    """Numbers of shots under the axis: the last for sure, others where there is room."""
    kept = [points[-1]]
    for point in reversed(points[:-1]):
        if kept[-1].x - point.x >= NEAREST_MARKS:
            kept.append(point)
    return tuple((p.x, f"{p.shots:,}") for p in kept)


def curve_sentence(points: Sequence[Mapping[str, Any]] | None) -> str:
    """What the last step added: ``"From 4 to 8 examples a class accuracy rose by 5.1 points, from 74.0 to 79.1 %."``"""
    known = sorted((p for p in points or () if share(p["accuracy"]) is not None), key=lambda p: p["shots"])
    if len(known) < 2:
        return ""
    before, after = (100 * p["accuracy"]["value"] for p in known[-2:])
    did = "rose" if after - before >= 0.05 else "fell" if before - after >= 0.05 else "stayed"
    by = "" if did == "stayed" else f" by {abs(after - before):.1f} points"
    shots = f"From {known[-2]['shots']:,} to {known[-1]['shots']:,} examples a class"
    return f"{shots} accuracy {did}{by}, {'at' if did == 'stayed' else f'from {before:.1f} to'} {after:.1f} %."
