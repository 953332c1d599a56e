"""Several labels a cell: what is split, what stands for none of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from handful.errors import BadInput
from handful.read import from_arrays, read
from handful.read.labels import LabelSets


def table(path: Path, cells: list[str]) -> Path:
    path.write_text("text,tags\n" + "".join(f'text {i},"{cell}"\n' for i, cell in enumerate(cells)), "utf-8")
    return path


def test_cells_are_split_and_every_label_counts_once(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ["b; a", "a;b;a", " c ;", "a", ""])
    data = read(source, label="tags", multi_label=";")
    assert data.labels == ("a;b", "a;b", "c", "a", None)
    assert data.classes == ("a", "b", "c")
    assert data.sets is not None
    assert data.sets.table(data.labels, data.classes).tolist() == [
        [1, 1, 0],
        [1, 1, 0],
        [0, 0, 1],
        [1, 0, 0],
        [0, 0, 0],
    ]
    assert len(data.labelled) == 4
    assert read(source, label="tags").classes == (" c ;", "a", "a;b;a", "b; a")  # as ever without the option


@pytest.mark.parametrize(
    ("none", "cells", "labels"),
    [
        (None, ["a", "", " ; "], ("a", None, "")),
        ("", ["a", "", " ; "], ("a", "", "")),
        ("No Finding", ["a", "", "No Finding"], ("a", None, "")),
    ],
)
def test_what_stands_for_none_of_the_labels(
    tmp_path: Path, none: str | None, cells: list[str], labels: tuple[str | None, ...]
) -> None:
    assert read(table(tmp_path / "t.csv", cells), label="tags", multi_label=";", none=none).labels == labels


def test_lists_of_labels_are_taken(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "x", "labels": ["b", "a"]}, {"text": "y", "labels": []}]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "z", "labels": None}])), "utf-8")
    assert read(path, multi_label="|").labels == ("a|b", "", None)
    assert from_arrays(["x", "y", "z"], [{"b", "a"}, (), "a|c"], multi_label="|").labels == ("a|b", "", "a|c")
    with pytest.raises(BadInput, match="holds a list"):
        read(path)


def test_a_file_without_the_column_is_unlabelled_though_empty_cells_are_not(tmp_path: Path) -> None:
    labelled = table(tmp_path / "a.csv", ["a;b", ""])
    (tmp_path / "b.csv").write_text("text\nnew one\n", "utf-8")
    data = read(labelled, tmp_path / "b.csv", label="tags", multi_label=";", none="")
    assert data.labels == ("a;b", "", None)


def test_spellings_are_those_of_labels_not_of_cells(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv", ["a;b", "A;b", "a"])
    with pytest.raises(BadInput, match=r"differ only in case or blanks: 'a' \(2\), 'A' \(1\)"):
        read(source, label="tags", multi_label=";")
    assert read(source, label="tags", multi_label=";", merge_labels=True).labels == ("a;b", "a;b", "a")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"multi_label": ""}, "it cannot be empty"),
        ({"none": "-"}, "--none .* needs --multi-label"),
        ({"multi_label": ";", "none": "a;b"}, "has the separator ';' in it"),
        ({"multi_label": ";", "none": "none"}, "t.csv row 3: 'none' stands for none of the labels, but others"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, how: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(table(tmp_path / "t.csv", ["a", "none;b"]), label="tags", **how)


def test_a_separator_within_a_label_of_a_list_is_refused() -> None:
    with pytest.raises(BadInput, match="item 1: the label 'b;c' has the separator ';' in it"):
        from_arrays(["x", "y"], [["a"], ["b;c"]], multi_label=";")


def test_what_is_written_is_read_again() -> None:
    sets = LabelSets("|", "nothing")
    for labels in ((), ("a",), ("a", "b c")):
        assert sets.split(sets.written(reversed(labels))) == labels
