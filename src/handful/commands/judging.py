"""How good a fitted model is on new items, and how it should decide: all that follows from out-of-fold logits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handful.adapt.base import Features
from handful.commands.rejecting import RejectWishes, learn_to_reject
from handful.commands.tuned import Outcome
from handful.errors import BadInput
from handful.evaluate import assess
from handful.evaluate.cost import decide, mean_cost, read_costs
from handful.evaluate.duplicates import conflicts
from handful.evaluate.estimate import Quoted, estimate
from handful.evaluate.population import population
from handful.evaluate.selective import selective
from handful.evaluate.suspicious import suspicious_labels
from handful.read import Dataset
from handful.ship.decision import Decision
from handful.ship.model import Model

NOT_JUDGED = "not estimated: nothing to judge the tuned encoder by, or no time to"
NEVER = -30.0
"""Log of the share, over its share among the labels, of a class that does not occur in the population."""


@dataclass(frozen=True)
class Wishes:
    """What a user asks of estimate and decision; see `handful.commands.fit.fit`."""

    class_prior: str | Path | Mapping[str, float] = "labels"
    target_precision: float | None = None
    cost: str | Path | None = None
    grouped_by: str | None = None
    near_duplicates: bool = True
    reject: RejectWishes = field(default_factory=RejectWishes)

    def __post_init__(self) -> None:
        if self.target_precision is not None and not 0 < self.target_precision < 1:
            raise BadInput(f"--target-precision is a share between 0 and 1, not {self.target_precision}")
        if self.target_precision is not None and self.cost is not None:
            raise BadInput("--target-precision and --cost are two ways to decide; give one")


def judge(
    model: Model,
    learnt: Dataset,
    features: Features,
    units: np.ndarray,
    copies: np.ndarray,
    pool: Features | None,
    wishes: Wishes,
    negatives: Features | None,
    *,
    seed: int,
    left: float,
    once: float,
    outcome: Outcome | None = None,
) -> np.ndarray | None:
    """Fill in the model's scale and decision, and what its card says of new items.

    Args:
        model: fitted; its scale is that of the head alone.
        learnt, features: what it learnt from.
        units: group of each item ``[n]``: what is never split.
        copies: the same by near-duplicates alone.
        pool: the unlabelled items, where they are asked for.
        wishes: see `Wishes`.
        negatives: items of none of the classes, if there are any.
        seed: of every draw.
        left, once: seconds left, and that one fit takes.
        outcome: of tuning the encoder, whose estimate was made already.

    Returns:
        The answer for each item by a fit that had not seen it ``[n]``, as position among the classes, -1 where there
        is none; ``None`` without an estimate.
    """
    labels = np.asarray(learnt.labels)
    groups = units if len(np.unique(units)) < len(units) else None
    pooled = None if pool is None else _pool_proba(model, features, labels, groups, pool, seed, outcome)
    mix = population(wishes.class_prior, model.classes, labels, pooled)
    costs = None if wishes.cost is None else read_costs(wishes.cost, model.classes)
    shift = None if mix.kind == "labels" else np.maximum(mix.log_ratio(model.classes, labels), NEVER)
    model.card |= {"population": mix.as_dict(), "duplicates": duplicates_card(learnt, copies)}
    model.card |= {"selective": None, "cost": None, "shots_curve": [], "suspicious": []}
    model.decision = _decision(shift, None, costs)
    started = time.monotonic()
    weights = None if mix.kind == "labels" else mix.item_weights(labels)
    if outcome is not None:
        quoted, why_not = outcome.quoted(weights, shift), NOT_JUDGED
    else:
        quoted, why_not = _quoted(model, features, labels, groups, weights, shift, seed, left, once)
    if quoted is None:
        model.card["estimate"] = {"method": why_not, "accuracy": None, "groups": None, "assessment": None}
    left -= time.monotonic() - started
    learn_to_reject(
        model, features, labels, groups, quoted, wishes.reject, negatives, weights=weights, seed=seed, left=left,
        refit=None if outcome is None else outcome.refit,
    )  # fmt: skip
    if quoted is None:
        return None

    judged, codes = quoted.judged, np.searchsorted(np.asarray(model.classes), labels)
    model.scale *= quoted.scale
    proba = np.full(quoted.logits.shape, np.nan)
    proba[judged] = model.decision.proba(quoted.scale * quoted.logits[judged])
    weights = None if mix.kind == "labels" else mix.item_weights(labels[judged])
    seen: dict[str, Any] = {"groups": None if groups is None else groups[judged], "weights": weights}

    found = assess(labels[judged], proba[judged], model.classes, **seen)
    model.card["estimate"] = {
        "method": quoted.method,
        "accuracy": quoted.accuracy.as_dict(),
        "groups": None if groups is None else groups_card(units, wishes.grouped_by, wishes.near_duplicates),
        "assessment": found.as_dict(),
    }
    answers = selective(
        codes[judged],
        proba[judged],
        quoted.fold[judged],
        target=wishes.target_precision,
        accuracy=quoted.accuracy,
        **seen,
    )
    model.card["selective"] = answers.as_dict()
    model.decision = _decision(shift, answers.threshold, costs)
    if costs is not None:
        by_cost, plain = decide(proba[judged], costs), proba[judged].argmax(axis=1)
        model.card["cost"] = {
            "source": str(wishes.cost),
            "matrix": costs.tolist(),
            "mean": mean_cost(codes[judged], by_cost, costs, **seen).as_dict(),
            "plain": mean_cost(codes[judged], plain, costs, **seen).as_dict(),
        }
    model.card["suspicious"] = _suspicious(model, learnt, codes, proba, judged)
    model.card["shots_curve"] = [point.as_dict() for point in quoted.curve]
    return np.where(judged, model.decision.ranking(np.nan_to_num(proba))[:, 0], -1)


def _quoted(
    model: Model,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None,
    weights: np.ndarray | None,
    shift: np.ndarray | None,
    seed: int,
    left: float,
    once: float,
) -> tuple[Quoted | None, str]:
    """The estimate, or why there is none."""
    if left < 5 * once:
        return None, "not estimated: the time limit was reached"
    budget = left / 2 if math.isfinite(left) else None
    quoted = estimate(
        model.head, features, labels, groups, seed=seed, weights=weights, shift=shift, budget_seconds=budget
    )
    return quoted, "not estimated: no class has a second example to test on"


def _pool_proba(
    model: Model, features: Features, labels: np.ndarray, groups: np.ndarray | None, pool: Features, seed: int,
    outcome: Outcome | None,
) -> np.ndarray:  # fmt: skip
    """Calibrated probabilities of the unlabelled items ``[m, C]``: the mix of classes is read off them."""
    first = estimate(model.head, features, labels, groups, seed=seed) if outcome is None else outcome.quoted(None, None)
    logits = np.asarray(model.head.logits(pool), dtype=np.float64)
    return Decision().proba(model.scale * (1.0 if first is None else first.scale) * logits)


def _decision(shift: np.ndarray | None, threshold: float | None, costs: np.ndarray | None) -> Decision:
    return Decision(
        None if shift is None else tuple(shift.tolist()),
        threshold,
        None if costs is None else tuple(map(tuple, costs.tolist())),
    )


def groups_card(units: np.ndarray, grouped_by: str | None, near_duplicates: bool) -> dict[str, Any]:
    """How many groups an estimate rests on, and what they are."""
    sizes = np.bincount(units)
    named = None if grouped_by is None else f"{grouped_by!r}"
    by = " and ".join(filter(None, [named, "near-duplicates" if near_duplicates else None]))
    return {"count": int((sizes > 0).sum()), "largest": int(sizes.max()), "by": by}


def duplicates_card(learnt: Dataset, units: np.ndarray) -> dict[str, Any]:
    """How many different items there are, and copies with different labels."""
    found = conflicts(units, learnt.labels)
    return {
        "items": len(units),
        "units": len(np.unique(units)),
        "conflicts": [
            {
                "where": [place(learnt, row) for row in conflict.rows],
                "labels": [_shown(learnt, row) for row in conflict.rows],
                "rows": [int(row) for row in conflict.rows],
            }
            for conflict in found
        ],
    }


def _shown(learnt: Dataset, row: int) -> str:
    """The label of an item, as a reader takes it."""
    return str(learnt.labels[row]) or "none of the labels"


def _suspicious(
    model: Model, learnt: Dataset, codes: np.ndarray, proba: np.ndarray, judged: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {
            "where": place(learnt, doubt.row),
            "row": int(doubt.row),
            "given": model.classes[doubt.given],
            "suggested": model.classes[doubt.suggested],
            "p_given": float(doubt.p_given),
            "p_suggested": float(doubt.p_suggested),
        }
        for doubt in suspicious_labels(codes, proba, judged)
    ]


def place(data: Dataset, row: int) -> str:
    """Where an item stands in its source."""
    return data.where[row] if data.where else f"item {row}"
