"""Adapters: a narrow network of two maps whose answer is added to what a module gives.

    after      y + s (U act(D y + c) + e)      bottleneck (Houlsby et al. 2019, Pfeiffer et al. 2021)
    beside     y + s (U act(D x + c) + e)      parallel adapter (He et al. 2022); AdaptFormer with a learned or fixed s

    D [m, .] uniform as Kaiming with a = sqrt 5,  U [out, m] = 0,  c = e = 0;  m = width / reduction

They change what a module gives, not its weight, so that they cannot be merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.lora import kaiming

Activation = Literal["relu", "gelu", "identity"]


@register
@dataclass(frozen=True)
class Adapter(Change):
    """See `handful.tune.adapters`. Place it at the map (``o``, ``down``) or norm whose output it is to change.

    Args:
        at: ``"after"`` reads what the module gives, ``"beside"`` what goes into it.
        reduction: how many times narrower than what it reads it is; or
        width: m itself.
        activation: between the two maps.
        scale: s.
        learn_scale: whether s learns.
        dropout: of the narrow layer, in training.
    """

    key: ClassVar[str] = "adapter"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    at: Literal["after", "beside"] = "after"
    reduction: float = 16.0
    width: int | None = None
    activation: Activation = "relu"
    scale: float = 1.0
    learn_scale: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.at not in ("after", "beside") or self.activation not in ("relu", "gelu", "identity"):
            raise BadInput(f"an adapter is 'after' or 'beside', its activation relu, gelu or identity: {self}")
        if not 0 <= self.dropout < 1 or self.reduction <= 0 or (self.width is not None and self.width < 1):
            raise BadInput(f"dropout is a share below 1, reduction and width are positive: {self}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if weight.dim() > 2:
            raise BadInput(f"an adapter needs a linear map or a norm, not a weight of shape {tuple(weight.shape)}")
        out = len(weight)
        into = weight.shape[-1] if self.at == "beside" else out
        m = self.width or max(1, round(into / self.reduction))
        learnt = {
            "D": kaiming(m, into, weight, generator),
            "c": weight.new_zeros(m),
            "U": weight.new_zeros(out, m),
            "e": weight.new_zeros(out),
        }
        return Begun({**learnt, "s": weight.new_tensor(self.scale)} if self.learn_scale else learnt)

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        narrow = functional.linear(y if self.at == "after" else x, t["D"], t["c"])
        if self.activation != "identity":
            narrow = functional.relu(narrow) if self.activation == "relu" else functional.gelu(narrow)
        narrow = functional.dropout(narrow, self.dropout, module.training)
        return y + t.get("s", self.scale) * functional.linear(narrow, t["U"], t["e"])
