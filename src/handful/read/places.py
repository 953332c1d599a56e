"""How messages name things: files, columns and foreign errors, always on one line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from handful.errors import BadInput, nearest


def one_line(text: object, limit: int = 300) -> str:
    """``text`` on one line: blanks collapsed, control characters made visible, cut at ``limit`` characters."""
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quoted(text: str, limit: int = 60) -> str:
    """``text`` in quotes on one line, with blanks and control characters as Python writes them."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def columns_are(columns: Iterable[str]) -> str:
    """``"its columns are: text, label"``, at most 20 of them."""
    names = [one_line(name, 60) or "(no name)" for name in columns]
    return f"its columns are: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"


def existing(path: str | Path) -> Path:
    """``path``, which must exist. Raises `BadInput` naming it and the nearest name beside it."""
    path = Path(path)
    if os.path.exists(path):  # unlike Path.exists, this is also quiet about names the system cannot hold
        return path
    parent = path.parent
    if not os.path.isdir(parent):
        raise BadInput(f"no such file: {one_line(path)}; there is no folder {one_line(parent)}")
    raise BadInput(f"no such file: {one_line(path)}{one_line(nearest(path.name, os.listdir(parent)))}")


def file_bytes(path: str | Path) -> bytes:
    """The bytes of a file. Raises `BadInput` when it is missing, empty, a folder or not readable."""
    path = existing(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{one_line(path)} cannot be read: {error.strerror or error}") from error
    if not data:
        raise BadInput(f"{one_line(path)} is empty (0 bytes)")
    return data
