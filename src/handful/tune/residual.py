"""Residual adapters of convolutions: a map of channels beside each, which merges into it.

    y + a * x = conv(x, W') with W' = W + a at the tap in the middle of the kernel;  a [out, in] = 0 at first

TSA: Li, Liu, Bilen, "Cross-domain Few-shot Learning with Task-specific Adapters", 2022, in the form of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register


@register
@dataclass(frozen=True)
class Residual(Change):
    """See `handful.tune.residual`.

    Args:
        taps: of the kernel, an odd number: 9 for 3 x 3, 1 for a linear map; its padding must keep the middle in place.
    """

    key: ClassVar[str] = "residual"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    taps: int = 1

    def __post_init__(self) -> None:
        if self.taps < 1 or self.taps % 2 == 0:
            raise BadInput(f"a kernel with a tap in the middle has an odd number of them, not {self.taps}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if weight.dim() != 2 or weight.shape[1] % self.taps:
            raise BadInput(f"a weight of shape {tuple(weight.shape)} is no convolution of {self.taps} taps")
        return Begun({"a": weight.new_zeros(len(weight), weight.shape[1] // self.taps)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        middle = torch.zeros(self.taps, dtype=w.dtype, device=w.device)
        middle[self.taps // 2] = 1
        return w + (t["a"][:, :, None] * middle).flatten(1)
