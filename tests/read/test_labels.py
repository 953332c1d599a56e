from __future__ import annotations

import numpy as np
import pytest

from handful.read import from_arrays, read
from handful.read.labels import label_text, one_spelling


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("a", "a"), (" a ", " a "), ("", None), (" \t", None), (None, None), (float("nan"), None), (3, "3"), (3.0, "3"),
        (4.5, "4.5"), (True, "True"), (np.int64(7), "7"), (np.str_("x"), "x"), (np.float32("nan"), None),
        (b"caf\xc3\xa9", "café"),
    ],
)  # fmt: skip
def test_label_text(value, label):
    assert label_text(value) == label


def test_a_list_is_no_label(refused):
    with refused("item 1", "list", "the label", "an item has one"):
        from_arrays(["x", "y"], ["a", ["b", "c"]])


def test_labels_that_differ_in_case_or_blanks_are_named(refused, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\nx,Refund\ny,refund\nz,refund \nw,refund\nv,login\n", encoding="utf-8")
    with refused("'refund' (2)", "'Refund' (1)", "'refund ' (1)", "--merge-labels"):
        read(path)
    merged = read(path, merge_labels=True)
    assert merged.labels == ("refund", "refund", "refund", "refund", "login")
    assert merged.table is not None
    assert merged.table["label"].to_list() == ["Refund", "refund", "refund ", "refund", "login"]
    assert read(path, keep_rows=True).labels[0] == "Refund"


def test_most_frequent_spelling_wins_and_ties_are_settled():
    assert one_spelling(("B b", "b  b", "b  b", None), merge=True) == ("b  b", "b  b", "b  b", None)
    assert one_spelling(("a", "A"), merge=True) == one_spelling(("A", "a"), merge=True)[::-1] == ("A", "A")


def test_from_arrays_merges_too(refused):
    with refused("'A'", "'a'"):
        from_arrays(["x", "y"], ["A", "a"])
    assert from_arrays(["x", "y"], ["A", "a"], merge_labels=True).classes == ("A",)
