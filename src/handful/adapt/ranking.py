"""The loop over rows behind DeViSE, ALE, SJE and LATEM: ranking, one violator at a time.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017.

    F(x, c) = max_k x' W_k phi_c
    c violates  where  margin + F(x, c) - F(x, y) > 0
    W_k(y) += lr l x phi_y',  W_k(c) -= lr l x phi_c'  for one violator c, then the next row

Which violator that is, and its weight l, is the method's: `handful.adapt.compatibility`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite
from handful.adapt.signatures import Known, SignatureHead
from handful.core.losses import real_rows
from handful.core.lowrank import row_space
from handful.core.task import State, lowest
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class Ranking(SignatureHead):
    """Base of the four: the loop over rows. A row of weight w moves W w times as far; of a soft label the largest share
    counts.

    Args:
        lr: length of a step.
        margin: by which the true class must win.
        epochs: passes over the support, their order drawn with ``random_state``.
    """

    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {**SignatureHead.shapes, "weight": "K D T", "alive": "K"}
    draws: ClassVar[int | None] = 0
    """Wrong classes drawn for a row; ``None``: as many as there are."""

    lr: float = 0.01
    margin: float = 1.0
    epochs: int = 100

    @abstractmethod
    def pick(self, gap: Tensor, wrong: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The violator ``[*b]`` of a row and its weight ``[*b]``, 0 where there is none.

        Args:
            gap: ``margin + F(x, c) - F(x, y)`` ``[*b, C]``.
            wrong: seen classes other than y ``[*b, C]``.
            drawn: numbers from 0 to 1 ``[draws]``.
        """

    @property
    def matrices(self) -> int:
        """How many W there are at the start."""
        return 1

    def learn(self, known: Known) -> State:
        """State: ``weight [*b, K, D, T]`` and which of the K take part, ``alive [*b, K]``."""
        finite("lr", self.lr, above=0)
        finite("margin", self.margin, least=0)
        count("epochs", self.epochs)
        batch, (c, t) = known.x.shape[:-2], known.s.shape[-2:]
        there = known.seen.reshape(-1, c).any(0).nonzero()[:, 0]  # what is padding in every task takes no part
        known = replace(known, y=known.y[..., there], s=known.s[..., there, :], seen=known.seen[..., there])
        draw = torch.Generator().manual_seed(known.task.seed)
        start = self.start((self.matrices, known.x.shape[-1], t), draw).to(known.x)
        x, span = row_space(known.x)  # W moves only within the span of the rows
        before = start if span is None else span.mT[..., None, :, :] @ start
        after, alive = self._passes(known, x, before.expand(*batch, *before.shape[-3:]).clone(), draw)
        weight = after if span is None else start + span[..., None, :, :] @ (after - before)
        return {"weight": weight, "alive": alive}

    def start(self, size: tuple[int, ...], draw: torch.Generator) -> Tensor:
        """The first matrices ``[K, D, T]``: uniform, the column of each attribute unit."""
        w: Tensor = torch.nn.functional.normalize(torch.rand(*size, generator=draw, dtype=torch.float64), dim=-2)
        return w

    def _passes(self, known: Known, x: Tensor, w: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        y = known.y.argmax(-1)
        wrong = known.seen[..., None, :] & ~torch.nn.functional.one_hot(y, known.s.shape[-2]).to(torch.bool)
        parts = (x.unbind(-2), y.unbind(-1), known.y.sum(-1).unbind(-1), wrong.unbind(-2))
        alive = torch.ones_like(w[..., 0, 0])
        draws = max(1, known.s.shape[-2] - 1) if self.draws is None else self.draws
        rows = real_rows(known.task)
        for epoch in range(self.epochs):
            order = rows[torch.randperm(len(rows), generator=draw).to(rows.device)]
            drawn = torch.rand(len(rows), draws, generator=draw, dtype=torch.float64).to(w)
            moved = [
                self.step(known.s, w, alive, tuple(part[i] for part in parts), u)
                for i, u in zip(order.tolist(), drawn, strict=True)
            ]
            if not draws and not any(moved):
                break  # nothing would ever change again
            alive = self._prune(known, x, w, alive, epoch)
        return w, alive

    def step(self, s: Tensor, w: Tensor, alive: Tensor, row: tuple[Tensor, ...], drawn: Tensor) -> bool:
        """One row moves ``w [*b, K, D, T]`` in place; whether it did.

        Args:
            s: signatures ``[*b, C, T]``.
            w: the matrices.
            alive: which of them take part ``[*b, K]``.
            row: features ``[*b, D]``, class and weight ``[*b]``, seen classes other than it ``[*b, C]``.
            drawn: as in `pick`.
        """
        x, y, mass, wrong = row
        f, best = self._best(self.projected(x[..., None, None, :] @ w) @ s[..., None, :, :].mT, alive)
        f = f[..., 0, :]
        at, length = self.pick(f - f.gather(-1, y[..., None]) + self.margin, wrong, drawn)
        length = self.lr * length * mass
        if not bool(length.any()):
            return False
        chosen = torch.stack([y, at], -1)  # [*b, 2]
        move = torch.stack([length, -length], -1)[..., None] * torch.take_along_dim(s, chosen[..., None], -2)
        if w.shape[-3] > 1:
            on = torch.nn.functional.one_hot(best[..., 0, :].gather(-1, chosen), w.shape[-3]).to(w.dtype)  # [*b, 2, K]
            move = on.mT @ move
        else:
            move = move.sum(-2, keepdim=True)
        w += x[..., None, :, None] * move[..., :, None, :]
        return True

    def _best(self, f: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Largest compatibility over the matrices ``[*b, Q, C]`` of ``[*b, K, Q, C]``, and whose it is."""
        if f.shape[-3] == 1:
            return f[..., 0, :, :], torch.zeros_like(f[..., 0, :, :], dtype=torch.long)
        found = f.masked_fill(alive[..., :, None, None] <= 0, lowest(f)).max(-3)
        return found.values, found.indices

    def projected(self, xw: Tensor) -> Tensor:
        """``x'W`` as it is compared while learning."""
        return xw

    def _prune(self, known: Known, x: Tensor, w: Tensor, alive: Tensor, epoch: int) -> Tensor:
        return alive

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """``max_k x' W_k phi_c``."""
        return self._best((x[..., None, :, :] @ state["weight"]) @ state["text"][..., None, :, :].mT, state["alive"])[0]


def drawn_classes(wrong: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Number of each draw ``[draws]``, and the classes ``[*b, draws]`` that numbers ``u [draws]`` stand for."""
    n = wrong.sum(-1, keepdim=True)
    classes = (~wrong).to(torch.uint8).sort(stable=True, dim=-1).indices
    return torch.arange(len(u), device=u.device), classes.gather(-1, (u * n).long().clamp_max((n - 1).clamp_min(0)))
