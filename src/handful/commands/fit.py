"""`handful fit`: from a handful of labels to a model with a number that can be believed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from handful.adapt import head as make_head
from handful.adapt import head_class
from handful.adapt.base import Head
from handful.commands.card import class_text_card, estimate_card, make_card, test_card
from handful.commands.sources import Columns, class_sentences, draw_shots, labelled, read_source
from handful.core.calibration import fit_scale, hedged
from handful.encode import default_encoder
from handful.encode import encoder as make_encoder
from handful.errors import BadInput
from handful.evaluate.crossfit import CrossFit, cross_fit
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.ship.model import Model, class_text_vectors, encode_dataset

Metric = Literal["accuracy", "balanced", "macro-f1", "log-loss"]
METRICS = ("accuracy", "balanced", "macro-f1", "log-loss")
FOLDS = 5


def fit(
    sources: Any,
    labels: Sequence[str] | None = None,
    *,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None = None,
    encoder: str | None = None,
    head: str | Head = "auto",
    metric: Metric = "accuracy",
    test: Any = None,
    shots: int | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> Model:
    """Learn to label from a few labelled examples.

    Args:
        sources: a file, folder or list of them (see `handful.read.read`), ``{label: [items]}``, a `Dataset`, or
            items for which ``labels`` are given. Unlabelled items are left aside.
        labels: one an item; ``None`` to read them from the source.
        text, image, label: columns of a table; guessed from their names when not given.
        class_names: a file or mapping that describes each label in words; by default the labels themselves are read,
            unless they are codes. They count only as far as the examples confirm them.
        encoder: name of the encoder; by default the embedded one for the modality.
        head: key of a head, a head, or ``"auto"``.
        metric: what ``auto`` chooses by and what is reported first.
        test: a labelled source, or ``(items, labels)``; never learnt from.
        shots: an experiment: learn from this many examples a class and test on all others.
        seed: of every draw.
        time_limit: seconds; ``auto`` tries less and folds are left out to stay within.
        out: where to save the model; not saved when not given.
        report: where to write the HTML report.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read, and say how many.
        cache: use the feature cache.

    Returns:
        A `Model` that has learnt from all labelled items (with ``shots``, from the drawn ones).

    Raises:
        BadInput: one line that says what is wrong with the input and where.
    """
    clock = _Clock(time_limit)
    if metric not in METRICS:
        raise BadInput(f"unknown metric {metric!r}; there are: {', '.join(METRICS)}")
    if isinstance(head, str):
        head_class(head)  # an unknown head is refused before any work is done
    columns = Columns(text, image, label)
    everything = read_source(
        sources, labels, columns, merge_labels=merge_labels, skip_bad=skip_bad, require_labels=True
    )
    data = labelled(everything)
    learn, held = (data, None) if shots is None else draw_shots(data, shots, seed)
    if out is not None:
        _refuse_overwriting(Path(out), experiment=shots is not None)
    if test is not None:
        items, given = test if isinstance(test, tuple) else (test, None)
        held = labelled(read_source(items, given, columns, merge_labels=merge_labels, skip_bad=skip_bad))
        _refuse_unknown(held, learn)
    clock.lap("read")

    tower = _tower(learn, encoder)
    encoded = encode_dataset(learn, tower, cache=cache, skip_bad=skip_bad, progress=progress)
    learn = learn.take(encoded.kept)
    sentences = class_sentences(class_names, learn.classes, tower.templates if tower is not None else ())
    has_text = tower is not None and tower.aligned is not None and bool(sentences)
    vectors = class_text_vectors(tower, sentences) if tower is not None and has_text else None
    clock.lap("encode")

    names = np.asarray(learn.labels)
    estimator = _estimator(head, vectors, tower, metric, seed)
    estimator.fit(encoded.features, names)
    clock.lap("fit")

    groups = None if learn.groups is None else np.asarray(learn.groups)
    hurried = clock.left() < FOLDS * clock.laps["fit"]
    folds = None if hurried else cross_fit(estimator, encoded.features, names, groups, folds=FOLDS, seed=seed)
    name, identity = (None, "") if tower is None else (tower.name, tower.identity)
    scale = _scale(folds, estimator, names)
    model = Model(estimator, name, identity, scale * estimator.spread(encoded.features, names))
    model.card = make_card(model, learn, len(everything.pool), seed, metric, encoded.skipped)
    model.card["class_text"] = class_text_card(estimator, sentences, vectors is not None)
    why_not = (
        "not estimated: the time limit was reached"
        if hurried
        else "not estimated: no class has a second example to test on"
    )
    model.card["estimate"] = estimate_card(model, folds, scale, names, why_not)
    model.card["test"] = None
    model.card["experiment"] = (
        None if shots is None else {"shots": shots, "note": f"an experiment: learnt from {shots} examples a class"}
    )
    clock.lap("estimate")

    if held is not None:
        seen = encode_dataset(held, tower, cache=cache, skip_bad=skip_bad, progress=progress)
        kept = held.take(seen.kept)
        assessment = model.assess(seen.features, [str(c) for c in kept.labels], kept.groups)
        source = (
            str(test)
            if isinstance(test, (str, Path))
            else "items kept apart"
            if shots is None
            else "the items not drawn"
        )
        model.card["test"] = test_card(source, assessment)
        clock.lap("test")
    model.seconds = dict(clock.laps)
    if out is not None:
        model.save(out)
    if report is not None:
        model.report(report)
    return model


class _Clock:
    """Seconds of each stage, and how many are left."""

    def __init__(self, limit: float | None) -> None:
        if limit is not None and not limit > 0:
            raise BadInput(f"--time-limit must be above 0 seconds, not {limit}")
        self._start = self._last = time.monotonic()
        self._limit = math.inf if limit is None else limit
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = now - self._last, now

    def left(self) -> float:
        return self._start + self._limit - time.monotonic()


def _refuse_overwriting(out: Path, experiment: bool) -> None:
    """An experiment never replaces a full model, and nothing replaces a file that is no model."""
    if out.is_dir():
        raise BadInput(f"{out} is a folder; give a file name for the model")
    if not out.exists():
        return
    try:
        old = Model.load(out)
    except BadInput as error:
        raise BadInput(f"{out} exists and is not a Handful model; it is not overwritten: give another --out") from error
    if experiment and not old.card.get("experiment"):
        raise BadInput(f"{out} is a full model; an experiment with --shots does not overwrite it: give another --out")


def _refuse_unknown(test: Dataset, learn: Dataset) -> None:
    unknown = sorted(set(test.classes) - set(learn.classes))
    if unknown:
        raise BadInput(f"the test set has class {unknown[0]!r}, which no labelled example has")


def _tower(data: Dataset, name: str | None) -> Encoder | None:
    if data.modality == "features":
        if name is not None:
            raise BadInput(f"the source holds features; --encoder {name} has nothing to encode")
        return None
    return default_encoder(data.modality) if name is None else make_encoder(name)


def _estimator(
    head: str | Head, vectors: Mapping[str, np.ndarray] | None, tower: Encoder | None, metric: str, seed: int
) -> Head:
    """The head with what is known beside the examples."""
    given: dict[str, Any] = {"text": vectors, "random_state": seed}
    if tower is not None:
        given["logit_scale"] = tower.logit_scale
    if not isinstance(head, str):
        given = {k: v for k, v in given.items() if head.get_params()[k] == type(head)().get_params()[k]}
        changed: Head = head.set_params(**given)
        return changed
    if head == "auto":
        given["metric"] = metric
    return make_head(head, **given)


def _scale(folds: CrossFit | None, head: Head, labels: np.ndarray) -> float:
    """What is left to multiply logits with, each head's own `spread` being in them: fitted on out-of-fold logits."""
    if folds is None:
        return 1.0
    y = torch.nn.functional.one_hot(
        torch.as_tensor(np.searchsorted(head.classes_, labels)), len(head.classes_)
    ).double()
    mask = torch.ones(len(head.classes_), dtype=torch.bool)
    y = hedged(y[folds.judged], mask)
    return float(fit_scale(torch.as_tensor(folds.logits[folds.judged]), y, mask)[0])
