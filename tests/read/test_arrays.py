"""What is in memory already, and `.npz` files of features."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.errors import BadInput
from handful.read import Dataset, ImageFile, from_arrays, open_image, read


def test_texts():
    data = from_arrays(["a", "b", ""], ["x", "y", None], groups=[1, 1, 2])
    assert data.items == ["a", "b", ""]
    assert data.labels == ("x", "y", None)
    assert data.groups == ("1", "1", "2")
    assert data.where == ("item 0", "item 1", "item 2")
    assert data.modality == "text"
    assert (len(data.labelled), len(data.pool)) == (2, 1)
    assert data.usable.tolist() == [True, True, False]


@pytest.mark.parametrize("wrap", [list, tuple, np.array, pd.Series, pl.Series, iter])
def test_texts_of_any_sequence(wrap):
    assert from_arrays(wrap(["a", "b"]), wrap(["x", "y"])).labels == ("x", "y")
    assert from_arrays(wrap(["a", "b"])).items == ["a", "b"]


@pytest.mark.parametrize(
    "wrap",
    [
        np.asarray,
        torch.tensor,
        lambda x: [np.array(r) for r in x],
        lambda x: x,
        pd.DataFrame,
        lambda x: pl.DataFrame(np.array(x)),
    ],
)
def test_features(wrap):
    data = from_arrays(wrap([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), [0, 1, float("nan")])
    assert data.modality == "features"
    assert np.asarray(data.items).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.labels == ("0", "1", None)


def test_types_of_features():
    for given_type, kept in (("f4", "f4"), ("f8", "f8"), ("f2", "f4"), ("i8", "f8"), ("?", "f8")):
        assert np.asarray(from_arrays(np.ones((2, 3), given_type)).items).dtype == kept


def test_images(picture, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    items = [
        tmp_path / "a.png",
        picture(),
        ImageFile("x", data=picture()),
        Image.new("RGB", (4, 3)),
        np.zeros((3, 4, 3), np.uint8),
    ]
    data = from_arrays(items, list("abcde"))
    assert data.modality == "image"
    assert [open_image(item).size for item in data.items] == [(4, 3)] * 5
    assert data.usable.all()
    batch = from_arrays(np.zeros((2, 8, 8), np.uint8))
    assert (batch.modality, len(batch)) == ("image", 2)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["a", None], "item 1 is NoneType"),
        (["a", 3], "item 1 is int"),
        ([Path("x"), "y"], "item 1 is str"),
        ([object()], "item 0 is object"),
        ([[1.0, 2.0], [3.0]], "different lengths"),
        ("one text", "not one str"),
        (np.zeros(3), "[3]"),
        (np.zeros((3, 0)), "[3, 0]"),
        (np.zeros((3, 2), complex), "complex"),
        ([], "no items"),
        (5, "not int"),
    ],
)
def test_wrong_items(items, said, refused):
    with refused(said):
        from_arrays(items)


def test_wrong_lengths(refused):
    with refused("2 items but 1 labels"):
        from_arrays(["a", "b"], ["x"])
    with refused("2 items but 3 groups"):
        from_arrays(["a", "b"], ["x", "y"], groups=[1, 2, 3])
    with refused("labels is one text"):
        from_arrays(["a", "b"], "xy")


def test_labelled_but_empty(refused):
    with refused("item 1", "empty", "'y'", "and so in 1 more"):
        from_arrays(["a", " ", ""], ["x", "y", "y"])
    left = from_arrays(["a", " ", ""], ["x", "y", "y"], skip_bad=True)
    assert (left.items, len(left.provenance.skipped)) == (["a"], 2)


def test_features_that_are_not_numbers(refused):
    x = np.ones((3, 4))
    x[1, 2] = np.nan
    with refused("item 1", "column 2", "nan"):
        from_arrays(x)
    x[1, 2] = np.inf
    with refused("item 1", "column 2", "inf"):
        from_arrays(x, ["a", "b", "a"])


def test_mapping(refused):
    data = read({"refund": ["money back", "I want a refund"], "login": ("cannot sign in",)})
    assert data.labels == ("refund", "refund", "login")
    assert data.where[1] == "'refund' item 1"
    with refused("'refund'", "str"):
        read({"refund": "money back"})
    with refused("'a' item 0", "empty"):
        read({"a": [""], "b": ["x"]})


def test_pandas_frame(refused):
    frame = pd.DataFrame({"text": ["x", "y", "z"], "label": ["a", None, "b"], "n": [1, 2, None]}, index=[7, 8, 9])
    frame = frame.astype({"label": "category"})
    data = read(frame)
    assert data.labels == ("a", None, "b")
    assert data.where[2] == "frame row 2"
    assert data.table is not None
    assert data.table["n"].to_list() == [1.0, 2.0, None]
    assert read(frame, label="n").labels == ("1", "2", None)
    with refused("columns 1 and 2", "'text'"):
        read(pd.DataFrame([["x", "y"]], columns=["text", "text"]))
    with refused("no rows"):
        read(frame[:0])


def test_polars_frame():
    frame = pl.DataFrame({"text": ["x", "y"], "label": [1, None]})
    data = read(frame)
    assert data.labels == ("1", None)
    assert data.table is not None
    assert data.table.equals(frame)


def test_data_set_passes_through():
    data = from_arrays(["a", "b"], ["x", "y"])
    assert read(data).items == data.items
    assert read(["a", "b"]).items == ["a", "b"]
    assert read(np.eye(3)).modality == "features"


def test_take_and_lengths(refused):
    data = read(pl.DataFrame({"text": ["x", "y", "z"], "label": ["a", "b", None]}))
    part = data.take(np.array([2, 0]))
    assert (part.items, part.labels, part.where) == (["z", "x"], (None, "a"), ("frame row 2", "frame row 0"))
    assert part.table is not None
    assert part.table["text"].to_list() == ["z", "x"]
    with refused("2 items but 1 labels"):
        Dataset(["a", "b"], ("x",), "text")


def _npz(tmp_path, **arrays):
    path = tmp_path / "f.npz"
    np.savez(path, **arrays)
    return path


def test_npz(tmp_path):
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = _npz(tmp_path, X=x, y=np.array(["a", "b", "", "a"]), groups=np.array([1, 1, 2, 2]))
    data = read(path)
    assert data.modality == "features"
    assert np.array_equal(np.asarray(data.items), x)
    assert data.labels == ("a", "b", None, "a")
    assert data.groups == ("1", "1", "2", "2")
    assert data.where[3] == "f.npz row 3"
    assert data.provenance.sha256 == {"f.npz": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_npz_labels(tmp_path):
    x = np.eye(3)
    assert read(_npz(tmp_path, X=x)).labels == (None,) * 3
    assert read(_npz(tmp_path, X=x, y=np.array([0, -1, 1]))).labels == ("0", "-1", "1")
    assert read(_npz(tmp_path, X=x, y=np.array([0.0, np.nan, 1.0]))).labels == ("0", None, "1")
    assert read(_npz(tmp_path, X=x, y=np.array([1, -1, 0]), names=np.array(["cat", "dog"]))).labels == (
        "dog",
        None,
        "cat",
    )


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.eye(2)}, ["no array 'X'", "x"]),
        ({"X": np.ones(3)}, ["'X'", "[3]"]),
        ({"X": np.array([["a", "b"]])}, ["'X'", "numbers"]),
        ({"X": np.eye(2), "y": np.array(["a", None], object)}, ["'y'", "y.astype(str)"]),
        ({"X": np.eye(2), "y": np.zeros(3)}, ["'y'", "[3]", "[2]"]),
        ({"X": np.eye(2), "y": np.zeros((2, 2))}, ["'y'", "[2, 2]"]),
        ({"X": np.eye(2), "y": np.array([0, 5]), "names": np.array(["a", "b"])}, ["row 1", "5", "'names'"]),
        ({"X": np.eye(2), "y": np.array(["a", "b"]), "names": np.array(["a", "b"])}, ["'names'", "whole numbers"]),
        ({"X": np.array([[0, 1], [np.nan, 1]])}, ["row 1", "column 0", "nan"]),
        ({"X": np.array([[{}]], object)}, ["'X'", "objects"]),
        ({"X": np.zeros((0, 2))}, ["'X'", "[0, 2]"]),
    ],
)
def test_npz_that_cannot_be_used(arrays, said, tmp_path, refused):
    with refused("f.npz", *said):
        read(_npz(tmp_path, **arrays))


def test_npz_rows_that_are_not_numbers(tmp_path):
    path = _npz(tmp_path, X=np.array([[0, 1], [np.nan, 1], [1, 1]]), y=np.array(["a", "b", "b"]))
    left = read(path, skip_bad=True)
    assert left.labels == ("a", "b")
    assert "f.npz row 1" in left.provenance.skipped[0]
    assert len(read(path, keep_rows=True)) == 3


def test_npz_next_to_each_other(tmp_path, refused):
    np.savez(tmp_path / "a.npz", X=np.ones((2, 3)), groups=np.array(["p", "q"]))
    np.savez(tmp_path / "b.npz", X=np.ones((1, 3)))
    np.savez(tmp_path / "c.npz", X=np.ones((1, 4)))
    data = read(tmp_path / "a.npz", tmp_path / "b.npz")
    assert np.asarray(data.items).shape == (3, 3)
    assert data.groups is not None
    assert len(set(data.groups)) == 3
    with refused("width", "3 and 4"):
        read(tmp_path / "a.npz", tmp_path / "c.npz")


def test_one_array_is_no_npz(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.eye(2))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with refused("a.npz", "np.savez"):
        read(tmp_path / "a.npz")


def test_npz_that_claims_the_moon(tmp_path, refused):
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10)})
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", file.getvalue())
    with refused("a.npz"):
        read(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def intact():
    """The bytes of a small archive of arrays: written once, since it holds the time it was written."""
    file = io.BytesIO()
    np.savez(file, X=np.eye(3), y=np.array(["a", "b", "c"]))
    return file.getvalue()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damaged_npz_is_bad_input(data, intact, tmp_path_factory):
    blob = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    path.write_bytes(blob)
    try:
        assert len(read(path)) > 0
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
