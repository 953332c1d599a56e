"""`handful evaluate`: how good a model is on labelled items it has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.commands.fitted import read_for
from handful.commands.multi_label import one_of_several
from handful.commands.sources import Columns
from handful.errors import BadInput
from handful.evaluate import Assessment
from handful.evaluate.generalised import gzsl_scores
from handful.evaluate.require import check, parse_requirement
from handful.protocols import Progress
from handful.ship.model import Model

if TYPE_CHECKING:
    from handful.evaluate.label_set_assessment import LabelSetAssessment


class SeenBefore(UserWarning):
    """A model is judged on a file it learnt from."""


def evaluate(
    model: Model | str | Path,
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    group_regex: str | None = None,
    classes: str | Sequence[str] | None = None,
    require: str | Sequence[str] | None = None,
    confidence: float = 0.95,
    encoder: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> Assessment | LabelSetAssessment:
    """Compare a model's answers with the labels of a source; rows without a label are left aside.

    A model of several labels an item is judged label by label, and by whole sets of them. An empty cell is an item
    without a label, unless the model was fitted to take it for one with none of them (``none``).

    Requirements are judged by an exact one-sided bound on the best answer of every item, whether or not the model is
    confident enough to give it.

    Args:
        model: a `Model` or the file of one.
        source: a labelled source: what `handful.read.read` takes, a `Dataset`, or ``{label: [items]}``.
        text, image, label: columns; by default those the model was fitted with, else guessed from their names.
        group, group_regex: column, or pattern in a file's path, that says which items belong together; intervals then
            rest on the groups.
        classes: names to choose among, as in `handful.commands.predict.predict`; with ``"all"`` or ``"new"`` labels may
            be of classes that the model knows by their text alone.
        require: what must be proven, such as ``"recall[crack]>=0.95"``; see `handful.evaluate.require`.
        confidence: with which it must be proven.
        encoder: where the encoder of a model is that was made with one that is not built in.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read, rather than stop.
        cache: use the feature cache.

    Returns:
        What `handful.evaluate.assess` finds (of several labels an item,
        `handful.evaluate.label_sets.assess_label_sets`), a verdict for each requirement, and where items are both of
        classes with examples and of others, how well each are told (`handful.evaluate.generalised.gzsl_scores`).

    Warns:
        SeenBefore: the source is a file the model learnt from.

    Raises:
        BadInput: the source cannot be read, has no label, or one that the model does not know.
    """
    wanted = [parse_requirement(text) for text in ([require] if isinstance(require, str) else require or ())]
    model = model if isinstance(model, Model) else Model.load(model, encoder)
    names = None if not classes else model.among(classes)
    columns = Columns(text, image, label, group, group_regex)
    data, _ = read_for(model, source, columns, merge_labels=merge_labels, skip_bad=skip_bad)
    learnt = set(model.card.get("task", {}).get("sha256", {}).values())
    if learnt & set(data.provenance.sha256.values()):
        warnings.warn(
            "the model learnt from examples in this very file: how it does on them says little of new ones",
            SeenBefore,
            2,
        )
    data = data.labelled
    if not len(data):
        raise BadInput("nothing to evaluate on: no item has a label; --label names the column that holds them")
    encoded = model.encode(data, cache=cache, skip_bad=skip_bad, progress=progress)
    kept = data.take(encoded.kept)
    if not len(kept):
        raise BadInput("nothing to evaluate on: no item can be read")
    true = [str(c) for c in kept.labels]
    assessment = model.assess(encoded.features, true, kept.groups, names)
    if isinstance(assessment, Assessment) and set(true) & set(model.unseen) and set(true) & set(model.classes):
        said = np.asarray(assessment.classes)[model.proba_of(encoded.features, names).argmax(axis=1)]
        assessment = replace(assessment, generalised=gzsl_scores(true, said, model.classes))
    if not wanted:
        return assessment
    if model.decision.sets is not None:
        verdicts = [one_of_several(rule, model, encoded.features, kept, confidence) for rule in wanted]
        return replace(assessment, verdicts=tuple(verdicts))
    proba = model.proba_of(encoded.features, names)
    best = model.decision.ranking(proba)[:, 0] if names is None else proba.argmax(axis=1)
    answers = np.asarray(names or model.classes)[best]
    groups = None if kept.groups is None else np.asarray(kept.groups)
    verdicts = [
        check(requirement, np.asarray(true), answers, groups, confidence, names or model.classes)
        for requirement in wanted
    ]
    return replace(assessment, verdicts=tuple(verdicts))
