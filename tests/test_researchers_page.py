"""The programs of `docs/researchers.md` do what the page says."""

from __future__ import annotations

import pickle
import re
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.commands.bench import bench
from handful.read import read

PAGE = (Path(__file__).parents[1] / "docs" / "researchers.md").read_text("utf-8")
FILES = {
    name: textwrap.dedent(code) for code, name in re.findall(r"```python\n((?: *)# file: (\S+)\n.*?)```", PAGE, re.S)
}


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Positive features [24, 2, 3], which are flattened, and labels of three classes."""
    y = np.repeat([3, 5, 8], 8)
    x = np.abs(np.random.default_rng(0).normal(size=(24, 2, 3)) + 3 * np.eye(9, 6)[y % 6].reshape(24, 2, 3))
    return x.astype(np.float32), y


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def converted(name: str) -> tuple[np.ndarray, list[str]]:
    """Features and labels that a program of the page writes."""
    exec(compile(FILES[name], name, "exec"), {})
    data = read("novel.npz")
    return np.asarray(data.items), [str(label) for label in data.labels]


def test_every_program_is_tried() -> None:
    assert set(FILES) == {
        "from_torch.py", "from_pickle.py", "from_hdf5.py", "from_easyfsl.py", "my_heads.py", "check_mine.py",
    }  # fmt: skip


def test_from_torch(rows: tuple[np.ndarray, np.ndarray]) -> None:
    import torch

    x, y = rows
    torch.save({"features": torch.as_tensor(x), "labels": torch.as_tensor(y)}, "novel.pt")
    found, labels = converted("from_torch.py")
    assert np.array_equal(found, x.reshape(24, 6)) and labels == [str(label) for label in y]
    names: dict[str, Any] = {}
    exec(FILES["from_torch.py"], names)
    batches = [(torch.as_tensor(x[part]), torch.as_tensor(y[part])) for part in (slice(0, 10), slice(10, 24))]
    got, again = names["features"](torch.nn.ReLU(), batches)
    assert np.array_equal(got, found) and np.array_equal(again, y)


def test_from_a_pickle_by_class(rows: tuple[np.ndarray, np.ndarray]) -> None:
    by_class: dict[int, list[np.ndarray]] = defaultdict(list)
    for row, label in zip(*rows, strict=True):
        by_class[int(label)].append(row)
    Path("output.plk").write_bytes(pickle.dumps(by_class))
    found, labels = converted("from_pickle.py")
    assert np.array_equal(found, rows[0].reshape(24, 6)) and labels == [f"novel {label}" for label in rows[1]]


def test_from_hdf5(rows: tuple[np.ndarray, np.ndarray]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File("novel.hdf5", "w") as file:
        file.create_dataset("all_feats", data=np.concatenate([rows[0], np.zeros((8, 2, 3), np.float32)]))
        file.create_dataset("all_labels", data=np.concatenate([rows[1], np.zeros(8, np.int32)]))
        file.create_dataset("count", data=[24])
    found, labels = converted("from_hdf5.py")
    assert np.array_equal(found, rows[0].reshape(24, 6)) and labels == [str(label) for label in rows[1]]


def test_from_easyfsl(rows: tuple[np.ndarray, np.ndarray]) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    names = [f"c{label}" for label in rows[1]]
    frame = pd.DataFrame({"embedding": [row.ravel() for row in rows[0]], "class_name": names})
    frame.to_parquet("embeddings.parquet")
    found, labels = converted("from_easyfsl.py")
    assert np.array_equal(found, rows[0].reshape(24, 6)) and labels == names


def test_a_head_of_ones_own(rows: tuple[np.ndarray, np.ndarray], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "my_heads", raising=False)
    Path("my_heads.py").write_text(FILES["my_heads.py"], encoding="utf-8")
    exec(FILES["check_mine.py"], {})
    x, y = rows
    np.savez("novel.npz", X=x.reshape(24, 6), y=y)
    np.savez("val.npz", X=x.reshape(24, 6), y=np.char.add("val ", y.astype(str)))
    found = bench(
        "novel.npz", heads=["prototypes", "my_heads:Mine"], set_={"prototypes.metric": "sqeuclidean"}, budget=4,
        tune_on="val.npz", ways=3, shots=[2], queries=5, episodes=20,
    )  # fmt: skip
    plain, mine = found.rows
    assert np.array_equal(plain.result.accuracy, mine.result.accuracy)  # a temperature changes no answer
    chosen = [(each["head"], each["tried"]) for each in found.setting["tuning"]["chosen"]]
    assert chosen == [("prototypes", 1), ("my_heads:Mine", 4)]
    sys.modules.pop("my_heads")
