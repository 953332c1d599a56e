"""What the report shows of an assessment: measures, classes from the weakest up, what is confused, calibration.

Everything here turns plain JSON (`Assessment.as_dict`) into rows a template can print; nothing is computed anew.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.ship.shown import Shown, amount, share

SHADES = 5
NARROWEST_BIN = 0.01
LARGEST_MATRIX = 150
"""Classes; beyond that a matrix is too large to read, and the list of confused pairs has all it says."""


@dataclass(frozen=True)
class Measure:
    """One measure of an assessment; ``chance`` is the value that guessing would reach, on the same axis."""

    key: str
    name: str
    meaning: str
    shown: Shown | None
    chance: Shown | None = None


def measures(assessment: Mapping[str, Any]) -> dict[str, Measure]:
    """Every measure by its key, in the order of the page."""
    ways = max(len(assessment.get("classes") or ()), 2)
    sizes = [sum(row) for row in assessment.get("confusion") or ()]
    largest = _exactly(max(sizes) / sum(sizes)) if sum(sizes) else None
    even = _exactly(1 / ways)
    loss = assessment.get("log_loss")
    worst = 1.05 * max(math.log(ways), (loss or {}).get("high") or 0.0)
    rows = (
        ("accuracy", "Accuracy", "items that get the right label", largest),
        (
            "balanced_accuracy",
            "Balanced accuracy",
            "the mean of all classes' recall: rare classes count like others",
            even,
        ),
        ("macro_f1", "Macro-F1", "the mean of all classes' F1, which joins precision and recall", None),
        ("calibration_error", "Calibration error", "how far confidence and accuracy lie apart; lower is better", None),
    )
    found = {key: Measure(key, name, why, share(assessment.get(key)), share(chance)) for key, name, why, chance in rows}
    meaning = "how surprised the probabilities are by the truth; lower is better"
    guess = amount(_exactly(math.log(ways)), worst)
    found["log_loss"] = Measure("log_loss", "Log loss", meaning, amount(loss, worst), guess)
    return found


def _exactly(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


@dataclass(frozen=True)
class ClassRow:
    """A class: how many items were judged, how well, and what the wrong ones were taken for, most often first."""

    name: str
    n: int
    recall: Shown | None
    precision: Shown | None
    f1: Shown | None
    taken_for: tuple[tuple[str, int], ...]


def weakest_first(assessment: Mapping[str, Any]) -> list[ClassRow]:
    """All classes by recall, the lowest first; at equal recall the one with more items."""
    taken: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for pair in assessment.get("confused") or ():
        taken[pair["true"]].append((pair["predicted"], pair["n"]))
    rows = []
    for row in assessment.get("per_class") or ():
        recall, precision, f1 = (share(row.get(key)) for key in ("recall", "precision", "f1"))
        rows.append(ClassRow(row["class"], row["n"], recall, precision, f1, tuple(taken[row["class"]])))
    return sorted(rows, key=lambda row: (math.inf if row.recall is None else row.recall.at, -row.n, row.name))


@dataclass(frozen=True)
class Pair:
    """``n`` items of class ``true`` were given the label ``predicted``; ``rate`` is among the items of that class."""

    true: str
    predicted: str
    n: int
    rate: Shown | None


def confused_pairs(assessment: Mapping[str, Any]) -> list[Pair]:
    """What is taken for what, most often first."""
    return [Pair(p["true"], p["predicted"], p["n"], share(p.get("rate"))) for p in assessment.get("confused") or ()]


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix: class names, and rows ``(name, items, cells)``, a cell being ``(count, shade, title)``."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[tuple[int, str, str], ...]], ...]


def matrix(assessment: Mapping[str, Any]) -> Matrix | None:
    """Counts with a shade of 1 to 5 for their share of the row: ``y`` on the diagonal, ``x`` off it."""
    names: Sequence[str] = assessment.get("classes") or ()
    counts: Sequence[Sequence[int]] = assessment.get("confusion") or ()
    if not counts or len(names) > LARGEST_MATRIX:
        return None
    rows = []
    for i, row in enumerate(counts):
        total = sum(row)
        cells = tuple(_cell(names[i], names[j], n, total, right=i == j) for j, n in enumerate(row))
        rows.append((names[i], total, cells))
    return Matrix(tuple(names), tuple(rows))


def _cell(true: str, predicted: str, n: int, total: int, *, right: bool) -> tuple[int, str, str]:
    if not n:
        return 0, "y0" if right else "", ""
    shade = f"{'y' if right else 'x'}{math.ceil(SHADES * n / total)}"
    return n, shade, f"{n} of {total} items of {true}: " + ("right" if right else f"taken for {predicted}")


@dataclass(frozen=True)
class Bin:
    """Items of like confidence: where they lie (%), how many, how densely (1 for the densest), how often right."""

    low: float
    high: float
    n: int
    density: float
    confidence: float
    accuracy: Shown


@dataclass(frozen=True)
class Reliability:
    """The diagram's bins, confidence and accuracy over all of them in per cent, and whether they may just be equal."""

    bins: tuple[Bin, ...]
    confidence: float
    accuracy: float
    by_chance: bool

    @property
    def verdict(self) -> str:
        """What the diagram says, in words."""
        gap = self.confidence - self.accuracy
        lean = "about right" if self.by_chance or abs(gap) < 2 else "too high" if gap > 0 else "too low"
        return f"{lean}: it claims {self.confidence:.0f} % on average and is right {self.accuracy:.0f} % of the time"


def reliability(assessment: Mapping[str, Any]) -> Reliability | None:
    """How often the model is right among items of like confidence; `None` when no bin holds an item."""
    bins = [b for b in assessment.get("reliability") or () if b["n"]]
    filled = [(b, a) for b in bins if (a := share(b.get("accuracy"))) is not None]
    if not filled:
        return None
    density = [b["n"] / max(b["high"] - b["low"], NARROWEST_BIN) for b, _ in filled]
    drawn = tuple(
        Bin(100 * b["low"], 100 * b["high"], b["n"], d / max(density), 100 * b["confidence"], accuracy)
        for (b, accuracy), d in zip(filled, density, strict=True)
    )
    total = sum(b.n for b in drawn)
    confidence = sum(b.n * b.confidence for b in drawn) / total
    accuracy = sum(b.n * b.accuracy.at for b in drawn) / total
    by_chance = (assessment.get("calibration_error") or {}).get("low") == 0  # the interval of the gap holds none
    return Reliability(drawn, confidence, accuracy, by_chance)
