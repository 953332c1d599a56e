"""The feature cache: private, whole after a kill, shared by processes, bounded, and never in the way."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from handful.encode.cache import (
    FILE,
    FeatureCache,
    cache_dir,
    cache_info,
    clear_cache,
    feature_key,
    size_limit,
)
from handful.encode.minilm import MiniLM
from handful.errors import BadInput

WRITER = """
import sys, numpy as np
from pathlib import Path
from handful.encode.cache import FeatureCache
folder, first, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with FeatureCache(folder) as cache:
    for batch in range(batches):
        numbers = range(first + 20 * batch, first + 20 * batch + 20)
        cache.put({n.to_bytes(20, "big"): np.full(384, n, np.float32) for n in numbers})
        print(batch, flush=True)
"""


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def row(number: int, width: int = 384) -> np.ndarray:
    return np.full(width, number, np.float32)


def writer(folder: Path, first: int, batches: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", WRITER, str(folder), str(first), str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for a test that encodes."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


def test_what_is_kept_comes_back_bit_by_bit(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    with FeatureCache(tmp_path) as cache:
        cache.put({key(1): array})
    with FeatureCache(tmp_path) as cache:
        found = cache.get([key(1), key(2)])
    assert list(found) == [key(1)]
    assert found[key(1)].tobytes() == array.tobytes() and found[key(1)].shape == (7, 5)


def test_thousands_of_keys_at_once(tmp_path: Path) -> None:
    with FeatureCache(tmp_path) as cache:
        cache.put({key(n): row(n, 2) for n in range(2500)})
        assert len(cache.get([key(n) for n in range(3000)])) == 2500


def test_keys_differ_by_content_encoder_output_and_view() -> None:
    keys = {
        feature_key(content, fingerprint, output, view)
        for content in (b"a", b"b")
        for fingerprint in ("x:float32", "x:bfloat16")
        for output in ("pooled", "aligned")
        for view in (0, 1)
    }
    assert len(keys) == 16


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes; the folder is the user's own")
def test_no_one_else_may_look(tmp_path: Path) -> None:
    with FeatureCache(tmp_path / "cache") as cache:
        cache.put({key(1): row(1)})
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").iterdir()}
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600} and FILE in modes


def test_a_writer_killed_at_any_moment_leaves_whole_rows(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for attempt in range(6):
        process = writer(tmp_path, 1_000_000 * attempt, 100_000)
        assert process.stdout is not None
        process.stdout.readline()  # the first batch is in
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.communicate()
    with warnings.catch_warnings(), FeatureCache(tmp_path) as cache:
        warnings.simplefilter("error")
        for attempt in range(6):
            first = 1_000_000 * attempt
            found = cache.get([key(first + n) for n in range(40_000)])
            assert len(found) >= 20 and len(found) % 20 == 0  # batches are there as a whole or not at all
            assert all((array == int.from_bytes(k, "big")).all() and len(array) == 384 for k, array in found.items())
        cache.put({key(7): row(7)})
        assert key(7) in cache.get([key(7)])
    database = sqlite3.connect(tmp_path / FILE)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_processes_share_it_from_its_first_moment(tmp_path: Path) -> None:
    processes = [writer(tmp_path, 1000 * n, 10) for n in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    with FeatureCache(tmp_path) as cache:
        assert len(cache.get([key(1000 * n + i) for n in range(3) for i in range(200)])) == 600


def test_many_open_a_new_one_at_the_same_moment(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def work(number: int, folder: Path) -> int:
        start.wait()
        with FeatureCache(folder) as cache:
            cache.put({key(number): row(number)})
            return len(cache.get([key(number)]))

    with warnings.catch_warnings(), ThreadPoolExecutor(6) as pool:
        warnings.simplefilter("error")
        for trial in range(20):
            found = pool.map(work, range(6), [tmp_path / str(trial)] * 6)
            assert list(found) == [1] * 6


def test_rows_used_longest_ago_make_room(tmp_path: Path) -> None:
    now = [0.0]
    with FeatureCache(tmp_path, limit=400_000, clock=lambda: now[0]) as cache:
        cache.put({key(n): row(n) for n in range(100)})
        now[0] = 10_000.0
        cache.get([key(n) for n in range(10)])  # used again
        for start in range(100, 400, 50):
            now[0] += 10_000.0
            cache.put({key(n): row(n) for n in range(start, start + 50)})
        kept = {int.from_bytes(k, "big") for k in cache.get([key(n) for n in range(400)])}
    assert set(range(350, 400)) <= kept
    assert len(kept) < 300
    assert not kept & set(range(10, 60))
    assert int(cache_info(tmp_path)["bytes"]) < 800_000


def test_what_was_used_again_outlives_its_contemporaries(tmp_path: Path) -> None:
    now = [0.0]
    with FeatureCache(tmp_path, limit=600_000, clock=lambda: now[0]) as cache:
        cache.put({key(n): row(n) for n in range(200)})
        now[0] = 10_000.0
        cache.get([key(n) for n in range(10)])
        now[0] = 20_000.0
        cache.put({key(n): row(n) for n in range(200, 350)})
        kept = {int.from_bytes(k, "big") for k in cache.get([key(n) for n in range(350)])}
    assert set(range(10)) <= kept and len(kept & set(range(10, 200))) < 190


def test_a_damaged_file_costs_a_warning_not_the_job(own: Path) -> None:
    encoder = MiniLM("float32")
    expected = encoder.encode(["a text"])
    (own / FILE).write_bytes(b"this is no database" * 1000)
    for side in ("-wal", "-shm"):
        (own / f"{FILE}{side}").unlink(missing_ok=True)
    with pytest.warns(UserWarning, match="cannot be used.*cache clear"):
        again = encoder.encode(["a text"])
    np.testing.assert_array_equal(again, expected)
    assert "problem" in cache_info(own)
    assert clear_cache(own) == 19_000
    encoder.encode(["a text"])
    assert cache_info(own)["rows"] == 1


def test_a_row_of_the_wrong_length_is_computed_again(own: Path) -> None:
    encoder = MiniLM("float32")
    expected = encoder.encode(["a text"])
    database = sqlite3.connect(own / FILE)
    with database:
        database.execute("UPDATE features SET data = zeroblob(12)")
    database.close()
    np.testing.assert_array_equal(encoder.encode(["a text"]), expected)


def test_a_folder_that_cannot_be_made_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="going on without it"):
        assert MiniLM("float32").encode(["a text"]).shape == (1, 384)


def test_the_second_time_nothing_is_worked_out(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one", "two", "one", "three"]
    cold = MiniLM("float32").encode(texts)
    assert cache_info(own)["rows"] == 3
    warm_encoder = MiniLM("float32")
    monkeypatch.setattr(warm_encoder, "_features", lambda *_: pytest.fail("it was in the cache"))
    assert warm_encoder.encode(texts).tobytes() == cold.tobytes()


def test_only_what_is_new_is_worked_out(own: Path) -> None:
    encoder = MiniLM("float32")
    encoder.encode(["one", "two"])
    asked: list[int] = []
    features = encoder._features
    encoder._features = lambda jobs, *more: asked.append(len(jobs)) or features(jobs, *more)  # type: ignore
    encoder.encode(["two", "three", "one"])
    assert asked == [1]


def test_other_arithmetic_has_other_rows(own: Path) -> None:
    exact, fast = MiniLM("float32").encode(["a text"]), MiniLM("bfloat16").encode(["a text"])
    assert not np.array_equal(exact, fast)
    np.testing.assert_array_equal(MiniLM("float32").encode(["a text"]), exact)


def test_without_it_nothing_is_written(own: Path) -> None:
    MiniLM("float32").encode(["a text"], cache=False)
    assert not (own / FILE).exists()


def test_what_was_computed_before_an_interrupt_is_kept(own: Path) -> None:
    texts = [f"text number {n}" for n in range(400)]

    def interrupt(done: int, total: int) -> None:
        if done > 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MiniLM("float32").encode(texts, progress=interrupt)
    assert int(cache_info(own)["rows"]) > 200


def test_info_and_clear(tmp_path: Path) -> None:
    assert cache_info(tmp_path / "none")["rows"] == 0
    with FeatureCache(tmp_path) as cache:
        cache.put({key(n): row(n) for n in range(5)})
    (tmp_path / "hashes.json").write_text("{}", encoding="utf-8")
    info = cache_info(tmp_path)
    assert info["rows"] == 5 and int(info["bytes"]) > 5 * 384 * 4 and info["path"] == str(tmp_path / FILE)
    assert clear_cache(tmp_path) == info["bytes"]
    assert cache_info(tmp_path)["rows"] == 0 and (tmp_path / "hashes.json").exists()


@pytest.mark.parametrize(("text", "size"), [("", 2 << 30), ("500M", 500 << 20), ("1.5 GiB", 3 << 29), ("12", 12)])
def test_size_limit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE_SIZE", text)
    assert size_limit() == size


def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE_SIZE", "lots")
    with pytest.raises(BadInput, match="'lots'"):
        size_limit()


def test_the_users_own_place_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDFUL_CACHE")
    assert cache_dir().name == "handful" or "handful" in cache_dir().parts
