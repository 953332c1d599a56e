"""What can go wrong, in three kinds, each with the exit status the command line gives it.

A message says what was wrong, where (file, row, column, shape) and what to do about it, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HandfulError(Exception):
    """Base of every error Handful raises on purpose."""

    exit_code = 1


class BadInput(HandfulError, ValueError):
    """The input cannot be used as it is; a ``ValueError``, as scikit-learn's callers expect."""

    exit_code = 2


class BadItem(BadInput):
    """One item of a data set cannot be read; ``index`` is its position."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class RequirementFailed(HandfulError):
    """A requirement the user stated was not met."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to ``name``, else the first few known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = ", …" if len(known) > 12 else ""
    return f"; there are: {', '.join(known[:12])}{more}" if known else ""
