"""`handful audit`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.terminal import progress_bar


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
    with progress_bar(quiet, then="Auditing") as progress:
        from handful.commands.audit import audit as run

        found = run(
            model,
            source,
            by=by,
            against=against,
            text=text or None,
            image=image,
            label=label,
            group=group,
            group_regex=group_regex,
            encoder=encoder,
            merge_labels=merge_labels,
            skip_bad=skip_bad,
            cache=cache,
            progress=progress,
        )
    if json:
        from handful.cli.objects import audit_object, print_object

        print_object(audit_object(found, model, source))
    elif not quiet:
        from handful.cli.show_audit import show_audit

        show_audit(found)
