"""How a run ends: which exit status, and the one line that says why."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handful.cli.text import visible
from handful.errors import HandfulError

FAILURE, USAGE, INTERRUPTED = 1, 2, 130


def prepare_streams() -> None:
    """Data that leaves through a pipe is UTF-8 on every system; a terminal that lacks a character shows its escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            if stream.isatty():
                stream.reconfigure(errors="backslashreplace")
            else:
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


@contextmanager
def own_warnings(debug: bool) -> Iterator[None]:
    """Show Handful's own warnings as one line on stderr, those of libraries only with ``debug``."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if category.__module__.startswith("handful."):
                print(f"handful: note: {visible(message)}", file=sys.stderr)
            elif debug:
                shown(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def failed(error: BaseException, debug: bool) -> int:
    """Print the line for ``error`` on stderr (after its traceback with ``debug``) and return the exit status."""
    if isinstance(error, BrokenPipeError):
        _abandon_stdout()
        return 0  # whoever reads has what it wants, as with `head`
    if debug:
        traceback.print_exception(error)
    status, message = verdict(error)
    print(f"handful: {visible(message)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _abandon_stdout()
    return status


def verdict(error: BaseException) -> tuple[int, str]:
    """Exit status and message of an error."""
    if isinstance(error, HandfulError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return INTERRUPTED, "stopped"
    if hasattr(error, "ctx") and hasattr(error, "format_message"):  # from the parser, whose classes move about
        return USAGE, _usage(error)
    if isinstance(error, MemoryError):
        return FAILURE, "out of memory"
    if isinstance(error, OSError):
        return FAILURE, f"{error.filename or 'input or output'}: {error.strerror or error}"
    return FAILURE, f"internal error, {type(error).__name__}: {error} (--debug shows where; please report it)"


def _usage(error: BaseException) -> str:
    """One line of a parser's message, with the help page to look at."""
    from handful.errors import nearest

    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "handful"
    wrong = getattr(error, "option_name", None)
    if wrong and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [o for p in context.command.get_params(context) for o in (*p.opts, *p.secondary_opts) if o[:2] == "--"]
        message = f"no such option: {wrong}{nearest(wrong, known)}"
    else:
        message = str(error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
        message = message[:1].lower() + message[1:]
    return f"{message} ({command} --help shows how)"


def _abandon_stdout() -> None:
    """What is still buffered cannot be written; keep the interpreter from trying, and complaining, when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- lives as long as the process
