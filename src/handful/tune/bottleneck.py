"""A narrow pair of maps behind a map, as PERFECT (078) and LiST (123) have it: it does not begin as the identity.

y + U act(D y + c) + e

PERFECT    act = gelu (tanh form), width d / 16, biases, all begun as `nn.Linear` begins
LiST       act = identity, width 128, no biases, both normal with a deviation of 0.0002
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.lora import kaiming


@register
@dataclass(frozen=True)
class Bottleneck(Change):
    """See `handful.tune.bottleneck`. Place it at the map whose output it changes: ``down``, ``o``.

    Args:
        width: of the narrow layer; or
        reduction: how many times narrower than the output it is.
        activation: ``"gelu"`` (tanh form), ``"relu"`` or ``"identity"``.
        bias: whether both maps have one.
        spread: standard deviation of the first numbers; ``None`` begins as ``nn.Linear``.
    """

    key: ClassVar[str] = "bottleneck"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    width: int | None = None
    reduction: int = 16
    activation: Literal["gelu", "relu", "identity"] = "gelu"
    bias: bool = True
    spread: float | None = None

    def __post_init__(self) -> None:
        if self.activation not in ("gelu", "relu", "identity"):
            raise BadInput(f"activation is gelu, relu or identity, not {self.activation!r}")
        if self.reduction < 1 or (self.width is not None and self.width < 1):
            raise BadInput(f"reduction and width are at least 1: {self}")
        if self.spread is not None and not self.spread >= 0:
            raise BadInput(f"spread must not be negative, and is {self.spread}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if weight.dim() != 2:
            raise BadInput(f"a bottleneck needs a linear map, not a weight of shape {tuple(weight.shape)}")
        out = len(weight)
        m = self.width or max(1, out // self.reduction)
        if self.spread is None:
            begun = {"D": kaiming(m, out, weight, generator), "U": kaiming(out, m, weight, generator)}
        else:
            shapes = {"D": (m, out), "U": (out, m)}
            begun = {
                name: (self.spread * torch.randn(shape, generator=generator)).to(weight)
                for name, shape in shapes.items()
            }
        if self.bias:
            for name, size, into in (("c", m, out), ("e", out, m)):
                drawn = (torch.rand(size, generator=generator) * 2 - 1) / math.sqrt(into)
                begun[name] = drawn.to(weight) if self.spread is None else weight.new_zeros(size)
        return Begun(begun)

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        narrow = functional.linear(y, t["D"], t.get("c"))
        if self.activation == "relu":
            narrow = functional.relu(narrow)
        elif self.activation == "gelu":
            narrow = functional.gelu(narrow, approximate="tanh")
        return y + functional.linear(narrow, t["U"], t.get("e"))
