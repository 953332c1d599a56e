"""`handful fit`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.call import call


def fit(
    sources: o.Sources,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    group: o.Group = None,
    group_regex: o.GroupRegex = None,
    near_duplicates: o.NearDuplicates = True,
    class_names: o.ClassNames = None,
    multi_label: Annotated[
        str | None,
        Option(metavar="SEPARATOR", help="Items have several labels, or none: what stands between them in a cell."),
    ] = None,
    none: Annotated[
        str | None,
        Option(
            metavar="CELL",
            help='With --multi-label: what the cell of an item with none of the labels says, "" for an empty one; by '
            "default the separator alone, and an empty cell is unlabelled.",
        ),
    ] = None,
    encoder: o.Encoder = None,
    long: Annotated[
        str, Option(metavar="HOW", help="Of a text too long for the encoder, read the `first` part or all (`mean`).")
    ] = "first",
    crop: Annotated[
        str | None, Option(metavar="X,Y,W,H", help="Part of a picture that counts, in pixels or shares of its sides.")
    ] = None,
    tiles: Annotated[
        str | None, Option(metavar="RxC", help="Look at a picture whole and in R x C tiles: for small details.")
    ] = None,
    head: Annotated[
        str, Option(metavar="KEY", help="Method that learns, as `handful list heads` names it; `auto` tries several.")
    ] = "auto",
    tune: Annotated[
        str | None,
        Option(
            metavar="KEY",
            help="Change the encoder too, by a recipe of `handful list recipes`; `auto` does where that helps.",
        ),
    ] = None,
    private: Annotated[
        float | None,
        Option(
            metavar="EPSILON",
            help="Hide each example by noise: differential privacy with this budget. What would tell of the examples "
            "without noise is withheld.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="What `auto` chooses by: accuracy (default), balanced, macro-f1 or log-loss; with --multi-label "
            "micro-f1 (default), macro-f1, mean-average-precision or exact-match.",
        ),
    ] = None,
    class_prior: Annotated[
        str,
        Option(
            metavar="WHICH",
            help="Population the numbers speak of: classes as among the `labels`, as in the unlabelled `pool`, "
            "`uniform`, or a file of shares.",
        ),
    ] = "labels",
    target_precision: Annotated[
        float | None, Option(metavar="P", help="Answer only as far as this share of the answers is right.")
    ] = None,
    cost: Annotated[
        str | None, Option(metavar="FILE", help="What mistakes cost: a table of true, predicted, cost.")
    ] = None,
    reject: Annotated[
        str | None,
        Option(
            metavar="KIND",
            help="Answer that an item is none of the classes, by `energy`, `probability`, `distance`, `gpam`, "
            "`dafos-net` (slow) or what did best (`auto`).",
        ),
    ] = None,
    false_alarms: Annotated[
        float, Option(metavar="P", help="With --reject: share of items of the classes that may be called none of them.")
    ] = 0.05,
    other: Annotated[
        str, Option(metavar="NAME", help="With --reject: what an item that is none of the classes is called.")
    ] = "other",
    negatives: Annotated[
        str | None,
        Option(metavar="SOURCE", help="With --reject: items of none of the classes, to measure how many are found."),
    ] = None,
    unlabelled: Annotated[
        str | None,
        Option(
            metavar="SOURCE",
            help="Items without labels to learn from as well, with the unlabelled rows of the data; `rows` for those "
            "alone. What they teach stays in the model.",
        ),
    ] = None,
    transductive: Annotated[
        bool,
        Option("--transductive", help="Let items that are asked about together sway each other, for heads that can."),
    ] = False,
    zero_shot: Annotated[
        bool,
        Option(
            "--zero-shot",
            help="Learn from class names alone, and test on the labels if there are any; so without labels anyway.",
        ),
    ] = False,
    test: Annotated[str | None, Option(metavar="FILE", help="Labelled source to test on; never learnt from.")] = None,
    shots: Annotated[
        int | None, Option(metavar="K", help="An experiment: learn from K examples a class, test on all others.")
    ] = None,
    seed: Annotated[int | None, Option(metavar="S", help="Seed of every random draw; 0 when not given.")] = None,
    time_limit: Annotated[float | None, Option(metavar="S", help="Seconds; try less rather than take longer.")] = None,
    out: Annotated[str | None, Option(metavar="MODEL", help="Where to save the model.")] = None,
    standalone: Annotated[
        bool, Option("--standalone", help="Put the encoder into the model, to predict where none is installed.")
    ] = False,
    report: Annotated[str | None, Option(metavar="HTML", help="Where to write the report, one HTML file.")] = None,
    examples: Annotated[
        bool,
        Option("--examples/--no-examples", show_default=False, help="Show texts and pictures in the report, or not."),
    ] = True,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Learn from labelled examples, and say how far the result can be trusted.

    The model learns from every labelled example; how good it is on others is estimated by leaving some out in turn.
    """
    model = call(fit, locals(), then="Choosing and checking")
    if json:
        from handful.cli.objects import fit_object, print_object

        print_object(fit_object(model, out, report))
    elif not quiet:
        from handful.cli.show_fit import show_fit

        show_fit(model, out, report)
