"""Killed at any moment, beside others at the same moment: the next run gives what an undisturbed one gives."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from handful.commands.fit import fit
from handful.encode.cache import FILE

from .conftest import Learn, write_tickets

SOME, MANY = 2, 50


def undisturbed(source: Path, out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, head: str = "auto") -> bytes:
    """The model of a run that nothing interrupts."""
    monkeypatch.setenv("HANDFUL_CACHE", str(cache))
    fit(source, out=out, head=head)
    return out.read_bytes()


def work_seconds(process: subprocess.Popen[str]) -> float:
    """How long a run takes from ``ready`` to its end."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    assert process.stdout.readline() == "done\n"
    return time.monotonic() - start


def rows_of(cache: Path) -> int:
    """How many features a cache holds; fails where it is not whole."""
    with closing(sqlite3.connect(cache / FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(database.execute("SELECT count(*) FROM features").fetchone()[0])


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [SOME, pytest.param(MANY, marks=pytest.mark.slow)])
def test_killed_at_random_moments(kills: int, tmp_path: Path, learn: Learn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run has texts of its own, so that all of them write to the shared cache, never only read it; and enough
    of them to be encoded and written in several pieces, so that a kill leaves some."""
    cache, rng = tmp_path / "cache", np.random.default_rng(kills)
    how = {"cache": cache, "head": "prototypes", "keep": 32}

    def texts(i: int) -> Path:
        return write_tickets(tmp_path / f"{i}.csv", mark=f", says customer {i}, and not for the first time ", copies=30)

    length = work_seconds(learn(texts(-1), tmp_path / "first.handful", **how))
    killed = 0
    for i, share in enumerate(rng.permutation(np.linspace(0, 1, kills))):
        source = texts(i)
        out, later, fresh = (tmp_path / f"{i}.{name}.handful" for name in ("killed", "later", "fresh"))
        process = learn(source, out, **how)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(share * length)
        process.kill()
        killed += process.wait() != 0
        expected = undisturbed(source, fresh, tmp_path / f"cache-{i}", monkeypatch, "prototypes")
        rows_of(cache)
        assert not out.exists() or out.read_bytes() == expected, "half a model"
        assert undisturbed(source, later, cache, monkeypatch, "prototypes") == expected
        shutil.rmtree(tmp_path / f"cache-{i}")
    assert killed >= kills / 3, "hardly any was killed while it worked"


def test_a_kill_between_two_writes_leaves_a_part_that_is_used(
    tmp_path: Path, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tickets(tmp_path / "t.csv", mark=", says the customer, and not for the first time ", copies=60)
    cache = tmp_path / "cache"
    process = learn(source, tmp_path / "m.handful", cache=cache, head="prototypes", keep=32)
    deadline = time.monotonic() + 60
    while not ((cache / FILE).exists() and (cache / f"{FILE}-wal").exists() and some_rows(cache)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert 0 < rows_of(cache) < 720
    expected = undisturbed(source, tmp_path / "fresh.handful", tmp_path / "other", monkeypatch, "prototypes")
    assert undisturbed(source, tmp_path / "later.handful", cache, monkeypatch, "prototypes") == expected


def some_rows(cache: Path) -> bool:
    """Whether a cache that another process is making holds something."""
    try:
        return rows_of(cache) > 0
    except sqlite3.OperationalError:  # its table is not there yet, or locked
        return False


def test_processes_that_share_a_cache_from_its_first_moment(
    tmp_path: Path, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = write_tickets(tmp_path / "t.csv", copies=8), tmp_path / "cache"
    outs = [tmp_path / f"{i}.handful" for i in range(2)]
    processes = [learn(source, out, cache=cache, head="prototypes", keep=32) for out in outs]
    for process in processes:
        said, complaint = process.communicate()
        assert (said, complaint, process.returncode) == ("ready\ndone\n", "", 0)
    expected = undisturbed(source, tmp_path / "alone.handful", tmp_path / "other", monkeypatch, "prototypes")
    assert [out.read_bytes() == expected for out in outs] == [True] * 2


def test_one_output_of_two_processes_is_the_model_of_one(
    tmp_path: Path, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [write_tickets(tmp_path / f"{i}.csv", mark=f" {i}") for i in range(2)]
    cache, folder = tmp_path / "cache", tmp_path / "models"
    processes = [learn(source, folder / "m.handful", cache=cache, head="prototypes") for source in sources]
    assert [process.communicate()[1] for process in processes] == ["", ""]
    alone = [undisturbed(s, s.with_suffix(".handful"), cache, monkeypatch, "prototypes") for s in sources]
    assert (folder / "m.handful").read_bytes() in alone
    assert [path.name for path in folder.iterdir()] == ["m.handful"]
