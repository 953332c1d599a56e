"""Excel workbooks: the values of the first sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

from handful.errors import BadInput
from handful.read.places import one_line
from handful.read.tables import Table, cell_text, frame_of, unique_names
from handful.read.zips import DAMAGED, check_unpacked_size

MAX_UNPACKED = 1 << 31  # bytes; XML packs well, so a small file may hold a lot


_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_TO_ESCAPE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def sheet_table(data: bytes, name: str) -> Table:
    """The first sheet; its first row that is not blank is the header. Formulas give the values last computed.

    Blank rows are no rows, but they are counted. Raises `BadInput` for a file that is no workbook or has cells beyond
    its header.
    """
    numbered, others = _read(data, name)
    if not numbered:
        raise BadInput(f"{name}: the first sheet is blank")
    _, first = numbered[0]
    width = max(i for i, cell in enumerate(first, start=1) if cell is not None)
    header = [cell_text(cell) or "" for cell in first[:width]]
    unique_names(header, name)
    body = numbered[1:]
    for number, cells in body:
        beyond = [i for i, cell in enumerate(cells[width:], start=width + 1) if cell is not None]
        if beyond:
            raise BadInput(f"{name} row {number} has a value in column {beyond[0]}, which has no name in the header")
    columns = [[cells[i] if i < len(cells) else None for _, cells in body] for i in range(width)]
    notes = (
        (f"{name}: only the first sheet is read, not {', '.join(one_line(o, 40) for o in others)}",) if others else ()
    )
    where = tuple(f"{name} row {number}" for number, _ in body)
    return Table(name, frame_of(dict(zip(header, columns, strict=True))), where, notes=notes)


def _read(data: bytes, name: str) -> tuple[list[tuple[int, tuple[Any, ...]]], list[str]]:
    """Numbered rows that are not blank, and the names of the other sheets."""
    import openpyxl

    check_unpacked_size(io.BytesIO(data), name, MAX_UNPACKED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions it does not know
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            try:
                sheets = book.worksheets
                rows = list(_numbered(sheets[0])) if sheets else []
            finally:
                book.close()
    except (*DAMAGED, TypeError, AttributeError, IndexError, SyntaxError) as error:
        raise BadInput(
            f"{name} cannot be read as an Excel workbook: {one_line(error) or type(error).__name__}"
        ) from error
    return rows, [sheet.title for sheet in sheets[1:]]


def _numbered(sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    sheet.reset_dimensions()  # what the file says of its size is often wrong
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            yield number, tuple(unescape(cell) if isinstance(cell, str) else cell for cell in cells)


def escape(text: str) -> str:
    """Text as workbooks hold it: characters XML cannot carry become ``_xHHHH_``, and so does what looks like that."""
    return _TO_ESCAPE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
