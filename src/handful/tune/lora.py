"""LoRA: a low-rank matrix beside each weight (Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021).

    f(W) = W + s B A        A [r, in] uniform as Kaiming with a = sqrt 5,  B [out, r] = 0
    s    = alpha / r        rsLoRA (Kalajdzievski 2023):  alpha / sqrt r

In the branch, dropout acts on what goes into A; a weight has no such form, so that mode refuses it in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, checked_rank, register


@register
@dataclass(frozen=True)
class LoRA(Change):
    """See `handful.tune.lora`.

    Args:
        rank: r.
        alpha: of the scale.
        dropout: share of what goes into A that is left out in training.
        rs: divide by the root of the rank instead of the rank.
    """

    key: ClassVar[str] = "lora"
    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rs: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise BadInput(f"dropout is a share below 1, not {self.dropout}")
        if self.rank < 1:
            raise BadInput(f"rank is {self.rank}; it must be at least 1")
        if not math.isfinite(self.alpha):
            raise BadInput(f"alpha is {self.alpha}, which is no finite number")

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / (math.sqrt(self.rank) if self.rs else self.rank)

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        checked_rank(self.rank, weight)
        out, into = weight.shape
        return Begun({"A": kaiming(self.rank, into, weight, generator), "B": weight.new_zeros(out, self.rank)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return w + self.scale * (t["B"] @ t["A"])

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        x = functional.dropout(x, self.dropout, module.training)
        return torch.add(y, functional.linear(functional.linear(x, t["A"]), t["B"]), alpha=self.scale)

    def check(self, mode: Mode, training: bool) -> None:
        super().check(mode, training)
        if mode == "weight" and training and self.dropout:
            raise BadInput("dropout on the branch has no weight form; train with mode='branch' or dropout=0")


def kaiming(rank: int, into: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """``[rank, into]`` as ``nn.Linear`` begins: uniform within 1 / sqrt(in)."""
    drawn = torch.rand(rank, into, generator=generator, dtype=torch.float32) * 2 - 1
    return (drawn / math.sqrt(into)).to(like)
