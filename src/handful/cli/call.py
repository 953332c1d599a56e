"""From the options of a command to the public function of its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from handful.cli.terminal import progress_bar

SHOWN = ("json", "quiet", "debug")  # how the result is shown


def call(command: Callable[..., None], typed: Mapping[str, Any], then: str) -> Any:
    """What the function of ``command``'s name in `handful.commands` makes of all that was typed.

    ``typed`` is ``locals()`` of the command as it begins: `tests/cli/test_signatures.py` sees to it that its options
    are the function's parameters. ``then`` is what the progress bar says after the last item.
    """
    with progress_bar(typed["quiet"], then=then) as progress:
        module = importlib.import_module(command.__module__.replace("handful.cli", "handful.commands"))
        given = {name: value for name, value in typed.items() if name not in SHOWN}
        return getattr(module, command.__name__)(**given, progress=progress)
