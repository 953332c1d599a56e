"""The card of a model: what it was made from, what was tried, how good it is. Plain JSON, inside the model file."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

import handful
from handful.adapt.base import Head
from handful.adapt.steel import Steel
from handful.errors import BadInput
from handful.protocols import Encoder
from handful.read import Dataset
from handful.ship.evidence import Evidence, Example, make_evidence, shown_rows
from handful.ship.model import Model

SCHEMA = 1
PLACES = 20
"""How many of the items the card names that an encoder cannot see."""


def make_card(
    model: Model,
    learnt: Dataset,
    pool: int,
    seed: int,
    metric: str,
    skipped: Sequence[str],
    command: str | None,
    revision: str | None,
) -> dict[str, Any]:
    """Everything but the estimates."""
    several = learnt.sets
    cells = learnt.labels if several is None else [c for cell in learnt.labels for c in several.split(cell or "")]
    counts = Counter(cells)
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
            "options": dict(model.encoder_options),
            "revision": revision,
        },
        "head": head_card(model.head),
        "label_sets": None,
        "candidates": list(getattr(model.head, "candidates_", [])),
        "provenance": {"command": command, "versions": _versions()},
    }


def _versions() -> dict[str, str]:
    """Of what a result may depend on."""
    found = {"python": platform.python_version(), "handful": handful.__version__}
    return found | {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}


def head_card(head: Head) -> dict[str, Any]:
    """Which head, with which parameters, and why."""
    why = getattr(head, "why_", "asked for by name")
    return {"key": head.key, "choice": getattr(head, "choice_", head.key), "parameters": head.parameters(), "why": why}


def class_text_card(
    head: Head, sentences: Mapping[str, Sequence[str]], given: bool, others: Sequence[str] = ()
) -> dict[str, Any]:
    """Whether class names were used, how much, and why; and what is made of ``others``, named but without examples."""
    others_card = _others_card(head, given, others)
    if not sentences:
        why = "the labels are codes, not words; --class-names describes them"
        return {"used": False, "weight": 0.0, "reason": why, "others": others_card}
    if not given:
        return {"used": False, "weight": 0.0, "reason": "this encoder has no text side", "others": others_card}
    used = bool(getattr(head, "text_weight_", 1.0))
    return {
        "used": used,
        "weight": float(getattr(head, "text_weight_", 1.0)),
        "reason": getattr(head, "text_why_", "given to the head as it is"),
        "others": others_card,
    }


def _others_card(head: Head, given: bool, others: Sequence[str]) -> dict[str, Any] | None:
    """Whether classes that have no examples are answered for; ``None`` where none are named."""
    if not others:
        return None
    answered = head.open_classes and len(head.unseen_) > 0
    if answered:
        reason = "known by their text alone: they are answered for where they are asked for (predict --classes)"
    elif not given:
        reason = "not kept: this encoder has no text side"
    elif not head.open_classes:
        reason = (
            f"not kept: head {head.key} learns from examples only; heads of class text, as gda and lfa, can tell them"
        )
    else:
        reason = f"not kept: head {head.key} answers for them only where class text is as wide as the features"
    return {"names": list(others), "answered": answered, "reason": reason}


def certificate_card(head: Head, plain: bool, groups: Sequence[str] | None) -> dict[str, Any] | None:
    """The certificate of a head that gives one, or its statement why there is none; ``None`` for other heads.

    Args:
        head: fitted.
        plain: the model answers each item with what the head finds most likely, which is what is certified.
        groups: of the examples ``[n]``, where they have any.
    """
    if not isinstance(head, Steel):
        return None
    if not plain:
        why = "it speaks of the most likely class, not of answers by shares or costs, or that an item is none of them"
        return {"statement": f"no certificate: {why}"}
    if groups is not None and len(set(groups)) < len(groups):
        return {"statement": "no certificate: several examples are of one group, so they are no independent draws"}
    try:
        return head.certificate_.as_dict()
    except BadInput as error:
        return {"statement": str(error)}


def blind_spots_card(encoder: Encoder | None, learnt: Dataset) -> list[dict[str, Any]]:
    """What the encoder cannot see of these items."""
    if encoder is None:
        return []
    from handful.encode.limits import blind_spots

    return [
        {
            "kind": spot.kind,
            "n": spot.n,
            "of": spot.of,
            "message": spot.message,
            "where": [learnt.where[row] if learnt.where else f"item {row}" for row in spot.rows[:PLACES]],
        }
        for spot in blind_spots(encoder, list(learnt.items), learnt.where)
    ]


def evidence_of(
    card: Mapping[str, Any],
    learnt: Dataset,
    answers: np.ndarray | None,
    tested: Mapping[tuple[str, str], tuple[Example, ...]],
) -> Evidence:
    """The items that the report of ``card`` shows: mistakes, doubtful labels, conflicts.

    Args:
        card: of the model.
        learnt: what it learnt from.
        answers: out-of-fold answer for each item ``[n]``, -1 where there is none, as positions among the classes.
        tested: examples of what is mistaken for what among items kept apart.
    """

    confused: dict[tuple[str, str], list[int]] = {}
    for row, answer in enumerate([] if answers is None else answers.tolist()):
        if answer >= 0 and (name := learnt.classes[answer]) != learnt.labels[row]:
            confused.setdefault((str(learnt.labels[row]), name), []).append(row)
    confused = dict(sorted(confused.items(), key=lambda pair: -len(pair[1])))
    return Evidence(confused, make_evidence(learnt, shown_rows(card, confused)), tested)
