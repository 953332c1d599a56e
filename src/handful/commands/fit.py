"""`handful fit`: from a handful of labels to a model with a number that can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.adapt import head_class
from handful.adapt.base import Head
from handful.commands.card import blind_spots_card, certificate_card, class_text_card, evidence_of, make_card
from handful.commands.clock import Clock
from handful.commands.command_line import command_line
from handful.commands.judging import Wishes, judge
from handful.commands.kept_apart import copies_of, kept_apart, named
from handful.commands.making import (
    encoded_pool,
    estimator_of,
    model_of,
    refuse_overwriting,
    refuse_unknown,
    tower_of,
    unlabelled_card,
)
from handful.commands.multi_label import METRICS as SET_METRICS
from handful.commands.multi_label import fit_label_sets, refuse_beside_label_sets
from handful.commands.pool import check_asked, gather
from handful.commands.private import private_card, private_film, private_head
from handful.commands.rejecting import ALARMS, OTHER, RejectWishes, encode_negatives, read_negatives
from handful.commands.sources import Columns, class_sentences, draw_shots, labelled, other_sentences, read_source
from handful.commands.tuned import check_recipe, tuned
from handful.commands.zero_shot import check_zero_shot, tested_on, zero_shot_card, zero_shot_head
from handful.errors import BadInput
from handful.evaluate.duplicates import merge_units
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.ship.model import Model, check_savable, class_text_vectors, encode_dataset

Metric = Literal["accuracy", "balanced", "macro-f1", "log-loss", "micro-f1", "mean-average-precision", "exact-match"]
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
    multi_label: str | None = None,
    none: str | None = None,
    encoder: str | None = None,
    long: Literal["first", "mean"] = "first",
    crop: str | Sequence[float] | None = None,
    tiles: str | Sequence[int] | None = None,
    head: str | Head = "auto",
    tune: str | None = None,
    private: float | None = None,
    metric: Metric | None = None,
    class_prior: str | Path | Mapping[str, float] = "labels",
    target_precision: float | None = None,
    cost: str | Path | None = None,
    reject: str | None = None,
    false_alarms: float = ALARMS,
    other: str = OTHER,
    negatives: Any = None,
    unlabelled: Any = None,
    transductive: bool = False,
    zero_shot: bool = False,
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
            items for which ``labels`` are given. Unlabelled items are left aside, but for ``unlabelled``.
        labels: one an item; ``None`` to read them from the source.
        text, image, label: columns of a table; guessed from their names when not given.
        group: column that says which items belong together (a customer, a patient, a roll of film): a group never
            stands on both sides of a split.
        group_regex: the same for files, searched in their path: its first group, or all it matches, names the group.
        near_duplicates: treat items that are nearly the same as one group.
        class_names: a file or mapping that describes each label in words; by default the labels themselves are read,
            unless they are codes. They count only as far as the examples confirm them. What they describe beside
            the labels is known by its text alone: heads of class text can answer for it, see `Model.predict`.
        multi_label: what stands between the labels of a cell where an item has several, such as ``";"``. A cell of
            nothing else, or an empty list, is an item with none of them; an empty cell is unlabelled.
        none: with it, what the cell of an item says that has none of the labels; ``""`` for an empty one.
        encoder: name of the encoder; by default the embedded one for the modality.
        long: of a text longer than the encoder reads take the ``"first"`` part, or the ``"mean"`` of all its parts.
        crop: the part of a picture that counts, ``x,y,w,h`` in pixels or in shares of its sides.
        tiles: ``ROWSxCOLUMNS``: look at a picture as a whole and tile by tile, for what is small in it.
        head: key of a head, a head, or ``"auto"``.
        tune: change the encoder itself a little, by the key of a recipe (``handful list recipes``); ``"auto"`` does so
            only where items left out say that it helps, and in the time there is.
        private: epsilon of differential privacy: noise of the operating system hides each example, the head is fixed,
            and whatever would tell of the examples without noise is withheld and listed.
        metric: what ``auto`` chooses by and what is reported first: by default ``"accuracy"``, with ``multi_label``
            ``"micro-f1"``.
        class_prior: the population that probabilities and numbers speak of: its classes as often as among the
            ``"labels"``, as in the unlabelled ``"pool"``, ``"uniform"``, or by shares in a file or mapping.
        target_precision: answer only as far as this share of the answers is right; the model holds the threshold.
        cost: file of what each mistake costs; the model answers what costs least.
        reject: let the model answer that an item is none of the classes, and by what: ``"auto"``, ``"energy"``,
            ``"probability"``, ``"distance"``, ``"gpam"`` or ``"dafos-net"``, which takes minutes.
        false_alarms: the share of items of the classes that may be called none of them.
        other: what such items are called.
        negatives: a source of items of none of the classes, or a list of them; measures how many are found.
        unlabelled: items without labels to learn from, for ``auto`` and heads that do: what `handful.read.read` takes,
            its labels not read, together with the unlabelled items of ``sources``; ``"rows"`` for those alone. What
            (nearly) equals a labelled item, or shares its group, is dropped. What they teach stays in the model: an
            answer does not depend on what else is asked.
        transductive: let items that are asked about together sway each other, as the papers of those heads have it.
        zero_shot: learn from class names alone and leave labels for the test; so without any labels and with
            ``class_names`` anyway.
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
    clock = Clock(time_limit)
    if seed is not None and (not isinstance(seed, int) or seed < 0):
        raise BadInput(f"--seed is a whole number, not below 0, not {seed!r}")
    how = Columns(text, image, label, group, group_regex, multi_label, none)
    kind = head_class(head) if isinstance(head, str) else type(head)
    if out is not None:
        check_savable(kind)
    if multi_label is not None:
        refuse_beside_label_sets(
            {"target_precision": target_precision, "cost": cost, "reject": reject, "unlabelled": unlabelled,
             "class_prior": None if class_prior == "labels" else class_prior, "transductive": transductive,
             "zero_shot": zero_shot, "class_names": class_names, "private": private, "shots": shots,
             "negatives": negatives},
            kind, tune,
        )  # fmt: skip
        everything = read_source(
            sources, labels, how, merge_labels=merge_labels, skip_bad=skip_bad, require_labels=True
        )
        model = fit_label_sets(
            everything, head, tower_of(everything, encoder, long, crop, tiles), test, how, near_duplicates,
            seed=seed or 0, tune=tune, metric=metric, examples=examples and report is not None, standalone=standalone,
            merge_labels=merge_labels, skip_bad=skip_bad, cache=cache, progress=progress, command=command, out=out,
            clock=clock,
        )  # fmt: skip
        return _kept(model, clock, out, report)
    metric = "accuracy" if metric is None else metric
    if metric not in METRICS:
        needs = " without --multi-label" if metric in SET_METRICS else ""
        raise BadInput(f"unknown metric {metric!r}{needs}; there are: {', '.join(METRICS)}")
    none_of = RejectWishes(reject, false_alarms, other, negatives)
    wishes = Wishes(class_prior, target_precision, cost, group or group_regex, near_duplicates, none_of)
    # What cannot be is refused before any work is done.
    check_asked(kind, unlabelled, transductive, class_prior)
    if tune is not None:
        learns = [name for name, asked in (("--unlabelled", unlabelled), ("--transductive", transductive)) if asked]
        check_recipe(tune, head, learns, reject)
    learner = None
    if private is not None:
        asked = {"seed": seed, "test": test, "shots": shots, "group": group, "group_regex": group_regex, "cost": cost}
        asked |= {"class_names": class_names, "class_prior": None if class_prior == "labels" else class_prior}
        asked |= {"target_precision": target_precision, "time_limit": time_limit, "reject": reject}
        asked |= {"unlabelled": unlabelled, "transductive": transductive or None, "zero_shot": zero_shot or None}
        learner = private_head(private, head, [name for name, value in asked.items() if value is not None], tune)
    seed = 0 if seed is None else seed
    unnamed = class_names is None and not zero_shot
    everything = read_source(sources, labels, how, merge_labels=merge_labels, skip_bad=skip_bad, require_labels=unnamed)
    if zero_shot or not everything.classes:
        check_zero_shot(
            kind, shots=shots, target_precision=target_precision, cost=cost, unlabelled=unlabelled,
            transductive=transductive, reject=reject, private=private, tune=tune,
        )  # fmt: skip
        model = _zero_shot(
            everything, class_names, kind, tower_of(everything, encoder, long, crop, tiles), test, how, wishes,
            seed=seed, metric=metric, standalone=standalone, skip_bad=skip_bad, cache=cache, progress=progress,
            command=command, out=out, clock=clock,
        )  # fmt: skip
        return _kept(model, clock, out, report)
    data = labelled(everything)
    aliens = read_negatives(none_of, data, how, skip_bad)
    learn, held = (data, None) if shots is None else draw_shots(data, shots, seed)
    if out is not None:
        refuse_overwriting(Path(out), experiment=shots is not None)
    if test is not None:
        items, given = test if isinstance(test, tuple) else (test, None)
        held = labelled(read_source(items, given, how, merge_labels=merge_labels, skip_bad=skip_bad))
        refuse_unknown(held, learn)
    clock.lap("read")

    tower = tower_of(learn, encoder, long, crop, tiles, tune)
    views = (learner or kind).needs.views
    encoded = encode_dataset(learn, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
    learn = learn.take(encoded.kept)
    if learner is not None:
        clock.lap("encode")
        names, tuning = np.asarray(learn.labels), None
        if tune is None:
            model = model_of(learner.fit(encoded.features, names), tower, standalone)
        else:
            model, tuning = private_film(learner, tower, learn.items, names, standalone, progress)
        clock.lap("fit")
        model.card = private_card(model, learn, metric, getattr(tower, "revision", None), tuning)
        return _kept(model, clock, out, report)
    copies = copies_of(learn, encoded.features, near_duplicates)
    units = merge_units(learn.groups, copies)
    features = encoded.features
    if len(np.unique(copies)) < len(copies):  # a copy would tell the head the answer it is to be judged by
        features = replace(features, items=copies)
    sentences = class_sentences(class_names, learn.classes, tower.templates if tower is not None else ())
    others = other_sentences(class_names, learn.classes, tower.templates if tower is not None else ())
    has_text = tower is not None and tower.aligned is not None and bool(sentences)
    described = {**sentences, **(others if kind.open_classes else {})} if has_text else {}
    vectors = class_text_vectors(tower, described, cache=cache) if tower is not None and has_text else None
    base, outcome, names = tower, None, np.asarray(learn.labels)
    seen = None
    if held is not None:
        seen = encode_dataset(held, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
        held = held.take(seen.kept)
    shared = None
    if unlabelled is not None:
        apart_items = None if held is None or seen is None else (held, seen.features)
        shared = gather(
            everything.pool, unlabelled, how, learn, features, apart_items, tower,
            near_duplicates=near_duplicates, cache=cache, progress=progress,
        )  # fmt: skip
    none_there, apart_from = encode_negatives(
        aliens, tower, features, cache=cache, skip_bad=skip_bad, progress=progress
    )
    clock.lap("encode")

    estimator = estimator_of(head, vectors, tower, metric, seed, shared, transductive).fit(features, names)
    if tune is not None:
        groups = units if len(np.unique(units)) < len(units) else None
        outcome = tuned(
            tune, estimator, tower, learn.items, features, names, groups, sentences | described, has_text,
            pool=() if shared is None else shared.items, asked=none_there,
            seed=seed, left=clock.left(),
        )  # fmt: skip
        tower, features = outcome.encoder, outcome.features
        if shared is not None and outcome.pool is not None:
            shared = replace(shared, features=outcome.pool)
        if held is not None and outcome.delta is not None:
            seen = encode_dataset(held, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
        clock.lap("tune")
        model = model_of(outcome.head, base, standalone)
        model.tuned_by(outcome.delta, outcome.encoder)
    else:
        model = model_of(estimator, tower, standalone)
    model.scale = 1.0 if outcome is not None else estimator.spread(features, names)
    clock.lap("fit")

    pool = None
    if wishes.class_prior == "pool":
        pool = encoded_pool(everything.pool, tower, views, cache, progress) if shared is None else shared.features
    model.card = make_card(
        model, learn, len(everything.pool), seed, metric, encoded.skipped, command, getattr(tower, "revision", None)
    )
    model.card["class_text"] = class_text_card(model.head, sentences, vectors is not None, tuple(others))
    model.card["unlabelled"] = unlabelled_card(model.head, features, names, shared, transductive)
    model.card |= {
        "private": None,
        "tuning": None if outcome is None else outcome.card,
        "certificate": certificate_card(
            model.head, class_prior == "labels" and cost is None and reject is None, learn.groups
        ),
    }
    if outcome is not None and outcome.delta is not None:  # the head chose among examples that the encoder had seen
        model.card["candidates"], model.card["certificate"] = [], None
        model.card["head"]["why"] = outcome.why
        model.card["class_text"] |= outcome.class_text or {}
    answers = judge(
        model,
        learn,
        features,
        units,
        copies,
        pool,
        wishes,
        apart_from,
        seed=seed,
        left=clock.left(),
        once=clock.laps["fit"],
        outcome=outcome,
    )
    model.card["blind_spots"] = blind_spots_card(tower, learn)
    model.card["experiment"] = (
        None if shots is None else {"shots": shots, "note": f"an experiment: learnt from {shots} examples a class"}
    )
    clock.lap("estimate")

    model.card["test"] = None
    if held is not None and seen is not None:
        apart = kept_apart(learn, features, held, seen.features, test, near_duplicates)
        model.card["test"] = apart.card(model)
        clock.lap("test")
    if examples and report is not None:
        tested = {} if held is None else apart.mistaken(model)
        model.evidence = evidence_of(model.card, learn, answers, tested)
    return _kept(model, clock, out, report)


def _kept(model: Model, clock: Clock, out: str | Path | None, report: str | Path | None) -> Model:
    """The model, saved and reported where that was asked for."""
    model.seconds = dict(clock.laps)
    if out is not None:
        model.save(out)
    if report is not None:
        model.report(report)
    return model


def _zero_shot(
    everything: Dataset,
    class_names: str | Path | Mapping[str, str | Sequence[str]] | None,
    kind: type[Head],
    tower: Encoder | None,
    test: Any,
    how: Columns,
    wishes: Wishes,
    *,
    seed: int,
    metric: Metric,
    standalone: bool,
    skip_bad: bool,
    cache: bool,
    progress: Progress | None,
    command: str | None,
    out: str | Path | None,
    clock: Clock,
) -> Model:
    """A model from class names alone; what is labelled tests it, unless there is a test set."""
    if out is not None:
        refuse_overwriting(Path(out), experiment=False)
    held, source = everything.labelled, "the labelled items, none of which was learnt from"
    if test is not None:
        items, given = test if isinstance(test, tuple) else (test, None)
        held, source = labelled(read_source(items, given, how, skip_bad=skip_bad)), named(test)
    clock.lap("read")
    head = zero_shot_head(check_zero_shot(kind), everything, class_names, tower, cache)
    model = model_of(head, tower, standalone)
    views, mix = head.needs.views, wishes.class_prior == "pool"
    pool = encoded_pool(everything.pool, tower, views, cache, progress) if mix else None
    nothing = everything.take(())
    revision = getattr(tower, "revision", None)
    model.card = make_card(model, nothing, len(everything.pool), seed, metric, (), command, revision)
    model.card |= zero_shot_card(model, wishes.class_prior, pool, kind.key != "auto")
    model.card["blind_spots"] = blind_spots_card(tower, everything)
    clock.lap("fit")
    if len(held):
        seen = encode_dataset(held, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
        model.card["test"] = tested_on(model, held.take(seen.kept), seen.features, source).card(model)
        clock.lap("test")
    return model
