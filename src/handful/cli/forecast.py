"""`handful forecast`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from handful.cli import options as o


def forecast(
    results: Annotated[
        str,
        Argument(
            metavar="MODEL|RESULTS",
            help="A model that `handful fit` saved, or a JSON or CSV file with columns shots, accuracy and tested.",
        ),
    ],
    target: Annotated[
        float | None, Option(metavar="P", help="An accuracy to reach, such as 0.9: how many more labels does it take?")
    ] = None,
    ways: Annotated[int | None, Option(metavar="C", help="How many classes RESULTS are of.")] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Say what two and four times the labels would bring, how many a target takes, and how far that can be trusted.

    The forecast starts from accuracy with fewer labels, which every model keeps, and from curves of other data sets.
    Intervals hold 90 %. The plain power law stands beside it.
    """
    from handful.commands.forecast import forecast as run

    found = run(results, target=target, ways=ways)
    if json:
        from handful.cli.objects import print_object

        print_object({"schema": "handful/forecast/1", **found.as_dict()})
    else:
        from handful.cli.show_forecast import show_forecast

        show_forecast(found)
