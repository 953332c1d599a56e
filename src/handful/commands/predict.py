"""`handful predict`: every row of the input, in order, with what the model makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.commands.fitted import read_for
from handful.commands.sources import Columns
from handful.errors import BadInput
from handful.files import refuse_existing
from handful.protocols import Progress
from handful.read import Dataset, ImageFile, write_table
from handful.read.labels import LabelSets
from handful.read.writing import check_for_sheets
from handful.ship.model import Model

if TYPE_CHECKING:
    import polars as pl

    from handful.adapt.base import Features

PREFIX = "handful_"
WRITABLE = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
DIGITS = 6  # of a confidence


def predict(
    model: Model | str | Path,
    source: Any,
    *,
    out: str | Path | None = None,
    classes: str | Sequence[str] | None = None,
    top: int = 1,
    min_confidence: float | None = None,
    transductive: bool = False,
    force: bool = False,
    excel_safe: bool = False,
    encoder: str | None = None,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Label every row of a source; no row and no column of it is lost, and the order stays.

    Args:
        model: a `Model` or the file of one.
        source: what `handful.read.read` takes, a list of items, or an array. What is not a table becomes one: with a
            column ``file`` for images, ``text`` for texts, ``row`` for features.
        out: a file to write, by its suffix CSV, TSV, JSON Lines, Parquet or Excel.
        classes: names to choose among, instead of those with examples; ``"all"``: those with examples and those the
            model knows by their text alone (``class_names`` of `handful.commands.fit.fit`); ``"new"``: the latter.
            Confidence then is the share among these classes, and a population, costs, a target precision or "none of
            these" that the model was fitted to play no part.
        top: how many classes to name, the most probable first.
        min_confidence: below this probability a row is not accepted, and its label stays empty; by default what the
            model was fitted to (``target_precision``), else 0. Of several labels an item those are given that are at
            least so probable; by default those above the threshold that the model has for each.
        transductive: let the rows sway each other, for heads that can; without it an answer never depends on what else
            is asked, unless the model was fitted so.
        force: replace ``out`` if it exists, and columns ``handful_…`` that the source already has.
        excel_safe: put an apostrophe before text in ``out`` that a spreadsheet would take for a formula; what is
            returned stays as it is.
        encoder: where the encoder of a model is that was made with one that is not built in.
        text, image, label: columns; by default those the model was fitted with, else guessed from their names.
        skip_bad: leave the label empty where an item cannot be read, rather than stop.
        cache: use the feature cache.

    Returns:
        The rows of the source and the columns ``handful_label``, ``handful_confidence`` (the probability of that
        class) and ``handful_accepted``; with ``top`` above 1 ``handful_top2``, ``handful_top2_confidence`` and so on. A
        model fitted with ``reject`` labels rows that are none of its classes with the name for such; they have no
        confidence, are accepted whatever ``min_confidence``, and have the best class as their second. A source
        that gives labels also gets ``handful_given``: where it is true, the label is the row's own and no confidence is
        stated. Rows without a text have no label and are not accepted.

        A model of several labels an item joins those of a row in ``handful_label`` as they were in the examples (for
        none of them the word that was said there, or nothing); the confidence is the lowest probability among them, or
        that not even the most probable label applies. With ``top`` above 1, ``handful_top1``,
        ``handful_top1_confidence`` and so on are the most probable labels, whether given or not.

    Raises:
        BadInput: ``out`` exists, the source cannot be read, or does not fit the model.
    """
    if out is not None:
        check_out(out, force)
        if excel_safe:
            check_for_sheets(out)
    model = model if isinstance(model, Model) else Model.load(model, encoder)
    model = model.transductive() if transductive else model
    names = _check(model, classes, top, min_confidence)
    data, asked = read_for(model, source, Columns(text, image, label), skip_bad=skip_bad, keep_rows=True)
    table = _table(data, force)
    given = _given(data, {*model.classes, *(names or ())}, asked)
    answers = _answers(
        model, data, given, names, top, min_confidence, skip_bad=skip_bad, cache=cache, progress=progress
    )
    done = table.with_columns(**answers)
    if out is not None:
        write_table(done, out, excel_safe=excel_safe)
    return done


def predict_lines(
    model: Model | str | Path,
    batches: Iterable[Sequence[str]],
    *,
    classes: str | Sequence[str] | None = None,
    top: int = 1,
    min_confidence: float | None = None,
    encoder: str | None = None,
    skip_bad: bool = False,
    cache: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """Label lines as they come: a batch of texts (for an image model: of paths) in, a batch of records out.

    Each record holds the line under ``text`` (or ``file``) and the ``handful_…`` fields of `predict`.

    Raises:
        BadInput: a model of features, or an image that cannot be read and not ``skip_bad``.
    """
    model = model if isinstance(model, Model) else Model.load(model, encoder)
    names = _check(model, classes, top, min_confidence)
    if model.encoder is None:
        raise BadInput("this model reads features, which cannot come as lines of text; give it a .npz file")
    images = model.encoder.modality == "image"
    key, start = ("file" if images else "text"), 0
    for batch in batches:
        items: Any = [ImageFile(line, Path(line)) for line in batch] if images else list(batch)
        where = tuple(f"line {start + i + 1}" for i in range(len(batch)))
        start += len(batch)
        data = Dataset(items, (None,) * len(batch), model.encoder.modality, where=where)
        answers = _answers(model, data, None, names, top, min_confidence, skip_bad=skip_bad, cache=cache)
        columns = {key: list(batch), **{name: column.to_list() for name, column in answers.items()}}
        yield [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_out(out: str | Path, force: bool) -> None:
    """Refuse, before any work, a file that exists or cannot be written as a table."""
    if Path(out).is_dir():
        raise BadInput(f"{out} is a folder; give a file name")
    if Path(out).suffix.lower() not in WRITABLE:
        raise BadInput(f"cannot write {out}: the name must end in one of {', '.join(WRITABLE)}")
    refuse_existing(out, force)


def _check(
    model: Model, classes: str | Sequence[str] | None, top: int, min_confidence: float | None
) -> tuple[str, ...] | None:
    """The classes to choose among, where some are asked for."""
    names = None if not classes else model.among(classes)
    most = len(model.classes if names is None else names)
    if not 1 <= top <= most:
        raise BadInput(f"--top must be between 1 and {most}, the number of classes, not {top}")
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise BadInput(f"--min-confidence is a probability between 0 and 1, not {min_confidence}")
    return names


def _table(data: Dataset, force: bool) -> pl.DataFrame:
    """The rows of the source as a table without columns of an earlier prediction."""
    import polars as pl

    if data.table is None:
        if data.modality == "features":
            return pl.DataFrame({"row": range(len(data))})
        if data.modality == "image":
            return pl.DataFrame({"file": [getattr(item, "name", str(i)) for i, item in enumerate(data.items)]})
        return pl.DataFrame({"text": list(data.items)})
    old = [name for name in data.table.columns if name.startswith(PREFIX)]
    if old and not force:
        raise BadInput(f"the source has a column {old[0]!r} already, from an earlier prediction; --force replaces it")
    return data.table.drop(old)


def _given(data: Dataset, known: set[str], asked: bool) -> list[str | None] | None:
    """Labels the rows come with, ``None`` when the source gives none.

    A folder's name or a guessed column counts only where it is one of the ``known`` classes.
    """
    if data.label_column is None and not any(data.labels):
        return None
    sets = data.sets

    def means(label: str) -> bool:
        return label in known if sets is None else known.issuperset(sets.split(label))

    return [label if label is None or asked or means(label) else None for label in data.labels]


def _answers(
    model: Model,
    data: Dataset,
    given: list[str | None] | None,
    classes: Sequence[str] | None,
    top: int,
    min_confidence: float | None,
    *,
    skip_bad: bool,
    cache: bool,
    progress: Progress | None = None,
) -> dict[str, pl.Series]:
    """The ``handful_…`` columns."""
    import polars as pl

    n = len(data)
    own = np.array([label is not None for label in given or [None] * n], dtype=bool)
    rows = _answerable(data, own, skip_bad)
    best = np.full((n, top), -1)  # classes, the most probable first
    sure = np.full((n, top), np.nan)
    if len(rows):
        encoded = model.encode(data.take(rows), cache=cache, skip_bad=skip_bad, progress=progress)
        rows = rows[encoded.kept]
    if model.decision.sets is not None:
        features = encoded.features if len(rows) else None
        return _sets(model, model.decision.sets, rows, features, given, own, top, min_confidence)
    other = np.zeros(n, bool)
    if len(rows) and classes is not None:
        proba = model.proba_of(encoded.features, classes)
        best[rows] = np.argsort(-proba, axis=1, kind="stable")[:, :top]
        sure[rows] = np.take_along_axis(proba, best[rows], axis=1)
    elif len(rows):
        logits = model.logits_of(encoded.features)
        proba = model.decision.proba(logits)
        best[rows] = model.decision.ranking(proba)[:, :top]
        sure[rows] = np.take_along_axis(proba, best[rows], axis=1)
        other[rows] = model.rejects(encoded.features, logits)
    best[other, 1:], sure[other, 1:] = best[other, :-1], sure[other, :-1]  # "none of these" goes before the classes
    best[other, 0], sure[other, 0] = len(model.classes), np.nan
    usual = model.decision.threshold if classes is None else None
    least = usual if min_confidence is None else min_confidence
    accepted = other | (sure[:, 0] >= (least or 0.0))  # False for NaN
    none = None if model.rejection is None else model.rejection.other
    names = np.array([*(classes or model.classes), none, None], dtype=object)  # -1 is None
    labels = names[np.where(accepted, best[:, 0], -1)]
    if given is not None:
        labels[own] = np.array(given, dtype=object)[own]
    columns = {
        "label": pl.Series(labels.tolist(), dtype=pl.String),
        "confidence": _numbers(sure[:, 0]),
        "accepted": pl.Series((accepted | own).tolist(), dtype=pl.Boolean),
    }
    if given is not None:
        columns["given"] = pl.Series(own.tolist(), dtype=pl.Boolean)
    for k in range(1, top):
        columns[f"top{k + 1}"] = pl.Series(names[best[:, k]].tolist(), dtype=pl.String)
        columns[f"top{k + 1}_confidence"] = _numbers(sure[:, k])
    return {PREFIX + name: column for name, column in columns.items()}


def _sets(
    model: Model,
    sets: LabelSets,
    rows: np.ndarray,
    features: Features | None,
    given: list[str | None] | None,
    own: np.ndarray,
    top: int,
    min_confidence: float | None,
) -> dict[str, pl.Series]:
    """The ``handful_…`` columns of a model of several labels an item, for the ``rows`` whose features there are."""
    import polars as pl

    n, names = len(own), np.array(model.classes, dtype=object)
    labels: list[str | None] = [None] * n
    sure, best = np.full(n, np.nan), np.full((n, top), np.nan)
    ranked: list[list[str | None]] = [[None] * n for _ in range(top)]
    if features is not None:
        proba = model.proba_of(features)
        said = model.said_of(features) > 0 if min_confidence is None else proba >= min_confidence
        order = np.argsort(-proba, axis=1, kind="stable")[:, :top]
        sure[rows] = np.where(said.any(1), np.where(said, proba, 1.0).min(1), 1 - proba.max(1))
        best[rows] = np.take_along_axis(proba, order, axis=1)
        for at, row in enumerate(rows.tolist()):
            labels[row] = sets.written(names[said[at]])
            for k in range(top):
                ranked[k][row] = names[order[at, k]]
    accepted = own.copy()
    accepted[rows] = True
    for row in np.flatnonzero(own):
        labels[row] = sets.written(sets.split(str((given or [])[row])))
    columns = {
        "label": pl.Series(labels, dtype=pl.String),
        "confidence": _numbers(sure),
        "accepted": pl.Series(accepted.tolist(), dtype=pl.Boolean),
    }
    if given is not None:
        columns["given"] = pl.Series(own.tolist(), dtype=pl.Boolean)
    for k in range(top if top > 1 else 0):
        columns[f"top{k + 1}"] = pl.Series(ranked[k], dtype=pl.String)
        columns[f"top{k + 1}_confidence"] = _numbers(best[:, k])
    return {PREFIX + name: column for name, column in columns.items()}


def _answerable(data: Dataset, own: np.ndarray, skip_bad: bool) -> np.ndarray:
    """Rows without a label of their own that hold something. A blank text is no error, other gaps are."""
    usable = data.usable
    if data.modality == "features" and not skip_bad and not usable.all():
        place = data.where[int(np.argmin(usable))] if data.where else f"item {int(np.argmin(usable))}"
        raise BadInput(f"{place}: its features are not all numbers (--skip-bad leaves its label empty)")
    if data.modality == "image" and not skip_bad:
        usable[:] = True  # the encoder says what is wrong, and where
    return np.flatnonzero(~own & usable)


def _numbers(values: np.ndarray) -> pl.Series:
    import polars as pl

    return pl.Series(np.round(values, DIGITS)).fill_nan(None)
