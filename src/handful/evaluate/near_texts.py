"""Texts that are nearly the same: most of their shingles are shared, and the encoder reads them alike.

Broder (1997), On the resemblance and containment of documents: J(a, b) = |A n B| / |A u B| of the sets of shingles.
Shingles alone merge "how do I get my card" and "how do I get my card PIN": a word among few is a small part of a short
text and all of its meaning. The encoder tells those apart. In long texts it reads the beginning only, and the many
shingles speak for themselves.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from handful.evaluate.neighbours import copies, neighbours

SHINGLE = 4
"""Characters of a shingle."""
COLUMNS = 1 << 22
"""Shingles are told apart by a hash of this many values."""
READ = 1000
"""Characters of a text that are compared: about what encoders read of it."""
ALIKE, SAME_MEANING, MANY = 0.8, 0.95, 100
"""Least share of shingles, and least cosine where fewer shingles than ``MANY`` are shared."""
CLOSER = 0.25
"""Largest share of shingles that differ, as a share of those that differ in other texts of the kind."""


class _Blanks(dict[int, int]):
    """What each character counts as: punctuation, blanks and control characters are a blank. Filled as they come."""

    def __missing__(self, code: int) -> int:
        blank = unicodedata.category(chr(code))[0] in "PZC"
        self[code] = ord(" ") if blank else code
        return self[code]


_BLANKS = _Blanks()


def normal(text: str) -> str:
    """``text`` without what does not change its meaning: case, punctuation, kinds and numbers of blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_BLANKS).split())


def near_texts(texts: Sequence[str], features: np.ndarray) -> np.ndarray:
    """Pairs ``[p, 2]`` of texts that are nearly the same.

    Args:
        texts: n `normal` texts that differ.
        features: ``[n, d]`` of the texts.
    """
    a, b = neighbours(features)
    looked_at, at = np.unique(np.stack([a, b]), return_inverse=True)
    sets = _shingle_sets([texts[i] for i in looked_at])
    shared, resemblance = _resemblance(sets, *at.reshape(2, -1))
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    sure = (shared >= MANY) | (np.einsum("pd,pd->p", unit[a], unit[b]) >= SAME_MEANING)
    same = sure & copies(a, b, 1 - resemblance, most=1 - ALIKE, share=CLOSER)
    return np.stack([a[same], b[same]], axis=1)


def _resemblance(sets: csr_array, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many shingles texts ``a [p]`` and ``b [p]`` share, and J."""
    size = np.diff(sets.indptr)
    shared = np.asarray(sets[a].multiply(sets[b]).sum(axis=1)).ravel()
    return shared, shared / np.maximum(size[a] + size[b] - shared, 1)


def _shingle_sets(texts: Sequence[str]) -> csr_array:
    """Which shingles each text has: ones in ``[n, COLUMNS]``."""
    parts = [f" {text[:READ]}  " for text in texts]
    codes = np.frombuffer("".join(parts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    row = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    last = max(len(codes) - SHINGLE + 1, 0)
    mixed = np.zeros(last, dtype=np.uint64)
    for at in range(SHINGLE):
        mixed = (mixed + codes[at : at + last]) * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as hashing likes it
        mixed ^= mixed >> np.uint64(29)
    whole = row[:last] == row[len(row) - last :]  # not over the end of a text
    present = np.unique(row[:last][whole] * COLUMNS + (mixed[whole] % np.uint64(COLUMNS)).astype(np.int64))
    row, column = np.divmod(present, COLUMNS)
    return csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(texts), COLUMNS))
