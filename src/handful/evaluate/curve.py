"""How accuracy grows with shots, from the labels at hand: learn from fewer of them, judge by the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput
from handful.evaluate.crossfit import answers, as_units, judgeable, units_of_classes
from handful.evaluate.indices import places

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head

MODEL = 1.4
"""Squared gap between an estimate by folds and the accuracy of the one model that ships, over the binomial variance:
the model varies with the examples drawn, and fits that share most of theirs err together. The largest seen on CR, MR,
Subj, SST-2 (8 shots) and Fashion-MNIST (5) was 1.35; ``benchmarks/trust.py`` shows what it does on other sets."""
ROWS = 1500
"""Examples learnt from at each number of shots, all draws together, that set how often is drawn."""
DRAWS = (2, 6)
"""Draws at each number of shots, at least and at most."""


@dataclass(frozen=True)
class Point:
    """Accuracy on new items with ``shots`` examples a class, ``n`` in all."""

    shots: int
    n: int
    accuracy: Estimate

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"shots": self.shots, "n": self.n, "accuracy": self.accuracy.as_dict()}


def shots_curve(
    head: Head,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
    shots: Sequence[int] | None = None,
    draws: int | None = None,
    weights: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    budget_seconds: float | None = None,
) -> list[Point]:
    """Accuracy of ``head`` fitted on fewer examples, everything chosen anew, by the examples that were left out.

    A shot is a group where there are ``groups``. A class with fewer shots than asked for keeps one to be judged by;
    one with a single shot is always learnt from and never judged. Classes weigh as among all labels, whichever items
    are left over.

    Args:
        head: unfitted, or fitted: copies are made.
        features: of n items.
        labels: ``[n]``.
        groups: ``[n]``, items that belong together.
        seed: of the draws.
        shots: numbers of shots; by default 1, 2, 4, … below what half of the classes have.
        draws: how often to draw at each; by default 2 to 6, fewer where more is learnt from.
        weights: of the items ``[n]``, for a population with other class shares; what counts is their sum by class.
        shift: added to logits ``[C]``, for that population.
        budget_seconds: stop after the draw that ends later; without it the same seed gives the same points.

    Returns:
        One point for each number of shots that could be judged, fewest first. Their intervals are for the accuracy of
        one model, and wider than for the mean of all (`MODEL`).
    """
    classes, codes = np.unique(labels, return_inverse=True)
    units = as_units(groups, len(codes))
    counts = units_of_classes(codes, units)
    judged = judgeable(codes, units, np.ones(len(classes), dtype=bool))
    if not judged.any():
        return []
    mass = np.bincount(codes, np.ones(len(codes)) if weights is None else weights, len(classes))
    asked = usual_shots(counts) if shots is None else sorted(set(shots))
    if any(m < 1 for m in asked):
        raise BadInput(f"shots are 1 or more, not {min(asked)}")
    rng, start, points = np.random.default_rng(seed), time.monotonic(), []
    for m in (m for m in asked if head.needs.min_shots <= m < counts.max()):
        values, tested, sizes = [], np.zeros(len(codes), dtype=bool), []
        repeats = int(np.clip(ROWS // (m * len(classes)), *DRAWS)) if draws is None else draws
        for _ in range(repeats):
            learn = draw_shots(codes, units, judged, m, rng)
            held = np.flatnonzero(~learn)
            if len(held):
                logits = answers(head, features, labels, np.flatnonzero(learn), held)
                right = (logits + (0 if shift is None else shift)).argmax(axis=1) == codes[held]
                values.append(_of_classes(right, codes[held], mass))
                sizes.append(int(learn.sum()))
                tested |= ~learn
            if budget_seconds is not None and time.monotonic() - start > budget_seconds:
                break
        if values:
            p, n = float(np.mean(values)), len(np.unique(units[tested])) / MODEL
            points.append(Point(m, round(float(np.mean(sizes))), wilson(p * n, n)))
        if budget_seconds is not None and time.monotonic() - start > budget_seconds:
            break
    return points


def usual_shots(counts: np.ndarray) -> list[int]:
    """1, 2, 4, … below what half of the classes have, ``counts [C]`` being how many shots each has."""
    typical = float(np.median(counts))
    return [2**k for k in range(math.ceil(math.log2(typical)))] if typical > 1 else []


def draw_shots(
    codes: np.ndarray, units: np.ndarray, judged: np.ndarray, shots: int, rng: np.random.Generator
) -> np.ndarray:
    """Which items to learn from ``[n]``: ``shots`` units of each class, one fewer than it has at most, and all items
    that are not judged."""
    order = rng.random(int(units.max()) + 1)
    c, u = np.unique(np.stack([codes, units])[:, judged], axis=1)
    taken = u[places(c, order[u]) < np.minimum(shots, np.bincount(c) - 1)[c]]
    items: np.ndarray = np.isin(units, taken) | ~judged
    return items


def _of_classes(right: np.ndarray, codes: np.ndarray, mass: np.ndarray) -> float:
    """Accuracy where each class that is judged weighs as ``mass [C]`` says."""
    n = np.bincount(codes, minlength=len(mass))
    share = np.bincount(codes, right, len(mass)) / np.maximum(n, 1)
    weight = mass * (n > 0)
    return float((share * weight).sum() / weight.sum()) if weight.any() else float(right.mean())
