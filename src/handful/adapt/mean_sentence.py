"""CLIP-Adapter on text: a bottleneck turns the mean of a class' sentences, the same way for every class.

What paper 033 (`vdt`) compares its attention with. With m_c the mean of the vectors of class c, as long as they are:

    a_c = ReLU(W2 ReLU(W1 m_c)),   W1 [D/4, D], W2 [D, D/4], no biases
    t_c = r a_c + (1 - r) m_c made unit;   r = 1 is ``linear``, below it is ``linear-residual``
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from handful.adapt.packed import pack, uniform, unpack
from handful.core.distances import unit


def mean_sentence(vectors: Tensor, there: Tensor) -> Tensor:
    """``m_c`` ``[*b, C, D]`` of sentences ``[*b, C, M, D]``, of which those of ``[*b, C, M]`` are there; else zero."""
    total = torch.where(there[..., None], vectors, 0.0).sum(-2)
    return total / there.sum(-1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class MeanAdapter:
    """The module for sentences of one width; all its weights are one vector ``[*b, P]``."""

    width: int
    reduction: int = 4

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Of W1 and W2."""
        low = max(1, self.width // self.reduction)
        return [(low, self.width), (self.width, low)]

    def start(self, seed: int) -> Tensor:
        """Weights ``[P]`` as `torch.nn.Linear` draws them, in double precision: uniform to 1 / sqrt(fan in)."""
        draw = torch.Generator().manual_seed(seed)
        return pack([uniform(size, 1 / math.sqrt(size[1]), draw) for size in self.sizes])

    def class_vectors(self, weights: Tensor, means: Tensor, ratio: float) -> Tensor:
        """``t_c`` ``[*b, C, D]`` of mean sentences ``[*b, C, D]``."""
        first, second = unpack(weights, self.sizes)
        adapted = ((means @ first.mT).relu() @ second.mT).relu()
        return unit(ratio * adapted + (1 - ratio) * means)
