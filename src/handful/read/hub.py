"""Hugging Face data sets by name; needs the extra ``hub``."""

from __future__ import annotations

from typing import Any

from handful.errors import BadInput, nearest
from handful.read.places import one_line, quoted
from handful.read.tables import Table, frame_of


def hub_table(name: str, source: str) -> Table:
    """Split of a data set as a table: ``NAME``, ``NAME:SPLIT`` or ``NAME@CONFIG:SPLIT``; by default the split "train".

    ``NAME`` may be a folder. Numbers of classes become their names. No code of the data set runs.

    Raises:
        BadInput: the extra is not installed, or there is no such data set, configuration or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise BadInput(f"{source} needs the package 'datasets': pip install 'handful[hub]'") from error
    if int(datasets.__version__.split(".")[0]) < 4:
        raise BadInput(
            f"{source} needs datasets 4 or newer, not {datasets.__version__}: older ones can run code of a data set"
        )
    path, split = _parted(name)
    path, _, config = path.partition("@")
    try:
        found = datasets.load_dataset(path, config or None)
    except Exception as error:  # the package raises its own, the hub's and the network's errors
        raise BadInput(f"{source} cannot be loaded: {one_line(error)}") from error
    chosen = split or ("train" if "train" in found or len(found) > 1 else next(iter(found)))
    if chosen not in found:
        raise BadInput(f"{source} has no split {quoted(chosen)}{nearest(chosen, found)}")
    data = _plain(datasets, found[chosen])
    columns = {column: list(data[column]) for column in data.column_names}
    for column, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            columns[column] = [None if i is None or i < 0 else feature.names[i] for i in columns[column]]
    notes = () if len(found) == 1 or split else (f"{source}: only the split {quoted(chosen)} is read",)
    where = tuple(f"{source} row {i}" for i in range(len(data)))
    return Table(source, frame_of(columns), where, notes=notes)


def _parted(name: str) -> tuple[str, str]:
    """Name and split; the colon of a Windows drive parts nothing."""
    path, colon, split = name.rpartition(":")
    return (path, split) if colon and not any(c in split for c in "/\\") else (name, "")


def _plain(datasets: Any, data: Any) -> Any:
    """The data set with its images as files or bytes instead of decoded."""
    for column, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
    return data
