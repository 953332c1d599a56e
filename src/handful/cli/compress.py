"""`handful compress`: options and summary."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from handful.cli import options as o
from handful.cli.call import call


def compress(
    model: o.Model,
    source: o.Source,
    out: Annotated[str | None, Option(metavar="MODEL", help="Where to save the compressed model.")] = None,
    density: Annotated[
        float,
        Option(
            metavar="P",
            help="Share of the numbers that is kept: half is 10.7 times smaller than 16 bits each, a fifth 17 times.",
        ),
    ] = 0.5,
    text: o.Text = None,
    image: o.Image = None,
    force: o.Force = False,
    encoder: o.UsedEncoder = None,
    skip_bad: o.SkipBad = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Make a tuned model's file smaller, and say what that does to its answers.

    SOURCE holds items such as the model will be asked; their labels, if any, are not looked at.
    """
    small = call(compress, locals(), then="Comparing")
    if json:
        from handful.cli.objects import compress_object, print_object

        print_object(compress_object(small, out))
    elif not quiet:
        from handful.cli.show_compress import show_compress

        show_compress(small, out)
