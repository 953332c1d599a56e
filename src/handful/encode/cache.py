"""The feature cache: what an encoder computed once it need not compute again.

One SQLite file per user, one row per item and output. SQLite's write-ahead log keeps it whole when a process dies
in the middle of a write and lets several processes share it. Features are raw float32, so a warm answer has the same
bits as the cold one; nothing is ever unpickled. A cache that cannot be used costs time, never the job.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from handful.errors import BadInput

LAYOUT = 1
"""Version of the table below; a file with another one is left alone, since the version is part of its name."""

FILE = f"features-{LAYOUT}.sqlite"
DEFAULT_SIZE = 2 << 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS features_by_use ON features (used, id);
"""
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TROUBLE = (sqlite3.Error, OSError, ValueError)
_ASK = 900  # parameters a query: below the 999 of old SQLite builds
_PATIENCE = 10.0  # seconds to wait for another process
_FRESH = 3600  # seconds: a row used this recently is not marked again, so that reading seldom writes


def cache_dir() -> Path:
    """The folder of the cache: ``$HANDFUL_CACHE``, else the platform's place for user caches. It may not exist yet."""
    chosen = os.environ.get("HANDFUL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("handful", appauthor=False)


def size_limit() -> int:
    """Most bytes the cache may hold: ``$HANDFUL_CACHE_SIZE`` such as ``500M`` or ``2G``, default 2 GiB."""
    text = os.environ.get("HANDFUL_CACHE_SIZE", "").strip().lower()
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text)
    if match is None:
        raise BadInput(f"HANDFUL_CACHE_SIZE is {text!r}; give bytes, or a number with K, M, G or T, such as 500M")
    return int(float(match[1]) * _UNITS[match[2]])


def feature_key(content: bytes, fingerprint: str, output: str, view: int) -> bytes:
    """The key of one feature: ``content`` is the item's digest, ``fingerprint`` the encoder's."""
    return hashlib.blake2b(content + f"|{fingerprint}|{output}|{view}".encode(), digest_size=20).digest()


class FeatureCache:
    """An open cache; use it as a context manager, in one thread.

    After the first failure (no permission, full disk, damaged file) it warns once and from then on finds and keeps
    nothing.

    Args:
        folder: where the file lies; default `cache_dir`.
        limit: most bytes it may hold; default `size_limit`. The rows used longest ago make room.
        clock: seconds since the epoch.
    """

    def __init__(
        self, folder: Path | None = None, limit: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = cache_dir() if folder is None else folder
        self.limit = size_limit() if limit is None else limit
        self._clock = clock
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> FeatureCache:
        try:
            self._database = self._open()
        except _TROUBLE as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The features that are there, by key."""
        if self._database is None:
            return {}
        try:
            return self._get(self._database, keys)
        except _TROUBLE as error:
            self._give_up(error)
            return {}

    def put(self, rows: Mapping[bytes, np.ndarray]) -> None:
        """Keep these features, all or none."""
        if self._database is None or not rows:
            return
        try:
            self._put(self._database, rows)
            self._evict(self._database)
        except _TROUBLE as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            self.folder.chmod(0o700)
        path = self.folder / FILE
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its side files the mode of this one
        with ExitStack() as stack:
            database = stack.enter_context(closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)))
            _prepare(database)
            stack.pop_all()  # prepared, it stays open
        return database

    def _get(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        stale: list[tuple[int, int]] = []
        now = int(self._clock())
        for some in _batches(keys, _ASK):
            marks = ",".join("?" * len(some))
            query = f"SELECT id, key, used, shape, data FROM features WHERE key IN ({marks})"
            for row, key, used, shape, data in database.execute(query, some):
                dims = tuple(map(int, shape.split("x")))
                if len(data) != 4 * int(np.prod(dims)):
                    continue  # damaged; computed again, and the key's row is replaced
                found[key] = np.frombuffer(data, "<f4").reshape(dims)
                if now - used > _FRESH:
                    stale.append((now, row))
        if stale:
            with suppress(sqlite3.OperationalError):  # a cache one may only read is still useful
                _transact(database, lambda: database.executemany("UPDATE features SET used = ? WHERE id = ?", stale))
        return found

    def _put(self, database: sqlite3.Connection, rows: Mapping[bytes, np.ndarray]) -> None:
        now = int(self._clock())
        values = (
            (key, now, "x".join(map(str, array.shape)), np.ascontiguousarray(array, "<f4").tobytes())
            for key, array in rows.items()
        )
        insert = "INSERT OR REPLACE INTO features (key, used, shape, data) VALUES (?, ?, ?, ?)"
        _transact(database, lambda: database.executemany(insert, values))

    def _evict(self, database: sqlite3.Connection) -> None:
        if (held := _bytes_held(database)) <= self.limit:
            return
        # Down to nine tenths, so that the next rows do not evict again at once.
        surplus = held - int(0.9 * self.limit)
        oldest: list[tuple[int]] = []
        for row, size in database.execute("SELECT id, length(data) + 100 FROM features ORDER BY used, id"):
            oldest.append((row,))
            surplus -= size
            if surplus <= 0:
                break
        _transact(database, lambda: database.executemany("DELETE FROM features WHERE id = ?", oldest))
        database.execute("PRAGMA incremental_vacuum").fetchall()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _give_up(self, error: Exception) -> None:
        self.__exit__(None, None, None)
        warnings.warn(
            f"the feature cache {self.folder / FILE} cannot be used ({error}); going on without it "
            "(`handful cache clear` removes a damaged one)",
            stacklevel=4,
        )


def cache_info(folder: Path | None = None) -> dict[str, str | int]:
    """``path``, ``bytes`` on disk, ``limit`` in bytes, ``rows``; ``problem`` too when it cannot be read."""
    path = (cache_dir() if folder is None else folder) / FILE
    info: dict[str, str | int] = {"path": str(path), "bytes": 0, "limit": size_limit(), "rows": 0}
    if not path.exists():
        return info
    info["bytes"] = sum(part.stat().st_size for part in _parts(path))
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE)) as database:
            info["rows"] = int(database.execute("SELECT count(*) FROM features").fetchone()[0])
    except sqlite3.Error as error:
        info["problem"] = str(error)
    return info


def clear_cache(folder: Path | None = None) -> int:
    """Remove all features, whatever state the file is in. Returns the bytes freed.

    Other files of the folder, the remembered hashes of weight files among them, stay.
    """
    path = (cache_dir() if folder is None else folder) / FILE
    freed = 0
    for part in _parts(path):
        try:
            size = part.stat().st_size
            part.unlink()
        except OSError as error:
            raise BadInput(f"cannot remove {part}: {error.strerror or error}") from error
        freed += size
    return freed


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA auto_vacuum=INCREMENTAL")
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:  # SQLite does not wait for other processes while it changes how a file is journalled
            database.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    database.execute("PRAGMA synchronous=NORMAL")  # with WAL: whole after a crash, at worst without the last rows
    database.executescript(_SCHEMA)


def _parts(path: Path) -> list[Path]:
    return [part for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if part.exists()]


def _bytes_held(database: sqlite3.Connection) -> int:
    def pragma(name: str) -> int:
        return int(database.execute(f"PRAGMA {name}").fetchone()[0])

    return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")


def _transact(database: sqlite3.Connection, work: Callable[[], object]) -> None:
    with database:  # commits, or rolls back
        database.execute("BEGIN IMMEDIATE")
        work()


def _batches(keys: Iterable[bytes], size: int) -> Iterable[list[bytes]]:
    keys = list(keys)
    return (keys[start : start + size] for start in range(0, len(keys), size))
