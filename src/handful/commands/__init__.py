"""One public function a command, in the module of its name: what `handful fit` does, ``handful.commands.fit.fit`` does.

They are not re-exported here: a package cannot show a function and a module under one name.
"""

from __future__ import annotations

COMMANDS = (
    "advise context",
    "advise encoder",
    "advise method",
    "advise models",
    "advise raters",
    "audit",
    "bench",
    "cache",
    "compress",
    "demo",
    "evaluate",
    "fit",
    "forecast",
    "grow",
    "inspect",
    "list",
    "next",
    "predict",
    "tune",
)
"""Every command of the command line; ``list`` is ``handful.commands.listing.list_``, ``next``
``handful.commands.next.next_``, ``advise method`` ``handful.commands.advise.advise_method``."""
