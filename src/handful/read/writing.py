"""Tables out: the format follows from the suffix, the file is whole or not there."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from handful.errors import BadInput
from handful.files import whole_file
from handful.read.places import one_line, quoted
from handful.read.sheets import escape
from handful.read.tables import cell_text

if TYPE_CHECKING:
    import polars as pl

XLSX_CELL = 32767  # characters a cell holds
XLSX_ROWS = 1_048_576
MAX_EXACT = 2**53  # workbooks hold numbers as doubles
FOR_SHEETS = (".csv", ".tsv", ".xlsx")
"""What spreadsheets open, and may run formulas of."""
# Also behind blanks, and in the wide forms that East Asian settings take for the same.
_FORMULA = re.compile(r"[\s\x00-\x1f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*[=+\-@＝＋－＠]|[\t\r\n]")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)? ?%?")


def write_table(frame: pl.DataFrame, path: str | Path, *, excel_safe: bool = False) -> None:
    """Write a frame as csv, tsv, jsonl, json, parquet or xlsx, by suffix, in UTF-8; `handful.read.read` reads it back.

    Text stays as it is, formulas included: ``=1+1`` is written as text in xlsx, and as these four characters in csv;
    with ``excel_safe`` as `defused` has it.

    Raises:
        BadInput: another suffix, one of no spreadsheet for ``excel_safe``, or more than a workbook can hold.
        HandfulError: the file cannot be written; what was there stays.
    """
    if excel_safe:
        check_for_sheets(path)
        frame = defused(frame)
    path = Path(path)
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise BadInput(
            f"cannot write {one_line(path)}: tables are written as {', '.join(WRITERS)}, not as "
            f"{one_line(path.suffix) or 'a file without suffix'}"
        )
    with whole_file(path) as file:
        write(frame, file)


def check_for_sheets(path: str | Path) -> None:
    """Raise `BadInput` for a file that no spreadsheet opens, so that ``--excel-safe`` would only spoil its text."""
    if Path(path).suffix.lower() not in FOR_SHEETS:
        raise BadInput(f"--excel-safe is for {', '.join(FOR_SHEETS)}, not for {one_line(path)}: there it has no use")


def defused(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with an apostrophe before every text, name of a column included, that a spreadsheet may compute.

    That is text that begins with ``=``, ``+``, ``-`` or ``@``, perhaps behind blanks, and is no plain number.
    """
    import polars as pl

    columns: dict[str, pl.Series] = {}
    for series in frame.iter_columns():
        name = defused_text(series.name)
        while name in columns or (name != series.name and name in frame.columns):
            name = f"'{name}"
        columns[name] = series
        if not (series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == pl.Boolean):
            texts = [cell_text(value) for value in series.to_list()]
            columns[name] = pl.Series([t and defused_text(t) for t in texts], dtype=pl.String)
    return pl.DataFrame(columns)


def defused_text(text: str) -> str:
    """`defused` of one text.

    >>> [defused_text(text) for text in ("=1+1", "-1.5", "a=b")]
    ["'=1+1", '-1.5', 'a=b']
    """
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text


def csv_text(frame: pl.DataFrame) -> str:
    """The frame as the text of a CSV file."""
    buffer = io.BytesIO()
    _csv(frame, buffer)
    return buffer.getvalue().decode()


def _csv(frame: pl.DataFrame, file: BinaryIO) -> None:
    _delimited(frame, file, ",", "\r")


def _tsv(frame: pl.DataFrame, file: BinaryIO) -> None:
    _delimited(frame, file, "\t", '"\t\n\r')


def _delimited(frame: pl.DataFrame, file: BinaryIO, separator: str, loud: str) -> None:
    """Rows with quotes where they are needed, or everywhere when a cell holds one of the ``loud`` characters.

    In a file with few quotes, readers take a quote for a plain character where tabs part the cells; and `csv` does not
    see that a lone carriage return needs them.
    """
    rows = _text_rows(frame)
    quoting: Any = csv.QUOTE_ALL if any(c in cell for row in rows for cell in row for c in loud) else csv.QUOTE_MINIMAL
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    csv.writer(text, delimiter=separator, quoting=quoting, lineterminator="\n").writerows(rows)
    text.detach()  # flushes, and leaves the file open for its owner


def _text_rows(frame: pl.DataFrame) -> list[tuple[str, ...]]:
    """Header and rows as text, empty cells as ""."""
    columns = [[cell_text(value) or "" for value in series.to_list()] for series in frame.iter_columns()]
    return [tuple(frame.columns), *zip(*columns, strict=True)]


def _json_lines(frame: pl.DataFrame, file: BinaryIO) -> None:
    for row in _json_rows(frame):
        file.write(row.encode() + b"\n")


def _json(frame: pl.DataFrame, file: BinaryIO) -> None:
    file.write(b"[\n" + b",\n".join(row.encode() for row in _json_rows(frame)) + b"\n]\n")


def _json_rows(frame: pl.DataFrame) -> Iterator[str]:
    import polars.selectors as cs

    for row in frame.with_columns(cs.float().fill_nan(None)).iter_rows(named=True):  # JSON has no NaN
        yield json.dumps(row, ensure_ascii=False, default=cell_text)


def _parquet(frame: pl.DataFrame, file: BinaryIO) -> None:
    import polars as pl

    try:
        frame.write_parquet(file)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"Parquet cannot hold these columns: {one_line(error)}") from error


def _workbook(frame: pl.DataFrame, file: BinaryIO) -> None:
    import openpyxl

    if frame.height >= XLSX_ROWS:
        raise BadInput(f"a sheet holds {XLSX_ROWS:,} rows, not {frame.height:,} and a header; write .csv or .parquet")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("data")
    places = [quoted(name) for name in frame.columns]
    rows = [[_cell(sheet, name, "the header") for name in frame.columns]]
    for number, row in enumerate(frame.iter_rows(), start=2):
        cells = zip(row, places, strict=True)
        rows.append([_cell(sheet, value, f"row {number} column {place}") for value, place in cells])
    for cells_of_row in rows:  # only now, as openpyxl cannot give up half-way without a complaint
        sheet.append(cells_of_row)
    book.save(file)


def _cell(sheet: Any, value: Any, place: str) -> Any:
    """A cell for openpyxl: numbers, truth values and dates as such, anything else as text that is never a formula."""
    from openpyxl.cell import WriteOnlyCell

    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and abs(value) <= MAX_EXACT:
        return value
    if isinstance(value, (datetime.date, datetime.time)) and getattr(value, "tzinfo", None) is None:
        return value
    text = escape(cell_text(value) or "")
    if len(text) > XLSX_CELL:
        raise BadInput(
            f"{place}: a cell of a workbook holds {XLSX_CELL:,} characters, not {len(text):,}; write .csv or .parquet"
        )
    cell = WriteOnlyCell(sheet, text)
    cell.data_type = "s"
    return cell


WRITERS: dict[str, Callable[[pl.DataFrame, BinaryIO], None]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".xlsx": _workbook,
}
"""Writer of each suffix."""
