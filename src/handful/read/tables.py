"""Tables as they are read: every column and row, nothing interpreted."""

from __future__ import annotations

import base64
import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful.errors import BadInput
from handful.read.places import columns_are, one_line, quoted

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Table:
    """A table that is not interpreted yet.

    Args:
        name: what messages call it.
        frame: its rows. Cells of delimited text are strings, empty ones too; other formats keep their types.
        where: n places, one a row.
        folder: what relative paths in it are relative to; ``None`` is the current folder.
        sha256: of its file.
        notes: what was not read, for instance further sheets.
    """

    name: str
    frame: pl.DataFrame
    where: tuple[str, ...]
    folder: Path | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()


def frame_of(columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """A frame of Python values, column by column, see `series_of`."""
    import polars as pl

    return pl.DataFrame([series_of(name, values) for name, values in columns.items()])


def series_of(name: str, values: Sequence[Any]) -> pl.Series:
    """A column that keeps its type if polars holds the values without a change; else a column of `cell_text`."""
    import polars as pl

    if {type(value) for value in values} - {type(None)} == {int, float}:  # a column of numbers, some without a fraction
        values = [value if value is None else float(value) for value in values]
    try:
        series = pl.Series(name, values, strict=True)
        no_type = series.dtype in (pl.Object, pl.Null, pl.Struct([]))
        if not no_type and series.to_list() == list(values):
            return series
    except (
        TypeError,
        ValueError,
        OverflowError,
        UnicodeError,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ):
        pass
    return pl.Series(name, [cell_text(value) for value in values], dtype=pl.String)


def cell_text(value: Any) -> str | None:
    """A cell as text: strings as they are, lists and mappings as JSON, bytes as Base64, ``None`` for an empty cell."""
    if value is None or isinstance(value, str):
        # half a surrogate pair cannot be written to any file
        return value if value is None else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=cell_text).encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def unique_names(names: Sequence[str], source: str) -> None:
    """Raise `BadInput` when two columns have one name."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if not doubled:
        return
    at = " and ".join(str(i) for i, name in enumerate(names, start=1) if name == doubled[0])
    if not doubled[0].strip():
        raise BadInput(f"{source}: columns {at} have no name; name or delete them")
    raise BadInput(f"{source}: columns {at} are both called {quoted(doubled[0])}; column names must differ")


def stack(tables: Sequence[Table]) -> Table:
    """Tables below each other. A column that some do not have is empty there; types that differ become text."""
    import polars as pl

    if len(tables) == 1:
        return tables[0]
    kinds: dict[str, set[pl.DataType]] = {}
    for table in tables:
        for name, kind in table.frame.schema.items():
            kinds.setdefault(name, set()).add(kind)
    mixed = [name for name, found in kinds.items() if len(found) > 1]
    frames = [text_columns(table.frame, [name for name in mixed if name in table.frame.columns]) for table in tables]
    return replace(
        tables[0],
        name=", ".join(table.name for table in tables),
        frame=pl.concat(frames, how="diagonal"),
        where=tuple(place for table in tables for place in table.where),
        notes=tuple(note for table in tables for note in table.notes),
    )


def text_columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """``frame`` with these columns as text."""
    import polars as pl

    if not names:
        return frame
    texts = [pl.Series(name, [cell_text(v) for v in frame[name].to_list()], dtype=pl.String) for name in names]
    return frame.with_columns(texts)


def need_column(table: Table, name: str, option: str) -> None:
    """Raise `BadInput` when a column the user named is not there; names the ones that are."""
    if name not in table.frame.columns:
        from handful.errors import nearest

        close = nearest(name, table.frame.columns)
        hint = close if close.startswith("; did you mean") else ""
        raise BadInput(
            f"{table.name} has no column {quoted(name)} ({option}){one_line(hint)}; {columns_are(table.frame.columns)}"
        )
