"""CSV and its relatives: bytes to rows of strings, with every row kept or a line that says why not."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from handful.errors import BadInput

SEPARATORS = (",", ";", "\t", "|")
SAMPLE = 200  # rows looked at to find the separator


def decode(data: bytes, name: str) -> str:
    """Text of ``data``: UTF-16 or UTF-8 by its byte order mark, else UTF-8, else Windows-1252."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text
    raise BadInput(f"{name} is not text in UTF-8, UTF-16 with a byte order mark, or Windows-1252; save it as UTF-8")


def rows(text: str, name: str, tab_first: bool = False) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and row numbers of a delimited text; the header is row 1, as a spreadsheet shows it.

    Blank lines are no rows, but they are counted. Every row has as many cells as the header.
    Raises `BadInput` for a row that has not, naming it.
    """
    if not text.strip():
        raise BadInput(f"{name} holds nothing but blanks")
    separator = "\t" if tab_first and "\t" in _first_line(text) else sniff(text)
    table = _records(text, separator)
    header = table[0][1]
    for number, cells in table:
        if len(cells) != len(header):
            raise BadInput(
                f"{name} row {number} has {len(cells)} cells but the header has {len(header)}; "
                "a cell that holds the separator needs quotes, a file cut short needs its end"
            )
    return header, [cells for _, cells in table[1:]], [number for number, _ in table[1:]]


def sniff(text: str) -> str:
    """The separator under which most of the first rows are as wide as the header; of equals, the wider, then the comma.

    A header without any separator makes a file of one column, whatever its rows hold.
    """
    best, best_score = _absent(text), (0.0, 0)
    for separator in SEPARATORS:
        with _any_cell_size():
            table = list(islice(_numbered(io.StringIO(text, newline=""), separator, strict=False), SAMPLE))
        width = len(table[0][1])
        score = (sum(len(cells) == width for _, cells in table) / len(table), width)
        if width > 1 and score > best_score:
            best, best_score = separator, score
    return best


def records(
    path: str | Path, columns: Sequence[str], *, separator: str = ",", quoted: bool = True
) -> list[dict[str, str]]:
    """The rows of a file that is known to be UTF-8 with that separator, such as a published data set, by column.

    Args:
        path: the file, with a header.
        columns: that every row must have.
        separator: between cells.
        quoted: whether quotes hold cells together, or are signs like others.

    Raises:
        BadInput: no such file; no rows; a column or a row's cell of it is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    with _any_cell_size(), path.open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE))
    if not found:
        raise BadInput(f"{path} has no rows")
    for column in columns:
        for number, row in enumerate(found, start=2):
            if row.get(column) is None:
                where = f"row {number}: no cell in" if column in row else "no"
                raise BadInput(f"{path} has {where} column {column!r}; it needs {', '.join(columns)}")
    return found


def _records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Numbered rows, read with quotes if the file is written with quotes, else with quotes as plain characters.

    A file of raw text (many TSV files are) may hold stray quotes, which swallow all lines up to the next one. So the
    quoted reading must obey the format's rules to the letter and give rows of one width; else, where every line as it
    stands has the header's width, quotes are plain characters. Tabs *and* line breaks within a cell being far rarer
    than stray quotes, a file with tabs is read line by line whenever that fits.
    """
    with _any_cell_size():
        try:
            quoted = list(_numbered(io.StringIO(text, newline=""), separator, strict=True))
        except csv.Error:
            quoted = []
        fits = bool(quoted) and _even(quoted)
        header_quoted = text.startswith('"')
        if fits and (separator != "\t" or header_quoted or '"' not in text):
            return quoted
        plain = list(_numbered(io.StringIO(text, newline=""), separator, quoting=csv.QUOTE_NONE))
        if _even(plain) and not (fits and len(plain) == len(quoted)):
            return plain
        return quoted if fits else list(_numbered(io.StringIO(text, newline=""), separator, strict=False))


def _numbered(
    lines: Iterable[str], separator: str, *, strict: bool = True, quoting: int = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with their numbers."""
    reader = csv.reader(lines, delimiter=separator, strict=strict, quoting=quoting)  # type: ignore[arg-type]
    return ((number, cells) for number, cells in enumerate(reader, start=1) if cells)


def _even(table: list[tuple[int, list[str]]]) -> bool:
    return len({len(cells) for _, cells in table}) == 1


def _absent(text: str) -> str:
    """A character that ``text`` does not hold, as the separator of a file of one column."""
    return next((c for c in map(chr, range(0xE000, 0xF900)) if c not in text), "\x1f")


def _first_line(text: str) -> str:
    return next(line for line in io.StringIO(text) if line.strip())


@contextmanager
def _any_cell_size() -> Iterator[None]:
    """Lift the 128 kB that `csv` allows a cell."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
