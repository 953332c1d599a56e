"""From a table to a `Dataset`: one item a row, in order, none left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful.errors import BadInput
from handful.read.columns import LABEL, Roles, first_usual, roles
from handful.read.dataset import Dataset, ImageFile, Provenance
from handful.read.grouping import by_column, noted
from handful.read.labels import LabelSets, label_texts
from handful.read.places import columns_are, quoted
from handful.read.tables import Table, cell_text, stack

if TYPE_CHECKING:
    import polars as pl


def dataset_of_tables(
    tables: Sequence[Table],
    text: str | Sequence[str] | None,
    image: str | None,
    label: str | None,
    group: str | None,
    sets: LabelSets | None = None,
) -> Dataset:
    """One data set of tables below each other. All need the columns of the items; one without labels joins the pool."""
    stacked = stack(tables)
    chosen = roles(stacked, text, image, label, group)
    notes = list(stacked.notes)
    for table in tables:
        notes += _compare(table, chosen, stacked.frame.columns)
    labels: tuple[str | None, ...] = (None,) * len(stacked.where)
    if chosen.label is not None:
        labels = label_texts(stacked.frame[chosen.label].to_list(), stacked.where, sets)
        there = [chosen.label in table.frame.columns for table in tables for _ in table.where]
        labels = tuple(label if known else None for label, known in zip(labels, there, strict=True))
    items = _texts(stacked.frame, chosen.text) if chosen.text else _all_images(tables, chosen.image or "")
    data = Dataset(
        items,
        labels,
        "text" if chosen.text else "image",
        where=stacked.where,
        table=stacked.frame,
        label_column=chosen.label,
        item_columns=chosen.text or (chosen.image or "",),
        provenance=Provenance(
            sha256={table.name: table.sha256 for table in tables if table.sha256 is not None}, notes=tuple(notes)
        ),
    )
    if chosen.group is None:
        return data
    groups = by_column(stacked.frame[chosen.group].to_list(), stacked.where, chosen.group)
    return noted(replace(data, groups=groups), f"column {quoted(chosen.group)}")


def _compare(table: Table, chosen: Roles, everything: Sequence[str]) -> list[str]:
    """What to say of a table that lacks columns others have. Raises `BadInput` when it cannot be read with them."""
    columns = table.frame.columns
    missing = [name for name in everything if name not in columns]
    for name in missing:
        if name == chosen.image or name in chosen.text:
            raise BadInput(
                f"{table.name} has no column {quoted(name)}, which another source has; tables read together need the "
                f"same columns, {columns_are(columns)}"
            )
    other = first_usual(LABEL, columns) if chosen.label in missing else None
    if other is not None:
        raise BadInput(
            f"{table.name} has its labels in {quoted(other)}, another source in {quoted(chosen.label or '')}; tables "
            "read together need the same columns"
        )
    notes = (
        [f"{table.name} lacks columns that another source has: {', '.join(map(quoted, missing))}"] if missing else []
    )
    if chosen.label in missing:
        notes.append(f"{table.name} has no column {quoted(chosen.label or '')}: its rows are unlabelled")
    return notes


def _texts(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """The cells of each row that are not blank, joined by line breaks."""
    cells = [[cell_text(value) or "" for value in frame[name].to_list()] for name in columns]
    if len(cells) == 1:
        return cells[0]
    return ["\n".join(cell for cell in row if cell.strip()) for row in zip(*cells, strict=True)]


def _all_images(tables: Sequence[Table], column: str) -> list[ImageFile]:
    return [image for table in tables for image in _images(table, column)]


def _images(table: Table, column: str) -> list[ImageFile]:
    """The images a table holds, or names relative to its folder."""
    return [_image(value, place, table.folder) for value, place in zip(table.frame[column], table.where, strict=True)]


def _image(value: Any, place: str, folder: Path | None) -> ImageFile:
    """An image of a cell; whether its file is there is asked later, when it is known whether the row is needed."""
    if isinstance(value, dict):  # {"bytes": …, "path": …}
        name, value = value["path"] or place, value["bytes"] or value["path"]
    else:
        name = place
    if isinstance(value, bytes):
        return ImageFile(name, data=value)
    name = (cell_text(value) or "").strip()
    if not name:
        return ImageFile(place)
    path = (folder or Path()) / name
    if "\\" in name and not os.path.exists(path):  # a table made on Windows
        path = (folder or Path()) / name.replace("\\", "/")
    return ImageFile(name, path=path)
