"""Which examples a step sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handful.tune.fillers import Shuffled
from handful.tune.recipe import Data, Sampler


@dataclass(frozen=True)
class ByClass:
    """Batches that hold at least two examples of each class they hold, as far as there are two: what contrast needs.

    All examples, where they fit into a batch. Else classes are drawn in turn, rare ones as often as frequent ones, and
    each gives ``per_class`` of its examples, in turn as well.

    Args:
        per_class: examples of a class in a batch.
    """

    per_class: int = 4

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return round(epochs * math.ceil(len(data) / batch))

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        every = torch.arange(len(data))
        if len(data) <= batch:
            while True:
                yield every
        of = [every[data.labels == c] for c in sorted(set(data.labels.tolist()))]
        rows = [(_endless(some, generator), min(self.per_class, len(some))) for some in of]
        classes = _endless(torch.arange(len(rows)), generator)
        while True:
            some = dict.fromkeys(next(classes) for _ in range(max(2, batch // self.per_class)))
            yield torch.tensor([next(rows[c][0]) for c in some for _ in range(rows[c][1])])


@dataclass(frozen=True)
class Twice:
    """Each example of a batch two times, side by side: dropout makes two views of it.

    Args:
        of: what draws the examples; ``batch`` is their number, half the rows of a step.
    """

    of: Sampler = field(default_factory=Shuffled)

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return self.of.steps(data, epochs, batch)

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        for rows in self.of.draws(data, batch, generator):
            yield rows.repeat_interleave(2)


def _endless(rows: Tensor, generator: torch.Generator) -> Iterator[int]:
    """Pass after pass, in a new order each."""
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)].tolist()
