"""Which items belong together, by a column of a table or by the names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from handful.errors import BadInput
from handful.read.dataset import Dataset, ImageFile
from handful.read.labels import label_text
from handful.read.places import quoted

ALONE = ""
"""Group of an item that belongs to no other, until `alone_named` gives it a name of its own."""


def group_names(values: Iterable[object], where: Sequence[str]) -> tuple[str, ...]:
    """The group each cell names, blanks around it dropped; `ALONE` for an empty one.

    Raises:
        BadInput: naming the place of a list or another value that is no single name.
    """
    names = []
    for position, value in enumerate(values):
        try:
            names.append((label_text(value) or ALONE).strip())
        except TypeError as error:
            raise BadInput(f"{where[position]}: the group {error}") from error
    return tuple(names)


def by_column(values: Iterable[object], where: Sequence[str], column: str) -> tuple[str, ...]:
    """`group_names` of the cells of ``--group``. Raises `BadInput` when they name no group at all."""
    names = group_names(values, where)
    if not any(names):
        raise BadInput(f"column {quoted(column)} (--group) is empty in every row")
    return names


def by_file_name(parts: Sequence[Dataset], regex: str) -> list[Dataset]:
    """Data sets with the groups their file names hold; those whose items are no files stay as they are.

    Raises:
        BadInput: no data set has files, the regular expression is none or has several capture groups, or no name
            matches it.
    """
    pattern = _compiled(regex)
    files = [None if part.groups is not None else _file_names(part) for part in parts]  # a column counts first
    names = [name for some in files for name in some or ()]
    if not names:
        raise BadInput(
            "--group-regex looks into the names of files in folders and archives, and there are none; name a column "
            "of a table with --group"
        )
    found = [None if some is None else tuple(_group_in(name, pattern) for name in some) for some in files]
    if not any(group for some in found for group in some or ()):
        raise BadInput(
            f"--group-regex {quoted(regex)} finds no group in any of {len(names)} file names, such as "
            f"{quoted(names[0], 200)}"
        )
    return [
        part if groups is None else noted(replace(part, groups=groups), f"--group-regex {quoted(regex)}")
        for part, groups in zip(parts, found, strict=True)
    ]


def noted(data: Dataset, by: str) -> Dataset:
    """``data`` with a note on its groups: ``"12 groups by column 'customer'; 3 items name none and stand alone"``."""
    groups = data.groups or ()
    count, alone = len(set(groups) - {ALONE}), groups.count(ALONE)
    left = f"; {alone} item{'s name' if alone > 1 else ' names'} none and stand{'' if alone > 1 else 's'} alone"
    note = f"{count} group{'' if count == 1 else 's'} by {by}{left if alone else ''}"
    return replace(data, provenance=replace(data.provenance, notes=(*data.provenance.notes, note)))


def no_column(group: str, data: Dataset) -> BadInput:
    """What to say of ``--group`` where no source is a table."""
    cure = "groups of items in memory are given with from_arrays(items, labels, groups)"
    if data.modality == "features":
        cure = "an .npz file holds its groups in an array 'groups'"
    elif _file_names(data) is not None:
        cure = "groups of files are found in their names, with --group-regex"
    return BadInput(f"--group {quoted(group)} names a column of a table, and there is no table; {cure}")


def alone_named(data: Dataset) -> Dataset:
    """``data`` where every item that stands alone is a group with a name of its own."""
    if data.groups is None or ALONE not in data.groups:
        return data
    taken = set(data.groups)
    names = list(data.groups)
    for row in (row for row, name in enumerate(data.groups) if name == ALONE):
        name = f"{data.where[row] if data.where else f'item {row}'} alone"
        names[row] = name if name not in taken else f"{name} [{row}]"
        taken.add(names[row])
    return replace(data, groups=tuple(names))


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"--group-regex {quoted(regex)} is not a regular expression: {error}") from error
    if pattern.groups > 1:
        raise BadInput(
            f"--group-regex {quoted(regex)} has {pattern.groups} pairs of parentheses that capture; one names the "
            "group, write (?:…) for the others"
        )
    return pattern


def _group_in(name: str, pattern: re.Pattern[str]) -> str:
    found = pattern.search(name)
    return ALONE if found is None else (found.group(pattern.groups) or ALONE)  # group 0 is all it matches


def _file_names(data: Dataset) -> list[str] | None:
    """The file of each item, relative to its folder or archive; ``None`` when items are no files."""
    if data.modality == "image" and all(isinstance(item, ImageFile) for item in data.items):
        return [item.name for item in data.items]
    if data.table is not None and data.item_columns == ("file",):  # a folder of texts
        return [str(name) for name in data.table["file"]]
    return None
