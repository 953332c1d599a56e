"""`handful next`: which items of a pool to label next, and whether choosing them pays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.commands.fitted import read_for, refuse_label_sets
from handful.commands.predict import DIGITS, PREFIX, check_out
from handful.commands.sources import Columns, class_sentences
from handful.errors import BadInput
from handful.evaluate.labelling import Replay, pick, replay
from handful.protocols import Progress
from handful.read import Dataset, ImageFile, write_table
from handful.ship.model import Model, class_text_vectors

if TYPE_CHECKING:
    import polars as pl

    from handful.adapt.base import Head

LABEL = "label"
"""The column to fill in, where the model's own labels had none."""


@dataclass(frozen=True)
class Next:
    """Rows to label, the first one first, and what a replay says of choosing them; ``pool`` items were looked at."""

    table: pl.DataFrame
    pool: int
    label_column: str
    replay: Replay | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        replayed = None if self.replay is None else self.replay.as_dict()
        return {"pool": self.pool, "label": self.label_column, "replay": replayed, "rows": self.table.to_dicts()}


def next_(
    model: Model | str | Path,
    pool: Any,
    *,
    n: int = 30,
    out: str | Path | None = None,
    replay: Any = None,
    seed: int = 0,
    force: bool = False,
    excel_safe: bool = False,
    encoder: str | None = None,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> Next:
    """Choose what to label next: what stands for many others, of classes that have few labels.

    The rule is that of `handful.evaluate.labelling`. Rows that have a label are not chosen.

    Args:
        model: a `Model` or the file of one.
        pool: unlabelled items, as for `handful.commands.predict.predict`.
        n: how many.
        out: a file to write. Its label column is empty; filled in, the file is one more source of ``fit``.
        replay: a labelled source: how much better than random the choice would have been on it.
        seed: of the draws.
        force: replace ``out`` if it exists.
        excel_safe: put an apostrophe before text in ``out`` that a spreadsheet would take for a formula.
        encoder: where the encoder of a model is that was made with one that is not built in.
        text, image, label: columns; by default those the model was fitted with, else guessed from their names.
        skip_bad: leave out items that cannot be read, rather than stop.
        cache: use the feature cache.

    Returns:
        The chosen rows of the pool with an empty column for the label, ``handful_suggested`` and
        ``handful_confidence``: what the model would answer, and its probability.

    Raises:
        BadInput: a source cannot be read or does not fit the model, nothing in it is unlabelled, or ``out`` exists.
    """
    if n < 1:
        raise BadInput(f"-n must be at least 1, not {n}")
    if out is not None:
        check_out(out, force)
    model = model if isinstance(model, Model) else Model.load(model, encoder)
    refuse_label_sets(model, "handful next")
    columns = Columns(text, image, label)
    data, _ = read_for(model, pool, columns, skip_bad=skip_bad, keep_rows=True)
    rows = np.flatnonzero(data.usable & np.array([given is None for given in data.labels], dtype=bool))
    if not len(rows):
        raise BadInput("nothing to choose from: every item of the pool has a label, or holds nothing")
    data = data.take(rows)
    encoded = model.encode(data, cache=cache, skip_bad=skip_bad, progress=progress)
    if not len(encoded.kept):
        raise BadInput("nothing to choose from: no item of the pool can be read")
    proba = model.proba_of(encoded.features)
    counts = {row["name"]: row["count"] for row in model.card.get("task", {}).get("classes", [])}
    labels = np.array([counts.get(c, 0) for c in model.classes])
    chosen = pick(proba, encoded.features.x, labels, min(n, len(proba)), seed=seed)
    name = str(model.card.get("task", {}).get("columns", {}).get("label") or label or data.label_column or LABEL)
    table = _table(data.take(encoded.kept[chosen]), model, proba[chosen], name, out)
    if out is not None:
        write_table(table, out, excel_safe=excel_safe)
    replayed = None if replay is None else _replayed(model, replay, columns, n, seed, skip_bad, cache)
    return Next(table, len(proba), name, replayed)


def _table(data: Dataset, model: Model, proba: np.ndarray, label: str, out: str | Path | None) -> pl.DataFrame:
    """The chosen rows, ready to be filled in."""
    import polars as pl

    rows = _rows(data, out)
    best = proba.argmax(axis=1)
    return rows.drop([c for c in rows.columns if c.startswith(PREFIX) or c in (label, data.label_column)]).with_columns(
        pl.Series(label, [None] * len(data), dtype=pl.String),
        pl.Series(f"{PREFIX}suggested", [model.classes[i] for i in best], dtype=pl.String),
        pl.Series(f"{PREFIX}confidence", np.round(proba.max(axis=1), DIGITS)),
    )


def _rows(data: Dataset, out: str | Path | None) -> pl.DataFrame:
    """The rows as a table that `read` finds the items of: file names are written as seen from the folder of ``out``."""
    import polars as pl

    if data.modality == "features":
        table = pl.DataFrame({"place": list(data.where) or [f"item {i}" for i in range(len(data))]})
    elif data.modality == "text" and (data.table is None or data.item_columns == ("file",)):
        table = pl.DataFrame({"text": list(data.items)})  # a folder of texts: a table holds texts, not their files
    elif data.modality == "text":
        assert data.table is not None
        table = data.table
    else:
        column = data.item_columns[0] if data.item_columns else "file"
        files = [_file(item, out) for item in data.items]
        named = pl.Series(column, files)
        table = named.to_frame() if data.table is None else data.table.with_columns(named)
    return table


def _file(item: Any, out: str | Path | None) -> str:
    if not isinstance(item, ImageFile) or item.path is None or item.member is not None:
        raise BadInput("pictures in memory or in an archive have no file to name in a table; give a folder of them")
    if out is None:
        return str(item.path)
    try:
        return Path(os.path.relpath(item.path, Path(out).parent)).as_posix()
    except ValueError:  # another drive
        return str(item.path.absolute())


def _replayed(model: Model, source: Any, columns: Columns, n: int, seed: int, skip_bad: bool, cache: bool) -> Replay:
    data, _ = read_for(model, source, columns, skip_bad=skip_bad)
    data = data.labelled
    encoded = model.encode(data, cache=cache, skip_bad=skip_bad)
    labels = np.array([str(data.labels[i]) for i in encoded.kept])
    counts = {row["name"]: row["count"] for row in model.card.get("task", {}).get("classes", [])}
    shots = np.array([counts.get(c, 1) for c in np.unique(labels)])
    return replay(_head(model, cache), encoded.features, labels, n, shots=shots, seed=seed)


def _head(model: Model, cache: bool) -> Head:
    """The model's head, with words for its classes where it had some."""
    head, tower = model.head, model.encoder
    if tower is None or tower.aligned is None or not model.card.get("class_text", {}).get("used"):
        return head
    from sklearn.base import clone

    sentences = class_sentences(None, model.classes, tower.templates)
    vectors = class_text_vectors(tower, sentences, cache=cache) if sentences else None
    copy: Head = clone(head).set_params(text=vectors)
    return copy
