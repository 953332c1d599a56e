"""The card of a model: what it was made from, what was tried, how good it is. Plain JSON, inside the model file."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import handful
from handful.adapt.base import Head
from handful.core.intervals import wilson
from handful.evaluate import Assessment
from handful.evaluate.crossfit import CrossFit
from handful.read import Dataset
from handful.ship.model import Model

SCHEMA = 1


def make_card(
    model: Model, learnt: Dataset, pool: int, seed: int, metric: str, skipped: Sequence[str]
) -> dict[str, Any]:
    """Everything but the estimates."""
    counts = Counter(learnt.labels)
    kind = "image" if learnt.modality == "image" else "text"
    used = list(learnt.item_columns) if len(learnt.item_columns) != 1 else learnt.item_columns[0]
    return {
        "schema": SCHEMA,
        "handful": handful.__version__,
        "seed": seed,
        "metric": metric,
        "task": {
            "sources": list(learnt.provenance.sources),
            "sha256": dict(learnt.provenance.sha256),
            "modality": learnt.modality,
            "columns": {"text": None, "image": None, kind: used or None, "label": learnt.label_column},
            "n": len(learnt),
            "pool": pool,
            "classes": [{"name": c, "count": counts[c]} for c in learnt.classes],
            "notes": list(learnt.provenance.notes),
            "skipped": [*learnt.provenance.skipped, *skipped],
        },
        "encoder": {
            "name": model.encoder_name,
            "fingerprint": model.fingerprint,
            "dim": int(model.head.n_features_in_),
        },
        "head": head_card(model.head),
        "candidates": list(getattr(model.head, "candidates_", [])),
    }


def head_card(head: Head) -> dict[str, Any]:
    """Which head, with which parameters, and why."""
    why = getattr(head, "why_", "asked for by name")
    return {"key": head.key, "choice": getattr(head, "choice_", head.key), "parameters": head.parameters(), "why": why}


def class_text_card(head: Head, sentences: Mapping[str, Sequence[str]], given: bool) -> dict[str, Any]:
    """Whether class names were used, how much, and why."""
    if not sentences:
        return {"used": False, "weight": 0.0, "reason": "the labels are codes, not words; --class-names describes them"}
    if not given:
        return {"used": False, "weight": 0.0, "reason": "this encoder has no text side"}
    used = bool(getattr(head, "text_weight_", 1.0))
    return {
        "used": used,
        "weight": float(getattr(head, "text_weight_", 1.0)),
        "reason": getattr(head, "text_why_", "given to the head as it is"),
    }


def estimate_card(
    model: Model, folds: CrossFit | None, scale: float, labels: np.ndarray, why_not: str
) -> dict[str, Any] | None:
    """How good the model is on items it has not seen, from out-of-fold logits times ``scale``."""
    if folds is None:
        return {"method": why_not, "assessment": None}
    logits = scale * folds.logits[folds.judged]
    logits -= logits.max(axis=1, keepdims=True)
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    from handful.evaluate import assess

    judged = int(folds.judged.sum())
    method = f"{folds.folds} stratified folds over {judged} labelled items, every choice repeated inside each"
    if judged < len(labels):
        method += f"; {len(labels) - judged} items alone in their class were learnt from but not judged"
    return {"method": method, "assessment": assess(labels[folds.judged], proba, model.classes).as_dict()}


def test_card(source: str, assessment: Assessment) -> dict[str, Any]:
    """How good the model is on labelled items kept apart."""
    return {"source": source, "assessment": assessment.as_dict()}


def stamp() -> str:
    """The date and time now, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def share(right: int, n: int) -> str:
    """``"62 % [58, 66]"`` with the Wilson interval at 95 %."""
    e = wilson(right, n)
    return f"{100 * e.value:.0f} % [{100 * e.low:.0f}, {100 * e.high:.0f}]"
