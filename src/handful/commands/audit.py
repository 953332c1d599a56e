"""`handful audit`: can a model be trusted on these labelled items? Verdicts in words, each with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.adapt.base import Features
from handful.commands.fitted import read_for, refuse_label_sets
from handful.commands.inspect import quoted_number
from handful.commands.kept_apart import copies_of, named, resembling
from handful.commands.sources import Columns, cell_of, column_of
from handful.core.intervals import Estimate
from handful.core.shares import Shares
from handful.errors import BadInput
from handful.evaluate.duplicates import merge_units
from handful.protocols import Progress
from handful.read import Dataset
from handful.ship.model import Model

if TYPE_CHECKING:
    from handful.evaluate.audit import Audit


def audit(
    model: Model | str | Path,
    source: Any,
    *,
    by: str | Sequence[str] | Mapping[str, Sequence[Any]] | None = None,
    against: Any = None,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    group_regex: str | None = None,
    encoder: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> Audit:
    """Say whether a model keeps its promises on labelled items; rows without a label are left aside.

    Accuracy is compared with the number the model quotes, confidence with accuracy; classes, and the values of each
    column of ``by``, with each other, corrected for their number; and whether answers follow such a column beyond the
    class is tested by permutations. Items that (nearly) repeat each other count as one.

    Args:
        model: a `Model` or the file of one.
        source: a labelled source: what `handful.read.read` takes, a `Dataset`, or ``{label: [items]}``.
        by: columns of the source that should not matter (a site, a camera, an age band), of 2 to 50 values; or
            ``{name: values}``, a value for each item of the source.
        against: what the model learnt from, to look for copies of it; without it that is left open.
        text, image, label: columns; by default those the model was fitted with, else guessed from their names.
        group, group_regex: column, or pattern in a file's path, that says which items belong together.
        encoder: where the encoder of a model is that was made with one that is not built in.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read, rather than stop.
        cache: use the feature cache.

    Returns:
        A `handful.evaluate.audit.Audit`; ``findings`` are its verdicts.

    Raises:
        BadInput: the source cannot be read, has no label or one the model does not know, or no such column.
    """
    from handful.evaluate.audit import Overlap, examine

    model = model if isinstance(model, Model) else Model.load(model, encoder)
    refuse_label_sets(model, "handful audit")
    asked = Columns(text, image, label, group, group_regex)
    data, _ = read_for(model, source, asked, merge_labels=merge_labels, skip_bad=skip_bad)
    columns = _columns(data, by)
    rows = np.array([i for i, given in enumerate(data.labels) if given is not None], dtype=int)
    if not len(rows):
        raise BadInput("nothing to audit on: no item has a label; --label names the column that holds them")
    data = data.take(rows)
    encoded = model.encode(data, cache=cache, skip_bad=skip_bad, progress=progress)
    data, rows, features = data.take(encoded.kept), rows[encoded.kept], encoded.features
    if not len(data):
        raise BadInput("nothing to audit on: no item can be read")
    true = [str(given) for given in data.labels]
    unknown = sorted(set(true) - set(model.classes))
    if unknown:
        raise BadInput(f"label {unknown[0]!r} is none of the model's classes: {', '.join(model.classes[:8])}")
    proba = model.proba_of(features)
    copies = copies_of(data, features, True)
    repeats = len(data) - len(np.unique(copies))
    units = merge_units(data.groups, copies) if repeats or data.groups is not None else None
    right = np.asarray(model.classes)[proba.argmax(axis=1)] == np.asarray(true)
    seen = _seen(model, against, asked, data, features, cache=cache, skip_bad=skip_bad)
    same = set(data.provenance.sha256.values()) & set(model.card.get("task", {}).get("sha256", {}).values())
    fresh = None
    if seen is not None and not seen.all():
        fresh = Shares(units)(right, ~seen)
    return examine(
        true,
        proba,
        model.classes,
        quoted=_quoted(model),
        columns={name: values[rows] for name, values in columns.items()},
        learnt={row["name"]: row["count"] for row in model.card.get("task", {}).get("classes", ())},
        units=units,
        overlap=Overlap(
            same_file=bool(same),
            against=None if seen is None else named(against),
            copies=None if seen is None else int(seen.sum()),
            fresh=fresh,
            repeats=repeats,
        ),
    )


def _columns(data: Dataset, by: str | Sequence[str] | Mapping[str, Sequence[Any]] | None) -> dict[str, np.ndarray]:
    """Values of each column ``[n]`` as text."""
    if isinstance(by, Mapping):
        for name, values in by.items():
            if len(values) != len(data):
                raise BadInput(f"by: {len(values)} values of {name!r} for {len(data)} items of the source")
        return {str(name): np.array([cell_of(value) for value in values]) for name, values in by.items()}
    names = [by] if isinstance(by, str) else list(by or ())
    return {name: np.array(column_of(data, name, "--by")) for name in names}


def _quoted(model: Model) -> Estimate | None:
    found = quoted_number(model.card)["accuracy"]
    return Estimate(**found) if found else None


def _seen(
    model: Model, against: Any, asked: Columns, data: Dataset, features: Features, *, cache: bool, skip_bad: bool
) -> np.ndarray | None:
    """Which items ``[n]`` (nearly) equal one of the source ``against``, or share its group; ``None`` without it."""
    if against is None:
        return None
    learnt, _ = read_for(model, against, asked, skip_bad=skip_bad)
    encoded = model.encode(learnt, cache=cache, skip_bad=skip_bad)
    return resembling(learnt.take(encoded.kept), encoded.features, data, features, True)
