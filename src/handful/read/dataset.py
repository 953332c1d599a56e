"""`Dataset`: the one thing `read` makes and every later room takes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from handful.errors import BadInput
from handful.read.labels import LabelSets
from handful.read.places import one_line, quoted
from handful.read.zips import MAX_MEMBER, Member

if TYPE_CHECKING:
    import polars as pl

Modality = Literal["text", "image", "features"]


@dataclass(frozen=True)
class ImageFile:
    """An image that is not decoded yet: a file, a member of a ZIP archive, or encoded bytes.

    ``name`` is what messages and reports call it. One with neither path nor data stands for an empty cell.
    """

    name: str
    path: Path | None = None
    member: Member | None = None
    data: bytes | None = field(default=None, repr=False)

    def read_bytes(self) -> bytes:
        """The encoded bytes. Raises `BadInput` naming the image when they cannot be had."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise BadInput(f"image {quoted(self.name, 200)} is an empty cell")
        try:
            if self.member is not None:
                return self.member.read(self.path)
            with self.path.open("rb") as file:
                data = file.read(MAX_MEMBER + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise BadInput(f"image {quoted(self.name, 200)} cannot be read: {one_line(why)}") from error
        if len(data) > MAX_MEMBER:
            raise BadInput(f"image {quoted(self.name, 200)} is a file of more than {MAX_MEMBER >> 20} MiB")
        return data


@dataclass(frozen=True)
class Provenance:
    """Where a data set came from.

    Args:
        sources: as given.
        sha256: of each file; for a folder, of the list of its files with the SHA-256 of each.
        skipped: rows and files left out, and why.
        notes: what else the reader decided that its user should know.
    """

    sources: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Items with labels, in the order of the source.

    Args:
        items: n texts (``str``), n images (`ImageFile`; Pillow images and arrays of pixels pass through as they are) or
            an array of features ``[n, d]``.
        labels: n class names; ``None`` marks an unlabelled item. Unlabelled items are the pool.
        modality: ``"text"``, ``"image"`` or ``"features"``.
        groups: n group names or ``None``; items of one group never stand on both sides of a split. An item
            that belongs to no other has a name of its own.
        where: n places for messages and reports, such as ``"tickets.csv row 17"``.
        table: the rows and columns of the source, as read, when it was a table; one row an item. A folder of images or
            texts is the table of its files (column ``file``, and ``label`` when the folder has classes).
        label_column: the column of ``table`` that holds the labels, when there is one.
        item_columns: the columns of ``table`` that hold the items.
        provenance: see `Provenance`.
        sets: how a label holds several, where it does.
    """

    items: Sequence[Any] | np.ndarray
    labels: tuple[str | None, ...]
    modality: Modality
    groups: tuple[str, ...] | None = None
    where: tuple[str, ...] = ()
    table: pl.DataFrame | None = field(default=None, repr=False)
    label_column: str | None = None
    item_columns: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    sets: LabelSets | None = None

    def __post_init__(self) -> None:
        for name, values in (("labels", self.labels), ("groups", self.groups), ("places", self.where or None)):
            if values is not None and len(values) != len(self.items):
                raise BadInput(f"{len(self.items)} items but {len(values)} {name}")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names that occur, sorted; of several labels an item, each of them."""
        found = {label for label in self.labels if label is not None}
        if self.sets is not None:
            found = {label for cell in found for label in self.sets.split(cell)}
        return tuple(sorted(found))

    @property
    def labelled(self) -> Dataset:
        """The items that have a label."""
        return self.take([i for i, label in enumerate(self.labels) if label is not None])

    @property
    def pool(self) -> Dataset:
        """The items that have none."""
        return self.take([i for i, label in enumerate(self.labels) if label is None])

    @property
    def usable(self) -> np.ndarray:
        """Which items hold anything, bool ``[n]``: no blank texts, missing images or features that are not numbers.

        Images are not opened for this: one that cannot be decoded shows when it is encoded.
        """
        if isinstance(self.items, np.ndarray):
            flat = self.items.reshape(len(self.items), -1)
            found: np.ndarray = np.isfinite(flat).all(axis=1)
            return found
        return np.fromiter((_holds_something(item) for item in self.items), dtype=bool, count=len(self.items))

    def take(self, index: Sequence[int] | np.ndarray) -> Dataset:
        """The items at ``index``, in that order."""
        rows = [int(i) for i in index]
        items = self.items[rows] if isinstance(self.items, np.ndarray) else [self.items[i] for i in rows]
        return replace(
            self,
            items=items,
            labels=tuple(self.labels[i] for i in rows),
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
            where=tuple(self.where[i] for i in rows) if self.where else (),
            table=None if self.table is None else self.table[rows],
        )


def _holds_something(item: Any) -> bool:
    if isinstance(item, str):
        return bool(item.strip())
    if not isinstance(item, ImageFile):
        return True
    return bool(item.data) if item.path is None else os.path.isfile(item.path)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises `BadInput` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{one_line(path)} cannot be read: {error.strerror or error}") from error
