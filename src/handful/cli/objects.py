"""What ``--json`` prints: one object, its keys versioned by ``schema`` and described in `handful/schemas`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from handful.cli.text import to_json

if TYPE_CHECKING:
    from handful.evaluate import Assessment
    from handful.evaluate.audit import Audit
    from handful.evaluate.label_set_assessment import LabelSetAssessment
    from handful.evaluate.tables import BenchResult
    from handful.ship.model import Model


def print_object(value: dict[str, Any]) -> None:
    """Write an object to stdout, indented."""
    sys.stdout.write(to_json(value, indent=1) + "\n")


def fit_object(model: Model, out: str | None, report: str | None) -> dict[str, Any]:
    """The card of a model, where it and its report lie, and how long each stage took."""
    card = {key: value for key, value in model.card.items() if key != "schema"}
    return {"schema": "handful/fit/1", **card, "model": out, "report": report, "seconds": model.seconds}


def evaluate_object(
    assessment: Assessment | LabelSetAssessment, model: str, source: str, *, several: bool = False
) -> dict[str, Any]:
    """An assessment, its numbers at the top, and what was required; ``several`` labels an item have a schema of their
    own."""
    required = [verdict.as_dict() for verdict in assessment.verdicts]
    found = {"model": model, "source": source, **assessment.as_dict(), "requirements": required}
    if not several:
        scores = getattr(assessment, "generalised", None)
        found["generalised"] = scores and scores._asdict()
    return {"schema": f"handful/evaluate{'-label-sets' if several else ''}/1", **found}


def grow_object(model: Model, out: str | None) -> dict[str, Any]:
    """How the model grew this time, what it knows now, and where it lies."""
    classes = {"classes": model.card["task"]["classes"], "n": model.card["task"]["n"], "model": out}
    return {"schema": "handful/grow/1", **classes, "grown": model.card["grown"][-1], "test": model.card["test"]}


def compress_object(model: Model, out: str | None) -> dict[str, Any]:
    """How much smaller the model is, what became of its answers, and where it lies."""
    return {"schema": "handful/compress/1", "model": out, **model.card["compressed"]}


def audit_object(audit: Audit, model: str, source: str) -> dict[str, Any]:
    """Verdicts first, then the numbers they rest on."""
    return {"schema": "handful/audit/1", "model": model, "source": source, **audit.as_dict()}


def bench_object(result: BenchResult) -> dict[str, Any]:
    """The setting and a row for each head and number of shots."""
    return {**result.as_dict(), "schema": "handful/bench/1"}


def list_object(what: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is listed, and each of it."""
    return {"schema": "handful/list/1", "what": what, "items": rows}


def cache_object(action: str, found: dict[str, Any]) -> dict[str, Any]:
    """What was asked of the cache, and what came of it."""
    return {"schema": "handful/cache/1", "action": action, **found}
