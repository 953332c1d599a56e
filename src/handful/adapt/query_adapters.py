"""Small maps of a query, as Proto-CLIP (paper 060) learns them beside its prototypes: from ``[*b, n, D]`` to the same.

    fc       0.2 LN(W2 LN(W1 x)) + 0.8 x, a bottleneck of D / 4
    conv-2x  x, laid out as a square image of one channel, + LN(conv1x1(LN(conv1x1(x)))) by 16 channels
    conv-3x  the same with LN(conv3x3(·)) in between

All weights of a map are one vector, so that a model keeps one tensor whatever the kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, layer_norm, pad

from handful.adapt.packed import pack, uniform, unpack

Kind = Literal["fc", "conv-2x", "conv-3x"]
KINDS = ("fc", "conv-2x", "conv-3x")
CHANNELS = 16
RATIO = 0.2


@dataclass(frozen=True)
class QueryAdapter:
    """One kind of map for features of one width."""

    kind: Kind
    width: int

    @property
    def side(self) -> int:
        """Of the square image that a feature is laid out as, zeros at its end."""
        return math.ceil(math.sqrt(self.width))

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Shape of each weight: matrices and kernels, each followed by scale and shift of its norm."""
        if self.kind == "fc":
            low = max(1, self.width // 4)
            return [(low, self.width), (low,), (low,), (self.width, low), (self.width,), (self.width,)]
        image, last = (CHANNELS, self.side, self.side), (self.side, self.side)
        between = [(CHANNELS, CHANNELS, 3, 3), image, image] if self.kind == "conv-3x" else []
        return [(CHANNELS,), image, image, *between, (CHANNELS,), last, last]

    def start(self, seed: int) -> Tensor:
        """Weights ``[P]`` as `torch.nn` draws them, in double precision: uniform to 1 / sqrt(fan in), plain norms."""
        draw = torch.Generator().manual_seed(seed)
        parts = []
        for i, size in enumerate(self.sizes):
            if i % 3:  # scale and shift of a norm
                parts.append(torch.full(size, float(i % 3 == 1), dtype=torch.float64))
            else:
                parts.append(uniform(size, 1 / math.sqrt(self._fan_in(i, size)), draw))
        return pack(parts)

    def _fan_in(self, i: int, size: tuple[int, ...]) -> int:
        """How many numbers each output of the i-th weight sums."""
        if self.kind == "fc":
            return size[1]
        return 1 if i == 0 else 9 * CHANNELS if len(size) == 4 else CHANNELS

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        """The map with ``weights [*b, P]`` of rows ``x [*b, n, D]``."""
        parts = unpack(weights, self.sizes)
        return self._bottleneck(parts, x) if self.kind == "fc" else self._convolutions(parts, x)

    def _bottleneck(self, parts: list[Tensor], x: Tensor) -> Tensor:
        first, scale1, shift1, second, scale2, shift2 = parts
        low = _normed(x @ first.mT, scale1, shift1, 1)
        return RATIO * _normed(low @ second.mT, scale2, shift2, 1) + (1 - RATIO) * x

    def _convolutions(self, parts: list[Tensor], x: Tensor) -> Tensor:
        first, scale1, shift1, *between, last, scale3, shift3 = parts
        side = self.side
        image = pad(x, (0, side * side - self.width)).reshape(*x.shape[:-1], 1, side, side)
        out = _normed(first[..., None, :, None, None] * image, scale1, shift1, 3)
        if between:
            kernel, scale2, shift2 = between
            out = _normed(_conv3x3(out, kernel), scale2, shift2, 3)
        out = _normed((last[..., None, :, None, None] * out).sum(-3), scale3, shift3, 2) + image[..., 0, :, :]
        return out.flatten(-2)[..., : self.width]


def _normed(x: Tensor, scale: Tensor, shift: Tensor, axes: int) -> Tensor:
    """Layer normalisation of the last ``axes`` of ``x [*b, n, …]``, each task with its own scale and shift."""
    row = -axes - 1
    return layer_norm(x, x.shape[-axes:]) * scale.unsqueeze(row) + shift.unsqueeze(row)


def _conv3x3(x: Tensor, kernel: Tensor) -> Tensor:
    """``x [*b, n, k, s, s]`` by each task's ``kernel [*b, k, k, 3, 3]``, the size kept."""
    channels, n, side = kernel.shape[-4], x.shape[-4], x.shape[-1]
    tasks = x.reshape(-1, n, channels, side, side)
    together = tasks.transpose(0, 1).reshape(n, -1, side, side)  # the tasks as groups of channels
    out = conv2d(together, kernel.reshape(-1, channels, 3, 3), padding=1, groups=len(tasks))
    return out.reshape(n, len(tasks), channels, side, side).transpose(0, 1).reshape(x.shape)
