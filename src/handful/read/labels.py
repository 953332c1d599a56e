"""Labels: from whatever a source holds to class names, with `None` for no label; several a cell where that is asked."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.errors import BadInput
from handful.read.places import quoted


def label_text(value: Any) -> str | None:
    """The class name a cell stands for; ``None`` for an empty one.

    Text stays as it is, blanks around it included; whole numbers lose their ".0", since a column of integers with gaps
    often arrives as floats. Raises `TypeError` for lists and other values that are no single label.
    """
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, (list, tuple, dict, set)) or hasattr(value, "__array__"):
        raise TypeError(f"holds a {type(value).__name__}; an item has one, a text or a number")
    text = str(value)
    return text if text.strip() and text not in ("<NA>", "NaT") else None


@dataclass(frozen=True)
class LabelSets:
    """How a cell holds several labels.

    In a `handful.read.Dataset` they stand sorted with the separator between them, "" for an item that has none of the
    labels; ``None`` is an item that nobody has labelled.

    Args:
        separator: what stands between labels; blanks around a label do not count.
        none: what the cell of an item says that has none of the labels, "" for an empty cell. Without it a cell of
            nothing but separators, or an empty list, says so, and an empty cell is unlabelled.

    Raises:
        BadInput: no separator, or one within ``none``.
    """

    separator: str
    none: str | None = None

    def __post_init__(self) -> None:
        if not self.separator:
            raise BadInput("--multi-label is what stands between the labels of a cell, such as ';'; it cannot be empty")
        if self.none is not None and self.separator in self.none:
            raise BadInput(f"--none {quoted(self.none)} has the separator {quoted(self.separator)} in it")

    def cell(self, value: Any) -> str | None:
        """`label_text` of a cell; labels of a list, tuple or set are joined, and an empty cell is ``none`` if that is.

        Raises `TypeError` for a list of what are no labels.
        """
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if not isinstance(value, (list, tuple, set, frozenset)):
            text = label_text(value)
            return "" if text is None and self.none == "" else text
        labels = [label for label in map(label_text, value) if label is not None]
        if bad := next((label for label in labels if self.separator in label), None):
            raise TypeError(f"{quoted(bad)} has the separator {quoted(self.separator)} in it")
        return self.joined(labels)

    def split(self, cell: str) -> tuple[str, ...]:
        """The labels of a cell, sorted, each once. Raises `ValueError` where ``none`` stands beside a label."""
        labels = sorted({part.strip() for part in cell.split(self.separator)} - {""})
        if self.none is None or self.none.strip() not in labels:
            return tuple(labels)
        if len(labels) > 1:
            raise ValueError(f"{quoted(self.none)} stands for none of the labels, but others stand beside it")
        return ()

    def joined(self, labels: Iterable[str]) -> str:
        """The labels as a cell of a `handful.read.Dataset`."""
        return self.separator.join(sorted(set(labels)))

    def written(self, labels: Iterable[str]) -> str:
        """The labels as a cell of a table that is written: of none of them ``none``, or nothing."""
        return self.joined(labels) or self.none or ""

    def table(self, cells: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
        """Which of ``labels`` each cell has, 0 or 1 ``[n, L]``; other labels do not count."""
        place = {label: i for i, label in enumerate(labels)}
        out = np.zeros((len(cells), len(labels)), dtype=int)
        for row, cell in enumerate(cells):
            out[row, [place[label] for label in self.split(cell or "") if label in place]] = 1
        return out


def label_sets(multi_label: str | None, none: str | None) -> LabelSets | None:
    """How cells hold several labels, as it was asked for. Raises `BadInput` for ``none`` alone."""
    if multi_label is None and none is not None:
        raise BadInput("--none says what a cell without any of the labels holds; it needs --multi-label")
    return None if multi_label is None else LabelSets(multi_label, none)


def label_texts(values: Iterable[Any], where: Sequence[str], sets: LabelSets | None = None) -> tuple[str | None, ...]:
    """`label_text` of each value, or `LabelSets.cell`. Raises `BadInput` naming the place of one that is no label."""
    labels: list[str | None] = []
    for position, value in enumerate(values):
        try:
            labels.append(label_text(value) if sets is None else sets.cell(value))
        except TypeError as error:
            raise BadInput(f"{where[position]}: the label {error}") from error
    return tuple(labels)


def one_spelling(labels: Sequence[str | None], merge: bool) -> tuple[str | None, ...]:
    """Labels with one spelling a class.

    With ``merge``, labels that differ only in case or blanks become the most frequent of them (of equals, the first in
    order) without blanks around it. Without, they raise `BadInput` that names them.
    """
    counts = Counter(label for label in labels if label is not None)
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts, key=lambda name: (-counts[name], name)):
        alike[" ".join(label.split()).casefold()].append(label)
    variants = [names for names in alike.values() if len(names) > 1]
    if not variants:
        return tuple(labels)
    if not merge:
        named = "; ".join(", ".join(f"{quoted(name)} ({counts[name]})" for name in names) for names in variants[:3])
        more = f"; and {len(variants) - 3} more" if len(variants) > 3 else ""
        raise BadInput(
            f"labels that differ only in case or blanks: {named}{more}; correct them, or give --merge-labels to make "
            "them one class"
        )
    chosen = {name: names[0].strip() for names in variants for name in names}
    return tuple(label if label is None else chosen.get(label, label) for label in labels)


def spelt_sets(
    cells: Sequence[str | None], sets: LabelSets, where: Sequence[str], merge: bool
) -> tuple[str | None, ...]:
    """Cells of several labels as a `handful.read.Dataset` has them, each label with `one_spelling`.

    Raises:
        BadInput: naming the place of a cell that contradicts itself; labels that differ only in case or blanks.
    """
    split: list[tuple[str, ...] | None] = []
    for cell, place in zip(cells, where, strict=True):
        try:
            split.append(None if cell is None else sets.split(cell))
        except ValueError as error:
            raise BadInput(f"{place}: {error}") from error
    flat = [label for labels in split for label in labels or ()]
    spelling = dict(zip(flat, one_spelling(flat, merge), strict=True))
    return tuple(None if some is None else sets.joined(str(spelling[label]) for label in some) for some in split)
