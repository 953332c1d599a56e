"""Exit statuses, and what is left behind when a run is cut short."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from handful.cli.exits import verdict
from handful.errors import BadInput, HandfulError, RequirementFailed

HEAD = ("--head", "prototypes")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BadInput("row 7 is odd"), 2, "row 7 is odd"),
        (HandfulError("the disk refuses"), 1, "the disk refuses"),
        (RequirementFailed("accuracy below 0.9"), 3, "accuracy below 0.9"),
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 1, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "secret.csv"), 1, "secret.csv"),
        (ZeroDivisionError("division by zero"), 1, "--debug"),
    ],
)
def test_verdicts(error: BaseException, status: int, says: str) -> None:
    found, message = verdict(error)
    assert found == status
    assert says in message


def test_messages_stay_on_one_line_and_harmless(run, tmp_path: Path) -> None:
    result = run("fit", tmp_path / "no\nsuch\x1b[31m\u202efile.csv", *HEAD)
    assert result.status == 2
    assert "\x1b" not in result.complaint
    assert "\u202e" not in result.complaint


@pytest.mark.parametrize("where", ["before", "after"])
def test_traceback_only_with_debug(run, tmp_path: Path, where: str) -> None:
    args = ["fit", tmp_path / "none.csv", *HEAD]
    assert "Traceback" not in run(*args).err
    with_debug = run("--debug", *args) if where == "before" else run(*args, "--debug")
    assert with_debug.status == 2
    assert "Traceback" in with_debug.err
    assert with_debug.err.splitlines()[-1].startswith("handful: no such file")


def test_an_internal_error_is_one_line_and_1(run, tickets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("something\nodd")

    monkeypatch.setattr("handful.commands.fit.fit", broken)
    result = run("fit", tickets)
    assert result.status == 1
    assert "RuntimeError: something odd" in result.complaint


@pytest.mark.parametrize("what", ["model", "report", "answers"])
def test_full_disk(run, tickets: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    path = tmp_path / {"model": "m.handful", "report": "r.html", "answers": "a.csv"}[what]
    if what == "answers":
        result = run("predict", model, tickets, "--out", path)
    else:
        result = run("fit", tickets, *HEAD, "--out" if what == "model" else "--report", path)
    assert result.status == 1
    assert path.name in result.complaint
    assert "No space left" in result.complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["model", "answers"])
def test_ctrl_c_while_writing(
    run, tickets: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "out.csv"
    path.write_text("old")
    if what == "model":
        path.unlink()
    monkeypatch.setattr(os, "fsync", interrupted)
    if what == "answers":
        result = run("predict", model, tickets, "--out", path, "--force")
    else:
        result = run("fit", tickets, *HEAD, "--out", path)
    assert (result.status, result.complaint) == (130, "handful: stopped")
    assert [p.read_text() for p in tmp_path.iterdir()] == (["old"] if what == "answers" else [])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_broken_pipe_is_quiet() -> None:
    code = "import sys; from handful.cli import main; sys.exit(main(['list', 'papers']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_stdout_on_a_full_disk() -> None:
    code = "import sys; from handful.cli import main; sys.exit(main(['list', 'papers']))"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert b"No space left" in done.stderr
