"""What all encoders share: check the items, encode each different one once, remember the features."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from handful.encode.store import Store
from handful.errors import BadInput, BadItem
from handful.protocols import Progress

Job = tuple[Any, bytes]
"""An item and its content."""
Batch = tuple[list[int], "dict[str, np.ndarray] | BadInput"]
"""Positions among the jobs, and by output an array [positions, views, …]; or what is wrong with the only one."""


class FeatureEncoder(ABC):
    """A `handful.protocols.Encoder` but for what an item is and what its features are.

    Attributes:
        shapes: shape of one item's features, by output.
        basis: what makes the features what they are, short of the options and the arithmetic: weights, preprocessing.
        options: how it looks at items where that is not its usual way.
        revision: the commit of the hub that its files are, or ``None``.
        templates: sentences that class names are put into, at ``{}``, before `class_text` reads them.
        chunk: how many items' contents are held in memory at a time.
    """

    name: str
    modality: Literal["text", "image"]
    shapes: Mapping[str, tuple[int, ...]]
    basis: str
    options: Mapping[str, Any] = MappingProxyType({})
    revision: str | None = None
    aligned: str | None = None
    logit_scale: float = 1.0
    templates: Sequence[str] = ()
    chunk: int = 1 << 16

    @property
    @abstractmethod
    def arithmetic(self) -> str:
        """What the features are worked out in, such as ``"float32"``."""

    @property
    def identity(self) -> str:
        """What makes the features what they are, short of the arithmetic: weights, preprocessing, options."""
        asked = (f":{key}={json.dumps(value, separators=(',', ':'))}" for key, value in sorted(self.options.items()))
        return self.basis + "".join(asked)

    @property
    def fingerprint(self) -> str:
        """Changes exactly when a bit of the features would."""
        return f"{self.identity}:{self.arithmetic}"

    @property
    def dim(self) -> int:
        """Width of the ``pooled`` output."""
        return self.shapes["pooled"][0]

    @property
    def outputs(self) -> frozenset[str]:
        """The outputs it can give."""
        return frozenset(self.shapes)

    @abstractmethod
    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        """Unit vectors [m, dt] of sentences that describe classes, in the space of the output named by ``aligned``."""

    @abstractmethod
    def parts(self) -> dict[str, bytes]:
        """All the files it needs, by name, weights as safetensors."""

    @abstractmethod
    def _content(self, item: Any) -> bytes:
        """The bytes that say what ``item`` is. Raises `BadInput` when it cannot be read."""

    @abstractmethod
    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int, cache: bool) -> Iterator[Batch]:
        """Features of all ``jobs``, batch by batch in any order; with ``cache`` what it needs itself may be kept."""

    def encode(
        self,
        items: Sequence[Any],
        outputs: Sequence[str] = ("pooled",),
        views: int = 1,
        *,
        cache: bool = True,
        bad: Literal["raise", "nan"] = "raise",
        progress: Progress | None = None,
    ) -> Any:
        """Features of ``items`` as float32, in their order.

        Args:
            items: n items; equal ones are encoded once.
            outputs: which of the encoder's `outputs`.
            views: versions of each item; view 0 is the item as it is.
            cache: whether to look for features in the user's cache and keep new ones there.
            bad: ``"raise"`` `BadItem` for an item that cannot be read, or leave its rows ``"nan"``.
            progress: called with (items done, n) now and then.

        Returns:
            One array [n, …] for one output, else a dict by output; with ``views`` > 1 each is [n, views, …].
        """
        outputs = self._checked(items, outputs, views, bad)
        n = len(items)
        result = {o: np.full((n, views, *self.shapes[o]), np.nan, np.float32) for o in outputs}
        first: dict[bytes, int] = {}  # by digest, the row of the first item that has it
        copies: list[tuple[int, int]] = []
        with Store(self.fingerprint, outputs, views, cache) as store:
            for start in range(0, n, self.chunk):
                some = items[start : start + self.chunk]
                fresh = self._fresh(some, start, first, copies, bad)
                for digest, arrays in store.recall(list(fresh)):
                    del fresh[digest]
                    for output, array in arrays.items():
                        result[output][first[digest]] = array
                done = start + len(some) - len(fresh)
                if progress is not None:
                    progress(done, n)
                for digests, found in self._worked_out(fresh, outputs, views, cache):
                    rows = [first[digest] for digest in digests]
                    if isinstance(found, BadInput):
                        _refuse(found, rows[0], bad)
                    else:
                        for output, array in found.items():
                            result[output][rows] = array
                        store.keep(digests, found)
                    done += len(rows)
                    if progress is not None:
                        progress(done, n)
        for row, source in copies:
            for array in result.values():
                array[row] = array[source]
        if views == 1:
            result = {output: array[:, 0] for output, array in result.items()}
        return result if len(outputs) > 1 else result[outputs[0]]

    def _fresh(
        self, some: Iterable[Any], start: int, first: dict[bytes, int], copies: list[tuple[int, int]], bad: str
    ) -> dict[bytes, Job]:
        """By digest the items from row ``start`` on that were not seen before; notes in ``copies`` those that were."""
        fresh: dict[bytes, Job] = {}
        for row, item in enumerate(some, start):
            try:
                content = self._content(item)
            except BadInput as problem:
                _refuse(problem, row, bad)
                continue
            digest = hashlib.blake2b(content, digest_size=20).digest()
            if digest in first:
                copies.append((row, first[digest]))
            else:
                first[digest] = row
                fresh[digest] = (item, content)
        return fresh

    def _worked_out(
        self, fresh: Mapping[bytes, Job], outputs: Sequence[str], views: int, cache: bool
    ) -> Iterator[tuple[list[bytes], dict[str, np.ndarray] | BadInput]]:
        digests, jobs = list(fresh), list(fresh.values())
        if jobs:  # what is in the cache needs no network, and none is loaded
            for positions, found in self._features(jobs, outputs, views, cache):
                yield [digests[position] for position in positions], found

    def _checked(self, items: Any, outputs: Any, views: int, bad: str) -> tuple[str, ...]:
        if isinstance(items, (str, bytes)) or not hasattr(items, "__len__"):
            raise BadInput(f"items must be a list of items, not {type(items).__name__}")
        wanted = (outputs,) if isinstance(outputs, str) else tuple(dict.fromkeys(outputs))
        unknown = [output for output in wanted if output not in self.shapes]
        if unknown or not wanted:
            raise BadInput(f"encoder {self.name!r} has no output {unknown}; it has {', '.join(sorted(self.shapes))}")
        if views < 1 or (views > 1 and self.modality == "text"):
            raise BadInput(f"views is {views}; " + ("texts have one view" if views > 1 else "it must be at least 1"))
        if bad not in ("raise", "nan"):
            raise BadInput(f"bad is {bad!r}; it must be 'raise' or 'nan'")
        return wanted


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [n, d] of length 1, float32; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _refuse(problem: BadInput, row: int, bad: str) -> None:
    if bad == "raise":
        raise BadItem(f"item {row}: {problem}", row) from problem
