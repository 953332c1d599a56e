"""`handful next`: options, and where the rows go."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from handful.cli import options as o
from handful.cli.call import call


def next_(
    model: o.Model,
    pool: Annotated[str, Argument(metavar="POOL", help="Unlabelled items: a table, a folder of images, or .npz.")],
    n: Annotated[int, Option("--n", "-n", metavar="N", help="How many to choose.")] = 30,
    out: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Table to write: .csv, .tsv, .jsonl, .parquet or .xlsx. Fill in its label column and give it to fit "
            "as one more SOURCE.",
        ),
    ] = None,
    replay: Annotated[
        str | None,
        Option(metavar="LABELLED", help="Replay on these labelled items: how much better than random was the choice?"),
    ] = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    excel_safe: o.ExcelSafe = False,
    encoder: o.UsedEncoder = None,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Choose what to label next: what stands for many others, of classes that have few labels.

    The rows come in the order to label them in, with an empty column for the label, handful_suggested and
    handful_confidence.
    """
    found = call(next_, locals(), then="Choosing")
    if json:
        from handful.cli.objects import print_object

        print_object({"schema": "handful/next/1", **found.as_dict()})
    elif not quiet:
        from handful.cli.show_next import show_next

        show_next(found, out)
