"""DeViSE, ALE, SJE and LATEM: a bilinear compatibility of items and signatures, learnt by ranking, row by row.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017.

    F(x, c) = max_k x' W_k phi_c                       (one W for all but LATEM)
    c violates  where  margin + F(x, c) - F(x, y) > 0
    W_k(y) += lr l x phi_y',  W_k(c) -= lr l x phi_c'  for one violator c, then the next row

The methods differ in which violator that is and in its weight l:

    DeViSE  the first in the order of classes, l = 1
    ALE     the first of at most C - 1 drawn with replacement; found at draw i = 0, 1, …:
            l = sum_(j <= r) 1/j,  r = floor((C - 1) / (i + 1))
    SJE     the worst, l = 1; x'W has mean 0 and standard deviation 1 while it is compared
    LATEM   one that is drawn, if it violates, l = 1; matrices that answer for few rows may be dropped on the way
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite, one_of
from handful.adapt.ranking import Ranking, drawn_classes
from handful.adapt.signatures import Known
from handful.core.distances import cosine
from handful.core.task import State, lowest


@dataclass(eq=False, repr=False, kw_only=True)
class _OneMatrix(Ranking):
    """Those with one W, which answer by cosine as the reference does.

    Args:
        metric: ``"cosine"`` of x'W and the signature times ``logit_scale``, or ``"dot"``, which is F.
    """

    metric: Literal["cosine", "dot"] = "cosine"

    def learn(self, known: Known) -> State:
        """As `Ranking.learn`."""
        one_of("metric", self.metric, ("cosine", "dot"))
        return super().learn(known)

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """By ``metric``."""
        if self.metric == "dot":
            return super().compatibility(state, x)
        return self.logit_scale * cosine(x @ state["weight"][..., 0, :, :], state["text"])


@dataclass(eq=False, repr=False, kw_only=True)
class DeViSE(_OneMatrix):
    """Items and signatures in a bilinear form, learnt by hinge ranking, one violator a row."""

    key: ClassVar[str] = "devise"

    def pick(self, gap: Tensor, wrong: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The first violator in the order of classes."""
        violates = wrong & (gap > 0)
        return violates.to(torch.uint8).argmax(-1), violates.any(-1).to(gap.dtype)


@dataclass(eq=False, repr=False, kw_only=True)
class ALE(_OneMatrix):
    """Items and signatures in a bilinear form, learnt by ranking that weighs a violation by the estimated rank."""

    key: ClassVar[str] = "ale"
    draws: ClassVar[int | None] = None

    def pick(self, gap: Tensor, wrong: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The first violator that is drawn, and l."""
        place, classes = drawn_classes(wrong, drawn)
        n = wrong.sum(-1, keepdim=True)
        violates = (gap.gather(-1, classes) > 0) & (place < n)
        first = violates.to(torch.uint8).argmax(-1, keepdim=True)
        rank = torch.where(violates.any(-1, keepdim=True), n // (first + 1), 0)
        harmonic = torch.cumsum(1 / torch.arange(1, len(drawn) + 1, dtype=gap.dtype, device=gap.device), 0)
        harmonic = torch.cat([harmonic.new_zeros(1), harmonic])
        return classes.gather(-1, first)[..., 0], harmonic[rank[..., 0]]


@dataclass(eq=False, repr=False, kw_only=True)
class SJE(_OneMatrix):
    """Items and signatures in a bilinear form, learnt as a structured machine: the worst violator counts.

    Args:
        standardize: give x'W mean 0 and standard deviation 1 before it is compared with signatures while learning, as
            the reference does; not in the formula.
    """

    key: ClassVar[str] = "sje"

    standardize: bool = True

    def projected(self, xw: Tensor) -> Tensor:
        """Standardised over the attributes."""
        if not self.standardize:
            return xw
        moved = xw - xw.mean(-1, keepdim=True)
        spread = moved.square().mean(-1, keepdim=True).sqrt()
        return moved / torch.where(spread > 0, spread, 1.0)

    def pick(self, gap: Tensor, wrong: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The worst."""
        worst = gap.masked_fill(~wrong, lowest(gap)).max(-1)
        return worst.indices, (worst.values > 0).to(gap.dtype)


@dataclass(eq=False, repr=False, kw_only=True)
class LATEM(Ranking):
    """Several bilinear forms, the best of which answers: piecewise linear compatibility.

    Step, passes and K are those of the authors' script for AwA.

    Args:
        n_matrices: K at the start; many where some are to be dropped.
        prune_every: passes between two looks at which matrices answer for too few rows; 0: never.
        keep: share of the rows below which a matrix is dropped.
    """

    key: ClassVar[str] = "latem"
    draws: ClassVar[int | None] = 1

    lr: float = 1e-3
    epochs: int = 150
    n_matrices: int = 2
    prune_every: int = 0
    keep: float = 0.05

    @property
    def matrices(self) -> int:
        """K."""
        count("prune_every", self.prune_every)
        finite("keep", self.keep, least=0, most=1)
        return count("n_matrices", self.n_matrices, 1)

    def start(self, size: tuple[int, ...], draw: torch.Generator) -> Tensor:
        """Gaussian, of variance 1 / D."""
        w: Tensor = torch.randn(*size, generator=draw, dtype=torch.float64) / math.sqrt(size[-2])
        return w

    def pick(self, gap: Tensor, wrong: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The one that is drawn."""
        at = drawn_classes(wrong, drawn)[1]
        violates = (gap.gather(-1, at) > 0)[..., 0] & wrong.any(-1)
        return at[..., 0], violates.to(gap.dtype)

    def _prune(self, known: Known, x: Tensor, w: Tensor, alive: Tensor, epoch: int) -> Tensor:
        if not self.prune_every or (epoch + 1) % self.prune_every:
            return alive
        best = self._best((x[..., None, :, :] @ w) @ known.s[..., None, :, :].mT, alive)[1]
        mine = best.gather(-1, known.y.argmax(-1)[..., None])[..., 0]
        share = torch.nn.functional.one_hot(mine, w.shape[-3]) * known.y.sum(-1)[..., None]
        share = share.sum(-2) / known.y.sum((-2, -1))[..., None].clamp_min(1e-30)
        kept = (alive > 0) & ((share >= self.keep) | (share >= share.amax(-1, keepdim=True)))
        return kept.to(alive.dtype)
