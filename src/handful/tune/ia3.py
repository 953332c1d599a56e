"""(IA)^3: learned vectors that scale what a map gives, or what goes into it (T-Few, Liu et al., Few-Shot Parameter-
Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, 2022), and "LoRA scaling", its low-rank relative.

    out       f(W) = diag(l) W,  f(b) = l * b      l [out] = 1:   keys, values, the linear half of a gated feed-forward
    in        f(W) = W diag(l)                     l [in]  = 1:   the second map of a feed-forward
    scaling   f(W) = W * (b a^T) / k               a [k, in], b [out, k] = 1;  f(b) = b_1 * b where k = 1

Before a non-linearity the two forms differ, so that a feed-forward without gate has the form ``in`` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, checked_rank, register
from handful.tune.delta import Placed
from handful.tune.sites import Where, map_of, sites


@register
@dataclass(frozen=True)
class IA3(Change):
    """See `handful.tune.ia3`.

    Args:
        side: ``"out"`` scales what the map gives, ``"in"`` what goes into it.
    """

    key: ClassVar[str] = "ia3"
    biased: ClassVar[bool] = True
    reads: ClassVar[bool] = True  # the form ``in`` needs W
    side: Literal["out", "in"] = "out"

    def __post_init__(self) -> None:
        if self.side not in ("out", "in"):
            raise BadInput(f"side is 'out' or 'in', not {self.side!r}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        checked_rank(1, weight)
        return Begun({"l": weight.new_ones(weight.shape[0 if self.side == "out" else 1])})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return t["l"][:, None] * w if self.side == "out" else w * t["l"]

    def bias(self, b: Tensor, t: Tensors) -> Tensor:
        return t["l"] * b if self.side == "out" else b

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        if self.side == "out":
            return t["l"] * y
        return y + functional.linear(x * (t["l"] - 1), map_of(module)[0])


@register
@dataclass(frozen=True)
class Scaling(Change):
    """T-Few's "LoRA scaling", see `handful.tune.ia3`.

    Args:
        rank: k.
    """

    key: ClassVar[str] = "scaling"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    biased: ClassVar[bool] = True
    rank: int = 1

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        checked_rank(self.rank, weight)
        out, into = weight.shape
        return Begun({"a": weight.new_ones(self.rank, into), "b": weight.new_ones(out, self.rank)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return w * (t["b"] @ t["a"]) / self.rank

    def bias(self, b: Tensor, t: Tensors) -> Tensor:
        return t["b"][:, 0] * b if self.rank == 1 else b


def ia3(model: nn.Module) -> tuple[Placed, ...]:
    """(IA)^3 where T-Few has it: on keys, values and the feed-forward of every block.

    A gated feed-forward is scaled at its linear half, another at what goes into its second map.

    Raises:
        BadInput: the model has no keys, values or feed-forward that are known.
    """
    gated = any(site.role == "gate" for site in sites(model))
    inner = Placed(IA3(), Where(("up",))) if gated else Placed(IA3("in"), Where(("down",)))
    placed = (Placed(IA3(), Where(("k", "v"))), inner)
    for one in placed:
        one.where.find(model)
    return placed
