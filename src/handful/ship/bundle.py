"""The `*.handful` file: a ZIP of two members, JSON that describes and safetensors that hold the numbers.

Reading one executes nothing, downloads nothing and opens no path it names: members are looked up by name, sizes are
bounded, the head is built from a registered key and plain parameters.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from handful.errors import BadInput
from handful.files import whole_file

FORMAT = 1
DESCRIPTION, TENSORS = "handful.json", "state.safetensors"
_LIMITS = {DESCRIPTION: 64 << 20, TENSORS: 4 << 30}
# Tensors are stored as they are, so that a small file cannot swell; bz2 and lzma swell without bound.
_PACKINGS = {DESCRIPTION: {zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED}, TENSORS: {zipfile.ZIP_STORED}}
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, IndexError)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model is the same bytes, whenever it is written


def write_bundle(path: str | Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the file whole or not at all. Raises `HandfulError` when the disk refuses."""
    text = json.dumps({"format": FORMAT, **description}, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
    # Copies, because safetensors refuses tensors that share memory, as a head's state may.
    blob = safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in sorted(tensors.items())})
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_entry(DESCRIPTION), text.encode("utf-8", "surrogatepass"), zipfile.ZIP_DEFLATED)
        archive.writestr(_entry(TENSORS), blob, zipfile.ZIP_STORED)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # the same bytes on Windows too
    return info


def read_bundle(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a model file.

    Raises:
        BadInput: no such file, not a model, damaged, too large, or written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no such model: {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: _member(archive, name, path) for name in (DESCRIPTION, TENSORS)}
    except BadInput:
        raise
    except (*_ZIP_ERRORS, OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path} is not a Handful model, or it is damaged ({_line(error)})") from error
    description = _description(members[DESCRIPTION], path)
    try:
        tensors = safetensors.torch.load(members[TENSORS])
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"{path} is damaged: {_line(error)}") from error
    return description, tensors


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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise BadInput(f"{path} is not a Handful model: it has no {name}") from error
    if info.compress_type not in _PACKINGS[name]:
        raise BadInput(f"{path}: {name} is packed in a way no model is")
    limit = _LIMITS[name]
    if info.compress_type == zipfile.ZIP_STORED:
        limit = min(limit, path.stat().st_size)
    if max(info.file_size, info.compress_size) > limit:
        raise BadInput(f"{path}: {name} claims {info.file_size:,} bytes, more than there can be")
    with archive.open(info) as stream:
        return stream.read(info.file_size)  # with a size, zipfile never inflates more than that
