"""REAL-Linear: a linear classifier that starts as the class text and learns from examples and sentences alike.

Paper 040: Parashar, Lin, Liu, Dong, Li, Ramanan, Caverlee, Kong, "The Neglected Tails of Vision-Language Models", 2024.
With unit rows x of images and of class texts, and W0 the mean class text:

    min_W  mean CE(y, softmax(s x W')), from W0, every step seeing ``batch_size`` images and as many sentences, or all
           that there are of either
    logits = s x (wise W + (1 - wise) W0)'
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite
from handful.adapt.two_towers import item_rows, query_rows, text_rows, text_vectors
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task
from handful.core.train import AdamW, batches, cosine, descend
from handful.protocols import Needs

WARMUP, WARMUP_LR = 50, 1e-5
LONGEST = 32000
PASSES = 10


@dataclass(eq=False, repr=False, kw_only=True)
class REALLinear(Head):
    """Linear probe from class text, trained on examples and class texts together, averaged with where it started.

    Args:
        wise: share of the trained weights; 0 is zero-shot.
        iterations: steps; ``None``: ten passes over the examples, at most 32000, as the paper.
        lr: of AdamW (decay 0.01), falling by a cosine after it has climbed for 50 steps.
        batch_size: images a step, and sentences; all where there are fewer of them, which then count for less. Their
            order is drawn with ``random_state``.
    """

    key: ClassVar[str] = "real"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C T"}

    wise: float = 0.5
    iterations: int | None = None
    lr: float = 1e-4
    batch_size: int = 32

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``."""
        wise = finite("wise", self.wise, least=0, most=1)
        count("batch_size", self.batch_size, 1)
        finite("lr", self.lr, above=0)
        zero_shot, (vectors, there) = text_rows(task), text_vectors(task)
        eye = torch.eye(task.labels.shape[-1], dtype=task.support.dtype, device=task.support.device)
        x = torch.cat([item_rows(task), vectors.flatten(-3, -2)], -2)
        y = torch.cat([task.y, (there[..., None] * eye[:, None, :]).flatten(-3, -2)], -2)

        def losses(parameters: list[Tensor], rows: Tensor) -> Tensor:
            logits = self.logit_scale * x[..., rows, :] @ parameters[0].mT
            return cross_entropy(logits, y[..., rows, :], task.class_mask)

        images = real_rows(task)
        there = there.flatten(-2)
        texts = task.weight.shape[-1] + there.reshape(-1, there.shape[-1]).any(0).nonzero()[:, 0]
        n = self._iterations(len(images))
        rates = cosine(self.lr, max(1, n), warmup=WARMUP, warmup_lr=WARMUP_LR, climb=True)
        steps = self._steps(images, texts, n, task.seed)
        trained = descend([zero_shot], losses, steps, rates, AdamW())[0]
        return {"weight": wise * trained + (1 - wise) * zero_shot}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s x W'``."""
        return self.logit_scale * query_rows(query) @ state["weight"].mT

    def _iterations(self, n: int) -> int:
        if self.iterations is not None:
            return count("iterations", self.iterations)
        return min(LONGEST, math.ceil(PASSES * n / self.batch_size))

    def _steps(self, images: Tensor, texts: Tensor, n: int, seed: int) -> Iterator[Tensor]:
        """For each step, the rows it sees: images, then sentences."""
        streams = [
            batches(rows, math.ceil(n / math.ceil(len(rows) / self.batch_size)), self.batch_size, seed + i)
            for i, rows in enumerate((images, texts))
            if len(rows)
        ]
        for _ in range(n):
            yield torch.cat([next(stream) for stream in streams])
