"""`Episodes`: which items make up each episode, as positions; saved and loaded without a pickle."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.errors import BadInput
from handful.files import whole_file

Count = int | Literal["any"]
"""A number of ways or shots; ``"any"`` where it differs from episode to episode."""


@dataclass(frozen=True)
class Episodes:
    """E episodes as positions in a data set, padded with -1.

    Args:
        classes: ``[E, W]``, which class each way is, in the order of the sorted class names.
        support: ``[E, W, K]`` rows; the first k of each way are the support of the k-shot episode.
        query: ``[E, W, Q]`` rows.
        source: digest of the labels they were drawn from.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, part: slice) -> Episodes:
        return replace(self, classes=self.classes[part], support=self.support[part], query=self.query[part])

    @property
    def shots(self) -> int:
        """The most shots a class has."""
        return int(self.support.shape[-1])

    @property
    def ways(self) -> int:
        """The most ways an episode has."""
        return int(self.classes.shape[-1])

    @property
    def queries(self) -> int:
        """The most queries a class has."""
        return int(self.query.shape[-1])

    def with_shots(self, shots: int) -> Episodes:
        """The same episodes, classes and queries with the first ``shots`` of each class' support.

        Raises:
            BadInput: there are not as many.
        """
        if not 1 <= shots <= self.shots:
            raise BadInput(f"{shots} shots asked for, but the episodes hold {self.shots} a class")
        return replace(self, support=self.support[..., :shots])

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` file of integers."""
        with whole_file(path) as file:
            np.savez_compressed(file, classes=self.classes, support=self.support, query=self.query, source=self.source)

    @classmethod
    def load(cls, path: str | Path, labels: Sequence[Any] | np.ndarray) -> Episodes:
        """Read what `save` wrote, for the data set it was drawn from.

        Raises:
            BadInput: no such file, not one of ours, or drawn from other labels.
        """
        names = ("classes", "support", "query")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays, source = [file[name] for name in names], str(file["source"])
        except FileNotFoundError as error:
            raise BadInput(f"no such file: {path}") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise BadInput(f"{path} holds no episodes; make one with --save-episodes") from error
        if source != digest(labels):
            raise BadInput(f"the episodes of {path} were drawn from other labels, or from the same in another order")
        found = cls(arrays[0], arrays[1], arrays[2], source)
        found._check(path, len(labels))
        return found

    def _check(self, path: str | Path, n: int) -> None:
        arrays = (self.classes, self.support, self.query)
        fits = [a.ndim for a in arrays] == [2, 3, 3] and all(a.shape[:2] == self.classes.shape for a in arrays)
        if not fits or any(a.dtype.kind != "i" or not a.size or a.min() < -1 or a.max() >= n for a in arrays):
            raise BadInput(f"{path} is damaged: its episodes do not fit the data")


def places(codes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each item stands among those of its class, by ``keys [n]``: 0, 1, 2, … ``[n]``."""
    order, sizes = np.lexsort((keys, codes)), np.bincount(codes)
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes)) - (np.cumsum(sizes) - sizes)[codes[order]]
    return place


def digest(labels: Sequence[Any] | np.ndarray) -> str:
    """What tells one sequence of labels from another."""
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    names = "\0".join(map(str, classes)).encode()
    return hashlib.sha256(names + b"\0\0" + codes.astype("<i4").tobytes()).hexdigest()
