"""Data frames that are in memory already, as tables."""

from __future__ import annotations

from typing import Any

from handful.errors import BadInput
from handful.read.tables import Table, frame_of, unique_names


def is_frame(source: Any) -> bool:
    """Whether this is a pandas or polars data frame; neither library is imported to find out."""
    return type(source).__name__ == "DataFrame" and type(source).__module__.split(".")[0] in ("pandas", "polars")


def frame_table(source: Any) -> Table:
    """The rows of a pandas or polars frame, counted from 0. The index of a pandas frame is not a column."""
    where = tuple(f"frame row {i}" for i in range(len(source)))
    if not where:
        raise BadInput("the data frame has no rows")
    if type(source).__module__.split(".")[0] == "polars":
        return Table("the data frame", source, where)
    names = [str(name) for name in source.columns]
    unique_names(names, "the data frame")
    missing = source.isna().to_numpy()
    columns = {
        name: [None if gone else value for value, gone in zip(source.iloc[:, i].tolist(), missing[:, i], strict=True)]
        for i, name in enumerate(names)
    }
    return Table("the data frame", frame_of(columns), where)
