"""`handful audit`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.call import call


def audit(
    model: o.Model,
    source: o.Source,
    by: Annotated[
        list[str] | None,
        Option(
            metavar="COL",
            help="Column that should not matter (a site, a camera, an age band), of 2 to 50 values. May be repeated.",
        ),
    ] = None,
    against: Annotated[
        str | None, Option(metavar="SOURCE", help="What the model learnt from, to look for copies of it here.")
    ] = None,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    group: o.Group = None,
    group_regex: o.GroupRegex = None,
    encoder: o.UsedEncoder = None,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Say whether a model keeps its promises on labelled examples: accuracy, groups, confidence, copies."""
    found = call(audit, locals(), then="Auditing")
    if json:
        from handful.cli.objects import audit_object, print_object

        print_object(audit_object(found, model, source))
    elif not quiet:
        from handful.cli.show_audit import show_audit

        show_audit(found)
