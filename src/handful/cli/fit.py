"""`handful fit`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.terminal import progress_bar


def fit(
    sources: o.Sources,
    text: o.Text = None,
    image: o.Image = None,
    label: o.Label = None,
    class_names: o.ClassNames = None,
    encoder: o.Encoder = None,
    head: Annotated[
        str, Option(metavar="KEY", help="Method that learns, as `handful list heads` names it; `auto` tries several.")
    ] = "auto",
    metric: Annotated[
        str, Option(metavar="NAME", help="What `auto` chooses by: accuracy, balanced, macro-f1 or log-loss.")
    ] = "accuracy",
    test: Annotated[str | None, Option(metavar="FILE", help="Labelled source to test on; never learnt from.")] = None,
    shots: Annotated[
        int | None, Option(metavar="K", help="An experiment: learn from K examples a class, test on all others.")
    ] = None,
    seed: o.Seed = 0,
    time_limit: Annotated[float | None, Option(metavar="S", help="Seconds; try less rather than take longer.")] = None,
    out: Annotated[str | None, Option(metavar="MODEL", help="Where to save the model.")] = None,
    report: Annotated[str | None, Option(metavar="HTML", help="Where to write the report, one HTML file.")] = None,
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
    with progress_bar(quiet, then="Choosing and checking") as progress:
        from handful.commands.fit import fit as run

        model = run(
            sources,
            text=text or None,
            image=image,
            label=label,
            class_names=class_names,
            encoder=encoder,
            head=head,
            metric=metric,  # type: ignore[arg-type]  # checked by the function, which suggests the nearest
            test=test,
            shots=shots,
            seed=seed,
            time_limit=time_limit,
            out=out,
            report=report,
            merge_labels=merge_labels,
            skip_bad=skip_bad,
            cache=cache,
            progress=progress,
        )
    if json:
        from handful.cli.objects import fit_object, print_object

        print_object(fit_object(model, out, report))
    elif not quiet:
        from handful.cli.show_fit import show_fit

        show_fit(model, out, report)
