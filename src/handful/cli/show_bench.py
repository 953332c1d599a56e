"""What `handful bench` prints: for each number of shots a table of heads, and what the differences show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handful.cli.layout import CELL, count, faint, some, strong, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from handful.evaluate.tables import BenchResult

COLUMNS = ("head", "accuracy", "difference, paired", "episodes/s", "memory")


def show_bench(result: BenchResult, out: str | None) -> None:
    """Print a comparison."""
    found = result.as_dict()
    setting = f"{count(found['episodes'], 'episode')}, {found['ways']} ways"
    queries = f"{count(found['queries'], 'query', 'queries')} a class"
    show(
        strong(f"{setting}, {queries}: {some(found['sources'], 3)}"),
        faint("Mean accuracy over episodes, 95 % interval; differences in points, on the same episodes."),
    )
    for shots in dict.fromkeys(row["shots"] for row in found["results"]):
        rows = [row for row in found["results"] if row["shots"] == shots]
        show("", strong("any number of shots" if shots == "any" else count(shots, "shot")))
        show(table(COLUMNS, [_cells(row) for row in rows], right=[3, 4]))
        show(*(faint(visible(row["statement"])) for row in rows[1:]))
        show(*(faint(visible(line, 4 * CELL)) for line in _chosen(found.get("tuning"), shots)))
    if out is not None:
        show("", f"Written to {visible(out)}")


def _chosen(tuning: Mapping[str, Any] | None, shots: Any) -> list[str]:
    """Which parameters each head was tested with, and how they were found."""
    if not tuning:
        return []
    where = f"on {count(tuning['episodes'], 'episode')} of {tuning['classes']:,} validation classes"
    lines = []
    for row in (row for row in tuning["chosen"] if row["shots"] == shots):
        settings = ", ".join(f"{name} {value}" for name, value in row["parameters"].items()) or "its defaults"
        best = f"the best of {row['tried']} {where}" if row["tried"] > 1 else "not tuned, it declares no ranges"
        lines.append(f"{row['head']} with {settings}: {best}")
    return lines


def _cells(row: Mapping[str, Any]) -> list[str]:
    a, d, memory = row["accuracy"], row["difference"], row["peak_memory"]
    return [
        row["head"] + ("" if row["batched"] else " (one by one)"),
        f"{100 * a['value']:.2f} % [{100 * a['low']:.2f}, {100 * a['high']:.2f}]",
        "reference" if d is None else f"{100 * d['value']:+.2f} [{100 * d['low']:+.2f}, {100 * d['high']:+.2f}]",
        f"{row['episodes_per_second']:,.0f}",
        "–" if memory is None else f"{memory / 2**20:,.0f} MiB",
    ]
