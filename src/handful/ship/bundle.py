"""The `*.handful` file: a ZIP of JSON that describes, safetensors that hold the numbers, and, if asked, the encoder.

Reading one executes nothing, downloads nothing, unpacks nothing and opens no path it names: members are looked up by
name, sizes are bounded, the head is built from a registered key and plain parameters.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from handful.errors import BadInput
from handful.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
DESCRIPTION, TENSORS, PARTS = "handful.json", "state.safetensors", "parts/"
MOST_PARTS = 256
_LARGEST_DESCRIPTION, _LARGEST = 64 << 20, 4 << 30
_LARGEST_HEADER = 16 << 20  # of the tensors: their names and shapes
# Only the description may be packed, so that a small file cannot swell; bz2 and lzma swell without bound.
_STORED = frozenset({zipfile.ZIP_STORED})
_PACKED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_LONGEST_NAME = 200
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, IndexError)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model is the same bytes, whenever it is written
_NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Layout:
    """What a model file holds, without its numbers.

    Args:
        description: the JSON, as `read_bundle` gives it.
        tensors: dtype (as safetensors names it) and shape of each.
        sizes: bytes that each member takes in the file; parts under ``parts/NAME``.
        others: names of members that no model has; they are never read.
    """

    description: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    sizes: dict[str, int]
    others: tuple[str, ...]


def write_bundle(
    path: str | Path,
    description: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    parts: Mapping[str, bytes] = _NOTHING,
) -> None:
    """Write the file whole or not at all; what ``description`` says of parts is replaced by what they are.

    Raises:
        HandfulError: the disk refuses.
        ValueError: a part has a name that `read_parts` would refuse, or there are too many.
    """
    import safetensors.torch

    _check_names(parts)
    about = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in parts.items()}
    whole = {"format": FORMAT, **{key: value for key, value in description.items() if key != "parts"}}
    if about:
        whole["parts"] = about
    text = json.dumps(whole, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
    # Copies, because safetensors refuses tensors that share memory, as a head's state may.
    blob = safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in sorted(tensors.items())})
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_entry(DESCRIPTION), text.encode("utf-8", "surrogatepass"), zipfile.ZIP_DEFLATED)
        archive.writestr(_entry(TENSORS), blob, zipfile.ZIP_STORED)
        for name, data in sorted(parts.items()):
            archive.writestr(_entry(PARTS + name), data, zipfile.ZIP_STORED)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # the same bytes on Windows too
    return info


def read_bundle(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a model file.

    Raises:
        BadInput: no such file, not a model, damaged, too large, or written by a newer version.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    with _opened(path) as file:
        description = file.description()
        blob = file.member(TENSORS)
    try:
        return description, safetensors.torch.load(blob)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"{path} is damaged: {_line(error)}") from error


def read_parts(path: str | Path, names: Iterable[str] | None = None) -> dict[str, bytes]:
    """The parts of the encoder that lie in a model file, all or those named; none if it holds none.

    Raises:
        BadInput: as `read_bundle`; a part is missing, or is not the one the description tells of.
    """
    with _opened(path) as file:
        about = _parts_of(file.description(), file.path)
        wanted = list(about) if names is None else list(dict.fromkeys(names))
        for name in wanted:
            if name not in about:
                raise BadInput(f"{path} holds no part {name!r}")
        return {name: _checked(file, name, *about[name]) for name in wanted}


def read_layout(path: str | Path) -> Layout:
    """What a model file holds: its description, the shapes of its tensors, the sizes of its members; loads no torch.

    Raises:
        BadInput: as `read_bundle`.
    """
    with _opened(path) as file:
        description = file.description()
        ours = [DESCRIPTION, TENSORS, *(PARTS + name for name in _parts_of(description, file.path))]
        sizes = {name: file.info(name).compress_size for name in ours}
        others = tuple(dict.fromkeys(info.filename for info in file.archive.infolist() if info.filename not in ours))
        return Layout(description, _shapes(file), sizes, others)


@dataclass(frozen=True)
class _File:
    """An open model file, from which members are read within bounds."""

    path: Path
    size: int
    archive: zipfile.ZipFile
    twice: frozenset[str]  # names that several members have

    def description(self) -> dict[str, Any]:
        return _description(self.member(DESCRIPTION, _LARGEST_DESCRIPTION, _PACKED), self.path)

    def info(self, name: str) -> zipfile.ZipInfo:
        if name in self.twice:  # two readers could see two different models
            raise BadInput(f"{self.path} is not a Handful model: it has several members named {name}")
        try:
            return self.archive.getinfo(name)
        except KeyError as error:
            raise BadInput(f"{self.path} is not a Handful model: it has no {name}") from error

    def member(self, name: str, limit: int = _LARGEST, packings: frozenset[int] = _STORED) -> bytes:
        info = self.info(name)
        self.bounded(info, limit, packings)
        with self.archive.open(info) as stream:
            return stream.read(info.file_size)  # with a size, zipfile never inflates more than that

    def bounded(self, info: zipfile.ZipInfo, limit: int, packings: frozenset[int]) -> None:
        if info.compress_type not in packings:
            raise BadInput(f"{self.path}: {info.filename} is packed in a way no model is")
        if info.compress_type == zipfile.ZIP_STORED:
            limit = min(limit, self.size)
        if max(info.file_size, info.compress_size) > limit:
            raise BadInput(f"{self.path}: {info.filename} claims {info.file_size:,} bytes, more than there can be")


@contextmanager
def _opened(path: str | Path) -> Iterator[_File]:
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no such model: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            twice = frozenset(name for name, times in Counter(archive.namelist()).items() if times > 1)
            yield _File(path, path.stat().st_size, archive, twice)
    except BadInput:
        raise
    except (*_ZIP_ERRORS, OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path} is not a Handful model, or it is damaged ({_line(error)})") from error


def _description(data: bytes, path: Path) -> dict[str, Any]:
    try:
        description = json.loads(data, parse_float=_number, parse_constant=_number)
        if not isinstance(description, dict) or type(description.get("format")) is not int:
            raise ValueError("no format")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not a Handful model: its description cannot be read ({_line(error)})") from error
    if not 1 <= description["format"] <= FORMAT:
        raise BadInput(f"{path} has format {description['format']}; this version reads up to {FORMAT}: upgrade handful")
    return description


def _number(text: str) -> float:
    """A JSON number; what lies outside the range of numbers (NaN, Infinity, 1e999) is none."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not a number")
    return number


def _check_names(names: Iterable[str]) -> None:
    """Raise `ValueError` for names of parts that could be mistaken for a path elsewhere."""
    names = list(names)
    if len(names) > MOST_PARTS:
        raise ValueError(f"{len(names):,} parts are more than {MOST_PARTS}")
    for name in names:
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _PART_NAME.fullmatch(name):
            raise ValueError(f"{str(name)[:80]!r} is no name for a part")


def _parts_of(description: Mapping[str, Any], path: Path) -> dict[str, tuple[int, str]]:
    """Bytes and SHA-256 of each part that the description tells of."""
    about = description.get("parts", {})
    try:
        _check_names(about)
        found = {name: (row["bytes"], row["sha256"]) for name, row in about.items()}
        if any(type(size) is not int or size < 0 or type(digest) is not str for size, digest in found.values()):
            raise ValueError("a size or a hash is none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not a Handful model: its parts make no sense ({_line(error)})") from error
    if sum(size for size, _ in found.values()) > path.stat().st_size:  # members that overlap would multiply
        raise BadInput(f"{path}: its parts claim more bytes than the file has")
    return found


def _checked(file: _File, name: str, size: int, digest: str) -> bytes:
    info = file.info(PARTS + name)
    if info.file_size != size:
        raise BadInput(f"{file.path}: part {name} has {info.file_size:,} bytes, not the {size:,} it was made with")
    data = file.member(PARTS + name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadInput(f"{file.path}: part {name} is not the one it was made with; take the file from its source again")
    return data


def _shapes(file: _File) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtypes and shapes from the header of the tensors: its length (8 bytes, little-endian), then JSON."""
    info = file.info(TENSORS)
    file.bounded(info, _LARGEST, _STORED)
    with file.archive.open(info) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, info.file_size):
            _damaged(file, f"{TENSORS} has no header")
        header = stream.read(length)
    try:
        rows = json.loads(header)
        rows.pop("__metadata__", None)
        return {name: (str(row["dtype"]), tuple(map(int, row["shape"]))) for name, row in rows.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        _damaged(file, _line(error))


def _damaged(file: _File, why: str) -> NoReturn:
    raise BadInput(f"{file.path} is damaged: {why}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
