"""Data sets below each other, where sources are of different kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.errors import BadInput
from handful.read.dataset import Dataset, Provenance
from handful.read.grouping import ALONE
from handful.read.tables import Table, stack

if TYPE_CHECKING:
    import polars as pl


def together(parts: Sequence[Dataset]) -> Dataset:
    """Data sets below each other. Raises `BadInput` when they do not hold the same kind of item."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        if part.modality != first.modality:
            raise BadInput(f"sources read together hold {first.modality} and {part.modality}; one kind is needed")
        if part.modality == "features" and part.items.shape[1] != first.items.shape[1]:  # type: ignore[union-attr]
            widths = f"{first.items.shape[1]} and {part.items.shape[1]}"  # type: ignore[union-attr]
            raise BadInput(f"sources read together have features of different width: {widths}")
    return Dataset(
        _items(parts),
        tuple(label for part in parts for label in part.labels),
        first.modality,
        groups=_groups(parts),
        where=tuple(place for part in parts for place in (part.where or [f"item {i}" for i in range(len(part))])),
        table=_stacked(parts),
        label_column=next((part.label_column for part in parts if part.label_column), None),
        item_columns=first.item_columns,
        provenance=Provenance(
            sha256={name: digest for part in parts for name, digest in part.provenance.sha256.items()},
            skipped=tuple(reason for part in parts for reason in part.provenance.skipped),
            notes=tuple(note for part in parts for note in part.provenance.notes),
        ),
    )


def _groups(parts: Sequence[Dataset]) -> tuple[str, ...] | None:
    """Groups of all parts; where a part has none, each of its items stands alone."""
    if all(part.groups is None for part in parts):
        return None
    return tuple(name for part in parts for name in (part.groups or (ALONE,) * len(part)))


def _stacked(parts: Sequence[Dataset]) -> pl.DataFrame | None:
    frames = [part.table for part in parts if part.table is not None]
    if len(frames) < len(parts):
        return None
    return stack([Table("", frame, ()) for frame in frames]).frame


def _items(parts: Sequence[Dataset]) -> Any:
    if parts[0].modality == "features":
        return np.concatenate([np.asarray(part.items) for part in parts])
    return [item for part in parts for item in part.items]
