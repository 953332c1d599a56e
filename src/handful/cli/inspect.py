"""`handful inspect`: options and summary."""

from __future__ import annotations

from handful.cli import options as o


def inspect(model: o.Model, json: o.Json = False, debug: o.Debug = False) -> None:
    """Say what a model file is, where it comes from, and what it gives away to whoever gets it."""
    from handful.commands.inspect import inspect as run

    found = run(model)
    if json:
        from handful.cli.objects import print_object

        print_object({"schema": "handful/inspect/1", **found})
    else:
        from handful.cli.show_inspect import show_inspect

        show_inspect(found)
