"""EfficientNet-Lite0: the network, in the names of its published weights.

EfficientNet (Tan and Le, 2019) without squeeze-and-excitation, with ReLU6 instead of swish, and with a stem and head
that do not scale. Convolutions pad as TensorFlow's "SAME" does, which for stride 2 is one pixel more below and on the
right than above and on the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
"""(repeats, kernel, stride of the first, expansion, channels out) of each stage."""


MIDDLE = 10
"""The last block of the fifth stage."""


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding."""

    def forward(self, x: Tensor) -> Tensor:
        padded = _pad_same(x, self.kernel_size[0], self.stride[0])
        return functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    if kernel == 1:
        return x
    tall, wide = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return functional.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow; plus the input when the shape allows."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.widens, self.skips = expansion > 1, stride == 1 and inside == outside
        if self.widens:
            self._expand_conv = SameConv(inside, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv(wide, outside, 1, bias=False)
        self._bn2 = _norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self.widens:
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """Pixels [n, 3, h, w] in, class logits [n, 1000] out."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList()
        channels = 32
        for repeats, kernel, stride, expansion, outside in BLOCKS:
            for repeat in range(repeats):
                self._blocks.append(Block(channels, outside, kernel, 1 if repeat else stride, expansion))
                channels = outside
        self._conv_head = SameConv(channels, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def maps(self, x: Tensor) -> Tensor:
        """Features before pooling [n, 1280, h/32, w/32]."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._fc(self.maps(x).mean((2, 3)))
        return logits


class Lite0Tower(EfficientNetLite0):
    """The network as a module that can be tuned: pixels ``[n, 3, h, w]`` to features ``[n, 1280]`` with a gradient.

    Batch statistics are those it was published with, in training too: a handful of images has none worth taking.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.maps(x).mean((2, 3))

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the batch normalisations."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class FoldedLite0:
    """The same network for inference: each batch normalisation worked into the convolution before it, channels last.

    Args:
        model: the network; it stays as it is.
        dtype: what the convolutions are worked out in.
    """

    def __init__(self, model: EfficientNetLite0, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._stem = _folded(model._conv_stem, model._bn0, dtype, clip=True)
        self._blocks = [_folded_block(block, dtype) for block in model._blocks if isinstance(block, Block)]
        self._head = _folded(model._conv_head, model._bn1, dtype, clip=True)

    @torch.inference_mode()
    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features before pooling [n, 1280, h/32, w/32] and of the fifth stage [n, 112, h/16, w/16], in ``dtype``."""
        x = self._stem(x.to(self._dtype, memory_format=torch.channels_last))
        middle = x
        for number, (convolutions, skips) in enumerate(self._blocks):
            y = x
            for convolution in convolutions:
                y = convolution(y)
            x = y.add_(x) if skips else y
            if number == MIDDLE:
                middle = x
        return self._head(x), middle


@dataclass(frozen=True)
class FoldedConv:
    """Convolution, its normalisation folded in, and ReLU6 where ``clip``."""

    weight: Tensor
    bias: Tensor
    stride: int
    groups: int
    clip: bool

    def __call__(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        pad = 0
        if self.stride == 1:
            pad = kernel // 2  # "SAME" is symmetric then, and the convolution pads by itself
        else:
            x = _pad_same(x, kernel, self.stride)
        y = functional.conv2d(x, self.weight, self.bias, self.stride, pad, groups=self.groups)
        return _relu6_(y) if self.clip else y


def _folded_block(block: Block, dtype: torch.dtype) -> tuple[list[FoldedConv], bool]:
    widen = [_folded(block._expand_conv, block._bn0, dtype, clip=True)] if block.widens else []
    depthwise = _folded(block._depthwise_conv, block._bn1, dtype, clip=True)
    return [*widen, depthwise, _folded(block._project_conv, block._bn2, dtype, clip=False)], block.skips


def _folded(conv: SameConv, norm: nn.BatchNorm2d, dtype: torch.dtype, clip: bool) -> FoldedConv:
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight * scale[:, None, None, None]
        if dtype == torch.bfloat16 and conv.groups > 1:
            weight = _rounded_keeping_sums(weight)
        weight = weight.to(dtype, memory_format=torch.channels_last)
        bias = (norm.bias - norm.running_mean * scale).to(dtype)
    return FoldedConv(weight, bias, conv.stride[0], conv.groups, clip)


def _rounded_keeping_sums(weight: Tensor) -> Tensor:
    """Weights [o, i, k, k] rounded to bfloat16, the error of each tap handed on to the next smaller one of its filter.

    What a depthwise filter sees is nearly constant, so its response hangs on the sum of its taps: rounding each for
    itself costs a hundred times the cosine that this does.
    """
    taps = weight.flatten(1)
    rounded, error = torch.empty_like(taps), torch.zeros(len(taps))
    for tap in taps.abs().argsort(dim=1, descending=True).unbind(1):
        wanted = taps.gather(1, tap[:, None])[:, 0] + error
        kept = wanted.to(torch.bfloat16).float()
        rounded.scatter_(1, tap[:, None], kept[:, None])
        error = wanted - kept
    return rounded.view_as(weight)


def _relu6_(x: Tensor) -> Tensor:
    """ReLU6 in place."""
    if x.dtype == torch.bfloat16:
        # Bits of bfloat16 numbers from 0 up, read as integers, are in the numbers' own order, and those of negative
        # ones are negative; PyTorch clamps integers ten times as fast.
        x.view(torch.int16).clamp_(0, _SIX)
        return x
    return x.clamp_(0, 6)


_SIX = 0x40C0
"""The bits of 6.0 in bfloat16."""
