"""Full fine-tuning of what is chosen: the parameter itself learns. BitFit is this on biases, norm tuning on norms.

    f(W) = P        P = W at first

`Statistics` does the same for what a batch normalisation keeps of its batches: not learnt, but counted anew.

BitFit: Ben Zaken et al., BitFit: Simple Parameter-efficient Fine-tuning, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.tune.change import Begun, Change, Mode, Tensors, register


@register
@dataclass(frozen=True)
class Own(Change):
    """See `handful.tune.own`."""

    key: ClassVar[str] = "own"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        return Begun({"P": weight})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return t["P"]


@register
@dataclass(frozen=True)
class Statistics(Change):
    """Running statistics of the task beside those of the base; place it at ``running_mean`` and ``running_var``.

    Without it a batch normalisation keeps the statistics of the base while others learn.
    """

    key: ClassVar[str] = "statistics"
    modes: ClassVar[frozenset[Mode]] = frozenset({"weight"})

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        return Begun({}, {"P": weight})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return t["P"]  # the very tensor, which the module counts into
