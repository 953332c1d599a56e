"""`handful evaluate`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.call import call


def evaluate(
    model: o.Model,
    source: o.Source,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    group: o.Group = None,
    group_regex: o.GroupRegex = None,
    classes: o.AmongClasses = None,
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
    assessment = call(evaluate, locals(), then="Comparing")
    several = hasattr(assessment, "per_label")
    if json:
        from handful.cli.objects import evaluate_object, print_object

        print_object(evaluate_object(assessment, model, source, several=several))
    elif not quiet and several:
        from handful.cli.show_label_sets import show_label_sets

        show_label_sets(assessment)
    elif not quiet:
        from handful.cli.show_assessment import show_assessment

        show_assessment(assessment)
    failed = [verdict.sentence for verdict in assessment.verdicts if not verdict.passed]
    if failed:
        from handful.errors import RequirementFailed

        raise RequirementFailed("; ".join(failed))
