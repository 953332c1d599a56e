"""Which columns of a table hold texts, images and labels: as named, else guessed from their usual names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful.errors import BadInput
from handful.read.places import columns_are, quoted
from handful.read.tables import Table, need_column

if TYPE_CHECKING:
    import polars as pl

TEXT = ("text", "texts", "sentence", "utterance", "message", "body", "review", "comment", "content", "question",
        "query", "tweet", "post", "email", "ticket", "request", "document", "description", "abstract", "summary",
        "headline", "title", "subject", "input", "prompt")  # fmt: skip
LABEL = ("label_text", "label_name", "class_name", "label", "labels", "intent", "category", "class", "target",
         "sentiment", "topic", "tag", "y", "intents", "categories", "classes", "topics", "coarse_label",
         "fine_label")  # fmt: skip
IMAGE = ("image", "images", "img", "picture", "photo", "image_path", "img_path", "path", "image_file", "file",
         "filepath", "file_path", "filename", "file_name", "image_name")  # fmt: skip
"""Usual names, lower case with underscores; the first that is there is taken."""

OURS = "handful_"
"""How columns begin that Handful wrote; they are answers, not items."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".webp",
                            ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"})  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """Columns that hold texts (joined when several) or images, labels and groups; ``None`` when the table has none."""

    text: tuple[str, ...]
    image: str | None
    label: str | None
    group: str | None


def roles(
    table: Table, text: str | Sequence[str] | None, image: str | None, label: str | None, group: str | None
) -> Roles:
    """The columns that are meant. The one of the groups is never guessed, nor taken for another.

    Raises:
        BadInput: a column that was named is not there; nothing can be guessed, or both texts and images can; one column
            is to be item and label, or to group by as well. The message lists the columns there are.
    """
    texts = (text,) if isinstance(text, str) else tuple(text or ())
    if texts and image is not None:
        raise BadInput(f"{table.name}: --text and --image are given, but items are texts or images, not both")
    for name in texts:
        need_column(table, name, "--text")
    if image is not None:
        need_column(table, image, "--image")
    if label is not None:
        need_column(table, label, "--label")
    if group is not None:
        need_column(table, group, "--group")
    label = label or first_usual(LABEL, [c for c in table.frame.columns if c not in (*texts, image, group)])
    if not texts and image is None:
        texts, image = _guess_items(table, label, group)
    if label is not None and label in (*texts, image):
        raise BadInput(f"{table.name}: column {quoted(label)} cannot be both the label and what is to be labelled")
    if group is not None and group in (*texts, image, label):
        what = "the label" if group == label else "what is to be labelled"
        raise BadInput(f"{table.name}: column {quoted(group)} (--group) is {what} already; group by another column")
    return Roles(texts, image, label, group)


def _guess_items(table: Table, label: str | None, group: str | None) -> tuple[tuple[str, ...], str | None]:
    others = [name for name in table.frame.columns if name not in (label, group) and not name.startswith(OURS)]
    text = first_usual(TEXT, [name for name in others if not holds_images(table.frame[name])])
    image = first_usual(IMAGE, [name for name in others if holds_images(table.frame[name])])
    if text and image:
        raise BadInput(
            f"{table.name}: texts (column {quoted(text)}) or images (column {quoted(image)})? "
            f"name one with --text or --image; {columns_are(table.frame.columns)}"
        )
    if not text and not image and len(others) == 1:  # nothing else can be meant
        text, image = (None, others[0]) if holds_images(table.frame[others[0]]) else (others[0], None)
    if not text and not image:
        raise BadInput(
            f"{table.name}: no column of texts or images can be guessed, name it with --text or --image; "
            f"{columns_are(table.frame.columns)}"
        )
    return (text,) if text else (), image


def holds_images(column: pl.Series) -> bool:
    """Whether a column holds encoded images, or names of image files in its first cell that is not empty."""
    import polars as pl

    if column.dtype == pl.Binary or is_image_struct(column.dtype):
        return True
    if column.dtype != pl.String:
        return False
    filled = column.filter(column.str.strip_chars() != "")
    return bool(len(filled)) and Path(str(filled[0]).strip()).suffix.lower() in IMAGE_SUFFIXES


def is_image_struct(dtype: Any) -> bool:
    """Whether cells are ``{"bytes": …, "path": …}``, as Hugging Face writes images."""
    import polars as pl

    return isinstance(dtype, pl.Struct) and {field.name for field in dtype.fields} == {"bytes", "path"}


def first_usual(usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The name that comes first in a list of usual names."""
    found = {re.sub(r"[\W_]+", "_", name.strip().casefold()): name for name in reversed(names)}
    return next((found[name] for name in usual if name in found), None)
