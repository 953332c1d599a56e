"""The fixed partition: counts, draws inside it, and files that name it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.partition import few_shot_subset, partition, read_split, standing


@pytest.mark.paper(13, oracle="a", part="protocol")
def test_whu_rs19_is_cut_as_its_split_says(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "whu_rs19_224.zip") as archive:
        labels = np.array([name.split("/")[-2] for name in archive.namelist() if name.lower().endswith(".jpg")])
    parts = partition(labels)
    assert len(np.unique(labels)) == 19
    assert [len(part) for part in parts] == [505, 260, 240]
    tested = np.unique(labels[parts.test], return_counts=True)[1]
    assert (tested.min(), tested.max(), len(tested)) == (12, 14, 19)


@pytest.mark.paper(13, oracle="d")
def test_exactly_k_of_each_class_none_of_them_tested() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(list("abc"), [40, 41, 47]))
    parts = partition(labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for k in (1, 2, 16):
        rows = few_shot_subset(labels, parts.train, k, seed=1)
        assert np.unique(labels[rows], return_counts=True)[1].tolist() == [k] * 3
        assert not np.isin(rows, np.concatenate([parts.val, parts.test])).any()
    assert not np.array_equal(few_shot_subset(labels, parts.train, 4, 1), few_shot_subset(labels, parts.train, 4, 2))
    assert np.isin(few_shot_subset(labels, parts.train, 2, 1), few_shot_subset(labels, parts.train, 4, 1)).all()


@pytest.mark.paper(13, oracle="c", part="protocol")
def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    labels = np.repeat(list("ab"), 30)
    assert all((a == b).all() for a, b in zip(partition(labels), partition(labels), strict=True))
    assert not np.array_equal(partition(labels).test, partition(labels, seed=1).test)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(BadInput, match="class 'b' has 3 items: none is left to test on"):
        partition(list("aaaaaaaabbb"))
    with pytest.raises(BadInput, match="class 'b' has 4 items to train on"):
        few_shot_subset(list("aaaaabbbb"), np.arange(9), 5, 0)
    with pytest.raises(BadInput, match="leave something"):
        partition(list("aabb"), train=0.8, val=0.2)
    for labels in ([], [["a", "b"]] * 8, "abcd"):
        with pytest.raises(BadInput, match="labels are a list of classes"):
            partition(labels)
    with pytest.raises(BadInput, match="several kinds, or missing"):
        partition(["a", None] * 8)
    with pytest.raises(BadInput, match="train must be a finite number above 0, not nan"):
        partition(list("aabb"), train=np.nan)
    for rows in ([0, 9], [-1], [0.5], [[0]]):
        with pytest.raises(BadInput, match="rows to draw from are whole numbers below 9"):
            few_shot_subset(list("aaaaabbbb"), rows, 1, 0)
    with pytest.raises(BadInput, match="stand there twice"):
        few_shot_subset(list("aaaa"), [0, 0], 1, 0)
    with pytest.raises(BadInput, match="shots must be a whole number from 1"):
        few_shot_subset(list("aaaa"), [0, 1], 0, 0)


def test_shares_that_are_no_exact_numbers_are_not_rounded_past_what_they_say() -> None:
    assert [len(part) for part in partition(["a"] * 100, train=0.55, val=0.25)] == [55, 25, 20]


def test_a_split_file(tmp_path: Path) -> None:
    for name in ("a_1.jpg", "a_2.jpg", "b_1.jpg"):
        (tmp_path / name).touch()
    rows = {"train": [["a_1.jpg", 0, "a"], ["b_1.jpg", 1, "b"]], "val": [], "test": [["a_2.jpg", 0, "a"]]}
    path = tmp_path / "split.json"
    path.write_text(json.dumps(rows))
    assert read_split(path)["test"] == [(tmp_path / "a_2.jpg", 0, "a")]
    (tmp_path / "authors" / "2750").mkdir(parents=True)  # their folders: images are one deeper than the file
    for name in ("a_1.jpg", "a_2.jpg", "b_1.jpg"):
        (tmp_path / "authors" / "2750" / name).touch()
    (tmp_path / "authors" / "split.json").write_text(json.dumps(rows))
    found = read_split(tmp_path / "authors" / "split.json")
    assert found["test"] == [(tmp_path / "authors" / "2750" / "a_2.jpg", 0, "a")]
    path.write_text(json.dumps({**rows, "val": [["gone.jpg", 0, "a"]]}))
    with pytest.raises(BadInput, match=r"names 1 images that are not there: .*gone\.jpg"):
        read_split(path)
    path.write_text(json.dumps({**rows, "train": rows["train"][:1], "val": rows["train"][1:]}))
    with pytest.raises(BadInput, match=r"class 'b' of .* has no image to train on"):
        read_split(path)
    path.write_text("[]")
    with pytest.raises(BadInput, match="is no split"):
        read_split(path)


def test_ranks_by_data_set() -> None:
    found = standing({"x": [0.9, 0.8, 0.7], "y": [0.5, 0.8, 0.6], "z": [0.1, 0.2, 0.3]})
    assert found.ranks.tolist() == [[1, 2, 3], [1.5, 1.5, 3], [1, 2, 3]]
    assert found.overall is not None and found.overall.ranks == pytest.approx([3.5 / 3, 5.5 / 3, 3])
    assert standing({"x": [1], "y": [2]}).overall is None
    with pytest.raises(BadInput):
        standing({"x": [1, 2], "y": [2]})
