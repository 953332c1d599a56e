"""What is in memory already: lists, arrays, mappings of lists, pandas and polars frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handful.errors import BadInput
from handful.read.checks import checked
from handful.read.dataset import Dataset, ImageFile, Modality
from handful.read.grouping import group_names
from handful.read.labels import LabelSets, label_sets, label_texts


def from_arrays(
    items: Any,
    labels: Iterable[Any] | None = None,
    groups: Iterable[Any] | None = None,
    *,
    merge_labels: bool = False,
    skip_bad: bool = False,
    multi_label: str | None = None,
    none: str | None = None,
) -> Dataset:
    """A `Dataset` of items that are in memory.

    Args:
        items: texts (``str``, which is never taken for a path); images (`pathlib.Path`, encoded bytes, `ImageFile`,
            Pillow images, arrays of pixels ``[h, w]`` or ``[h, w, 3 or 4]``, or one array of n of them); features
            ``[n, d]``.
        labels: one an item; ``None``, NaN and blank ones mark unlabelled items.
        groups: one an item; items of one group never stand on both sides of a split. ``None``, NaN and blank ones
            stand alone.
        merge_labels: make labels that differ only in case or blanks one class.
        skip_bad: leave out labelled items that are empty, and features that are not numbers.
        multi_label, none: as in `handful.read.read`; labels may then be lists or sets, one an item.

    Raises:
        BadInput: naming the position of an item that is none of these, is empty but labelled, or unlike the first one.
    """
    sets = label_sets(multi_label, none)
    return checked(in_memory(items, labels, groups, sets), merge_labels=merge_labels, skip_bad=skip_bad, sets=sets)


def in_memory(
    items: Any,
    labels: Iterable[Any] | None = None,
    groups: Iterable[Any] | None = None,
    sets: LabelSets | None = None,
) -> Dataset:
    """`from_arrays` without the checks."""
    modality, found = _kind(items if isinstance(items, np.ndarray) else _listed(items))
    where = tuple(f"item {i}" for i in range(len(found)))
    names = (None,) * len(found) if labels is None else _same_length(labels, len(found), "labels")
    together = None if groups is None else group_names(_same_length(groups, len(found), "groups"), where)
    return Dataset(found, label_texts(names, where, sets), modality, groups=together, where=where)


def from_mapping(items: Mapping[Any, Sequence[Any]]) -> Dataset:
    """``{label: [items]}`` as a data set, not checked. An item that several labels have is there several times."""
    for label, some in items.items():
        if isinstance(some, (str, bytes)) or not isinstance(some, (Sequence, np.ndarray)):
            raise BadInput(f"label {label!r} has {type(some).__name__} instead of a list of items")
    everything = [item for some in items.values() for item in some]
    modality, found = _kind(everything)
    where = tuple(f"{label!r} item {i}" for label, some in items.items() for i in range(len(some)))
    labels = [label for label, some in items.items() for _ in some]
    return Dataset(found, label_texts(labels, where), modality, where=where)


def features(values: Any, name: str) -> np.ndarray:
    """Features ``[n, d]`` as floats; float32 and float64 stay what they are. Raises `BadInput` for anything else."""
    x = np.asarray(values)
    if x.ndim != 2 or 0 in x.shape:
        raise BadInput(f"{name}: features need the shape [items, numbers], not {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise BadInput(f"{name}: features need numbers, not {x.dtype}")
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32 if x.dtype == np.float16 else np.float64)


def _listed(items: Any) -> list[Any] | np.ndarray:
    """Sequences, pandas and polars objects and tensors as a list or an array."""
    if isinstance(items, (str, bytes, Mapping)):
        raise BadInput(f"a list of items is needed, not one {type(items).__name__}")
    if hasattr(items, "columns") or hasattr(items, "detach"):  # a frame of numbers, a tensor
        array: np.ndarray = np.asarray(items.detach().cpu() if hasattr(items, "detach") else items)
        return array
    try:
        return list(items)
    except TypeError as error:
        raise BadInput(f"a list of items is needed, not {type(items).__name__}") from error


def _kind(items: list[Any] | np.ndarray) -> tuple[Modality, Sequence[Any] | np.ndarray]:
    """What items are, from the first one, and the items as a `Dataset` holds them."""
    if isinstance(items, np.ndarray):
        if items.ndim > 2 and items.dtype.kind in "fub":
            return "image", list(items)
        if items.dtype.kind not in "OUS":
            return "features", features(items, "the array")
        items = items.tolist()
    if not items:
        return "text", []
    if isinstance(items[0], str):
        return "text", [_text(item, i) for i, item in enumerate(items)]
    if _is_vector(items[0]):
        try:
            return "features", features(items, "the items")
        except ValueError as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("the items are lists of numbers of different lengths; features need one length") from error
    return "image", [_image(item, i) for i, item in enumerate(items)]


def _is_vector(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return bool(item) and all(isinstance(number, (int, float, np.number)) for number in item)
    return getattr(item, "ndim", None) == 1


def _text(item: Any, position: int) -> str:
    if not isinstance(item, str):
        raise BadInput(f"item {position} is {type(item).__name__}, not a text as item 0 is")
    return str(item)


def _image(item: Any, position: int) -> Any:
    if isinstance(item, Path):
        return ImageFile(str(item), path=item)
    if isinstance(item, bytes):
        return ImageFile(f"item {position}", data=item)
    if isinstance(item, ImageFile) or getattr(item, "ndim", 0) in (2, 3) or hasattr(item, "getbands"):
        return item
    raise BadInput(
        f"item {position} is {type(item).__name__}; items are texts, images (paths, bytes, Pillow images, arrays "
        "of pixels) or vectors of features"
    )


def _same_length(values: Iterable[Any], n: int, what: str) -> list[Any]:
    if isinstance(values, str):
        raise BadInput(f"{what} is one text; a list with one of the {what} an item is needed")
    found = list(values)
    if len(found) != n:
        raise BadInput(f"{n} items but {len(found)} {what}")
    return found
