"""What the files of a model may not ask for: code of their own, pickled weights, paths elsewhere, downloads.

A folder or a snapshot of the hub is data from strangers. `transformers` reads more out of its JSON than numbers: names
of classes to import, of kernels and of other models to fetch. Everything of that kind is refused before a file is given
to it, in one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful.errors import BadInput

if TYPE_CHECKING:
    from handful.encode.hf import Source

PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
MOST_JSON = 256 << 20
"""Bytes of a JSON file; the largest vocabularies take 50 MB."""
MOST_LAYERS = 1024
"""A number of layers above it is a mistake or a trap: they are made one by one."""
_PLAIN_ATTENTION = (None, "eager", "sdpa")
_FETCHED = ("use_pretrained_backbone", "use_timm_backbone", "backbone")


def check_files(source: Source) -> None:
    """Raise `BadInput` when the files ask for anything but to be read."""
    for path in source.files:
        if path.suffix != ".json":
            continue
        if path.stat().st_size > MOST_JSON:
            raise _refusal(
                source, f"{_name(source, path)} has {path.stat().st_size:,} bytes, more than any such file needs"
            )
        if path.name.endswith(".index.json"):
            _check_shards(source, path)
        elif "config" in path.name:
            for key, value in _settings(_json(source, path)):
                _check_setting(source, path, key, value)
    _check_weights(source)


def _check_setting(source: Source, path: Path, key: str, value: Any) -> None:
    file = _name(source, path)
    if key in ("auto_map", "custom_pipelines") and value:
        raise _refusal(
            source, f"{file} asks for code of its own ({key}), and none is run; choose a model that needs none"
        )
    if key.endswith(("_implementation", "_implementation_internal")) and not _plain(value):
        raise _refusal(source, f"{file} asks for a compute kernel, {key} {value!r}; remove that line")
    if (key in _FETCHED and value) or (key == "model_type" and str(value).startswith("timm")):
        raise _refusal(source, f"{file} builds on another model, {key} {value!r}, which would have to be fetched")
    if key == "quantization_config" and value:
        raise _refusal(
            source, f"{file} describes quantised weights, which are not supported; take the model they were made of"
        )
    if key.endswith("_file") and isinstance(value, str) and set(value) & set("/\\:"):
        raise _refusal(source, f"{file} names a file elsewhere, {key} {value!r}; remove that line")
    if key.endswith(("layers", "depth", "depths", "blocks")) and _most(value) > MOST_LAYERS:
        raise _refusal(source, f"{file} claims {key} {_most(value):,}, more than the {MOST_LAYERS:,} that are believed")


def _check_weights(source: Source) -> None:
    if any(path.suffix == ".safetensors" for path in source.files):
        return
    pickled = sorted(path.name for pattern in PICKLED for path in source.folder.rglob(pattern))
    if pickled or source.files:
        has = f"its weights are in {pickled[0]}, which can run code when it is read" if pickled else "it has no weights"
        raise _refusal(
            source,
            f"{has}; only safetensors are read: convert them where you trust them (model.save_pretrained(FOLDER)), or "
            "take a revision that has model.safetensors",
        )


def _check_shards(source: Source, path: Path) -> None:
    index = _json(source, path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise _refusal(source, f"{_name(source, path)} lists no weights")
    for shard in sorted({str(name) for name in shards.values()}):
        if Path(shard).name != shard or not shard.endswith(".safetensors") or path.parent / shard not in source.files:
            raise _refusal(source, f"{_name(source, path)} lists {shard!r}, which is no safetensors file beside it")


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    stack = [value]
    while stack:
        some = stack.pop()
        if isinstance(some, Mapping):
            yield from some.items()
            stack.extend(some.values())
        elif isinstance(some, list):
            stack.extend(some)


def _plain(value: Any) -> bool:
    values = list(value.values()) if isinstance(value, dict) else [value]
    return all(each is None or (isinstance(each, str) and each in _PLAIN_ATTENTION) for each in values)


def _most(value: Any) -> int:
    numbers = value if isinstance(value, list) else [value]
    return max((number for number in numbers if type(number) is int), default=0)


def _json(source: Source, path: Path) -> Any:
    return source.read_json(_name(source, path))


def _name(source: Source, path: Path) -> str:
    return path.relative_to(source.folder).as_posix()


def _refusal(source: Source, why: str) -> BadInput:
    return BadInput(f"encoder {source.name!r}: {why}")
