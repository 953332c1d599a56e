"""Small tables of numbers that users write: a share for each class, a cost for each kind of error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful.errors import BadInput
from handful.read.columns import LABEL, first_usual
from handful.read.delimited import decode
from handful.read.formats import TABLES, read_table
from handful.read.jsons import parse
from handful.read.labels import label_texts
from handful.read.places import columns_are, existing, file_bytes, one_line, quoted
from handful.read.tables import Table

SHARE = (
    "share",
    "shares",
    "prior",
    "probability",
    "frequency",
    "proportion",
    "percent",
    "weight",
    "count",
    "counts",
    "n",
)
"""Usual names of the column of shares, the first that is there."""


def read_shares(path: str | Path) -> dict[str, float]:
    """What a file says of each label: a table with columns label and share (or count), or ``{label: share}`` in JSON.

    Raises:
        BadInput: no such file, columns that cannot be told apart, a label twice, or a cell that is no number.
    """
    path = existing(path)
    if path.suffix.lower() == ".json":
        value = parse(decode(file_bytes(path), path.name), path.name)
        if isinstance(value, dict):
            return {label: number(share, f"{path.name}: label {quoted(label)}") for label, share in value.items()}
    table = written_table(path)
    label = first_usual(LABEL, table.frame.columns)
    others = [name for name in table.frame.columns if name != label]
    share = first_usual(SHARE, others) or (others[0] if len(others) == 1 else None)
    if label is None or share is None:
        raise BadInput(f"{table.name} needs columns called label and share; {columns_are(table.frame.columns)}")
    shares: dict[str, float] = {}
    cells = zip(filled(table, label), table.frame[share].to_list(), table.where, strict=True)
    for name, cell, place in cells:
        if name in shares:
            raise BadInput(f"{place}: label {quoted(name)} is there twice")
        shares[name] = number(cell, f"{place}, column {quoted(share)}")
    return shares


def written_table(path: str | Path) -> Table:
    """The rows of a table file. Raises `BadInput` for any other file."""
    path = existing(path)
    if path.suffix.lower() not in TABLES or path.suffix.lower() == ".txt":
        kinds = ", ".join(suffix for suffix in TABLES if suffix != ".txt")
        raise BadInput(f"{one_line(path.name)} is no table; there are: {kinds}")
    return read_table(path, path.name)


def filled(table: Table, column: str) -> Sequence[str]:
    """The class names in a column. Raises `BadInput` naming a row that has none."""
    names = label_texts(table.frame[column].to_list(), table.where)
    return [_present(name, place, column) for name, place in zip(names, table.where, strict=True)]


def _present(name: str | None, place: str, column: str) -> str:
    if name is None:
        raise BadInput(f"{place}: column {quoted(column)} is empty; it names a class")
    return name


def number(cell: Any, place: str) -> float:
    """A cell as a finite number that is not negative. Raises `BadInput` naming its place."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(cell, bool) or not (math.isfinite(value) and value >= 0):
        shown = "nothing" if cell is None or str(cell) == "" else quoted(str(cell), 40)
        raise BadInput(f"{place} holds {shown}; a number of at least 0 is needed")
    return value


def is_blank(cell: Any) -> bool:
    """Whether nothing is written in a cell."""
    return cell is None or not str(cell).strip()
