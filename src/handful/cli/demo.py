"""`handful demo`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.terminal import progress_bar


def demo(
    out: Annotated[str, Option(metavar="FOLDER", help="Where examples, models and reports go.")] = "handful-demo",
    cache: o.Cache = True,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Fit a model to support tickets and one to pictures of digits; needs no data, no download.

    A second run uses the folder again.
    """
    with progress_bar(quiet) as progress:
        from handful.commands.demo import demo as run

        made = run(out, cache=cache, progress=progress)
    if not quiet:
        from handful.cli.show_demo import show_demo

        show_demo(made)
