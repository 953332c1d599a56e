"""The last step of every reader: who stands alone, one spelling a label, nothing empty, labels where needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handful.errors import BadInput
from handful.read.dataset import Dataset, ImageFile
from handful.read.grouping import alone_named
from handful.read.labels import LabelSets, one_spelling, spelt_sets
from handful.read.places import columns_are, one_line, quoted


def checked(
    data: Dataset,
    *,
    merge_labels: bool = False,
    skip_bad: bool = False,
    require_labels: bool = False,
    keep_rows: bool = False,
    sets: LabelSets | None = None,
) -> Dataset:
    """``data`` when it can be learnt from, see `handful.read.read`. Raises `BadInput` with the place of what cannot."""
    if not len(data):
        raise BadInput(f"{_name(data)} holds no items")
    if require_labels and not data.classes:
        raise BadInput(f"{_name(data)}: {_no_labels(data)}")
    data = alone_named(data)
    if sets is not None:
        where = data.where or tuple(f"item {i}" for i in range(len(data)))
        data = replace(data, labels=spelt_sets(data.labels, sets, where, merge_labels), sets=sets)
    if keep_rows:
        return data
    if sets is None:
        data = replace(data, labels=one_spelling(data.labels, merge_labels))
    return _without_bad(data, skip_bad)


def _without_bad(data: Dataset, skip_bad: bool) -> Dataset:
    """Labelled items must hold something, and features must be numbers; unlabelled texts and images may be empty."""
    bad = ~data.usable
    if data.modality != "features":
        bad &= np.fromiter((label is not None for label in data.labels), dtype=bool, count=len(data))
    rows = np.flatnonzero(bad).tolist()
    if not len(rows):
        return data
    reasons = [f"{_place(data, row)}: {_reason(data, row)}" for row in rows]
    if not skip_bad:
        more = f" (and so in {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise BadInput(f"{reasons[0]}{more}; correct it, or give --skip-bad to leave it out")
    provenance = replace(data.provenance, skipped=(*data.provenance.skipped, *reasons))
    kept = replace(data.take(np.flatnonzero(~bad)), provenance=provenance)
    if not len(kept):
        raise BadInput(f"{_name(data)}: no item can be used; the first is {reasons[0]}")
    return kept


def _place(data: Dataset, row: int) -> str:
    return data.where[row] if data.where else f"item {row}"


def _reason(data: Dataset, row: int) -> str:
    """Why the item in ``row`` cannot be used."""
    if isinstance(data.items, np.ndarray):
        values = data.items[row].ravel()
        column = int(np.flatnonzero(~np.isfinite(values))[0])
        return f"feature column {column} is {values[column]}"
    item = data.items[row]
    if isinstance(item, ImageFile) and item.path is not None:
        if "://" in item.name:
            return f"{quoted(item.name, 200)} is an address; images are read from files, so download it first"
        return f"no such image file: {one_line(item.path)}"
    what = "the text" if data.modality == "text" else "the image"
    column_names = f" (column {', '.join(map(quoted, data.item_columns))})" if data.item_columns else ""
    return f"{what}{column_names} is empty, but it has label {quoted(data.labels[row] or 'none')}"


def _name(data: Dataset) -> str:
    return ", ".join(data.provenance.sources) or "the data"


def _no_labels(data: Dataset) -> str:
    if data.label_column is not None:
        return f"no item has a label, column {quoted(data.label_column)} is empty"
    if data.table is not None:
        return f"no label column can be guessed, name it with --label; {columns_are(data.table.columns)}"
    return "no item has a label"
