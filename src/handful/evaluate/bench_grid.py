"""The table of `bench` in Markdown or LaTeX: accuracy by head and shots, bold where every paired test says so."""

from __future__ import annotations

from handful.evaluate.comparison import winners
from handful.evaluate.grids import Grid, Kind, interval_cell
from handful.evaluate.tables import BenchResult


def bench_table(result: BenchResult, kind: Kind) -> str:
    """Heads by shots; p-values are adjusted for all comparisons of the table."""
    shots = list(dict.fromkeys(row.shots for row in result.rows))
    heads = list(dict.fromkeys(row.head for row in result.rows))
    of = {(row.head, row.shots): row for row in result.rows}
    won = winners(result.rows)
    lines = [(head, *(interval_cell(of[head, k].result.mean) for k in shots)) for head in heads]
    bold = {(heads.index(head), 1 + shots.index(k)) for k, head in won.items() if head is not None}
    columns = ("head", *(f"{k} {'shot' if k == 1 else 'shots'}" for k in shots))
    n = len(result.rows[0].result.accuracy)
    note = f"Accuracy in percent over {n} episodes, ± half of the 95 % interval"
    if len(heads) > 1 and n > 1:
        note += "; bold: better than each other head, paired t tests, Holm over the table, 5 % level"
    return Grid(columns, tuple(lines), frozenset(bold)).render(kind, f"{note}.")
