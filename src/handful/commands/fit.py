"""`handful fit`: from a handful of labels to a model with a number that can be believed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.adapt import head as make_head
from handful.adapt import head_class
from handful.adapt.base import Features, Head
from handful.commands.card import blind_spots_card, certificate_card, class_text_card, evidence_of, make_card
from handful.commands.command_line import command_line
from handful.commands.judging import Wishes, judge
from handful.commands.kept_apart import copies_of, kept_apart
from handful.commands.private import private_card, private_head
from handful.commands.sources import Columns, class_sentences, draw_shots, labelled, read_source
from handful.encode import default_encoder
from handful.encode import encoder as make_encoder
from handful.errors import BadInput
from handful.evaluate.duplicates import merge_units
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.ship.model import Encoded, Model, class_text_vectors, encode_dataset

Metric = Literal["accuracy", "balanced", "macro-f1", "log-loss"]
METRICS = ("accuracy", "balanced", "macro-f1", "log-loss")
_NOT_THE_RESULT = frozenset({"out", "report", "examples", "cache", "progress"})


def fit(
    sources: Any,
    labels: Sequence[str] | None = None,
    *,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    group_regex: str | None = None,
    near_duplicates: bool = True,
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None = None,
    encoder: str | None = None,
    long: Literal["first", "mean"] = "first",
    crop: str | Sequence[float] | None = None,
    tiles: str | Sequence[int] | None = None,
    head: str | Head = "auto",
    private: float | None = None,
    metric: Metric = "accuracy",
    class_prior: str | Path | Mapping[str, float] = "labels",
    target_precision: float | None = None,
    cost: str | Path | None = None,
    test: Any = None,
    shots: int | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
    out: str | Path | None = None,
    standalone: bool = False,
    report: str | Path | None = None,
    examples: bool = True,
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
        group: column that says which items belong together (a customer, a patient, a roll of film): a group never
            stands on both sides of a split.
        group_regex: the same for files, searched in their path: its first group, or all it matches, names the group.
        near_duplicates: treat items that are nearly the same as one group.
        class_names: a file or mapping that describes each label in words; by default the labels themselves are read,
            unless they are codes. They count only as far as the examples confirm them.
        encoder: name of the encoder; by default the embedded one for the modality.
        long: of a text longer than the encoder reads take the ``"first"`` part, or the ``"mean"`` of all its parts.
        crop: the part of a picture that counts, ``x,y,w,h`` in pixels or in shares of its sides.
        tiles: ``ROWSxCOLUMNS``: look at a picture as a whole and tile by tile, for what is small in it.
        head: key of a head, a head, or ``"auto"``.
        private: epsilon of differential privacy: noise of the operating system hides each example, the head is fixed,
            and whatever would tell of the examples without noise is withheld and listed.
        metric: what ``auto`` chooses by and what is reported first.
        class_prior: the population that probabilities and numbers speak of: its classes as often as among the
            ``"labels"``, as in the unlabelled ``"pool"``, ``"uniform"``, or by shares in a file or mapping.
        target_precision: answer only as far as this share of the answers is right; the model holds the threshold.
        cost: file of what each mistake costs; the model answers what costs least.
        test: a labelled source, or ``(items, labels)``; never learnt from.
        shots: an experiment: learn from this many examples a class and test on all others.
        seed: of every draw; ``None`` is 0, and with ``private`` the only choice.
        time_limit: seconds; ``auto`` tries less and folds are left out to stay within.
        out: where to save the model; not saved when not given.
        standalone: put the encoder into the file, so that it predicts where no encoder is installed.
        report: where to write the HTML report.
        examples: show texts and pictures in the report.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read, and say how many.
        cache: use the feature cache.

    Returns:
        A `Model` that has learnt from all labelled items (with ``shots``, from the drawn ones).

    Raises:
        BadInput: one line that says what is wrong with the input and where.
    """
    command = command_line(fit, locals(), without=_NOT_THE_RESULT)
    clock = _Clock(time_limit)
    if metric not in METRICS:
        raise BadInput(f"unknown metric {metric!r}; there are: {', '.join(METRICS)}")
    wishes = Wishes(class_prior, target_precision, cost, group or group_regex, near_duplicates)
    if isinstance(head, str):
        head_class(head)  # an unknown head is refused before any work is done
    learner = None
    if private is not None:
        asked = {"seed": seed, "test": test, "shots": shots, "group": group, "group_regex": group_regex, "cost": cost}
        asked |= {"class_names": class_names, "class_prior": None if class_prior == "labels" else class_prior}
        asked |= {"target_precision": target_precision, "time_limit": time_limit}
        learner = private_head(private, head, [name for name, value in asked.items() if value is not None])
    seed = 0 if seed is None else seed
    how = Columns(text, image, label, group, group_regex)
    everything = read_source(sources, labels, how, merge_labels=merge_labels, skip_bad=skip_bad, require_labels=True)
    data = labelled(everything)
    learn, held = (data, None) if shots is None else draw_shots(data, shots, seed)
    if out is not None:
        _refuse_overwriting(Path(out), experiment=shots is not None)
    if test is not None:
        items, given = test if isinstance(test, tuple) else (test, None)
        held = labelled(read_source(items, given, how, merge_labels=merge_labels, skip_bad=skip_bad))
        _refuse_unknown(held, learn)
    clock.lap("read")

    tower = _tower(learn, encoder, long, crop, tiles)
    encoded = encode_dataset(learn, tower, cache=cache, skip_bad=skip_bad, progress=progress)
    learn = learn.take(encoded.kept)
    if learner is not None:
        clock.lap("encode")
        model = _model(learner.fit(encoded.features, np.asarray(learn.labels)), tower, standalone)
        clock.lap("fit")
        model.card = private_card(model, learn, metric, getattr(tower, "revision", None))
        return _kept(model, clock, out, report)
    copies = copies_of(learn, encoded.features, near_duplicates)
    units = merge_units(learn.groups, copies)
    features = encoded.features
    if len(np.unique(copies)) < len(copies):  # a copy would tell the head the answer it is to be judged by
        features = replace(features, items=copies)
    sentences = class_sentences(class_names, learn.classes, tower.templates if tower is not None else ())
    has_text = tower is not None and tower.aligned is not None and bool(sentences)
    vectors = class_text_vectors(tower, sentences, cache=cache) if tower is not None and has_text else None
    clock.lap("encode")

    names = np.asarray(learn.labels)
    estimator = _estimator(head, vectors, tower, metric, seed)
    estimator.fit(features, names)
    model = _model(estimator, tower, standalone)
    model.scale = estimator.spread(features, names)
    clock.lap("fit")

    pool = _encoded_pool(everything.pool, tower, wishes, cache, progress)
    model.card = make_card(
        model, learn, len(everything.pool), seed, metric, encoded.skipped, command, getattr(tower, "revision", None)
    )
    model.card["class_text"] = class_text_card(estimator, sentences, vectors is not None)
    model.card |= {
        "private": None,
        "certificate": certificate_card(estimator, class_prior == "labels" and cost is None),
    }
    answers = judge(
        model,
        learn,
        features,
        units,
        copies,
        pool,
        wishes,
        seed=seed,
        left=clock.left(),
        once=clock.laps["fit"],
    )
    model.card["blind_spots"] = blind_spots_card(tower, learn)
    model.card["experiment"] = (
        None if shots is None else {"shots": shots, "note": f"an experiment: learnt from {shots} examples a class"}
    )
    clock.lap("estimate")

    model.card["test"] = None
    if held is not None:
        seen = encode_dataset(held, tower, cache=cache, skip_bad=skip_bad, progress=progress)
        apart = kept_apart(learn, features, held.take(seen.kept), seen.features, test, near_duplicates)
        model.card["test"] = apart.card(model)
        clock.lap("test")
    if examples and report is not None:
        tested = {} if held is None else apart.mistaken(model)
        model.evidence = evidence_of(model.card, learn, answers, tested)
    return _kept(model, clock, out, report)


def _kept(model: Model, clock: _Clock, out: str | Path | None, report: str | Path | None) -> Model:
    """The model, saved and reported where that was asked for."""
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


def _tower(
    data: Dataset,
    name: str | None,
    long: Literal["first", "mean"],
    crop: str | Sequence[float] | None,
    tiles: str | Sequence[int] | None,
) -> Encoder | None:
    if data.modality == "features":
        asked = {"--encoder": name, "--crop": crop, "--tiles": tiles, "--long": None if long == "first" else long}
        for option, value in asked.items():
            if value is not None:
                raise BadInput(f"the source holds features; {option} {value} has nothing to look at")
        return None
    if name is None:
        name = default_encoder(data.modality).name
    return make_encoder(name, long=long, crop=numbers_of(crop, "--crop", ","), tiles=numbers_of(tiles, "--tiles", "x"))


def numbers_of(given: str | Sequence[float] | None, option: str, between: str) -> tuple[Any, ...] | None:
    """``"2x3"`` or ``(2, 3)`` as a tuple. Raises `BadInput` for what holds no numbers."""
    if given is None or not isinstance(given, str):
        return None if given is None else tuple(given)
    try:
        return tuple(float(part) if "." in part else int(part) for part in given.split(between))
    except ValueError as error:
        raise BadInput(f"{option} {given!r} is not numbers with {between!r} between them") from error


def _model(estimator: Head, tower: Encoder | None, standalone: bool) -> Model:
    if tower is None:
        return Model(estimator, None, "", 1.0)
    return Model(
        estimator,
        tower.name,
        tower.identity,
        1.0,
        encoder_options=dict(tower.options),
        standalone=standalone,
        _allowed=tower.name,
    )


def _encoded_pool(
    pool: Dataset, tower: Encoder | None, wishes: Wishes, cache: bool, progress: Progress | None
) -> Features | None:
    """Features of the unlabelled items, where the population is to be read off them."""
    if wishes.class_prior != "pool" or not len(pool):
        return None
    found: Encoded = encode_dataset(
        pool.take(np.flatnonzero(pool.usable)), tower, cache=cache, skip_bad=True, progress=progress
    )
    return found.features


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
