"""Folders of classes, ZIP archives of them, tables of image paths."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.errors import BadInput
from handful.read import ImageFile, open_image, read
from handful.read import zips as zips_module
from handful.read.zips import members

FILES = ["cats/1.jpg", "cats/2.PNG", "cats/more/3.png", "dogs/1.gif", "dogs/2.webp", "loose.bmp"]
KIND = {".jpg": "JPEG", ".png": "PNG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP"}
JUNK = [".DS_Store", "cats/Thumbs.db", "cats/._1.jpg", "__MACOSX/cats/._1.jpg", ".git/x.png", "dogs/desktop.ini"]


@pytest.fixture
def files(picture):
    """Names and contents of two classes, a loose image, a note, and what operating systems leave behind."""
    found = {name: picture(KIND[name[name.rindex(".") :].lower()]) for name in FILES}
    return found | {"dogs/notes.md": b"# notes"} | dict.fromkeys(JUNK, b"junk")


def _folder(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def _zip(path, files, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data, **options)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_folder_per_class(packed, files, tmp_path):
    source = _zip(tmp_path / "pets.zip", files) if packed else _folder(tmp_path / "pets", files)
    data = read(source)
    assert data.modality == "image"
    assert [item.name for item in data.items] == sorted(FILES)
    assert data.labels == ("cats", "cats", "cats", "dogs", "dogs", None)
    assert data.where[0] == f"{source.name}: cats/1.jpg"
    left_out = f"{source.name}: 1 .md file left out, not a kind that is read (dogs/notes.md)"
    assert data.provenance.skipped == (left_out,)
    assert pickle.loads(pickle.dumps(data.items)) == data.items
    assert list(data.provenance.sha256) == [source.name]
    assert data.table is not None
    assert data.table.rows()[0] == ("cats/1.jpg", "cats")
    assert data.label_column == "label"
    for item in data.items:
        assert open_image(item).size == (4, 3)


def test_digest_of_a_folder_follows_its_contents(files, tmp_path, picture):
    root = _folder(tmp_path / "pets", files)
    before = read(root).provenance.sha256["pets"]
    assert read(root).provenance.sha256["pets"] == before
    (root / "cats" / "1.jpg").write_bytes(picture("JPEG", "blue"))
    assert read(root).provenance.sha256["pets"] != before


def test_flat_folder_is_a_pool(picture, tmp_path):
    data = read(_folder(tmp_path / "new", {"b.png": picture(), "a.png": picture()}))
    assert [item.name for item in data.items] == ["a.png", "b.png"]
    assert data.labels == (None, None)
    assert data.label_column is None


def test_archive_in_a_folder_of_its_own(picture, tmp_path):
    wrapped = {"pets/cats/1.png": picture(), "pets/dogs/1.png": picture()}
    assert read(_zip(tmp_path / "a.zip", wrapped)).labels == ("cats", "dogs")
    assert read(_folder(tmp_path / "a", wrapped)).labels == ("cats", "dogs")
    assert read(_zip(tmp_path / "b.zip", {"new photos/1.png": picture()})).labels == (None,)
    assert read(_folder(tmp_path / "b", {"cats/1.png": picture()})).labels == ("cats",)


def test_text_files_of_classes(tmp_path):
    data = read(_folder(tmp_path / "mail", {"spam/1.txt": b"win \xa3 now\n", "ham/1.txt": "café".encode()}))
    assert data.modality == "text"
    assert (data.items, data.labels) == (["café", "win £ now"], ("ham", "spam"))


def test_empty_text_file_is_named(tmp_path, refused):
    root = _folder(tmp_path / "mail", {"spam/1.txt": b"", "ham/1.txt": b"x"})
    with refused("mail: spam/1.txt", "empty"):
        read(root)


def test_parts_of_a_data_set_are_no_classes(picture, tmp_path, refused):
    root = _folder(tmp_path / "set", {"train/cats/1.png": picture(), "test/cats/2.png": picture()})
    with refused("set", "test, train", "--test"):
        read(root)
    assert read(root / "train").labels == ("cats",)


def test_nothing_to_read(tmp_path, refused):
    with refused("empty"):
        read(_folder(tmp_path / "e", {".hidden": b""}) if not (tmp_path / "e").mkdir() else "")
    with refused("tickets.csv", "no images"):
        read(_folder(tmp_path / "t", {"tickets.csv": b"text\nx\n"}))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_once(picture, tmp_path, refused):
    root = _folder(tmp_path / "pets", {"cats/1.png": picture()})
    _folder(tmp_path / "elsewhere", {"1.png": picture()})
    os.symlink(tmp_path / "elsewhere", root / "dogs", target_is_directory=True)
    os.symlink(root, root / "cats" / "loop", target_is_directory=True)
    assert read(root).labels == ("cats", "dogs")
    os.symlink(tmp_path / "nowhere.png", root / "cats" / "2.png")
    with refused("pets: cats/2.png", "no such image"):
        read(root)
    assert len(read(root, skip_bad=True)) == 2


@pytest.mark.parametrize("name", ["../evil.png", "/etc/x.png", "a/../../x.png", "C:/x.png", "..\\x.png"])
def test_members_that_point_outside(name, picture, tmp_path, refused):
    with refused("p.zip", "outside"):
        read(_zip(tmp_path / "p.zip", {name: picture(), "cats/1.png": picture()}))


def test_encrypted_members(picture, tmp_path, refused):
    path = _zip(tmp_path / "p.zip", {"cats/1.png": picture()})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    path.write_bytes(data)
    with refused("p.zip", "cats/1.png", "encrypted"):
        read(path)


def test_members_of_one_name(picture, tmp_path, refused):
    path = tmp_path / "p.zip"
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cats/1.png", picture())
        archive.writestr("cats/1.png", picture())
    with refused("p.zip", "cats/1.png", "twice"):
        read(path)


def test_bombs(tmp_path, refused, monkeypatch, picture):
    path = _zip(tmp_path / "p.zip", {"cats/1.bmp": bytes(200_000), "cats/2.bmp": bytes(200_000)})
    monkeypatch.setattr(zips_module, "MAX_TOTAL", 300_000)
    with refused("p.zip", "unpacks to more"):
        read(path)
    monkeypatch.setattr(zips_module, "MAX_MEMBER", 100_000)
    with refused("p.zip", "cats/1.bmp", "unpacks to more"):
        read(path)


def test_member_larger_than_it_says(tmp_path):
    path = _zip(tmp_path / "p.zip", {"cats/1.bmp": bytes(200_000)})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    item = read(path).items[0]
    with pytest.raises(BadInput, match=r"cats/1\.bmp.*damaged"):
        item.read_bytes()


def test_unusual_packing(tmp_path, refused, picture):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cats/1.png", picture())
    with refused("p.zip", "unusual"):
        read(tmp_path / "p.zip")


NAME = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='\\/:*?"<>|'), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    contents=st.dictionaries(NAME.map(lambda n: f"c/{n}.png"), st.binary(max_size=300), max_size=5),
    prefix=st.binary(max_size=20),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_members_are_read_as_zipfile_reads_them(contents, prefix, method, tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    with path.open("wb") as file:
        file.write(prefix)  # archives may follow other data
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
    assert {m.name: m.read(path) for m in members(path)} == contents


@pytest.fixture(scope="module")
def intact():
    """The bytes of a small archive: written once, since it holds the time it was written."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cats/1.png", b"not really a picture" * 9)
        archive.writestr("dogs/1.png", b"")
    return file.getvalue()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_archives_are_bad_input(data, intact, tmp_path_factory):
    blob = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    path.write_bytes(blob)
    try:
        for item in read(path).items:
            if isinstance(item, ImageFile):
                item.read_bytes()
    except BadInput as error:
        assert len(str(error).splitlines()) == 1


def test_single_image_files(picture, tmp_path):
    root = _folder(tmp_path, {"a.png": picture(), "b.jpg": picture("JPEG")})
    data = read(root / "a.png", root / "b.jpg")
    assert data.labels == (None, None)
    assert data.table is not None
    assert data.table["file"].to_list() == ["a.png", "b.jpg"]


def test_table_of_image_paths(picture, tmp_path, refused):
    root = _folder(tmp_path / "shop", {"img/1.png": picture(), "img/2.png": picture()})
    table = root / "items.csv"
    table.write_text(f"path,label\nimg/1.png,a\n{root / 'img' / '2.png'},b\nimg/3.png,\n", encoding="utf-8")
    data = read(table)
    assert (data.modality, data.item_columns) == ("image", ("path",))
    assert [open_image(item).size for item in data.items[:2]] == [(4, 3)] * 2
    assert data.usable.tolist() == [True, True, False]
    table.write_text("path,label\nimg/1.png,a\nimg/3.png,b\n,b\nhttps://example.org/1.png,c\n", encoding="utf-8")
    with refused("items.csv row 3", "img", "3.png", "no such image"):
        read(table)
    left = read(table, skip_bad=True)
    assert len(left) == 1
    assert ["row 3" in left.provenance.skipped[0], "row 4" in left.provenance.skipped[1]] == [True, True]
    assert "address" in left.provenance.skipped[2]
    assert len(read(table, keep_rows=True)) == 4


def test_paths_written_on_windows(picture, tmp_path):
    root = _folder(tmp_path, {"img/1.png": picture()})
    (root / "t.csv").write_text("path,label\nimg\\1.png,a\n", encoding="utf-8")
    assert open_image(read(root / "t.csv").items[0]).size == (4, 3)


def test_texts_or_images(picture, tmp_path, refused):
    root = _folder(tmp_path, {"1.png": picture()})
    (root / "t.csv").write_text("text,file,label\nhello,1.png,a\n", encoding="utf-8")
    with refused("t.csv", "--text or --image"):
        read(root / "t.csv")
    assert read(root / "t.csv", image="file").modality == "image"
    assert read(root / "t.csv", text="text").modality == "text"


def test_images_inside_parquet(picture, tmp_path):
    import polars as pl

    pl.DataFrame({"image": [{"bytes": picture(), "path": "a.png"}], "label": [3]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"image": [picture()], "label": [3]}).write_parquet(tmp_path / "b.parquet")
    (tmp_path / "a.png").write_bytes(picture())
    pl.DataFrame({"image": [{"bytes": None, "path": "a.png"}], "label": [3]}).write_parquet(
        tmp_path / "c.parquet", statistics=False
    )
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        data = read(tmp_path / name)
        assert open_image(data.items[0]).size == (4, 3)
        assert data.labels == ("3",)


def test_sources_of_different_kinds(files, picture, tmp_path, refused):
    root = _folder(tmp_path / "pets", files)
    table = tmp_path / "more.csv"
    (tmp_path / "x.png").write_bytes(picture())
    table.write_text("file,label\nx.png,birds\n", encoding="utf-8")
    data = read(root, table)
    assert data.classes == ("birds", "cats", "dogs")
    assert data.table is not None
    assert data.table.height == len(data) == 7
    (tmp_path / "t.csv").write_text("text,label\nx,a\n", encoding="utf-8")
    with refused("image and text"):
        read(root, tmp_path / "t.csv")


def test_aerial_photographs(shared_data):
    data = read(shared_data / "whu_rs19_224.zip")
    assert len(data) == 1005
    assert len(data.classes) == 19
    assert open_image(data.items[0]).size == (224, 224)
