"""Labels: from whatever a source holds to class names, with `None` for no label."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

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


def label_texts(values: Iterable[Any], where: Sequence[str]) -> tuple[str | None, ...]:
    """`label_text` of each value. Raises `BadInput` naming the place of one that is no label."""
    labels: list[str | None] = []
    for position, value in enumerate(values):
        try:
            labels.append(label_text(value))
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
