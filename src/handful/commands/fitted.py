"""Reading a source for a model that exists: the columns it was fitted with are the ones looked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.commands.sources import Columns, as_asked
from handful.errors import BadInput
from handful.read import Dataset, from_arrays, read
from handful.ship.model import Model

_WITHOUT_COLUMNS = (".zip", ".npz")


def read_for(
    model: Model,
    source: Any,
    asked: Columns,
    *,
    merge_labels: bool = False,
    skip_bad: bool = False,
    keep_rows: bool = False,
) -> tuple[Dataset, bool]:
    """The source, read with the columns ``asked`` for, else with those of the fit, else with those whose name fits.

    Also whether its label column is one that was asked for or fitted with, rather than guessed. A source without that
    column is read without it: what is to be labelled seldom has labels. A model of several labels an item reads them as
    it was fitted to; with ``keep_rows``, where rows without a label are to get one, an empty cell is no label.

    Raises:
        BadInput: the source cannot be read, or holds something else than the model takes.
    """
    sets = model.decision.sets
    if sets is not None:
        asked = replace(asked, multi_label=sets.separator, none=sets.none)
    if isinstance(source, Dataset | tuple):
        if isinstance(source, tuple):
            source = from_arrays(*source, multi_label=asked.multi_label, none=asked.none)
        return _fitting(model, as_asked(source, sets, merge_labels)), True
    if keep_rows and asked.none == "":
        asked = replace(asked, none=None)
    fitted = model.card.get("task", {}).get("columns", {}) if has_columns(source) else {}
    text, image = asked.text, asked.image
    if text is None and image is None:
        text, image = fitted.get("text"), fitted.get("image")

    def with_label(label: str | None) -> Dataset:
        data = read(
            source,
            text=text,
            image=image,
            label=label,
            group=asked.group,
            group_regex=asked.group_regex,
            merge_labels=merge_labels,
            skip_bad=skip_bad,
            keep_rows=keep_rows,
            multi_label=asked.multi_label,
            none=asked.none,
        )
        return _fitting(model, data)

    data = with_label(asked.label)
    usual = fitted.get("label")
    if asked.label is not None or usual is None or data.table is None or usual not in data.table.columns:
        return data, asked.label is not None
    return (data if data.label_column == usual else with_label(usual)), True


def refuse_label_sets(model: Model, what: str) -> None:
    """Raise `BadInput` for a model of several labels an item, which ``what`` cannot take."""
    if model.decision.sets is not None:
        raise BadInput(f"{what} takes models of one label an item; this one gives several")


def _fitting(model: Model, data: Dataset) -> Dataset:
    """``data``, when it is what the model takes. Raises `BadInput` when it is not."""
    name = ", ".join(data.provenance.sources) or "the source"
    wanted = model.card.get("task", {}).get("modality", data.modality)
    if data.modality != wanted:
        raise BadInput(f"the model reads {wanted}, but {name} holds {data.modality}")
    width = int(model.head.n_features_in_)
    if isinstance(data.items, np.ndarray) and data.items.shape[1:] != (width,):
        raise BadInput(f"the model reads {width} features an item, but {name} has {data.items.shape[1]}")
    return data


def has_columns(source: Any) -> bool:
    """Whether a source is a table: a frame or a file of one, not a folder, an archive or a file of arrays."""
    if not isinstance(source, (str, Path)):
        return hasattr(source, "columns")
    return Path(source).suffix.lower() not in _WITHOUT_COLUMNS and not Path(source).is_dir()
