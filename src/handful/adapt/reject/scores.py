"""Unknownness read off the logits of the head; nothing is learnt.

    energy       E(x) = -log sum_c exp z_c
                 Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection", 2020
    probability  1 - max_c softmax(z)_c
                 Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
                 Neural Networks", 2017

The energy wants logits whose level means something: a head whose logits are known but for a number an item, such as a
linear discriminant, gives it less to go by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from handful.adapt.reject.base import Rejecter
from handful.core.task import State, Task


@dataclass(frozen=True, kw_only=True)
class Energy(Rejecter):
    """How low the logits of an item are, all together."""

    kind: ClassVar[str] = "energy"
    learns: ClassVar[bool] = False

    def adapt(self, task: Task) -> State:
        """Nothing to learn."""
        return {}

    def unknownness(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        """``-log sum_c exp z_c``."""
        return -logits.logsumexp(-1)


@dataclass(frozen=True, kw_only=True)
class Probability(Rejecter):
    """How far the most probable class is from certain."""

    kind: ClassVar[str] = "probability"
    learns: ClassVar[bool] = False

    def adapt(self, task: Task) -> State:
        """Nothing to learn."""
        return {}

    def unknownness(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        """``1 - max softmax``, as the log of the odds against: near 1 a probability has no digits left."""
        top = logits.argmax(-1, keepdim=True)
        others = logits.scatter(-1, top, -float("inf"))
        return others.logsumexp(-1) - logits.gather(-1, top)[..., 0]
