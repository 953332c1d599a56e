"""`handful fit --multi-label`: items with several labels, or with none of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from handful.adapt import HEADS, head_class
from handful.adapt.base import Features, Head
from handful.adapt.multi_label import MultiLabelLogistic
from handful.commands.card import blind_spots_card, evidence_of, make_card
from handful.commands.clock import Clock
from handful.commands.judging import NOT_JUDGED, duplicates_card, groups_card
from handful.commands.kept_apart import copies_of, kept_apart
from handful.commands.making import estimator_of, model_of, refuse_overwriting, refuse_unknown
from handful.commands.sources import Columns, labelled, read_source
from handful.commands.tuned_label_sets import tuned_label_sets
from handful.errors import BadInput
from handful.evaluate.duplicates import merge_units
from handful.evaluate.label_set_estimate import EstimatedSets, estimate_label_sets
from handful.evaluate.require import Requirement, Verdict, check
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.read.labels import LabelSets
from handful.ship.decision import Decision
from handful.ship.model import Model, encode_dataset
from handful.tune.label_sets import for_label_sets

METRICS = ("micro-f1", "macro-f1", "mean-average-precision", "exact-match")
STRENGTH = 100.0
"""C of the head that ``auto`` is: features have length 1, for which the usual C of 1 leaves all labels improbable."""
WHY = "the usual one for several labels an item, not chosen among others"
_CANNOT = {
    "target_precision": "a threshold a label takes the place of one for the answer",
    "cost": "costs are of one class taken for another",
    "class_prior": "shares of classes add up to one, those of labels do not",
    "reject": "an item with none of the labels is answered so anyway",
    "negatives": "an item with none of the labels is an example: say so in its label cell, see --none",
    "unlabelled": "no head of several labels learns from unlabelled items",
    "transductive": "no head of several labels lets items sway each other",
    "zero_shot": "no head of several labels learns from class names alone",
    "class_names": "no head of several labels reads class names",
    "private": "the private head gives one label an item",
    "shots": "an item counts for each of its labels; to learn from fewer, split the data and test with --test",
}


def refuse_beside_label_sets(asked: Mapping[str, Any], kind: type[Head], tune: str | None) -> None:
    """Raise `BadInput` for an option of `fit` (those ``asked`` for are not ``None`` or false), a head or a recipe that
    has no meaning where items have several labels."""
    for name, value in asked.items():
        if value is not None and value is not False:
            raise BadInput(f"--{name.replace('_', '-')} does not go with --multi-label: {_CANNOT[name]}")
    if kind.key != "auto" and not kind.needs.multi_label:
        able = [key for key in HEADS if head_class(key).needs.multi_label]
        raise BadInput(f"head {kind.key!r} gives one label an item; those that give several: {', '.join(able)}")
    if tune is not None and tune != "auto":
        for_label_sets(tune)


def fit_label_sets(
    everything: Dataset,
    head: str | Head,
    tower: Encoder | None,
    test: Any,
    how: Columns,
    near_duplicates: bool,
    *,
    seed: int,
    tune: str | None,
    metric: str | None,
    examples: bool,
    standalone: bool,
    merge_labels: bool,
    skip_bad: bool,
    cache: bool,
    progress: Progress | None,
    command: str | None,
    out: str | Path | None,
    clock: Clock,
) -> Model:
    """A model that gives an item any number of labels, and what is known of it. Arguments as `handful.fit` has them.

    Raises:
        BadInput: no or only one label, no cell that holds several or none, a metric of single labels.
    """
    metric = "micro-f1" if metric is None else metric
    if metric not in METRICS:
        raise BadInput(f"--metric {metric} does not go with --multi-label; there are: {', '.join(METRICS)}")
    learn = labelled(everything)
    sets = learn.sets
    assert sets is not None
    _check_several(learn, sets)
    held = None
    if out is not None:
        refuse_overwriting(Path(out), experiment=False)
    if test is not None:
        items, given = test if isinstance(test, tuple) else (test, None)
        held = labelled(read_source(items, given, how, merge_labels=merge_labels, skip_bad=skip_bad))
        refuse_unknown(held, learn)
    clock.lap("read")
    views = (head_class(head) if isinstance(head, str) else head).needs.views
    encoded = encode_dataset(learn, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
    learn = learn.take(encoded.kept)
    copies = copies_of(learn, encoded.features, near_duplicates)
    units = merge_units(learn.groups, copies)
    features = Features(encoded.features.x, encoded.features.views, copies)
    seen = None
    if held is not None:
        seen = encode_dataset(held, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
        held = held.take(seen.kept)
    clock.lap("encode")

    labels, chosen = list(learn.classes), _head(head, tower, metric, seed)
    y, given = sets.table(learn.labels, labels), [set(sets.split(str(cell))) for cell in learn.labels]
    fitted = chosen.fit(features, given)
    if head == "auto":
        fitted.why_ = WHY
    groups = units if len(np.unique(units)) < len(units) else None
    outcome, base = None, tower
    if tune is not None:
        outcome = tuned_label_sets(
            tune, fitted, tower, learn.items, features, given, y, labels, groups, seed=seed, left=clock.left()
        )
        fitted, tower, features = outcome.head, outcome.encoder, outcome.features
        if held is not None and outcome.delta is not None:
            seen = encode_dataset(held, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
        clock.lap("tune")
    model = model_of(fitted, base, standalone)
    if outcome is not None:
        model.tuned_by(outcome.delta, outcome.encoder)
    model.decision = Decision(sets=sets)
    clock.lap("fit")

    model.card = make_card(
        model, learn, len(everything.pool), seed, metric, encoded.skipped, command, getattr(tower, "revision", None)
    )
    if outcome is not None:
        found, why_not = outcome.found, NOT_JUDGED
    else:
        found, why_not = _estimate(fitted, features, y, labels, groups, seed, clock.left(), clock.laps["fit"])
    if found is not None:
        model.scale, model.decision = found.spread, Decision((found.shift,) * len(labels), sets=sets)
    clock.lap("estimate")
    rests_on = None
    if groups is not None and found is not None:
        rests_on = groups_card(units, how.group or how.group_regex, near_duplicates)
    model.card |= _nothing_said(learn, copies) | {"tuning": None if outcome is None else outcome.card}
    model.card["blind_spots"] = blind_spots_card(tower, learn)
    model.card["label_sets"] = {
        "separator": sets.separator,
        "none": sets.none,
        "labels_per_item": float(y.sum(1).mean()),
        "without": int((~y.any(1)).sum()),
        "not_judged": labels if found is None else [c for c, k in zip(labels, found.judged, strict=True) if not k],
        "estimate": {
            "method": why_not if found is None else found.method,
            "groups": rests_on,
            "quoted": None if found is None else {name: one.as_dict() for name, one in found.quoted.items()},
            "assessment": None if found is None else found.assessment.as_dict(),
        },
        "test": None,
    }
    if held is not None and seen is not None:
        apart = kept_apart(learn, features, held, seen.features, test, near_duplicates)
        model.card["label_sets"]["test"] = apart.card(model)
        clock.lap("test")
    if examples:
        model.evidence = evidence_of(model.card, learn, None, {})
    return model


def one_of_several(rule: Requirement, model: Model, features: Features, data: Dataset, confidence: float) -> Verdict:
    """`handful.evaluate.require.check` of one label against its absence.

    Raises:
        BadInput: accuracy, which is of single labels; a label the model does not know.
    """
    sets = model.decision.sets
    assert sets is not None
    if rule.name is None:
        raise BadInput(f"{rule.text!r}: the model gives several labels an item; require recall or precision of a label")
    classes = list(model.classes)
    at = classes.index(rule.name) if rule.name in classes else 0
    truth, said = sets.table(data.labels, classes)[:, at], model.said_of(features)[:, at]
    absent = f"not {classes[at]}"
    groups = None if data.groups is None else np.asarray(data.groups)
    true, answers = (np.where(part > 0, classes[at], absent) for part in (truth, said))
    return check(rule, true, answers, groups, confidence, classes)


def _check_several(learn: Dataset, sets: LabelSets) -> None:
    """Raise `BadInput` when every item has one label: then something else stands between them."""
    if all(len(sets.split(str(cell))) == 1 for cell in learn.labels):
        example = next(str(cell) for cell in learn.labels)
        raise BadInput(
            f"no label cell has {sets.separator!r} in it, so that every item has one label, such as {example!r}: leave "
            "out --multi-label, or name what stands between labels"
        )


def _head(head: str | Head, tower: Encoder | None, metric: str, seed: int) -> Head:
    """The head; ``auto`` is logistic regression with the threshold of each label that is best by the metric."""
    if head == "auto":
        threshold: Any = 0.5 if metric == "exact-match" else "f1"
        head = MultiLabelLogistic(C=STRENGTH, threshold=threshold)
    return estimator_of(head, None, tower, metric, seed, None, False)


def _estimate(
    head: Head,
    features: Features,
    y: np.ndarray,
    labels: list[str],
    groups: np.ndarray | None,
    seed: int,
    left: float,
    once: float,
) -> tuple[EstimatedSets | None, str]:
    """The estimate, or why there is none."""
    if math.isfinite(left) and left < 10 * once:
        return None, "not estimated: the time limit was reached"
    found = estimate_label_sets(head, features, y, labels, groups, seed=seed)
    return found, "not estimated: fewer than two labels have a second example to test on"


def _nothing_said(learn: Dataset, copies: np.ndarray) -> dict[str, Any]:
    """The parts of a card that speak of single labels."""
    return {
        "class_text": {"used": False, "weight": 0.0, "reason": "no head of several labels reads class names"},
        "population": {
            "kind": "labels",
            "source": None,
            "shares": {},
            "sentence": "labels as often as among the examples",
        },
        "duplicates": duplicates_card(learn, copies),
        "estimate": None,
        "test": None,
        "experiment": None,
        "unlabelled": None,
        "reject": None,
        "private": None,
        "certificate": None,
        "selective": None,
        "cost": None,
        "shots_curve": [],
        "suspicious": [],
    }
