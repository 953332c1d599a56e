"""Golomb-Rice coding: which entries of a long vector are kept, in little more bits than their entropy.

A kept entry is told by how many that are not stand before it: its gap g = q 2^b + r. Of all gaps first the quotients q
are written, each as q ones and a zero, then the remainders r of b bits each: three codes of one length read fast.

    b      = 1 + floor(log2(ln(phi - 1) / ln(1 - k))),  at least 0        k: share that is kept, phi = (1 + sqrt 5) / 2
    bits   = b + 1 / (1 - (1 - k)^(2^b))                                  of a kept entry, in the mean
"""

from __future__ import annotations

import math

import numpy as np

from handful.errors import BadInput

_LOG = math.log((math.sqrt(5) - 1) / 2)
MOST_BITS = 40
"""Of a remainder."""


def remainder_bits(share: float) -> int:
    """b, for the share of entries that is kept."""
    if not 0 < share < 1:
        return 0
    return min(max(0, 1 + math.floor(math.log2(_LOG / math.log1p(-share)))), MOST_BITS)


def mean_bits(share: float) -> float:
    """How many bits a kept entry takes in the mean, its sign not among them."""
    b = remainder_bits(share)
    return b + 1 / -math.expm1(2**b * math.log1p(-share)) if share < 1 else 1.0


def encode(positions: np.ndarray, bits: int) -> np.ndarray:
    """Ascending positions from 0 as single bits, 0 or 1 ``[n]`` (uint8).

    Args:
        positions: ``[m]``.
        bits: b.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    quotients = gaps >> bits
    unary = np.ones(int(quotients.sum()) + len(gaps), np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 0
    places = np.arange(bits - 1, -1, -1)
    remainders = (gaps[:, None] >> places) & 1
    return np.concatenate([unary, remainders.astype(np.uint8).reshape(-1)])


def decode(code: np.ndarray, count: int, bits: int) -> tuple[np.ndarray, int]:
    """What `encode` wrote: ``count`` positions, and how many bits of ``code`` they took.

    Raises:
        BadInput: the code ends before.
    """
    ends = np.flatnonzero(code == 0)[:count]
    start = int(ends[-1]) + 1 if len(ends) else 0
    if len(ends) < count or len(code) < start + count * bits:
        raise BadInput("the code ends before its last entry; it is cut off or damaged")
    quotients = np.diff(ends, prepend=-1) - 1
    remainders = code[start : start + count * bits].reshape(count, bits).astype(np.int64)
    gaps = (quotients << bits) + remainders @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
    return np.cumsum(gaps + 1) - 1, start + count * bits
