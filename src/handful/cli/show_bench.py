"""What `handful bench` prints: for each number of shots a table of heads, and what the differences show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handful.cli.layout import count, faint, some, strong, table
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
    if out is not None:
        show("", f"Written to {visible(out)}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    a, d, memory = row["accuracy"], row["difference"], row["peak_memory"]
    return [
        row["head"] + ("" if row["batched"] else " (one by one)"),
        f"{100 * a['value']:.2f} % [{100 * a['low']:.2f}, {100 * a['high']:.2f}]",
        "reference" if d is None else f"{100 * d['value']:+.2f} [{100 * d['low']:+.2f}, {100 * d['high']:+.2f}]",
        f"{row['episodes_per_second']:,.0f}",
        "–" if memory is None else f"{memory / 2**20:,.0f} MiB",
    ]
