"""``.npz`` files of features: ``X``, and optionally ``y``, ``names``, ``groups``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handful.errors import BadInput
from handful.read.arrays import features
from handful.read.dataset import Dataset, Provenance, file_sha256
from handful.read.grouping import group_names
from handful.read.labels import label_texts
from handful.read.places import existing, one_line
from handful.read.zips import DAMAGED

KEYS = ("X", "y", "names", "groups")


def dataset_of_npz(path: Path, name: str) -> Dataset:
    """Features ``X [n, d]`` with labels ``y [n]``.

    ``names`` are class names: label i of an integer ``y`` is ``names[y[i]]``, and -1 marks an unlabelled item. Without
    them the values of ``y`` are the class names. ``groups [n]`` are names of items that belong together; items with an
    empty one stand alone.

    Raises:
        BadInput: naming what is missing, of the wrong shape, of Python objects or not numbers.
    """
    arrays = _load(existing(path), name)
    if "X" not in arrays:
        raise BadInput(
            f"{name} has no array 'X' of features; it holds: {', '.join(map(one_line, arrays)) or 'nothing'}"
        )
    x = features(arrays["X"], f"{name} array 'X'")
    where = tuple(f"{name} row {i}" for i in range(len(x)))
    labels: tuple[str | None, ...] = (None,) * len(x)
    if "y" in arrays:
        y = _column(arrays["y"], "y", len(x), name)
        labels = label_texts((_named(y, arrays["names"], name) if "names" in arrays else y).tolist(), where)
    groups = _column(arrays["groups"], "groups", len(x), name) if "groups" in arrays else None
    others = [key for key in arrays if key not in KEYS]
    notes = (f"{name}: arrays not used: {', '.join(map(one_line, others))}",) if others else ()
    return Dataset(
        x,
        labels,
        "features",
        groups=None if groups is None else group_names(groups.tolist(), where),
        where=where,
        provenance=Provenance(sha256={name: file_sha256(path)}, notes=notes),
    )


def _load(path: Path, name: str) -> dict[str, np.ndarray]:
    """All arrays of the file, none of which may need pickle."""
    arrays = {}
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise BadInput(f"{name} holds one array, not an archive of them; save it with np.savez(…, X=X, y=y)")
        with loaded:
            for key in loaded.files:
                arrays[key] = _array(loaded, key, name)
    except (*DAMAGED, SyntaxError, TypeError, MemoryError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{name} cannot be read as NumPy arrays: {one_line(error) or type(error).__name__}") from error
    return arrays


def _array(file: np.lib.npyio.NpzFile, key: str, name: str) -> np.ndarray:
    try:
        array: np.ndarray = file[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        cure = "y=y.astype(str)" if key != "X" else "X=X.astype(float)"
        raise BadInput(
            f"{name} array {key!r} holds Python objects, which could run code when read; save it with {cure}"
        ) from error
    return array


def _column(values: np.ndarray, key: str, n: int, name: str) -> np.ndarray:
    if values.shape != (n,):
        raise BadInput(
            f"{name} array {key!r} has shape {list(values.shape)} but 'X' has {n} rows; it needs shape [{n}]"
        )
    return values


def _named(y: np.ndarray, names: np.ndarray, name: str) -> np.ndarray:
    """Class names for numbers; "" for -1."""
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise BadInput(f"{name} array 'names' needs one text a class, not {names.dtype} of shape {list(names.shape)}")
    if y.dtype.kind not in "iu":
        raise BadInput(f"{name} array 'names' holds class names, so 'y' needs whole numbers, not {y.dtype}")
    outside = np.flatnonzero((y < -1) | (y >= len(names)))
    if len(outside):
        raise BadInput(f"{name} row {outside[0]}: y is {y[outside[0]]}, but 'names' has {len(names)} entries")
    chosen: np.ndarray = np.append(names, np.zeros(1, names.dtype))[y]
    return chosen
