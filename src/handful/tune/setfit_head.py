"""SetFit's other heads (167, Efficient Few-Shot Learning Without Prompts, 2022).

head      z = (W f + b) / (T + 1e-5); cross-entropy, or a binary one for each label
          16 passes, 2 a step, AdamW 1e-2, halved every five passes; the encoder frozen, or 1e-5
taught    a student's pairs of unlabelled texts have the teacher's cosines for targets; its head learns the
          teacher's labels
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.fillers import CrossEntropy, EachLabel, Linear, Shuffled
from handful.tune.recipe import Data, Part, Recipe, Seen, Shipped, Stage
from handful.tune.setfit import SetFit, checked_pairs, every_pair, in_batches, in_turn


class GradientHead(Linear):
    """``(W f + b) / (T + 1e-5)``: a linear head learnt by gradient, which the model then answers by.

    Args:
        temperature: T.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise BadInput(f"the temperature of a head must be above 0, not {temperature}")
        self.divisor = temperature + 1e-5

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Xavier's uniform weights, biases of 0.01."""
        super().begin(model, data, generator)
        nn.init.xavier_uniform_(self.weight, generator=generator)
        nn.init.constant_(self.bias, 0.01)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return super().forward(features, model) / self.divisor

    def ships(self, model: nn.Module) -> Shipped:
        return Shipped(self.weight.detach() / self.divisor, self.bias.detach() / self.divisor)


@dataclass(frozen=True)
class SetFitGradient(SetFit):
    """SetFit with a head learnt by gradient, after the encoder or together with it (167); see `SetFit` for the rest.

    Args:
        temperature: of the head.
        end_to_end: let the encoder go on learning while the head learns.
        several: items may have several labels.
        head_epochs, head_batch, head_lr: of the head's training; the rate is halved every five epochs.
        body_lr: of the encoder, end to end.
    """

    temperature: float = 1.0
    end_to_end: bool = False
    several: bool = False
    head_epochs: float = 16
    head_batch: int = 2
    head_lr: float = 1e-2
    body_lr: float = 1e-5

    def recipe(self) -> Recipe:
        """As slots."""
        return super().recipe() | self.then()

    def then(self) -> Recipe:
        """What follows once the encoder is tuned."""
        return Recipe(stages=(self._learns(),), readout=partial(GradientHead, self.temperature))

    def _learns(self) -> Stage:
        trains: tuple[Part, ...] = ("delta", "readout") if self.end_to_end else ("readout",)
        return Stage(
            epochs=self.head_epochs, lr=self.body_lr if self.end_to_end else self.head_lr, readout_lr=self.head_lr,
            batch=self.head_batch, trains=trains, rate="halved", weight_decay=0.01,
            objectives=(EachLabel() if self.several else CrossEntropy(),), sampler=Shuffled(),
        )  # fmt: skip


@dataclass(frozen=True)
class TaughtPairs:
    """Rows in pairs, as for `CosinePairs`; what they are to be is the teacher's cosine.

    Args:
        cosines: of the teacher, between all items ``[n, n]``.
    """

    cosines: Tensor
    name = "taught-pairs"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        if int(seen.rows.max()) >= len(self.cosines):
            last = int(seen.rows.max())
            raise BadInput(f"the teacher gave vectors of {len(self.cosines)} items, but there is an item {last}")
        a, b = seen.features[0::2], seen.features[1::2]
        wanted = self.cosines[seen.rows[0::2], seen.rows[1::2]].to(a)
        return (functional.cosine_similarity(a, b) - wanted).square().mean()


@dataclass(frozen=True)
class EveryPair:
    """Pairs ``i <= j`` of items without labels, in an order drawn once; each once, or R n of them in turn.

    Args:
        iterations: R.
        most: pairs looked at, at most; -1 for all.
        seed: of the order.
    """

    iterations: int | None = None
    most: int = -1
    seed: int = 42

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return round(epochs * math.ceil(len(self.pairs(data)) / batch))

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        return in_batches(self.pairs(data), batch, generator)

    def pairs(self, data: Data) -> Tensor:
        """All pairs of a pass ``[m, 2]``."""
        checked_pairs(self.iterations, self.most)
        pairs = every_pair(len(data), True, self.most, self.seed)[: None if self.most < 0 else self.most]
        return pairs if self.iterations is None else in_turn(pairs, self.iterations * len(data))


@dataclass(frozen=True, kw_only=True)
class Taught(SetFitGradient):
    """A student taught on unlabelled texts: its pairs by a teacher's cosines, its head by the teacher's labels (167).

    The targets of the data are the teacher's labels.

    Args:
        teacher: the teacher's vectors of those texts ``[n, d]``.
    """

    teacher: Tensor

    def recipe(self) -> Recipe:
        """As slots."""
        unit = functional.normalize(self.teacher.float(), dim=1)
        body = replace(
            SetFit.recipe(self),
            objectives=(TaughtPairs(unit @ unit.mT),),
            sampler=EveryPair(self.iterations, self.most),
        )
        return body | self.then()
