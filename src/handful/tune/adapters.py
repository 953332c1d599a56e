"""Adapters: a narrow network of two maps whose answer is added to what a module gives.

    after      y + s (U act(D y + c) + e)      bottleneck (Houlsby et al. 2019, Pfeiffer et al. 2021)
    beside     y + s (U act(D x + c) + e)      parallel adapter (He et al. 2022); AdaptFormer with a learned or fixed s

    begins     as the identity: D [m, .] uniform as Kaiming with a = sqrt 5, U [out, m] = 0, c = e = 0; or, as PERFECT
               (078) has it, all as `nn.Linear`; or, as LiST (123), D and U normal;  m = width / reduction

They change what a module gives, not its weight, so that they cannot be merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput, nearest
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.lora import kaiming

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu-tanh": partial(functional.gelu, approximate="tanh"),
    "identity": lambda x: x,
}
Activation = Literal["relu", "gelu", "gelu-tanh", "identity"]


def activated(x: Tensor, activation: str) -> Tensor:
    """What the activation of that name gives. Raises `BadInput` where there is none."""
    if activation not in _ACTIVATIONS:
        raise BadInput(f"there is no activation {activation!r}{nearest(activation, _ACTIVATIONS)}")
    return _ACTIVATIONS[activation](x)


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
        biases: whether both maps have one.
        begins: ``"identity"``, ``"linear"`` or ``"normal"``, see there.
        std: of the normal.
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
    biases: bool = True
    begins: Literal["identity", "linear", "normal"] = "identity"
    std: float = 2e-4

    def __post_init__(self) -> None:
        if self.at not in ("after", "beside") or self.begins not in ("identity", "linear", "normal"):
            raise BadInput(f"an adapter is 'after' or 'beside' and begins 'identity', 'linear' or 'normal': {self}")
        activated(torch.zeros(1), self.activation)
        if not 0 <= self.dropout < 1 or self.reduction <= 0 or (self.width is not None and self.width < 1):
            raise BadInput(f"dropout is a share below 1, reduction and width are positive: {self}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if weight.dim() > 2:
            raise BadInput(f"an adapter needs a linear map or a norm, not a weight of shape {tuple(weight.shape)}")
        out = len(weight)
        into = weight.shape[-1] if self.at == "beside" else out
        m = self.width or max(1, round(into / self.reduction))
        learnt = {}
        for name, bias, shape in (("D", "c", (m, into)), ("U", "e", (out, m))):
            if self.begins == "normal":
                learnt[name] = (self.std * torch.randn(shape, generator=generator)).to(weight)
            elif name == "U" and self.begins == "identity":
                learnt[name] = weight.new_zeros(shape)
            else:
                learnt[name] = kaiming(*shape, weight, generator)
            if self.biases:
                drawn = (torch.rand(shape[0], generator=generator) * 2 - 1) / math.sqrt(shape[1])
                learnt[bias] = drawn.to(weight) if self.begins == "linear" else weight.new_zeros(shape[0])
        return Begun({**learnt, "s": weight.new_tensor(self.scale)} if self.learn_scale else learnt)

    def act(self, x: Tensor) -> Tensor:
        """The activation."""
        return activated(x, self.activation)

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        narrow = self.act(functional.linear(y if self.at == "after" else x, t["D"], t.get("c")))
        narrow = functional.dropout(narrow, self.dropout, module.training)
        return y + t.get("s", self.scale) * functional.linear(narrow, t["U"], t.get("e"))
