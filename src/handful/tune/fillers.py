"""The plain fillers of a recipe's slots, which most methods share: readouts, objectives, samplers, the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.recipe import Closures, Data, Readout, Seen


class AsIs(Readout):
    """What the model gives are the logits."""

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return features


class Linear(Readout):
    """``W h + b``, which begins as ``nn.Linear`` does; in single precision at least, whatever the model's is."""

    independent: ClassVar[bool] = True

    weight: nn.Parameter
    bias: nn.Parameter

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            h = model(data.take(torch.arange(1)))
        bound = 1 / math.sqrt(h.shape[-1])
        drawn = (
            torch.rand(shape, generator=generator) for shape in ((len(data.classes), h.shape[-1]), (len(data.classes),))
        )
        wide = torch.promote_types(h.dtype, torch.float32)
        self.weight, self.bias = (nn.Parameter(((one * 2 - 1) * bound).to(h.device, wide)) for one in drawn)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return functional.linear(features.to(self.weight.dtype), self.weight, self.bias)


class Prototypes(Readout):
    """Scaled cosine to a vector a class, which begins as the mean of the class before any change.

    Args:
        scale: what multiplies the cosine.
    """

    weight: nn.Parameter

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = scale

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            features = functional.normalize(model(data.take(torch.arange(len(data)))), dim=-1)
            self.weight = nn.Parameter(functional.normalize(data.weighted.mT.to(features) @ features, dim=-1))

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return self.scale * functional.normalize(features, dim=-1) @ functional.normalize(self.weight, dim=-1).mT


@dataclass(frozen=True)
class CrossEntropy:
    """``-sum_c t_c log softmax(z)_c``, the mean over items by weight.

    Args:
        smoothing: share of each target that is spread over all classes.
    """

    smoothing: float = 0.0
    name = "cross-entropy"
    separable = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing <= 1:
            raise BadInput(f"smoothing is a share of each target, from 0 to 1, not {self.smoothing}")

    def __call__(self, seen: Seen) -> Tensor:
        if seen.logits.shape != seen.targets.shape:
            raise BadInput(
                f"{len(seen.targets)} items of {seen.targets.shape[1]} classes, but logits of shape "
                f"{tuple(seen.logits.shape)}: give the recipe a readout, or the model as many outputs"
            )
        targets = (1 - self.smoothing) * seen.targets + self.smoothing / seen.targets.shape[1]
        each = -(targets * seen.logits.log_softmax(-1)).sum(-1)
        return seen.mean(each)

    def each_label(self) -> EachLabel:
        """See `handful.tune.label_sets`."""
        return EachLabel(self.smoothing)


@dataclass(frozen=True)
class EachLabel:
    """Binary cross-entropy of every label, for items with several: the mean over labels, and over items by weight.

    Args:
        smoothing: share of each target that is spread over yes and no.
    """

    smoothing: float = 0.0
    name = "each-label"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        targets = (1 - self.smoothing) * seen.targets + self.smoothing / 2
        each = functional.binary_cross_entropy_with_logits(seen.logits, targets, reduction="none").mean(1)
        return seen.mean(each)

    def each_label(self) -> EachLabel:
        """Itself."""
        return self


@dataclass(frozen=True)
class Shuffled:
    """Pass after pass over all rows in a new order; the last batch of a pass may be smaller.

    Args:
        whole: leave such a batch out, unless it is the only one.
    """

    whole: bool = False

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return round(epochs * math.ceil(self._seen(data, batch) / batch))

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(data), generator=generator)[: self._seen(data, batch)]
            yield from (order[at : at + batch] for at in range(0, len(order), batch))

    def _seen(self, data: Data, batch: int) -> int:
        n = len(data)
        return n - n % batch if self.whole and n > batch else n


@dataclass(frozen=True)
class Plain:
    """The gradient of the whole loss."""

    def __call__(
        self, closures: Closures, parameters: Sequence[Tensor], update: Callable[[Sequence[Tensor]], None]
    ) -> Tensor:
        loss = closures["loss"]()
        update(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
        return loss.detach()
