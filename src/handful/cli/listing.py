"""`handful list` and `handful cache`: what there is."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from handful.cli import options as o


def list_(
    what: Annotated[str, Argument(metavar="WHAT", help="heads, encoders, papers or recipes.")],
    cite: Annotated[
        str | None, Option(metavar="KEY", help="Print the BibTeX entry of one paper, by its key or number.")
    ] = None,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List the heads, the encoders, the papers behind them, or the recipes there are."""
    from handful.commands.listing import list_ as run

    rows = run(what, cite=cite)  # type: ignore[arg-type]  # checked by the function, which suggests the nearest
    if json:
        from handful.cli.objects import list_object, print_object

        print_object(list_object(what, rows))
    else:
        from handful.cli.show_list import show_list

        show_list(what, rows, cited=cite is not None)


def cache(
    action: Annotated[str, Argument(metavar="ACTION", help="info or clear.")],
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Look at the features kept on this machine, or remove them."""
    from handful.commands.cache import cache as run

    found = run(action)  # type: ignore[arg-type]  # checked by the function, which suggests the nearest
    if json:
        from handful.cli.objects import cache_object, print_object

        print_object(cache_object(action, found))
    else:
        from handful.cli.show_list import show_cache

        show_cache(found)
