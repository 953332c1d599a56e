"""One table file in, by its suffix."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from handful.errors import BadInput
from handful.read.delimited import decode, rows
from handful.read.places import file_bytes, one_line
from handful.read.tables import Table, frame_of, unique_names


def read_table(path: Path, name: str) -> Table:
    """The rows of a file of one of the `TABLES`. Raises `BadInput` when it is not what its suffix says."""
    data = file_bytes(path)
    table = TABLES[path.suffix.lower()](data, name)
    if not table.frame.height:
        raise BadInput(f"{name} has a header but no rows" if table.frame.width else f"{name} holds no rows")
    return replace(table, folder=path.parent, sha256=hashlib.sha256(data).hexdigest())


def _delimited(data: bytes, name: str, tab_first: bool = False) -> Table:
    header, cells, numbers = rows(decode(data, name), name, tab_first)
    unique_names(header, name)
    columns = list(zip(*cells, strict=True)) if cells else [()] * len(header)
    frame = frame_of(dict(zip(header, columns, strict=True)))
    return Table(name, frame, tuple(f"{name} row {number}" for number in numbers))


def _tab_separated(data: bytes, name: str) -> Table:
    return _delimited(data, name, tab_first=True)


def _lines(data: bytes, name: str) -> Table:
    """Plain text: one text a line, blank ones too."""
    lines = decode(data, name).replace("\r\n", "\n").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return Table(name, frame_of({"text": lines}), tuple(f"{name} line {i}" for i in range(1, len(lines) + 1)))


def _json(data: bytes, name: str) -> Table:
    from handful.read.jsons import json_table

    return json_table(decode(data, name), name)


def _json_lines(data: bytes, name: str) -> Table:
    from handful.read.jsons import json_lines_table

    return json_lines_table(decode(data, name), name)


def _parquet(data: bytes, name: str) -> Table:
    import polars as pl

    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError) as error:
        raise BadInput(f"{name} cannot be read as Parquet: {one_line(error)}") from error
    return Table(name, frame, tuple(f"{name} row {i}" for i in range(1, frame.height + 1)))


def _workbook(data: bytes, name: str) -> Table:
    from handful.read.sheets import sheet_table

    return sheet_table(data, name)


TABLES: dict[str, Callable[[bytes, str], Table]] = {
    ".csv": _delimited,
    ".tsv": _tab_separated,
    ".tab": _tab_separated,
    ".txt": _lines,
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".xlsx": _workbook,
    ".xlsm": _workbook,
}
"""Reader of each suffix."""
