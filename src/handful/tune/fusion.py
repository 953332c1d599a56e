"""AdapterFusion: attention over adapters of several tasks, which stay as they are (Pfeiffer et al. 2021).

    y' = y + sum_k a_k V u_k,      a = softmax_k((Q y) . (K u_k)),      u_k what adapter k adds to y

Q, K, V [d, d] learn, 3 d^2 numbers a site; V = I at first. Without attention a_k is one over the number of adapters, V
is I and nothing learns: the average of what they add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.adapters import Activation, Adapter
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Delta, Placed
from handful.tune.lora import kaiming
from handful.tune.recipe import Data, Readout
from handful.tune.sites import Where
from handful.tune.zoo import same_kind


@register
@dataclass(frozen=True)
class Fusion(Change):
    """See `handful.tune.fusion`; its adapters are 0 until `Fused` fills them in.

    Args:
        count: how many adapters.
        width: of each, m.
        activation, scale: theirs.
        attends: whether there is attention.
    """

    key: ClassVar[str] = "fusion"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    count: int = 2
    width: int = 8
    activation: Activation = "relu"
    scale: float = 1.0
    attends: bool = True

    def __post_init__(self) -> None:
        if self.count < 1 or self.width < 1:
            raise BadInput(f"fusion takes one adapter or more, of one unit or more: {self}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        d, k, m = len(weight), self.count, self.width
        shapes = {"D": (k, m, d), "c": (k, m), "U": (k, d, m), "e": (k, d)}
        fixed = {name: weight.new_zeros(shape) for name, shape in shapes.items()}
        if not self.attends:
            return Begun({}, fixed)
        query, key = (kaiming(d, d, weight, generator) for _ in range(2))
        return Begun({"Q": query, "K": key, "V": torch.eye(d).to(weight)}, fixed)

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        act = Adapter(activation=self.activation).act
        narrow = act(torch.einsum("...d,kmd->...km", y, t["D"]) + t["c"])
        added = self.scale * (torch.einsum("...km,kdm->...kd", narrow, t["U"]) + t["e"])
        if not self.attends:
            return y + added.mean(-2)
        scores = torch.einsum("...d,...kd->...k", functional.linear(y, t["Q"]), functional.linear(added, t["K"]))
        return y + torch.einsum("...k,...kd->...d", scores.softmax(-1), functional.linear(added, t["V"]))


@dataclass(frozen=True)
class Fused:
    """Fills the slot ``start`` of a recipe with `changes`: `Fusion` gets the adapters of several tasks.

    Args:
        sources: adapters behind their modules (`Adapter`, ``"after"``), of one kind.
        attends: see `Fusion`.

    Raises:
        BadInput: there are none; they are of several kinds, or no such adapters.
    """

    sources: tuple[Delta, ...]
    attends: bool = True

    def __post_init__(self) -> None:
        same_kind(self.sources, least=1)
        for holder in self.sources[0].each():
            change = holder.change
            if not isinstance(change, Adapter) or change.at != "after" or not change.biases or change.learn_scale:
                raise BadInput(f"{holder.site} has no plain adapter behind it, which fusion is made of: {change}")

    def changes(self) -> tuple[Placed, ...]:
        """`Fusion` wherever the sources have an adapter."""
        out = []
        for placed, holder in zip(_one_by_one(self.sources[0]), self.sources[0].each(), strict=True):
            change, width = holder.change, len(holder.tensors["D"])
            assert isinstance(change, Adapter)
            fusion = Fusion(len(self.sources), width, change.activation, change.scale, self.attends)
            out.append(Placed(fusion, placed.where))
        return tuple(out)

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        for mine, *theirs in zip(delta.each(), *(source.each() for source in self.sources), strict=True):
            for name in ("D", "c", "U", "e"):
                mine.tensors[name].copy_(torch.stack([one.tensors[name].detach() for one in theirs]))


def _one_by_one(delta: Delta) -> list[Placed]:
    """Its changes, a site each, in the order of its holders."""
    return [Placed(h.change, Where((), h.parameter, sites=(h.site,))) for h in delta.each()]
