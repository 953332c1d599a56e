"""SetFit: a sentence encoder tuned on pairs of the few examples, then a head on its features (167, Efficient Few-Shot
Learning Without Prompts, 2022).

    pairs      every i <= j, in an order drawn once; of one class (itself with itself too) 1, of two 0
    loss       (cos(f(a), f(b)) - target)^2
    steps      one pass over the pairs, 16 a step; AdamW 2e-5, decay 0.01, a tenth of the steps to warm up, then
               linear to 0
    head       logistic regression on the features of the examples by the tuned encoder; `setfit_head` has the others
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from handful.errors import BadInput
from handful.tune.contrastive import CosinePairs
from handful.tune.plain import EVERYTHING
from handful.tune.recipe import Data, Recipe, Stage

Strategy = Literal["oversampling", "undersampling", "unique"]
STRATEGIES = ("oversampling", "undersampling", "unique")
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
        iterations: R; then R n pairs of each kind, each in turn.
        itself: whether an item makes a pair with itself, as in the authors' code (their guide says it does not).
        most: pairs looked at, at most; -1 for all.
        seed: of the order.

    Returns:
        Positive pairs ``[p, 2]`` and negative ones ``[q, 2]``.

    Raises:
        BadInput: no two classes; more than 2,000 items and no ``most``.
    """
    if strategy not in STRATEGIES:
        raise BadInput(f"there is no strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    n = len(targets)
    pairs = every_pair(n, itself, most, seed)
    alike = (targets.float() @ targets.float().mT > 0)[pairs[:, 0], pairs[:, 1]]
    positive, negative = pairs[alike], pairs[~alike]
    if not len(negative) or not len(positive):
        what = "one class only: no pair differs" if not len(negative) else "no two items share a class"
        raise BadInput(f"there is nothing to contrast: {what}")
    if iterations is not None:
        wanted = (iterations * n, iterations * n)
    elif strategy == "unique":
        wanted = (len(positive), len(negative))
    else:
        size = (max if strategy == "oversampling" else min)(len(positive), len(negative))
        wanted = (size, size)
    return in_turn(positive, wanted[0]), in_turn(negative, wanted[1])


def every_pair(n: int, itself: bool, most: int, seed: int) -> Tensor:
    """Pairs ``i <= j`` of n items ``[m, 2]`` in an order that is drawn; see `make_pairs`."""
    if n > MOST and most < 0:
        raise BadInput(f"{n:,} items make {n * (n + 1) // 2:,} pairs; say how many are enough with most=")
    pairs = torch.triu_indices(n, n, 0 if itself else 1).mT
    order = np.random.default_rng(seed).permutation(len(pairs))
    return pairs[torch.from_numpy(order)[: None if most < 0 else most]]


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
class SetFit:
    """The sentence encoder tuned on pairs of examples (167).

    Args:
        strategy: how pairs of one class and of two are balanced.
        iterations: R of the paper, 20 there; ``None`` is one pass over all pairs, the default of the code.
        lr: learning rate of the encoder.
        batch: pairs a step.
        epochs: passes over the pairs.
    """

    strategy: Strategy = "oversampling"
    iterations: int | None = None
    lr: float = 2e-5
    batch: int = 16
    epochs: float = 1

    def recipe(self) -> Recipe:
        """As slots."""
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, trains=("delta",), warmup=0.1, weight_decay=0.01,
            clip=1.0,
        )  # fmt: skip
        return Recipe(EVERYTHING, (CosinePairs(),), (stage,), sampler=Pairs(self.strategy, self.iterations))


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
