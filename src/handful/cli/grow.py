"""`handful grow`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.call import call


def grow(
    model: o.Model,
    source: o.Source,
    out: Annotated[str | None, Option(metavar="MODEL", help="Where to save the grown model.")] = None,
    test: Annotated[
        str | None,
        Option(metavar="FILE", help="Labelled source of old and new classes to test on; never learnt from."),
    ] = None,
    unlabelled: Annotated[
        str | None,
        Option(
            metavar="SOURCE",
            help="Items without labels, of classes old and new, to learn from as well, with the unlabelled rows of the "
            "examples; `rows` for those alone. For heads that can: aldc.",
        ),
    ] = None,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    group: o.Group = None,
    group_regex: o.GroupRegex = None,
    near_duplicates: o.NearDuplicates = True,
    force: o.Force = False,
    encoder: o.UsedEncoder = None,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Add classes to a model from a few examples of each, without the examples it learnt from.

    Some heads can: `handful fit --head teen` makes a model that grows. How the old classes fare, only --test can say.
    """
    grown = call(grow, locals(), then="Growing and checking")
    if json:
        from handful.cli.objects import grow_object, print_object

        print_object(grow_object(grown, out))
    elif not quiet:
        from handful.cli.show_grow import show_grow

        show_grow(grown, out)
