"""Halves and quarters: the fixed partition and few-shot draws of a benchmark over data sets.

Paper 013: El Khoury et al., "Few-Shot Adaptation Benchmark for Remote Sensing Vision-Language Models", 2025. Each class
is shuffled once; the first half (rounded up) trains, the next quarter (rounded up) validates, the rest tests. K shots
of every class are drawn from the training half, seeds 1, 2, 3; accuracy is reported as mean and standard deviation over
the seeds, beside the gain over the same model without examples, and methods are ranked within each data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.adapt.parameters import count, finite, numbers
from handful.errors import BadInput
from handful.evaluate.indices import places
from handful.evaluate.significance import Friedman, friedman

SEED = 42
PARTS = ("train", "val", "test")


class Partition(NamedTuple):
    """Rows of each part, ascending."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def partition(labels: Any, *, seed: int = SEED, train: float = 0.5, val: float = 0.25) -> Partition:
    """Split n items class by class; both cut points are rounded up, so small classes lose test items first.

    Raises:
        BadInput: labels that are no list, a class that has nothing to train or to test on, shares that leave nothing.
    """
    names, codes = _classes(labels)
    count("seed", seed)
    if finite("train", train, above=0) + finite("val", val, least=0) >= 1:
        raise BadInput(f"shares of train {train} and val {val} must leave something to test on")
    rng, parts = np.random.default_rng(seed), ([], [], [])  # type: tuple[Any, tuple[list[Any], ...]]
    for code, name in enumerate(names):
        rows = rng.permutation(np.flatnonzero(codes == code))
        first = _up(train * len(rows))
        second = first + _up(val * len(rows))
        if second >= len(rows):
            raise BadInput(f"class {str(name)!r} has {len(rows)} items: none is left to test on")
        for part, taken in zip(parts, np.split(rows, [first, second]), strict=True):
            part.append(taken)
    return Partition(*(np.sort(np.concatenate(part)) for part in parts))


def few_shot_subset(labels: Any, rows: Any, shots: int, seed: int) -> np.ndarray:
    """``shots`` of ``rows`` of each class, ascending; the same seed draws the same, and more shots contain fewer.

    Raises:
        BadInput: a class with fewer, rows that are none of the labels'.
    """
    (names, codes), rows = _classes(labels), np.asarray(rows)
    count("shots", shots, 1), count("seed", seed)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or (len(rows) and not 0 <= rows.min() <= rows.max() < len(codes)):
        raise BadInput(f"rows to draw from are whole numbers below {len(codes)}, the number of labels")
    if len(np.unique(rows)) < len(rows):
        raise BadInput("rows to draw from stand there twice: each once, or an item could be drawn again")
    counts = np.bincount(codes[rows], minlength=len(names))
    if counts.min() < shots:
        few = int(counts.argmin())
        raise BadInput(f"{shots} shots asked for, but class {str(names[few])!r} has {counts[few]} items to train on")
    draw = np.random.default_rng(seed).random(len(codes))
    return np.sort(rows[places(codes[rows], draw[rows]) < shots])


def read_split(path: str | Path, folder: str | Path | None = None) -> dict[str, list[tuple[Path, int, str]]]:
    """A ``split.json``: lists of ``[path, label, class name]`` under ``train``, ``val`` and ``test``.

    Args:
        path: the file.
        folder: where the images lie; by default beside the file, or in the folder ``2750`` there, as the authors' data
            sets have it.

    Raises:
        BadInput: not such a file, images that are missing (the first five are named), a class with none to train on.
    """
    path = Path(path)
    if folder is None:
        folder = path.parent / "2750" if (path.parent / "2750").is_dir() else path.parent
    folder = Path(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {
            part: [(folder / str(place), int(label), str(name)) for place, label, name in content[part]]
            for part in PARTS
        }
    except FileNotFoundError as error:
        raise BadInput(f"no such file: {path}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is no split: lists of [path, label, class name] under train, val, test") from error
    missing = [str(place) for rows in parts.values() for place, _, _ in rows if not place.is_file()]
    if missing:
        raise BadInput(f"{path} names {len(missing)} images that are not there: {', '.join(missing[:5])}")
    if untaught := {name for rows in parts.values() for *_, name in rows} - {name for *_, name in parts["train"]}:
        raise BadInput(f"class {min(untaught)!r} of {path} has no image to train on")
    return parts


def _classes(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Names of the classes, and the place of each label among them ``[n]``."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise BadInput(f"nothing to split: labels are a list of classes, one an item, not of shape {labels.shape}")
    try:
        names, codes = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise BadInput(f"labels of several kinds, or missing ones: {error}") from error
    return names, codes


def _up(items: float) -> int:
    """Rounded up; a share such as 0.55 of 100 is no more than 55 for being no exact number."""
    return int(np.ceil(round(items, 9)))


@dataclass(frozen=True)
class Standing:
    """What a benchmark says of methods over data sets.

    Attributes:
        methods: names, as the columns.
        ranks: rank of each method on each data set ``[n, k]``, 1 the best, ties share.
        overall: mean ranks and Friedman's test; ``None`` with a single data set.
    """

    methods: tuple[str, ...]
    ranks: np.ndarray
    overall: Friedman | None


def standing(table: Mapping[str, Sequence[float]]) -> Standing:
    """Ranks within each data set, and whether they differ at all.

    Args:
        table: scores by method, one a data set, in the same order.

    Raises:
        BadInput: fewer than two methods, or lists of different length.
    """
    from scipy.stats import rankdata

    lengths = {len(scores) for scores in table.values()}
    if len(table) < 2 or len(lengths) != 1 or not lengths - {0}:
        raise BadInput("ranks need two methods or more, with a score on every data set")
    scores = numbers("scores", [list(row) for row in table.values()]).T
    return Standing(tuple(table), rankdata(-scores, axis=1), friedman(scores) if len(scores) > 1 else None)
