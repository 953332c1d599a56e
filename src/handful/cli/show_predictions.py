"""What `handful predict` prints: a few rows on a terminal, all as CSV in a pipe, a count where a file was written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from handful.cli.layout import CELL, count, table
from handful.cli.terminal import console, show
from handful.cli.text import visible

if TYPE_CHECKING:
    import polars as pl

ROWS, NARROWEST = 20, 16
PREFIX = "handful_"


def show_predictions(answers: pl.DataFrame, out: str | None, quiet: bool, *, excel_safe: bool = False) -> None:
    """Print what becomes of a table of answers."""
    if out is not None:
        if not quiet:
            show(f"{tally(answers)}; written to {visible(out)}")
    elif not sys.stdout.isatty():
        from handful.read.writing import csv_text, defused

        sys.stdout.write(csv_text(defused(answers) if excel_safe else answers))
    else:
        show_rows(answers)
        show("", f"{tally(answers)}; --out FILE writes all rows and columns")


def tally(answers: pl.DataFrame) -> str:
    """``"30 rows: 25 labelled, 3 with a label of their own, 2 left without"``."""
    own = int(answers["handful_given"].sum()) if "handful_given" in answers.columns else 0
    accepted = int(answers["handful_accepted"].sum())
    if own == len(answers):
        return f"{count(own, 'row')}: all have a label of their own, so none is predicted (handful evaluate compares)"
    parts = [f"{accepted - own:,} labelled"]
    if own:
        parts.append(f"{own:,} with a label of their own")
    if accepted < len(answers):
        parts.append(f"{len(answers) - accepted:,} left without (nothing to read, or not sure enough)")
    return f"{count(len(answers), 'row')}: {', '.join(parts)}"


def show_rows(answers: pl.DataFrame, most: int = ROWS) -> None:
    """Print the first rows, one line each: the answer, then columns of the source that fit, the longest for sure."""
    head = answers.head(most)
    columns = _answer_columns(head)
    theirs = {name: [_cell(v) for v in head[name]] for name in answers.columns if not name.startswith(PREFIX)}
    room = console().width - sum(_width(name, cells) for name, cells in columns.items())
    longest, *others = sorted(theirs, key=lambda name: -_width(name, theirs[name]))
    theirs[longest] = [visible(cell, max(room - 2, NARROWEST)) for cell in theirs[longest]]
    kept = {longest}
    room -= _width(longest, theirs[longest])
    for name in others:
        if _width(name, theirs[name]) <= room:
            kept.add(name)
            room -= _width(name, theirs[name])
    columns |= {name: cells for name, cells in theirs.items() if name in kept}
    show(table(list(columns), list(zip(*columns.values(), strict=True)), one_line=True))
    if len(answers) > most:
        show(f"and {len(answers) - most:,} more rows")


def _answer_columns(answers: pl.DataFrame) -> dict[str, list[str]]:
    """Label, confidence (or that the label was given), and the next best classes with theirs."""
    own = answers[f"{PREFIX}given"] if f"{PREFIX}given" in answers.columns else [False] * len(answers)
    sure = [_cell(p) for p in answers[f"{PREFIX}confidence"]]
    columns = {
        "label": [_cell(label) for label in answers[f"{PREFIX}label"]],
        "confidence": ["given" if mine else p for mine, p in zip(own, sure, strict=True)],
    }
    for name in answers.columns:
        if name.startswith(f"{PREFIX}top") and not name.endswith("_confidence"):
            cells = zip(answers[name], answers[f"{name}_confidence"], strict=True)
            columns[name.removeprefix(PREFIX)] = [_cell(k) if k is None else f"{_cell(k)} {p:.2f}" for k, p in cells]
    return columns


def _width(name: str, cells: list[str]) -> int:
    return max(map(len, [name, *cells])) + 2


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else visible(value, CELL)
