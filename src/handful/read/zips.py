"""ZIP archives of other people: what is in them, and one member at a time, without trusting a word of it."""

from __future__ import annotations

import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from handful.errors import BadInput
from handful.read.places import existing, one_line, quoted

DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What `zipfile` raises on archives that are damaged, encrypted or packed in a way it does not know."""

MAX_MEMBER = 1 << 29  # bytes of one unpacked member
MAX_TOTAL = 1 << 36  # bytes of all of them; they are never unpacked together
_LOCAL_HEADER = 30  # bytes before name and extra field


@dataclass(frozen=True)
class Member:
    """Where a member lies in its archive.

    With it a member is read by one seek; `zipfile` would read the list of all members again for each of them.
    """

    name: str
    offset: int
    packed: int
    size: int
    crc: int
    deflated: bool

    def read(self, path: Path) -> bytes:
        """The unpacked bytes. Raises `ValueError` when the archive is damaged or not what its list says."""
        with path.open("rb") as file:
            file.seek(self.offset)
            header = file.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise ValueError("the ZIP archive is damaged here")
            file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
            data = file.read(self.packed)
        if self.deflated:
            try:
                data = zlib.decompressobj(-15).decompress(data, self.size + 1)
            except zlib.error as error:
                raise ValueError(f"the ZIP archive is damaged here ({error})") from error
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise ValueError("the ZIP archive is damaged here (wrong length or checksum)")
        return data


def members(path: str | Path) -> list[Member]:
    """Files in an archive, sorted by name; folders and links are left out.

    Raises:
        BadInput: no archive, damaged, encrypted, packed in an unusual way, too large, with two members of one name or
            with one that points outside the archive.
    """
    path = existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except DAMAGED as error:
        raise BadInput(f"{one_line(path)} cannot be read as a ZIP archive: {one_line(error)}") from error
    files = sorted((info for info in infos if not info.is_dir() and not _is_link(info)), key=lambda info: info.filename)
    for before, info in zip([None, *files], files, strict=False):
        wrong = _objection(info)
        if before is not None and before.filename == info.filename:
            wrong = "is there twice"
        if wrong:
            raise BadInput(f"{one_line(path)}: member {quoted(info.filename, 200)} {wrong}")
    if sum(info.file_size for info in files) > MAX_TOTAL:
        raise BadInput(f"{one_line(path)} unpacks to more than {MAX_TOTAL >> 30} GiB; split it")
    return [
        Member(
            i.filename, i.header_offset, i.compress_size, i.file_size, i.CRC, i.compress_type == zipfile.ZIP_DEFLATED
        )
        for i in files
    ]


def check_unpacked_size(file: BinaryIO, name: str, limit: int = MAX_TOTAL) -> None:
    """Refuse an archive (an ``.xlsx`` or ``.npz`` file) that says it unpacks to more than ``limit`` bytes."""
    try:
        with zipfile.ZipFile(file) as archive:
            total = sum(info.file_size for info in archive.infolist())
    except DAMAGED as error:
        raise BadInput(f"{name} is damaged or not what its name says: {one_line(error)}") from error
    if total > limit:
        raise BadInput(f"{name} unpacks to {total >> 20} MiB, more than the {limit >> 20} MiB that are read")


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _objection(info: zipfile.ZipInfo) -> str | None:
    """What speaks against reading a member."""
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        return "points outside the archive; pack it again with relative names"
    if info.flag_bits & 0x1:
        return "is encrypted; unpack it and give the folder"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an unusual way; unpack it and give the folder"
    if info.file_size > MAX_MEMBER:
        return f"unpacks to more than {MAX_MEMBER >> 20} MiB"
    return None
