"""What `handful bench` prints: a comparison, a suite, or either as a Markdown or LaTeX table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from handful.cli.layout import CELL, faint, strong, table
from handful.cli.terminal import show
from handful.cli.text import visible

if TYPE_CHECKING:
    from handful.evaluate.suite_results import SuiteResult
    from handful.evaluate.tables import BenchResult


def show_comparison(
    result: BenchResult | SuiteResult, out: str | None, *, markup: Literal["md", "tex"] | None, json: bool, quiet: bool
) -> None:
    """Print what `bench` found in the form that was asked for."""
    from handful.evaluate.suite_results import SuiteResult

    if markup is not None:
        from handful.evaluate.bench_grid import bench_table

        text = result.table(markup) if isinstance(result, SuiteResult) else bench_table(result, markup)
        sys.stdout.write("\n".join(visible(line) for line in text.split("\n")))
    elif json:
        from handful.cli.objects import bench_object, print_object

        print_object(result.as_dict() if isinstance(result, SuiteResult) else bench_object(result))
    elif not quiet:
        if isinstance(result, SuiteResult):
            show_suite(result, out)
        else:
            from handful.cli.show_bench import show_bench

            show_bench(result, out)


def show_suite(result: SuiteResult, out: str | None) -> None:
    """Print a suite: a row for each data set, encoder and setting, and what the tests show."""
    found = result.as_dict()
    show(strong(visible(f"{found['suite']}: {found['title']}")))
    show(faint("In percent, ± standard deviation over draws or episodes; differences by paired tests, Holm over all."))
    encoders = len({row["encoder"] for row in found["rows"]}) > 1
    columns = ("data", *(("encoder",) if encoders else ()), "setting", *result.heads)
    rows = []
    for row in found["rows"]:
        cells = [f"{100 * c['value']:.2f} ± {100 * c['deviation']:.2f}" for c in row["cells"]]
        rows.append([row["data"], *([row["encoder"]] if encoders else []), row["setting"], *cells])
    show("", table(columns, rows, right=range(len(columns) - len(result.heads), len(columns))))
    show("")
    for row in found["rows"]:
        where = ", ".join(visible(part, CELL) for part in (row["data"], row["setting"]))
        if row["winner"] is not None:
            show(f"{where}: {row['winner']} is better than each of the others")
        elif row["pairs"]:
            show(faint(f"{where}: no head is shown to be better than each of the others"))
    ranks = found["ranks"]
    if ranks is not None and ranks["friedman_p"] is not None:
        mean = ", ".join(f"{head} {rank:.2f}" for head, rank in ranks["mean"].items())
        show(f"Mean ranks: {mean}; they differ with p = {ranks['friedman_p']:.2g} (Friedman, over data sets)")
    for part in found["disentangled"]:
        where = f"{visible(part['data'], CELL)}, {part['setting']}"
        show(f"{where}: encoder plus head explains {100 * part['r2']:.0f} % of the variance of the table")
    for line in found["left_out"]:
        show(faint(f"Left out: {visible(line)}"))
    if out is not None:
        show("", f"Written to {visible(out)}")
