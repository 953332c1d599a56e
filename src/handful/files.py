"""Files are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from handful.errors import BadInput, HandfulError


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise `BadInput` when ``path`` is there and ``force`` is not given."""
    if Path(path).exists() and not force:
        raise BadInput(f"{path} exists; give --force to replace it, or another name")


@contextmanager
def whole_file(path: str | Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of ``path``; rename it to ``path`` when the block ends without an error.

    Whatever happens in between (an exception, Ctrl-C, a full disk), ``path`` is either what it was or complete.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise HandfulError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.name != "nt":
            os.chmod(name, mode)
        os.replace(name, path)
    except OSError as error:
        raise HandfulError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder beside ``path`` to write into; it takes the place of ``path`` when the block ends well."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise HandfulError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield part
        part.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        part.replace(path)
    except OSError as error:
        raise HandfulError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
