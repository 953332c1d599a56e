"""`handful evaluate`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.terminal import progress_bar


def evaluate(
    model: o.Model,
    source: o.Source,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    group: o.Group = None,
    group_regex: o.GroupRegex = None,
    require: Annotated[
        list[str] | None,
        Option(
            metavar="RULE",
            help="What must be proven, such as 'recall[crack]>=0.95'; exit status 3 where it is not. May be repeated.",
        ),
    ] = None,
    confidence: Annotated[float, Option(metavar="P", help="With what confidence it must be proven.")] = 0.95,
    encoder: o.UsedEncoder = None,
    merge_labels: o.MergeLabels = False,
    skip_bad: o.SkipBad = False,
    cache: o.Cache = True,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare a model's answers with the labels of examples it has not seen."""
    with progress_bar(quiet, then="Comparing") as progress:
        from handful.commands.evaluate import evaluate as run

        assessment = run(
            model,
            source,
            text=text or None,
            image=image,
            label=label,
            group=group,
            group_regex=group_regex,
            require=require,
            confidence=confidence,
            encoder=encoder,
            merge_labels=merge_labels,
            skip_bad=skip_bad,
            cache=cache,
            progress=progress,
        )
    if json:
        from handful.cli.objects import evaluate_object, print_object

        print_object(evaluate_object(assessment, model, source))
    elif not quiet:
        from handful.cli.show_assessment import show_assessment

        show_assessment(assessment)
    failed = [verdict.sentence for verdict in assessment.verdicts if not verdict.passed]
    if failed:
        from handful.errors import RequirementFailed

        raise RequirementFailed("; ".join(failed))
