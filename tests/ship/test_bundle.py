"""The model file: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handful.errors import BadInput, HandfulError
from handful.ship.bundle import (
    DESCRIPTION,
    FORMAT,
    MOST_PARTS,
    PARTS,
    TENSORS,
    read_bundle,
    read_layout,
    read_parts,
    write_bundle,
)

WHAT = {"head": {"key": "gda", "parameters": {"alpha": 0.5}}, "classes": ["a", "ü", "退款"], "scale": 1.25}


ENCODER = {"model.safetensors": bytes(range(256)) * 9, "tokenizer.json": b'{"a": 1}', "text/settings.json": b""}


def state() -> dict[str, torch.Tensor]:
    """Tensors of several kinds, one empty, one not contiguous, two that share memory."""
    table = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    return {
        "weight": table[:2],
        "last": table[2],
        "turned": table.T,
        "codes": torch.tensor([1, 2, 3]),
        "half": torch.tensor([0.5], dtype=torch.bfloat16),
        "flag": torch.tensor(True),
        "none": torch.empty(0, 4),
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A whole file."""
    path = tmp_path / "m.handful"
    write_bundle(path, WHAT, state())
    return path


@pytest.fixture
def standalone(tmp_path: Path) -> Path:
    """A whole file with the parts of an encoder."""
    path = tmp_path / "s.handful"
    write_bundle(path, WHAT, state(), ENCODER)
    return path


def pack(path: Path, members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    """A ZIP of these members."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def whole(**changes: bytes) -> dict[str, bytes]:
    """The members of a good file, some replaced: ``description=``, ``tensors=``."""
    description = json.dumps({"format": FORMAT, **WHAT}).encode()
    return {
        DESCRIPTION: changes.get("description", description),
        TENSORS: changes.get("tensors", safetensors.torch.save({"weight": torch.eye(2)})),
    }


def refused(path: Path, read: Any = read_bundle) -> str:
    """The one line a file is refused with."""
    with pytest.raises(BadInput) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_what_goes_in_comes_out(model: Path) -> None:
    description, tensors = read_bundle(model)
    assert description == {"format": FORMAT, **WHAT}
    expected = state()
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name


def test_the_same_model_is_the_same_bytes(model: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.handful"
    write_bundle(again, dict(reversed(WHAT.items())), dict(reversed(state().items())))
    assert again.read_bytes() == model.read_bytes()
    description, tensors = read_bundle(model)
    write_bundle(again, description, tensors)
    assert again.read_bytes() == model.read_bytes()


def test_a_label_that_is_no_unicode_survives(tmp_path: Path) -> None:
    path = tmp_path / "m.handful"
    write_bundle(path, {"classes": ["\ud800", "b"]}, state())
    assert read_bundle(path)[0]["classes"] == ["\ud800", "b"]


@pytest.mark.parametrize("name", ["missing.handful", "folder"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    assert "no such model" in refused(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"", b"text,label\nhello,a\n", pickle.dumps({"format": 1}), b"PK\x03\x04" + bytes(99)]
)
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.handful"
    path.write_bytes(content)
    assert "not a Handful model" in refused(path)


def test_cut_short_anywhere(model: Path) -> None:
    data = model.read_bytes()
    for end in range(0, len(data), 7):
        model.write_bytes(data[:end])
        refused(model)


@pytest.mark.parametrize("missing", [DESCRIPTION, TENSORS])
def test_a_member_is_missing(tmp_path: Path, missing: str) -> None:
    members = whole()
    del members[missing]
    assert f"no {missing}" in refused(pack(tmp_path / "m.handful", members))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"{}",
        b'{"format": "1"}',
        b'{"format": true}',
        b'{"format": 1, "scale": NaN}',
        b'{"format": 1, "scale": -Infinity}',
        b'{"format": 1, "scale": 1e999}',
        b"\xff\xfe\x00",
        b'{"format": 1, "card": ' + b"[" * 100_000,
        b'{"format": 1, "n": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_description_that_is_none(tmp_path: Path, text: bytes) -> None:
    assert "description" in refused(pack(tmp_path / "m.handful", whole(description=text)))


@pytest.mark.parametrize("version", [FORMAT + 1, 10**9, 0, -1])
def test_a_format_of_another_time(tmp_path: Path, version: int) -> None:
    text = json.dumps({"format": version}).encode()
    assert f"format {version}" in refused(pack(tmp_path / "m.handful", whole(description=text)))


@pytest.mark.parametrize("blob", [b"", b"\x00" * 8, b"\xff" * 64, pickle.dumps(state())])
def test_tensors_that_are_none(tmp_path: Path, blob: bytes) -> None:
    assert "damaged" in refused(pack(tmp_path / "m.handful", whole(tensors=blob)))


def test_a_tensor_larger_than_its_bytes(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    blob = struct.pack("<Q", len(header)) + header + bytes(4)
    assert "damaged" in refused(pack(tmp_path / "m.handful", whole(tensors=blob)))


def declare(path: Path, member: str, size: int) -> None:
    """Let the archive claim that ``member`` holds ``size`` bytes."""
    data = bytearray(path.read_bytes())
    start = -1
    while (start := data.find(b"PK\x01\x02", start + 1)) >= 0:
        length = struct.unpack_from("<H", data, start + 28)[0]
        if data[start + 46 : start + 46 + length] == member.encode():
            struct.pack_into("<I", data, start + 24, size)
    path.write_bytes(data)


@pytest.mark.parametrize("member", [DESCRIPTION, TENSORS])
def test_a_size_no_model_has_is_refused_before_anything_is_read(
    model: Path, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(model, member, 0xFFFF_0000)
    read: list[str] = []
    true_open = zipfile.ZipFile.open

    def watched(self: zipfile.ZipFile, info: zipfile.ZipInfo, *rest: str) -> object:
        read.append(info.filename)
        return true_open(self, info, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr(zipfile.ZipFile, "open", watched)
    assert f"{member} claims" in refused(model)
    assert member not in read


def test_a_description_that_swells_is_cut_at_what_it_claims(tmp_path: Path) -> None:
    members = whole(description=b'{"format": 1, "card": "' + b"a" * (48 << 20) + b'"}')
    path = pack(tmp_path / "m.handful", members, zipfile.ZIP_DEFLATED)
    declare(path, DESCRIPTION, 100)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_tensors_are_never_inflated(tmp_path: Path, packing: int) -> None:
    assert "packed" in refused(pack(tmp_path / "m.handful", whole(), packing))


def test_what_else_the_archive_holds_is_not_looked_at(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    bomb = pickle.dumps({"state": Bomb()})
    others = {"../../evil.py": b"raise SystemExit", "/etc/passwd": b"x", "state.pkl": bomb, "data.pkl": bomb}
    folder = tmp_path / "in"
    folder.mkdir()
    path = pack(folder / "m.handful", whole() | others)
    _, tensors = read_bundle(path)
    assert torch.equal(tensors["weight"], torch.eye(2))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "m.handful"]


def test_an_encrypted_member(model: Path) -> None:
    data = bytearray(model.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset] |= 1
    model.write_bytes(data)
    assert "not a Handful model" in refused(model)


@pytest.mark.parametrize("member", [DESCRIPTION, TENSORS])
def test_two_members_of_one_name(model: Path, member: str) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(model, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(member, whole()[member])
    assert f"several members named {member}" in refused(model)


# --- parts of an encoder ---------------------------------------------------------------------------------------------


def with_parts(path: Path, members: dict[str, bytes], **about: Any) -> Path:
    """A file of these parts, of which the description tells as ``about`` has it, or the truth."""
    truth = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in members.items()}
    description = {"format": FORMAT, **WHAT, "parts": about.get("parts", truth)}
    stored = {PARTS + name: data for name, data in members.items()}
    return pack(path, whole(description=json.dumps(description).encode()) | stored)


def test_parts_come_back(standalone: Path) -> None:
    assert read_parts(standalone) == ENCODER
    assert read_parts(standalone, ["tokenizer.json"]) == {"tokenizer.json": ENCODER["tokenizer.json"]}
    description, tensors = read_bundle(standalone)
    assert {name: row["bytes"] for name, row in description["parts"].items()} == {n: len(d) for n, d in ENCODER.items()}
    assert tensors.keys() == state().keys()


def test_parts_are_the_same_bytes_and_a_copy_without_them_does_not_mention_them(
    standalone: Path, model: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.handful"
    write_bundle(again, WHAT, state(), dict(reversed(ENCODER.items())))
    assert again.read_bytes() == standalone.read_bytes()
    write_bundle(again, *read_bundle(standalone))
    assert again.read_bytes() == model.read_bytes()


def test_a_file_without_parts(model: Path) -> None:
    assert read_parts(model) == {}
    assert "no part 'tokenizer.json'" in refused(model, lambda path: read_parts(path, ["tokenizer.json"]))


NOT_NAMES = [
    "",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a//b",
    "a/",
    "a\\b",
    "C:x",
    "\\\\host\\share",
    ".hidden",
    "a\nb",
    "ä",
    "a" * 201,
]


@pytest.mark.parametrize("name", NOT_NAMES)
def test_names_that_could_be_paths_are_neither_written_nor_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.handful"
    with pytest.raises(ValueError, match="no name for a part"):
        write_bundle(path, WHAT, state(), {name: b"x"})
    assert not path.exists()
    assert "parts make no sense" in refused(with_parts(path, {name: b"x"}), read_parts)


def test_too_many_parts(tmp_path: Path) -> None:
    many = {f"p{i}": b"" for i in range(MOST_PARTS + 1)}
    assert "parts make no sense" in refused(with_parts(tmp_path / "m.handful", many), read_parts)


SUM = hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ([], "make no sense"),
        ("w", "make no sense"),
        ({"w": 7}, "make no sense"),
        ({"w": {"bytes": 7}}, "make no sense"),
        ({"w": {"bytes": "7", "sha256": SUM}}, "make no sense"),
        ({"w": {"bytes": True, "sha256": SUM}}, "make no sense"),
        ({"w": {"bytes": 7, "sha256": None}}, "make no sense"),
        ({"w": {"bytes": -7, "sha256": SUM}}, "make no sense"),
        ({"w": {"bytes": 6, "sha256": SUM}}, "not the 6"),
        ({"w": {"bytes": 7, "sha256": SUM[::-1]}}, "not the one it was made with"),
        ({"w": {"bytes": 1 << 40, "sha256": SUM}}, "more bytes than the file has"),
        ({"w": {"bytes": 7, "sha256": SUM}, "v": {"bytes": 7, "sha256": SUM}}, "has no parts/v"),
    ],
)
def test_parts_that_are_not_as_told(tmp_path: Path, about: Any, says: str) -> None:
    path = with_parts(tmp_path / "m.handful", {"w": b"weights"}, parts=about)
    assert says in refused(path, read_parts)


def test_a_changed_byte_of_a_part_is_seen_although_the_archive_agrees(standalone: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(standalone) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[PARTS + "model.safetensors"] = b"\xff" + members[PARTS + "model.safetensors"][1:]
    assert "not the one it was made with" in refused(pack(tmp_path / "m.handful", members), read_parts)


def test_parts_are_never_inflated(tmp_path: Path) -> None:
    bomb = bytes(1 << 20)
    about = {"w": {"bytes": len(bomb), "sha256": hashlib.sha256(bomb).hexdigest()}}
    description = json.dumps({"format": FORMAT, **WHAT, "parts": about, "filler": "a" * len(bomb)}).encode()
    path = pack(tmp_path / "m.handful", whole(description=description))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(PARTS + "w", bomb)
    assert "packed in a way no model is" in refused(path, read_parts)


def test_two_parts_of_one_name(standalone: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(standalone, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"{PARTS}tokenizer.json", b"{}")
    assert "several members named" in refused(standalone, read_parts)


# --- what a file holds, without its numbers --------------------------------------------------------------------------


def test_the_layout_is_that_of_the_tensors(standalone: Path) -> None:
    with zipfile.ZipFile(standalone, "a") as archive:
        archive.writestr("../evil", b"x")
    layout = read_layout(standalone)
    description, tensors = read_bundle(standalone)
    assert layout.description == description
    assert {name: shape for name, (_, shape) in layout.tensors.items()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }
    assert layout.tensors["half"][0] == "BF16"
    assert layout.sizes.keys() == {DESCRIPTION, TENSORS, *(PARTS + name for name in ENCODER)}
    assert layout.others == ("../evil",)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        bytes(8),
        b"\xff" * 64,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"w": 1} ',
        struct.pack("<Q", 40) + b'{"w": {"dtype": "F32", "shape": [null]}}',
        struct.pack("<Q", 41) + b'{"w": {"dtype": "F32", "shape": [1e999]}}',
        struct.pack("<Q", 50_000) + b"[" * 50_000,
    ],
)
def test_a_layout_that_is_none(tmp_path: Path, blob: bytes) -> None:
    assert "damaged" in refused(pack(tmp_path / "m.handful", whole(tensors=blob)), read_layout)


def test_the_layout_needs_no_torch(standalone: Path) -> None:
    program = f"""
import sys
from handful.ship.bundle import read_layout, read_parts
read_layout({str(standalone)!r}), read_parts({str(standalone)!r})
sys.exit("torch" in sys.modules or "numpy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- any damage ------------------------------------------------------------------------------------------------------

GOOD = io.BytesIO()
_about = {"w": {"bytes": 7, "sha256": SUM}}
with zipfile.ZipFile(GOOD, "w") as _archive:
    _archive.writestr(DESCRIPTION, json.dumps({"format": FORMAT, **WHAT, "parts": _about}), zipfile.ZIP_DEFLATED)
    _archive.writestr(TENSORS, whole()[TENSORS], zipfile.ZIP_STORED)
    _archive.writestr(PARTS + "w", b"weights", zipfile.ZIP_STORED)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD.getvalue()) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
def test_any_damage_is_one_line_or_nothing(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD.getvalue())
    for place, byte in changes:
        data[place] = byte
    path = tmp_path / "m.handful"
    path.write_bytes(bytes(data[: len(data) - cut]))
    for read in (read_bundle, read_parts, read_layout):
        try:
            found = read(path)
        except BadInput as error:
            assert "\n" not in str(error)
        else:
            if read is read_parts:
                assert found in ({}, {"w": b"weights"})
            elif read is read_bundle:
                assert isinstance(found[0]["format"], int)
                assert all(isinstance(tensor, torch.Tensor) for tensor in found[1].values())


def test_a_full_disk_leaves_the_old_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HandfulError, match="cannot write"):
        write_bundle(model, {"classes": ["other"]}, state())
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_a_number_json_lacks_is_refused_before_a_file_is_begun(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_bundle(tmp_path / "m.handful", {"scale": float("nan")}, state())
    assert not list(tmp_path.iterdir())
