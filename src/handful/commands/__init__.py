"""One public function a command: what `handful NAME` does, `handful.NAME` or `handful.commands.NAME` does in Python."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "fit": "fit",
    "predict": "predict",
    "evaluate": "evaluate",
    "bench": "bench",
    "demo": "demo",
    "list_": "listing",
    "cache": "cache",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"handful.commands.{_WHERE[name]}"), name)
