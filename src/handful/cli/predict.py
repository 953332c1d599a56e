"""`handful predict`: options, and where the answers go."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from handful.cli import options as o
from handful.cli.call import call
from handful.errors import BadInput


def predict(
    model: o.Model,
    source: Annotated[
        str,
        Argument(metavar="SOURCE", help="What to label, as for fit; - reads lines and writes JSON Lines as they come."),
    ],
    out: Annotated[
        str | None, Option(metavar="FILE", help="Table to write: .csv, .tsv, .jsonl, .parquet or .xlsx.")
    ] = None,
    classes: o.AmongClasses = None,
    top: Annotated[int, Option(metavar="K", help="Name the K most probable classes.")] = 1,
    min_confidence: Annotated[
        float | None,
        Option(
            metavar="P",
            help="Leave the label empty where its probability is below P; by default below what the model was fitted "
            "to with --target-precision.",
        ),
    ] = None,
    transductive: Annotated[
        bool,
        Option("--transductive", help="Let the rows sway each other, where the model's head can; see fit."),
    ] = False,
    force: Annotated[
        bool, Option("--force", help="Replace FILE, and columns of an earlier prediction in the source.")
    ] = False,
    excel_safe: o.ExcelSafe = False,
    encoder: o.UsedEncoder = None,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Label every row of a table, every image of a folder, or every line that comes in.

    Rows and columns stay as they are; added are handful_label, handful_confidence and handful_accepted. Rows that have
    a label keep it (handful_given is true). Without --out, a terminal shows the first rows and a pipe gets all as CSV.
    """
    if source == "-":
        from handful.cli.lines import answer_lines, refuse_for_lines

        refuse_for_lines(out=out, text=text, image=image, label=label, force=force)
        if transductive:
            raise BadInput("--transductive has no use here: lines are answered as they come, not together")
        if excel_safe:
            raise BadInput("--excel-safe has no use here: lines are answered as JSON, which no spreadsheet computes")
        answer_lines(
            model,
            classes=classes,
            top=top,
            min_confidence=min_confidence,
            encoder=encoder,
            skip_bad=skip_bad,
            cache=cache,
        )
        return
    table = call(predict, locals(), then="Predicting")
    from handful.cli.show_predictions import show_predictions

    show_predictions(table, out, quiet, excel_safe=excel_safe)
