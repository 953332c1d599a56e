"""How results are written down for a reader: facts beside their names, shares with their intervals, plain tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handful.cli.text import visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

METRICS = {
    "accuracy": "accuracy",
    "balanced": "balanced_accuracy",
    "macro-f1": "macro_f1",
    "log-loss": "log_loss",
}
NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro-F1",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
}
CELL = 60  # characters of data shown in one cell


def facts(rows: Sequence[tuple[str, Sequence[str | Text]]]) -> Table:
    """Name and lines of each fact; facts without lines are left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, lines in rows:
        if lines:
            grid.add_row(name, Text("\n").join(line if isinstance(line, Text) else Text(line) for line in lines))
    return grid


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    right: Sequence[int] = (),
    *,
    limit: int = CELL,
    one_line: bool = False,
) -> Table:
    """A table without rules; cells are made harmless and cut at ``limit``; the columns at ``right`` are numbers.

    With ``one_line`` a row that is too wide is cut, else its cells are broken, all but the first.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="cyan")
    for i, name in enumerate(columns):
        made.add_column(
            Text(visible(name, CELL)),
            justify="right" if i in right else "left",
            overflow="ellipsis" if one_line else "fold",
            no_wrap=one_line or i == 0,
        )
    for row in rows:
        made.add_row(*(Text("" if cell is None else visible(cell, limit)) for cell in row))
    return made


def strong(line: str) -> Text:
    """A line that stands out."""
    from rich.text import Text

    return Text(line, style="bold")


def faint(line: str) -> Text:
    """A line that stands back."""
    from rich.text import Text

    return Text(line, style="dim")


def measure(name: str, estimate: Mapping[str, float]) -> str:
    """``"91.3 %, 95 % interval 88.0 to 93.7"``; log loss in nats."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if name == "log_loss":
        return f"{value:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    return f"{100 * value:.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}"


def in_sentence(name: str) -> str:
    """The name of a metric within a line: ``"macro-F1"``."""
    return NAMES[name][0].lower() + NAMES[name][1:]


def short(name: str, estimate: Mapping[str, float] | None) -> str:
    """``"91.3 % [88.0, 93.7]"``."""
    if estimate is None:
        return "–"
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if name == "log_loss":
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def some(names: Sequence[Any], most: int = 8) -> str:
    """The first few of many, made harmless: ``"refund, login and 12 more"``."""
    shown = ", ".join(visible(name, CELL) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def count(n: int, one: str, many: str | None = None) -> str:
    """``"1 example"``, ``"2,000 examples"``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
