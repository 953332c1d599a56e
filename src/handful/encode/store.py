"""One call of an encoder and the feature cache: items by digest, arrays by output and view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from handful.encode.cache import FeatureCache, feature_key

_KEEP = 512  # rows written to the cache at a time: few transactions, and little lost when the process is killed


class Store:
    """The features of one call of `FeatureEncoder.encode` in the cache, a row for each output and view."""

    def __init__(self, fingerprint: str, outputs: Sequence[str], views: int, use: bool) -> None:
        self._fingerprint, self._outputs, self._views = fingerprint, outputs, views
        self._cache = FeatureCache() if use else None
        self._new: dict[bytes, np.ndarray] = {}

    def __enter__(self) -> Store:
        if self._cache is not None:
            self._cache.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        # Also after an exception or Ctrl-C: what was computed was computed.
        if self._cache is not None:
            self._cache.put(self._new)
            self._cache.__exit__(*error)

    def recall(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, dict[str, np.ndarray]]]:
        """The items of which everything is there: digest and, by output, an array [views, …]."""
        if self._cache is None:
            return
        keys = {digest: self._keys(digest) for digest in digests}
        found = self._cache.get([key for each in keys.values() for some in each.values() for key in some])
        for digest, each in keys.items():
            if all(key in found for some in each.values() for key in some):
                yield digest, {output: np.stack([found[key] for key in some]) for output, some in each.items()}

    def keep(self, digests: Sequence[bytes], arrays: Mapping[str, np.ndarray]) -> None:
        """Remember arrays [digests, views, …]."""
        if self._cache is None:
            return
        for position, digest in enumerate(digests):
            for output, keys in self._keys(digest).items():
                self._new.update(zip(keys, arrays[output][position], strict=True))
        if len(self._new) >= _KEEP:
            self._cache.put(self._new)
            self._new = {}

    def _keys(self, digest: bytes) -> dict[str, list[bytes]]:
        return {o: [feature_key(digest, self._fingerprint, o, v) for v in range(self._views)] for o in self._outputs}
