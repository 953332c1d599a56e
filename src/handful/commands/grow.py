"""`handful grow`: further classes for a model that exists, from a few examples of each and without the old examples."""

from __future__ import annotations

import copy
import datetime
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import handful
from handful.adapt import HEADS, head_class
from handful.adapt.base import Features, Head
from handful.adapt.growing import Growing
from handful.commands.card import blind_spots_card
from handful.commands.evaluate import SeenBefore
from handful.commands.fitted import read_for, refuse_label_sets
from handful.commands.kept_apart import copies_of, kept_apart
from handful.commands.pool import gather
from handful.commands.sources import Columns
from handful.errors import BadInput
from handful.evaluate import assess
from handful.evaluate.duplicates import merge_units
from handful.evaluate.growth import growth
from handful.evaluate.population import population
from handful.files import refuse_existing
from handful.protocols import Progress
from handful.read import Dataset
from handful.read.dataset import file_sha256
from handful.ship.decision import Decision
from handful.ship.model import Model

MOST = 200
"""Examples (groups of copies) up to which new classes are judged by leaving each out in turn."""
_UNKNOWN = "not estimated: the model has grown; grow --test judges it"


def grow(
    model: Model | str | Path,
    source: Any,
    *,
    out: str | Path | None = None,
    test: Any = None,
    unlabelled: Any = None,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    group_regex: str | None = None,
    near_duplicates: bool = True,
    force: bool = False,
    encoder: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> Model:
    """Add classes to a model from a few labelled examples of each; the examples it was fitted on are not needed.

    Only some heads grow: ``fit(..., head="teen")`` makes a model that does.

    Args:
        model: a `Model` or the file of one; it stays as it is.
        source: labelled examples of the new classes: what `handful.read.read` takes, a `Dataset`, or
            ``{label: [items]}``. Unlabelled items are left aside, but for ``unlabelled``.
        out: where to save the grown model; not saved when not given.
        test: a labelled source of old and new classes, or ``(items, labels)``; never learnt from. Without it new
            classes are judged by leaving out their examples in turn, and nothing is said of the old ones.
        unlabelled: items without labels, of classes old and new, for heads that learn from them: what
            `handful.read.read` takes, its labels not read, together with the unlabelled items of ``source``; ``"rows"``
            for those alone.
        text, image, label: columns; by default those the model was fitted with, else guessed from their names.
        group, group_regex: column, or pattern in a file's path, that says which items belong together.
        near_duplicates: treat items that are nearly the same as one group.
        force: replace ``out`` if it exists.
        encoder: where the encoder of a model is that was made with one that is not built in.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read, rather than stop.
        cache: use the feature cache.

    Returns:
        The grown `Model`. ``card["grown"]`` has an entry for each time it grew: from which file, when, which classes,
        and how it does. What the card said of new items was true of the model before, and is gone.

    Warns:
        SeenBefore: the test set is a file the model learnt from.

    Raises:
        BadInput: a head that cannot grow, or learns nothing from the unlabelled items given, a class that is known
            already, a model that decides for a population or by costs, or input that cannot be read or does not fit the
            model.
    """
    if out is not None:
        if Path(out).is_dir():
            raise BadInput(f"{out} is a folder; give a file name for the model")
        refuse_existing(out, force)
    model = model if isinstance(model, Model) else Model.load(model, encoder)
    refuse_label_sets(model, "handful grow")
    head = _growing(model, unlabelled)
    columns = Columns(text, image, label, group, group_regex)
    how: dict[str, Any] = {"merge_labels": merge_labels, "skip_bad": skip_bad}
    everything = _read(model, source, columns, how, "learn")
    new = _new(model, head, everything.labelled)
    held = None if test is None else _held(model, new, _read(model, test, columns, how, "test on").labelled)

    encoded = model.encode(new, cache=cache, skip_bad=skip_bad, progress=progress)
    new, features = new.take(encoded.kept), encoded.features
    if not len(new):
        raise BadInput("nothing to learn: no item can be read")
    copies, apart, pool = copies_of(new, features, near_duplicates), None, None
    if held is not None:
        seen = model.encode(held, cache=cache, skip_bad=skip_bad, progress=progress)
        apart = kept_apart(new, features, held.take(seen.kept), seen.features, test, near_duplicates)
    if unlabelled is not None:
        tested = None if apart is None else (apart.data, apart.features)
        pool = gather(
            everything.pool, unlabelled, columns, new, features, tested, model.encoder,
            near_duplicates=near_duplicates, cache=cache, progress=progress,
        )  # fmt: skip
    labels = np.asarray(new.labels, dtype=str)
    larger = copy.copy(head).grow(features, labels, None if pool is None else pool.features)
    grown = replace(model, head=larger, decision=Decision(), card={**model.card}, seconds={})
    grown.card |= _card(model, grown, new, encoded.skipped)
    entry = _entry(model, new)
    entry["unlabelled"] = None if pool is None else pool.card
    if head.pool_too and pool is None:
        entry["notes"].append(f"{head.key} also learns from items without labels; --unlabelled SOURCE gives it some")
    entry["judged"] = _left_out(grown, head, features, labels, merge_units(new.groups, copies), entry["classes"])
    entry["test"], grown.card["test"] = None, None
    if apart is not None:
        true = [str(c) for c in apart.data.labels]
        before, after = model.proba_of(apart.features), grown.proba_of(apart.features)
        found = growth(true, before, after, model.classes, grown.classes, apart.data.groups)
        entry["test"] = {"source": apart.source, "note": apart.note, **found.as_dict()}
        grown.card["test"] = apart.card(grown)
    grown.card["grown"] = [*(model.card.get("grown") or []), entry]
    if out is not None:
        grown.save(out)
    return grown


def _growing(model: Model, unlabelled: Any) -> Growing:
    """The head. Raises `BadInput` for one that cannot grow or learn from what is given, and for decisions that speak of
    the old classes only."""
    kinds = [kind for kind in map(head_class, HEADS) if issubclass(kind, Growing)]
    if not isinstance(model.head, Growing):
        able = ", ".join(kind.key for kind in kinds)
        raise BadInput(f"head {model.head.key!r} cannot grow; those can: {able}. Fit the model with one: --head teen")
    if unlabelled is not None and not model.head.pool_too:
        able = ", ".join(kind.key for kind in kinds if kind.pool_too)
        raise BadInput(f"--unlabelled: head {model.head.key!r} grows by labelled items alone; by others too: {able}")
    for option, set_ in (
        ("--class-prior", model.decision.shift),
        ("--cost", model.decision.costs),
        ("--reject", model.rejection),
    ):
        if set_ is not None:
            raise BadInput(f"the model was fitted with {option}, which says nothing of new classes: fit it without")
    return model.head


def _read(model: Model, source: Any, columns: Columns, how: dict[str, Any], what: str) -> Dataset:
    """The items of a source, some of them with a label."""
    data = read_for(model, source, columns, **how)[0]
    if not len(data.labelled):
        raise BadInput(f"nothing to {what}: no item has a label; --label names the column that holds them")
    return data


def _new(model: Model, head: Growing, data: Dataset) -> Dataset:
    """The examples. Raises `BadInput` where they are of no new class, or of known ones too and the head takes none."""
    known = sorted(set(data.classes) & set(model.classes))
    if known and not (head.known_too and set(data.classes) - set(known)):
        raise BadInput(f"class {known[0]!r} is known already: give examples of new classes only")
    return data


def _held(model: Model, new: Dataset, held: Dataset) -> Dataset:
    """What is tested on. Raises `BadInput` for a class nobody knows; warns where the model learnt from the file."""
    if unknown := sorted(set(held.classes) - set(model.classes) - set(new.classes)):
        raise BadInput(f"the test set has class {unknown[0]!r}, which neither the model nor the new examples have")
    learnt = {*model.card.get("task", {}).get("sha256", {}).values(), *new.provenance.sha256.values()}
    if learnt & set(held.provenance.sha256.values()):
        message = "the model learnt from examples in the test file: how it does on them says little of new ones"
        warnings.warn(message, SeenBefore, 3)
    return held


def _card(model: Model, grown: Model, new: Dataset, skipped: Sequence[str]) -> dict[str, Any]:
    """What changes in the card: the task is larger, and what was estimated is no longer known."""
    task, more = model.card["task"], Counter(map(str, new.labels))
    counts = Counter({row["name"]: row["count"] for row in task["classes"]}) + more
    names = list(grown.classes)
    return {
        "task": {
            **task,
            "sources": [*task["sources"], *new.provenance.sources],
            "sha256": {**task["sha256"], **new.provenance.sha256},
            "n": task["n"] + len(new),
            "classes": [{"name": name, "count": counts[name]} for name in names],
            "notes": [*task["notes"], *new.provenance.notes],
            "skipped": [*task["skipped"], *new.provenance.skipped, *skipped],
        },
        "population": population("labels", names, list(counts.elements())).as_dict(),
        "estimate": {"method": _UNKNOWN, "accuracy": None, "groups": None, "assessment": None},
        "duplicates": None,
        "selective": None,
        "cost": None,
        "shots_curve": [],
        "suspicious": [],
        "blind_spots": [*(model.card.get("blind_spots") or []), *blind_spots_card(model.encoder, new)],
    }


def _entry(model: Model, new: Dataset) -> dict[str, Any]:
    """From what, when, by what."""
    path, counts = model._path, Counter(map(str, new.labels))
    threshold = "the least confidence of --target-precision was for the old classes, and is gone"
    return {
        "file": None if path is None else str(path),
        "from": None if path is None else file_sha256(path),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "handful": handful.__version__,
        "sources": list(new.provenance.sources),
        "n": len(new),
        "old": len(model.classes),
        "classes": [{"name": name, "count": counts[name]} for name in new.classes if name not in model.classes],
        "notes": [] if model.decision.threshold is None else [threshold],
    }


def _left_out(
    grown: Model, head: Growing, features: Features, labels: np.ndarray, units: np.ndarray, new: Sequence[Any]
) -> dict[str, Any]:
    """How the new classes do, each unit of examples judged by a head that grew without it."""
    nothing = {"n": 0, "novel": None, "false_negative": None}
    if head.trains:
        return {"method": "not judged: growing this head takes training; --test judges it", **nothing}
    if units.max() >= MOST:
        return {"method": f"not judged: more than {MOST} examples; --test judges them", **nothing}
    names, proba = list(grown.classes), np.full((len(labels), len(grown.classes)), np.nan)
    fresh = [row["name"] for row in new]
    for unit in range(int(units.max()) + 1):
        rest = units != unit
        out = ~rest & np.isin(labels, fresh)
        if out.any() and set(labels[rest]) == set(labels):
            without: Head = copy.copy(head).grow(features.take(rest), labels[rest])
            proba[out] = replace(grown, head=without).proba_of(features.take(out))
    judged = ~np.isnan(proba[:, 0])
    if not judged.any():
        return {"method": "not judged: no new class has a second example", **nothing}
    found = assess(labels[judged], proba[judged], names, units[judged])
    taken = ~np.isin(np.asarray(names)[proba[judged].argmax(1)], fresh)
    return {
        "method": f"leave-one-out over {int(judged.sum()):,} examples of {_classes(labels[judged])}",
        "n": int(judged.sum()),
        "novel": found.balanced_accuracy.as_dict(),
        "false_negative": float(taken.mean()),
    }


def _classes(labels: np.ndarray) -> str:
    many = len(set(labels.tolist()))
    return "1 new class" if many == 1 else f"{many:,} new classes"
