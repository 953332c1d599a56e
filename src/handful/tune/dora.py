"""DoRA: LoRA turns the rows of a weight, and a learned vector gives them their length (Liu et al., DoRA:
Weight-Decomposed Low-Rank Adaptation, 2024).

    f(W) = m * V / |V|     V = W + s B A,   |V| [out] the length of each row,   m = |W| at first

As in the paper's section 4.3, |V| is a number to the gradient, not a function of A and B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Tensors, register
from handful.tune.lora import LoRA
from handful.tune.sites import map_of


@register
@dataclass(frozen=True)
class DoRA(LoRA):
    """See `handful.tune.dora`; settings as those of `LoRA`."""

    key: ClassVar[str] = "dora"
    reads: ClassVar[bool] = True

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        length = torch.linalg.norm(weight, dim=1) if weight.dim() == 2 else weight
        if not bool((length > 0).all()):
            raise BadInput("a row of the weight is zero, so that it has no direction to be turned")
        return Begun({**super().begin(weight, generator).trained, "m": length})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return self._share(w, t)[:, None] * super().weight(w, t)

    def _share(self, w: Tensor, t: Tensors) -> Tensor:
        """``m / |V|``, ``[out]``."""
        share: Tensor = t["m"] / torch.linalg.norm(super().weight(w, t).detach(), dim=1)
        return share

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        w, b = map_of(module)
        share = self._share(w, t)
        dropping = self.dropout > 0 and module.training
        x = functional.dropout(x, self.dropout, dropping)
        # Without dropout the map need not be worked out a second time: it is what came out, less the bias.
        through = functional.linear(x, w) if dropping else y if b is None else y - b
        return y + (share - 1) * through + share * self.scale * functional.linear(functional.linear(x, t["A"]), t["B"])
