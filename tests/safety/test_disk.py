"""A disk that is full, a home that cannot be written: the job is done without the cache, or refused in one line."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from handful.cli import main
from handful.commands.fit import fit
from handful.encode import cache as feature_cache
from handful.encode.cache import FILE

from .conftest import Learn, write_tickets

# A file system of its own, in a name space of its own: no right of the administrator is needed for it.
MOUNT = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'


def mounted(options: str, folder: Path) -> tuple[str, ...]:
    """The words before a command that give it a file system at ``folder``; skips where there are none."""
    folder.mkdir(exist_ok=True)
    words = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", options, str(folder))
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no private file systems on this machine")
    return words


@pytest.fixture
def expected(tmp_path: Path) -> bytes:
    """The model of an undisturbed run on ``tmp_path / "t.csv"``."""
    fit(write_tickets(tmp_path / "t.csv", copies=8), out=tmp_path / "expected.handful")
    return (tmp_path / "expected.handful").read_bytes()


@pytest.mark.parametrize("options", ["size=64k", "ro"], ids=["full", "read-only"])
def test_a_cache_on_a_disk_that_takes_nothing_costs_a_warning(
    options: str, tmp_path: Path, learn: Learn, expected: bytes
) -> None:
    disk, out = tmp_path / "disk", tmp_path / "m.handful"
    process = learn(tmp_path / "t.csv", out, cache=disk / "cache", before=mounted(options, disk))
    said, complaint = process.communicate()
    assert (said, process.returncode) == ("ready\ndone\n", 0), complaint
    assert "going on without it" in complaint
    assert out.read_bytes() == expected


def test_a_read_only_home(tmp_path: Path, learn: Learn, expected: bytes) -> None:
    """No ``HANDFUL_CACHE``: the cache would lie in the home, as would those of the libraries."""
    home, out = tmp_path / "home", tmp_path / "m.handful"
    places = {"HOME": str(home), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "USERPROFILE": str(home)}
    process = learn(tmp_path / "t.csv", out, cache=Path(), before=mounted("ro", home), **places, HANDFUL_CACHE="")
    said, complaint = process.communicate()
    assert (said, process.returncode) == ("ready\ndone\n", 0), complaint
    assert complaint.count("going on without it") == 1
    assert out.read_bytes() == expected


@pytest.mark.parametrize("what", ["--out", "--report"])
def test_an_output_on_a_full_disk_is_one_line_and_leaves_nothing_half(what: str, tmp_path: Path) -> None:
    disk, source = tmp_path / "disk", write_tickets(tmp_path / "t.csv")
    run = f"import os, sys; from handful.cli import main; s = main(sys.argv[1:]); print(os.listdir({str(disk)!r})); "
    run += "sys.exit(s)"
    words = [*mounted("size=4k", disk), sys.executable, "-c", run]
    words += ["fit", str(source), "--head", "prototypes", "--quiet", what, str(disk / "result")]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"handful: cannot write {disk / 'result'}: No space left on device"]
    assert done.stdout == "[]\n"


def test_predictions_on_a_full_disk_leave_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, model, out = write_tickets(tmp_path / "t.csv"), tmp_path / "m.handful", tmp_path / "answers.csv"
    fit(source, head="prototypes", out=model)
    out.write_text("the old answers\n", encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["predict", str(model), str(source), "--out", str(out), "--force", "--quiet"]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "the old answers\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", "m.handful", "t.csv"]


class Full(sqlite3.Connection):
    """A connection to a database on a disk without room."""

    def executemany(self, *query: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")


def test_a_disk_that_fills_up_under_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes) -> None:
    """Also where no file system can be made for the test."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    connect = sqlite3.connect
    monkeypatch.setattr(feature_cache.sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Full))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path / "t.csv", out=tmp_path / "m.handful")
    assert any("disk is full" in str(w.message) for w in caught)
    assert (tmp_path / "m.handful").read_bytes() == expected
    monkeypatch.undo()
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))  # and with room again, what is there is whole
    assert (tmp_path / "cache" / FILE).exists()
    fit(tmp_path / "t.csv", out=tmp_path / "m.handful")
    assert (tmp_path / "m.handful").read_bytes() == expected


@pytest.mark.parametrize("place", ["HANDFUL_CACHE", "HOME"])
def test_a_place_that_can_be_no_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes
) -> None:
    """Below a file nothing can be made, whoever one is."""
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    for name in ("HANDFUL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in {place, "USERPROFILE", "LOCALAPPDATA"} - (
        {"USERPROFILE", "LOCALAPPDATA"} if place != "HOME" else set()
    ):
        monkeypatch.setenv(name, str(blocked / "below"))
    with pytest.warns(UserWarning, match="going on without it"):
        fit(tmp_path / "t.csv", out=tmp_path / "m.handful")
    assert (tmp_path / "m.handful").read_bytes() == expected
    assert main(["cache", "info", "--json"]) == 0
    assert blocked.read_bytes() == b""
