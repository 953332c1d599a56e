"""Long vectors of three values, -s, 0 and s, in about a bit an entry: as a code for files, and as masks to reckon with.

entropy     -(1 - k) log2(1 - k) - k log2(k / 2)    bits an entry, k: share that is not 0
code        positions by Golomb-Rice, see `handful.compress.golomb`, and a bit for each sign
masks       P, N: a bit an entry each;   <x, y> = s_x s_y (|P_x & P_y| + |N_x & N_y| - |P_x & N_y| - |N_x & P_y|)
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from handful.compress import golomb
from handful.errors import BadInput

_MAGIC = b"HTV1"
_HEAD = struct.Struct("<4sBQQfI")  # magic, b, entries, of them not 0, scale, checksum of the rest and of these
MOST = 1 << 34
"""Entries that a vector may claim to have."""
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)


@dataclass(frozen=True, eq=False)
class Ternary:
    """A vector of three values.

    Args:
        signs: -1, 0 or 1 ``[d]`` (int8).
        scale: what 1 stands for; a single-precision number.
    """

    signs: Tensor
    scale: float

    def __post_init__(self) -> None:
        scale = float(torch.tensor(self.scale, dtype=torch.float32))  # too large a number is infinite in it
        if self.signs.dim() != 1 or not len(self.signs) or not math.isfinite(scale):
            raise BadInput(
                "three values need a vector and a scale that is finite in single precision: "
                f"{tuple(self.signs.shape)}, {self.scale}"
            )
        if self.signs.dtype != torch.int8 or not bool(((self.signs >= -1) & (self.signs <= 1)).all()):
            raise BadInput(f"signs are -1, 0 and 1 (int8); these are others, or {self.signs.dtype}")
        object.__setattr__(self, "scale", scale)

    def __len__(self) -> int:
        return len(self.signs)

    def dense(self) -> Tensor:
        """The vector ``[d]``, single precision."""
        return self.scale * self.signs.float()

    @property
    def share(self) -> float:
        """Of entries that are not 0."""
        return float((self.signs != 0).float().mean())

    @property
    def entropy(self) -> float:
        """Bits an entry that no code can do without, were the entries drawn one by one."""
        k = self.share
        return -sum(p * math.log2(p / ways) for p, ways in ((1 - k, 1), (k, 2)) if p)

    @property
    def bits(self) -> int:
        """Of the code, its head among them."""
        return 8 * len(self.to_bytes())

    @property
    def ratio(self) -> float:
        """How many times smaller than sixteen bits an entry."""
        return 16 * len(self) / self.bits

    def to_bytes(self) -> bytes:
        """The code, with a checksum."""
        signs = self.signs.numpy()
        kept = np.flatnonzero(signs)
        b = golomb.remainder_bits(len(kept) / len(signs))
        code = np.concatenate([golomb.encode(kept, b), (signs[kept] > 0).astype(np.uint8)])
        body = np.packbits(code).tobytes()
        head = (_MAGIC, b, len(signs), len(kept), self.scale)
        return _HEAD.pack(*head, zlib.crc32(_HEAD.pack(*head, 0) + body)) + body

    @classmethod
    def from_bytes(cls, data: bytes, entries: int | None = None) -> Ternary:
        """What `to_bytes` wrote.

        Args:
            data: the code.
            entries: how many there must be, where that is known.

        Raises:
            BadInput: it is no such code, or damaged; it has another number of entries.
        """
        if len(data) < _HEAD.size or data[:4] != _MAGIC:
            raise BadInput("this is no code of a vector of three values")
        magic, b, d, count, scale, check = _HEAD.unpack_from(data)
        body = data[_HEAD.size :]
        if zlib.crc32(_HEAD.pack(magic, b, d, count, scale, 0) + body) != check:
            raise BadInput("the code of a vector of three values is cut off or damaged; take the file from its source")
        if (entries is not None and d != entries) or not count <= d <= MOST or b > golomb.MOST_BITS:
            raise BadInput(f"the code is of {d:,} entries, {count:,} of them not 0; it must be of {entries or MOST:,}")
        code = np.unpackbits(np.frombuffer(body, np.uint8))
        positions, at = golomb.decode(code, count, b)
        if len(code) < at + count or (count and positions[-1] >= d):
            raise BadInput("the code of a vector of three values does not fit its length")
        signs = np.zeros(d, np.int8)
        signs[positions] = 2 * code[at : at + count].astype(np.int8) - 1
        return cls(torch.from_numpy(signs), scale)

    def masks(self) -> Masks:
        """The same as two masks."""
        signs = self.signs.numpy()
        return Masks(np.packbits(signs > 0), np.packbits(signs < 0), len(signs), self.scale)

    def dot(self, other: Ternary) -> float:
        """The inner product of both, reckoned on masks."""
        return self.masks().dot(other.masks())


@dataclass(frozen=True, eq=False)
class Masks:
    """A `Ternary` as two masks: 2 d bits, any entry found at once.

    Args:
        positive, negative: eight entries a byte.
        entries: d.
        scale: as there.
    """

    positive: np.ndarray
    negative: np.ndarray
    entries: int
    scale: float

    def dot(self, other: Masks) -> float:
        """The inner product: of whole numbers, then times both scales."""
        if self.entries != other.entries:
            raise BadInput(f"vectors of {self.entries:,} and {other.entries:,} entries have no inner product")
        agree = _count(self.positive & other.positive) + _count(self.negative & other.negative)
        differ = _count(self.positive & other.negative) + _count(self.negative & other.positive)
        return self.scale * other.scale * (agree - differ)

    def distance(self, other: Masks) -> float:
        """Euclidean."""
        return math.sqrt(max(0.0, self.dot(self) + other.dot(other) - 2 * self.dot(other)))

    def dense(self) -> Tensor:
        """The vector ``[d]``."""
        signs = np.unpackbits(self.positive, count=self.entries).astype(np.int8)
        return self.scale * torch.from_numpy(signs - np.unpackbits(self.negative, count=self.entries)).float()


def total(vectors: Sequence[Masks]) -> Tensor:
    """The sum ``[d]`` of several, each dense for a moment only."""
    out = vectors[0].dense()
    for one in vectors[1:]:
        if one.entries != vectors[0].entries:
            raise BadInput(f"vectors of {one.entries:,} and {vectors[0].entries:,} entries have no sum")
        out += one.dense()
    return out


def _count(mask: np.ndarray) -> int:
    return int(_ONES[mask].sum())
