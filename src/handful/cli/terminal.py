"""Consoles and the progress bar: colour and movement on a terminal, plain text and silence in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from handful.protocols import Progress

NO_WRAP = 10_000  # columns of a pipe: a line is a line


def console(stderr: bool = False) -> Console:
    """A console that takes nothing in data for markup, emoji codes or links."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    return Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=None if terminal else NO_WRAP,
    )


def show(*parts: RenderableType) -> None:
    """Print tables and texts to stdout. Plain strings are never broken, so that a command can be copied."""
    screen = console()
    if screen.is_terminal:
        _print(screen, parts)
        return
    with screen.capture() as capture:
        _print(screen, parts)
    for line in capture.get().removesuffix("\n").split("\n"):
        sys.stdout.write(line.rstrip() + "\n")


def _print(screen: Console, parts: Sequence[RenderableType]) -> None:
    for part in parts:
        screen.print(part, soft_wrap=isinstance(part, str))


@contextmanager
def progress_bar(quiet: bool, start: str = "Starting", then: str = "Working") -> Iterator[Progress | None]:
    """A progress callback that moves a bar on stderr, gone when work is done; ``None`` in a pipe or with ``--quiet``.

    ``start`` and ``then`` say what goes on before the first and after the last item.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console(stderr=True),
        transient=True,
        refresh_per_second=8,
    )
    with bar:
        task = bar.add_task(start, total=None, count="")

        def report(done: int, total: int) -> None:
            if done >= total:
                bar.update(task, description=then, total=None, completed=0, count="")
            else:
                bar.update(task, description="Encoding", total=total, completed=done, count=f"{done:,}/{total:,}")

        yield report
