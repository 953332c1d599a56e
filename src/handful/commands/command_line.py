"""A call of a command's function, written as the command line that does the same."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def command_line(function: Callable[..., Any], given: Mapping[str, Any], without: frozenset[str]) -> str | None:
    """``handful NAME SOURCE… --option …`` with what differs from the defaults; ``None`` where a command line cannot say
    it: items in memory, a head that is an object.

    Args:
        function: of the command; its first parameter holds the sources.
        given: its arguments by name.
        without: parameters that change nothing in the result.
    """
    first, *others = inspect.signature(function).parameters.values()
    words = ["handful", function.__name__]
    try:
        words += _words(given[first.name])
        for parameter in others:
            value, flag = given[parameter.name], parameter.name.replace("_", "-")
            if parameter.name in without or value is None or value == parameter.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [word for part in _words(value) for word in (f"--{flag}", part)]
    except TypeError:
        return None
    return shlex.join(words)


def _words(value: Any) -> list[str]:
    if isinstance(value, (str, Path, int, float)):
        return [str(value)]
    if isinstance(value, (list, tuple)) and all(isinstance(part, (str, Path)) for part in value):
        return [str(part) for part in value]
    raise TypeError
