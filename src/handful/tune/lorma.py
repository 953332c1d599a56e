"""193 LoRMA: Low-Rank Multiplicative Adaptation for LLMs, 2025. The weight is transformed instead of added to.

    pre   f(W) = T W,  T [out, out]          post   f(W) = W T,  T [in, in]          s = alpha / r

    plus    T = I + s B A            A [r, d] Kaiming with a = sqrt 5, B [d, r] = 0
    shift   T = s roll(B A)          row i rolled to the right by i;  B Kaiming with B[:, 0] = 1,  A 0 with A[0, 0] = 1,
                                     both over sqrt s, so that T = I at first;  LoRMA_pi
    none    T = s B A                A = pinv(B), both over sqrt s: of rank r, and no identity at first

A product B A has rank r; the first two raise it ("rank inflation"). The bias stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, checked_rank, register
from handful.tune.delta import Placed
from handful.tune.fillers import Linear
from handful.tune.lora import kaiming
from handful.tune.recipe import Recipe, Stage
from handful.tune.sites import Where, map_of

Side = Literal["pre", "post"]
Inflation = Literal["plus", "shift", "none"]
WIDEST = 30_000
"""No layer is wider; what is has a vocabulary on that side, as what is wide and ten times as narrow on the other."""


@register
@dataclass(frozen=True)
class LoRMA(Change):
    """See `handful.tune.lorma`.

    Args:
        rank: r.
        alpha: of the scale; ``None`` is r, a scale of 1.
        side: ``"pre"`` transforms what the map gives, ``"post"`` what goes into it.
        inflation: ``"plus"``, which costs no more than LoRA; ``"shift"``, which makes T as a whole; ``"none"``, which
            changes the model before anything was learnt.
        dropout: share of what goes into the whole map that is left out in training.
    """

    key: ClassVar[str] = "lorma"
    reads: ClassVar[bool] = True
    rank: int = 8
    alpha: float | None = None
    side: Side = "pre"
    inflation: Inflation = "plus"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.side not in ("pre", "post") or self.inflation not in ("plus", "shift", "none"):
            raise BadInput(f"side is 'pre' or 'post', inflation 'plus', 'shift' or 'none': {self}")
        if self.rank < 1 or not self.scale > 0 or not 0 <= self.dropout < 1:
            raise BadInput(f"rank and alpha must be positive, dropout a share below 1: {self}")

    @property
    def scale(self) -> float:
        """s."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        checked_rank(self.rank, weight)
        d = weight.shape[0 if self.side == "pre" else 1]
        if d > WIDEST or (d > 10_000 and weight.numel() < d * d / 10):
            raise BadInput(f"side {self.side!r} would mix {d} entries, a vocabulary; take the other side, or leave it")
        if not weight.any():
            raise BadInput("the weight is all zero, which no product changes")
        r, root = self.rank, math.sqrt(self.scale)
        if self.inflation == "plus":
            return Begun({"B": weight.new_zeros(d, r), "A": kaiming(r, d, weight, generator)})
        b = kaiming(d, r, weight, generator)
        if self.inflation == "none":
            return Begun({"B": b / root, "A": torch.linalg.pinv(b) / root})
        b[:, 0] = 1
        a = weight.new_zeros(r, d)
        a[0, 0] = 1
        return Begun({"B": b / root, "A": a / root})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return self._times(w.mT, t).mT if self.side == "pre" else self._times(w, t, turned=True)

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        w, b = map_of(module)
        dropping = self.dropout > 0 and module.training
        x = functional.dropout(x, self.dropout, dropping)
        if self.side == "post":
            return functional.linear(self._times(x, t), w, b)
        through = functional.linear(x, w) if dropping else y if b is None else y - b
        through = self._times(through, t)
        return through if b is None else through + b

    def check(self, mode: Mode, training: bool) -> None:
        super().check(mode, training)
        if mode == "weight" and training and self.dropout:
            raise BadInput("dropout before the map has no weight form; train with mode='branch' or dropout=0")

    def transform(self, t: Tensors) -> Tensor:
        """T ``[d, d]``."""
        product = t["B"] @ t["A"]
        if self.inflation == "shift":
            product = roll(product)
        return self.scale * product + (torch.eye(len(product)).to(product) if self.inflation == "plus" else 0)

    def _times(self, v: Tensor, t: Tensors, turned: bool = False) -> Tensor:
        """``v T^T`` for rows ``v [..., d]`` (``v T`` if ``turned``), without T where that can be."""
        if self.inflation == "shift":
            whole = self.transform(t)
            return v @ whole if turned else v @ whole.mT
        first, second = (t["B"], t["A"]) if turned else (t["A"].mT, t["B"].mT)
        product = self.scale * (v @ first @ second)
        return v + product if self.inflation == "plus" else product


def roll(m: Tensor) -> Tensor:
    """``m [n, d]`` with row i rolled to the right by i: ``roll(m)[i, j] = m[i, (j - i) mod d]``."""
    n, d = m.shape
    at = torch.arange(d, device=m.device) - torch.arange(n, device=m.device)[:, None]
    return m.gather(1, at % d)


@dataclass(frozen=True)
class LoRMARecipe:
    """The weights of queries and values transformed instead of added to (193), as in the authors' runs on GLUE.

    Args:
        rank, alpha, side, inflation: see `LoRMA`; LoRMA_pi is ``inflation="shift"``.
        lr: 4e-4, or 5e-4.
        epochs: 30; up to 100 on small data.
        batch, warmup, weight_decay: of AdamW with a linear decay.
        roles: query and value.
    """

    rank: int = 8
    alpha: float | None = None
    side: Side = "pre"
    inflation: Inflation = "plus"
    lr: float = 4e-4
    epochs: float = 30
    batch: int = 32
    warmup: float = 0.06
    weight_decay: float = 0.1
    roles: tuple[str, ...] = ("q", "v")

    def recipe(self) -> Recipe:
        """As slots."""
        change = LoRMA(self.rank, self.alpha, self.side, self.inflation)
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, warmup=self.warmup, weight_decay=self.weight_decay
        )
        return Recipe((Placed(change, Where(self.roles)),), stages=(stage,), readout=Linear)
