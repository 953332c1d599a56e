"""SetFit: a sentence encoder tuned on pairs of the few examples, then a head on its features (167, Efficient Few-Shot
Learning Without Prompts, 2022).

    pairs      every i <= j, in an order drawn once; of one class (itself with itself too) 1, of two 0
    loss       (cos(f(a), f(b)) - target)^2
    or         supcon, triplet: of batches that hold two items of each class, one pass over the items
    steps      one pass over the pairs, 16 a step; AdamW 2e-5, decay 0.01, a tenth of the steps to warm up, then
               linear to 0
    head       logistic regression on the features of the examples by the tuned encoder; `setfit_head` has the others
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from handful.errors import BadInput
from handful.tune.contrastive import CosinePairs, SupCon, Triplets
from handful.tune.plain import EVERYTHING
from handful.tune.recipe import Data, Objective, Recipe, Sampler, Stage
from handful.tune.samplers import ByClass

Strategy = Literal["oversampling", "undersampling", "unique"]
STRATEGIES = ("oversampling", "undersampling", "unique")
Loss = Literal["cosine", "supcon", "triplet"]
MOST = 2000
"""Items whose pairs are taken without being asked: there are two million of them."""


def make_pairs(
    targets: Tensor, strategy: Strategy = "oversampling", iterations: int | None = None, *, itself: bool = True,
    most: int = -1, seed: int = 42,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Pairs of items of one class, and of items of two.

    Args:
        targets: ``[n, C]``, 1 where an item has a label; two items are alike when they share one.
        strategy: ``"oversampling"`` repeats the fewer kind, in turn, until there are as many as of the other;
            ``"undersampling"`` cuts the more to the fewer; ``"unique"`` takes each pair once.
        iterations: R; then R n pairs of each kind, each in turn, whatever the strategy.
        itself: whether an item makes a pair with itself, as in the authors' code (their guide says it does not).
        most: different pairs at most, half of them of each kind; -1 for all.
        seed: of the order.

    Returns:
        Positive pairs ``[p, 2]`` and negative ones ``[q, 2]``.

    Raises:
        BadInput: no two classes; more than 2,000 items and no ``most``; a number that makes no pairs.
    """
    if strategy not in STRATEGIES:
        raise BadInput(f"there is no strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    checked_pairs(iterations, most)
    n = len(targets)
    pairs = every_pair(n, itself, most, seed)
    alike = (targets.float() @ targets.float().mT > 0)[pairs[:, 0], pairs[:, 1]]
    half = None if most < 0 else most // 2
    positive, negative = pairs[alike][:half], pairs[~alike][:half]
    refuse_alike(len(positive), len(negative))
    if iterations is not None:
        wanted = (iterations * n, iterations * n)
    elif strategy == "unique":
        wanted = (len(positive), len(negative))
    else:
        size = (max if strategy == "oversampling" else min)(len(positive), len(negative))
        wanted = (size, size)
    return in_turn(positive, wanted[0]), in_turn(negative, wanted[1])


def checked_pairs(iterations: int | None, most: int) -> None:
    """Raise `BadInput` for numbers of pairs that make none."""
    if iterations is not None and (iterations != int(iterations) or iterations < 1):
        raise BadInput(f"iterations is how many pairs of a kind an item makes, 1 at least, not {iterations}")
    if most >= 0 and most < 2:
        raise BadInput(f"most is how many pairs there are at most, 2 at least or -1 for all, not {most}")


def refuse_alike(positive: int, negative: int) -> None:
    """Raise `BadInput` where there are no pairs of one class, or none of two."""
    if not negative or not positive:
        what = "one class only: no pair differs" if not negative else "no two items share a class"
        raise BadInput(f"there is nothing to contrast: {what}")


def every_pair(n: int, itself: bool, most: int, seed: int) -> Tensor:
    """Pairs ``i <= j`` of n items ``[m, 2]`` in an order that is drawn; see `make_pairs`."""
    if n > MOST and most < 0:
        raise BadInput(f"{n:,} items make {n * (n + 1) // 2:,} pairs; say how many are enough with most=")
    pairs = torch.triu_indices(n, n, 0 if itself else 1).mT
    return pairs[torch.from_numpy(np.random.default_rng(seed).permutation(len(pairs)))]


def in_batches(pairs: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Pass after pass over pairs ``[m, 2]``, ``batch`` of them a step, as rows ``[a_0, b_0, a_1, b_1, …]``."""
    while True:
        order = torch.randperm(len(pairs), generator=generator)
        yield from (pairs[order[at : at + batch]].flatten() for at in range(0, len(pairs), batch))


def in_turn(pairs: Tensor, count: int) -> Tensor:
    """As many of them, from the first on again where there are fewer."""
    return pairs[torch.arange(count) % len(pairs)]


@dataclass(frozen=True)
class Pairs:
    """Steps over pairs, positive and negative by turns; rows are ``[a_0, b_0, a_1, b_1, …]``, ``batch`` pairs a step.

    Args:
        strategy, iterations, itself, most, seed: see `make_pairs`.
    """

    strategy: Strategy = "oversampling"
    iterations: int | None = None
    itself: bool = True
    most: int = -1
    seed: int = 42

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return round(epochs * math.ceil(len(self.pairs(data)) / batch))

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        return in_batches(self.pairs(data), batch, generator)

    def pairs(self, data: Data) -> Tensor:
        """All pairs of a pass ``[m, 2]``, positive and negative by turns as long as there are both."""
        positive, negative = make_pairs(
            data.targets, self.strategy, self.iterations, itself=self.itself, most=self.most, seed=self.seed
        )
        both = min(len(positive), len(negative))
        turns = torch.stack([positive[:both], negative[:both]], 1).flatten(0, 1)
        return torch.cat([turns, positive[both:], negative[both:]])


@dataclass(frozen=True)
class TwoOfEach(ByClass):
    """Batches that hold two items of each class they hold, as far as there are two; see `ByClass`."""

    per_class: int = 2

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        alike = (data.targets @ data.targets.mT > 0).triu(1)
        refuse_alike(int(alike.sum()), len(data) * (len(data) - 1) // 2 - int(alike.sum()))
        return super().steps(data, epochs, batch)


@dataclass(frozen=True)
class SetFit:
    """The sentence encoder tuned on pairs of examples (167).

    Args:
        strategy: how pairs of one class and of two are balanced.
        iterations: R of the paper, 20 there; ``None`` is one pass over all pairs, the default of the code.
        lr: learning rate of the encoder.
        batch: pairs a step; of ``"supcon"`` and ``"triplet"`` items.
        epochs: passes over the pairs, or items.
        most: different pairs at most, half of each kind; -1 for all.
        loss: ``"cosine"`` of pairs; or of all items of a batch `SupCon` or `Triplets`, which make no pairs, so that
            ``strategy``, ``iterations`` and ``most`` do not count.
    """

    strategy: Strategy = "oversampling"
    iterations: int | None = None
    lr: float = 2e-5
    batch: int = 16
    epochs: float = 1
    most: int = -1
    loss: Loss = "cosine"

    def recipe(self) -> Recipe:
        """As slots."""
        checked_pairs(self.iterations, self.most)
        if self.loss not in get_args(Loss):
            raise BadInput(f"loss is one of {', '.join(get_args(Loss))}, not {self.loss!r}")
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, trains=("delta",), warmup=0.1, weight_decay=0.01,
            clip=1.0,
        )  # fmt: skip
        losses: dict[str, Objective] = {"cosine": CosinePairs(), "supcon": SupCon(), "triplet": Triplets()}
        pairs: Sampler = Pairs(self.strategy, self.iterations, most=self.most)
        sampler = pairs if self.loss == "cosine" else TwoOfEach()
        return Recipe(EVERYTHING, (losses[self.loss],), (stage,), sampler=sampler)


def synthetic(
    classes: Sequence[str], template: str = "This sentence is {}", each: int = 2
) -> tuple[list[str], list[str]]:
    """Texts and labels to learn from where there are only names: the template with each name in it, ``each`` times.

    Raises:
        BadInput: the template has no place for a name; no classes.
    """
    if template.count("{}") != 1:
        raise BadInput(f"template {template!r} needs {{}} once, where the name of a class goes")
    if not classes or each < 1:
        raise BadInput("give the names of the classes, and at least one text for each")
    labels = [name for name in classes for _ in range(each)]
    return [template.replace("{}", name) for name in labels], labels
