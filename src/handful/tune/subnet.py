"""Weights under a soft mask, and the minor ones among them: the changes of SoftNet (`handful.tune.softnet`, paper 057).

SoftSubnet   f(W) = m * W',  m = 1 where |s| is among the largest, else a number from 0 to 1;  s and W' learn
Minor        f(V) = m W'  at some entries, V elsewhere;  W' learns, m stays
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Delta, Holder
from handful.tune.recipe import Data, Readout


@register
@dataclass(frozen=True)
class SoftSubnet(Change):
    """A weight of its own under a mask; see `handful.tune.subnet`.

    Args:
        capacity: c, the share that is major, above 0 and up to 1.
        soft: minor weights count by a number between 0 and 1; without it, not at all.
    """

    key: ClassVar[str] = "soft-subnet"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    capacity: float = 0.9
    soft: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.capacity, Real) or not 0 < self.capacity <= 1:
            raise BadInput(f"capacity is a share above 0, at most 1, not {self.capacity!r}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if weight.dim() != 2:
            raise BadInput(f"a mask needs a weight of a map, not one of shape {tuple(weight.shape)}")
        drawn = torch.rand(2, *weight.shape, generator=generator).to(weight)
        bound = 1 / math.sqrt(weight.shape[1])  # Kaiming's uniform with a = sqrt(5)
        minor = drawn[1] if self.soft else torch.zeros_like(weight)
        return Begun({"W": weight, "scores": (2 * drawn[0] - 1) * bound}, {"minor": minor})

    def major(self, scores: Tensor) -> Tensor:
        """Where the weights are major: ``|s|`` is not below its ``1 + round((1 - c)(n - 1))``-th smallest."""
        size = scores.detach().abs()
        return size >= size.flatten().kthvalue(1 + round((1 - self.capacity) * (size.numel() - 1))).values

    def mask(self, t: Tensors) -> Tensor:
        """m, as it stays."""
        return torch.where(self.major(t["scores"]), 1.0, t["minor"])

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return self.mask(t) * t["W"]

    def weight_in_training(self, w: Tensor, t: Tensors) -> Tensor:
        scores = t["scores"]
        minor = torch.rand_like(scores) if self.soft else torch.zeros_like(scores)
        drawn = torch.where(self.major(scores), 1.0, minor)
        return (drawn + (scores - scores.detach())) * t["W"]  # so that what reaches m reaches s


@register
@dataclass(frozen=True)
class Minor(Change):
    """Some entries of a weight, each under a factor that stays: ``f(V) = m W`` there, V elsewhere.

    Args:
        entries: how many. Without a choice they are random ones, and their factors 1.
    """

    key: ClassVar[str] = "minor"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})
    entries: int = 1

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        if not 1 <= self.entries <= weight.numel():
            raise BadInput(f"{self.entries} entries cannot learn in a weight of {weight.numel()}")
        at = torch.randperm(weight.numel(), generator=generator)[: self.entries].to(weight.device)
        own = weight.flatten()[at]
        return Begun({"W": own}, {"at": at, "m": torch.ones_like(own)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        if not bool(((t["at"] >= 0) & (t["at"] < w.numel())).all()):
            raise BadInput(f"minor entries lie outside of a weight of {w.numel()}")
        return w.flatten().index_copy(0, t["at"], t["m"] * t["W"]).reshape(w.shape)


@dataclass(frozen=True)
class FromBase:
    """Puts `Minor` at the minor entries of each site: fills the slot `start`.

    Args:
        entries: by site ``at``, ``m`` and ``W``.
    """

    entries: Mapping[str, Mapping[str, Tensor]]

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        with torch.no_grad():
            for holder in delta.each():
                for name, tensor in holder.tensors.items():
                    tensor.copy_(self.entries[holder.site][name])


def minor_of(holder: Holder) -> dict[str, Tensor]:
    """Where the minor entries of a masked weight are, their factors and the weights under them."""
    change, t = holder.change, holder.tensors
    assert isinstance(change, SoftSubnet)
    at = (~change.major(t["scores"])).flatten().nonzero()[:, 0]
    return {"at": at, "m": t["minor"].flatten()[at], "W": t["W"].detach().flatten()[at]}
