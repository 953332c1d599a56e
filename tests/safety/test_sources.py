"""Any bytes under any name are read, or refused in one line; nothing else happens."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.errors import BadInput
from handful.read import read, write_table
from handful.read.images import open_image

SUFFIXES = ("csv", "tsv", "json", "jsonl", "parquet", "xlsx", "npz", "zip", "txt", "png")


def harmless(path: Path) -> None:
    """Read a source and everything in it."""
    try:
        data = read(path)
        if data.modality == "image":
            for item in data.items:
                open_image(item, max_pixels=1_000_000)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).isprintable()


def zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


def image(kind: str, size: tuple[int, int] = (12, 9)) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small good source of each kind."""
    folder, made = tmp_path_factory.mktemp("intact"), {}
    frame = pl.DataFrame({"text": [f"text {i}, a few words" for i in range(6)], "label": ["a", "b"] * 3})
    for suffix in ("csv", "tsv", "json", "jsonl", "parquet", "xlsx"):
        write_table(frame, folder / f"t.{suffix}")
        made[suffix] = (folder / f"t.{suffix}").read_bytes()
    arrays = io.BytesIO()
    np.savez(arrays, X=np.eye(4), y=np.array(["a", "b", "a", "b"]))
    made["npz"] = arrays.getvalue()
    made["zip"] = zipped({f"{c}/{i}.png": image("PNG") for c in "ab" for i in range(2)})
    made["txt"] = b"one text a line\nanother\n"
    made["png"] = image("PNG")
    return made


def damaged(data: st.DataObject, blob: bytes) -> bytes:
    """A few changes of the kinds that files suffer: bytes, a cut, a piece doubled or gone."""
    content = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        length = data.draw(st.integers(1, 64))
        match data.draw(st.sampled_from(["byte", "word", "cut", "double", "gone"])):
            case "byte":
                content[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
            case "word":  # lengths and offsets live here
                content[place : place + 4] = struct.pack(
                    "<I", data.draw(st.sampled_from([0, 1, 0xFFFF, 1 << 31, 0xFFFFFFFF]))
                )
            case "cut":
                del content[place:]
            case "double":
                content[place:place] = content[place : place + length]
            case "gone":
                del content[place : place + length]
    return bytes(content)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_sources(
    data: st.DataObject, suffix: str, intact: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"t.{suffix}"
    path.write_bytes(damaged(data, intact[suffix]))
    harmless(path)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_under_any_name(content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / f"t.{suffix}"
    path.write_bytes(content)
    harmless(path)


@settings(max_examples=60, deadline=None)
@given(wrong=st.sampled_from(SUFFIXES), right=st.sampled_from(SUFFIXES))
def test_one_kind_under_the_name_of_another(
    wrong: str, right: str, intact: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("wrong") / f"t.{wrong}"
    path.write_bytes(intact[right])
    harmless(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO", "JPEG2000"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_pictures(data: st.DataObject, kind: str) -> None:
    try:
        opened = open_image(damaged(data, image(kind)), max_pixels=1_000_000)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert opened.mode == "RGB"


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
        | st.sampled_from(
            ["../a.png", "/etc/a.png", "a\\..\\b.png", "C:\\a.png", "a/\x1b[31m.png", "a/b/c/d.png", "a/", "."]
        ),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_any_names_in_an_archive(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    (folder / "t.zip").write_bytes(zipped(dict.fromkeys(names, image("PNG"))))
    harmless(folder / "t.zip")
    assert [path.name for path in folder.iterdir()] == ["t.zip"]
