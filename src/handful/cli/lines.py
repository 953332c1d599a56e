"""`handful predict MODEL -`: lines in, JSON Lines out, an answer as soon as there is a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO

from handful.cli.text import to_json
from handful.errors import BadInput

BLOCK = 1 << 16


def refuse_for_lines(*, out: str | None, force: bool, **columns: object) -> None:
    """Raise `BadInput` for an option that lines have no use for."""
    if out is not None or force:
        what = "--out" if out is not None else "--force"
        raise BadInput(f"{what} has no use here: lines are answered on standard output as they come; redirect it")
    for name, value in columns.items():
        if value:
            raise BadInput(f"--{name} has no use here: lines have no columns; each is one item")


def answer_lines(
    model: str,
    *,
    classes: list[str] | None,
    top: int,
    min_confidence: float | None,
    encoder: str | None,
    skip_bad: bool,
    cache: bool,
) -> None:
    """Answer every line of stdin on stdout."""
    from handful.commands.predict import predict_lines

    batches = line_batches(sys.stdin.buffer)
    for records in predict_lines(
        model,
        batches,
        classes=classes,
        top=top,
        min_confidence=min_confidence,
        encoder=encoder,
        skip_bad=skip_bad,
        cache=cache,
    ):
        sys.stdout.write("".join(to_json(record) + "\n" for record in records))
        sys.stdout.flush()


def line_batches(stream: BinaryIO) -> Iterator[list[str]]:
    """Lists of whole lines, each of what has arrived: one line from someone typing, thousands from a file.

    Lines are UTF-8 (what is not shows as U+FFFD) and come without their line end.
    """
    rest = b""
    first = True
    while block := stream.read1(BLOCK):  # type: ignore[attr-defined]  # what is there, without waiting for more
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield [_text(line, first and i == 0) for i, line in enumerate(lines)]
            first = False
    if rest:
        yield [_text(rest, first)]


def _text(line: bytes, first: bool) -> str:
    return line.removesuffix(b"\r").decode("utf-8-sig" if first else "utf-8", errors="replace")
