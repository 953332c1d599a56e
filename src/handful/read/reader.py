"""`read`: whatever a user points at becomes one `Dataset`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from handful.errors import BadInput
from handful.read.arrays import from_mapping, in_memory
from handful.read.checks import checked
from handful.read.dataset import Dataset
from handful.read.grouping import by_file_name, no_column
from handful.read.joining import together
from handful.read.labels import label_sets
from handful.read.places import existing, one_line
from handful.read.rows import dataset_of_tables
from handful.read.tables import Table

HUB = "hub:"


def read(
    *sources: Any,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    group_regex: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    require_labels: bool = False,
    keep_rows: bool = False,
    multi_label: str | None = None,
    none: str | None = None,
) -> Dataset:
    """A `Dataset` of one source or of several below each other.

    Args:
        sources: names of tables (csv, tsv, jsonl, json, parquet, xlsx, txt with a text a line), folders with a folder
            per class, ZIP archives of such, folders of images without classes, ``.npz`` features, ``hub:NAME[:SPLIT]``
            for a Hugging Face data set; or what is in memory: pandas and polars frames, ``{label: [items]}``, lists,
            arrays.
        text: column or columns of a table that hold the texts, joined by line breaks; guessed from usual names.
        image: column that holds image files, relative to the folder of the table; guessed likewise.
        label: column of the labels; guessed likewise. Rows with an empty one are unlabelled.
        group: column of a table that says which rows belong together (a customer, a patient, a document): a group never
            stands on both sides of a split. Rows with an empty one stand alone; one name in two sources is one group.
        group_regex: the same for files in folders and archives: a regular expression that is searched in each name,
            relative to its folder and with forward slashes. Its capture group, else all it matches, names the group;
            files it is not found in stand alone.
        merge_labels: make labels that differ only in case or blanks one class.
        skip_bad: leave out labelled items that are empty or missing, and features that are not numbers; they are
            listed in ``provenance.skipped``.
        require_labels: refuse a source in which nothing is labelled.
        keep_rows: for predictions: every row in order, whatever it holds, labels as they are. `Dataset.usable` says
            which items hold anything.
        multi_label: what stands between the labels of a cell, where an item has several; lists of labels are taken too.
        none: with it, what the cell of an item with none of the labels says, see `handful.read.labels.LabelSets`.

    Raises:
        BadInput: one line that says what is wrong and in which file, row and column.
    """
    if not sources:
        raise BadInput("no source is given")
    sets = label_sets(multi_label, none)
    loaded = [_load(source, name) for source, name in zip(sources, _names(sources), strict=True)]
    parts: list[Dataset] = []
    for _, run in groupby(loaded, key=type):  # neighbouring tables share their columns
        some = list(run)
        tables = [part for part in some if isinstance(part, Table)]
        parts += [dataset_of_tables(tables, text, image, label, group, sets)] if tables else []
        parts += [part for part in some if isinstance(part, Dataset)]
    if group is not None and not any(isinstance(part, Table) for part in loaded):
        raise no_column(group, parts[0])
    data = together(parts if group_regex is None else by_file_name(parts, group_regex))
    data = replace(data, provenance=replace(data.provenance, sources=tuple(map(_given, sources))))
    return checked(
        data,
        merge_labels=merge_labels,
        skip_bad=skip_bad,
        require_labels=require_labels,
        keep_rows=keep_rows,
        sets=sets,
    )


def _load(source: Any, name: str) -> Table | Dataset:
    """One source, not interpreted yet when it is a table."""
    from handful.read.frames import frame_table, is_frame

    if isinstance(source, Dataset):
        return source
    if isinstance(source, str) and source.startswith(HUB):
        from handful.read.hub import hub_table

        return hub_table(source.removeprefix(HUB), name)
    if isinstance(source, (str, os.PathLike)):
        return _load_path(existing(Path(source)), name)
    if is_frame(source):
        return frame_table(source)
    return from_mapping(source) if isinstance(source, Mapping) else in_memory(source)


def _load_path(path: Path, name: str) -> Table | Dataset:
    from handful.read.columns import IMAGE_SUFFIXES
    from handful.read.formats import TABLES, read_table

    suffix = path.suffix.lower()
    if path.is_dir():
        from handful.read.folders import dataset_of_folder

        return dataset_of_folder(path, name)
    if suffix == ".zip":
        from handful.read.folders import dataset_of_zip

        return dataset_of_zip(path, name)
    if suffix == ".npz":
        from handful.read.arrayfiles import dataset_of_npz

        return dataset_of_npz(path, name)
    if suffix in IMAGE_SUFFIXES:
        from handful.read.folders import dataset_of_image

        return dataset_of_image(path, name)
    if suffix not in TABLES:
        kinds = ", ".join([*TABLES, ".zip", ".npz"])
        raise BadInput(
            f"{name}: files that end in {one_line(suffix) or 'nothing'} are not read; there are: {kinds}, folders"
        )
    table = read_table(path, name)
    # lines of text have no columns, so options that name columns do not concern them
    return dataset_of_tables([table], "text", None, None, None) if suffix == ".txt" else table


def _names(sources: Sequence[Any]) -> list[str]:
    """What messages call each source: the name of its file, or the whole path when several files have that name."""
    plain = [Path(source).name if _is_path(source) else "" for source in sources]
    counts = Counter(plain)
    return [
        one_line(name) if name and counts[name] == 1 else _given(source)
        for source, name in zip(sources, plain, strict=True)
    ]


def _given(source: Any) -> str:
    """A source as it was given: a path or name in full, a thing in memory by its type."""
    return one_line(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__


def _is_path(source: Any) -> bool:
    return isinstance(source, os.PathLike) or (isinstance(source, str) and not source.startswith(HUB))
