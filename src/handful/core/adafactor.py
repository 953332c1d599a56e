"""Adafactor: Adam's second moment kept as one number a row and one a column (Shazeer and Stern, 2018).

    R <- b_t R + (1 - b_t) mean_columns(g^2 + eps)      C likewise over rows      b_t = 1 - t^decay
    u = g / sqrt(R C / mean(R))                         u <- u / max(1, rms(u) / most)      p <- p - rate u

Vectors keep a number each. There is no first moment, and the rate is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Adafactor:
    """See `handful.core.adafactor`; an `Optimiser` of `handful.core.train`.

    Args:
        eps: added to squared gradients.
        most: root mean square of an update, at most.
        decay: how fast the past is forgotten.
        weight_decay: p <- (1 - rate weight_decay) p, beside the update.
    """

    eps: float = 1e-30
    most: float = 1.0
    decay: float = -0.8
    weight_decay: float = 0.0
    _moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _step: int = 0

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `Update`."""
        self._moments = self._moments or [_zeros(p) for p in parameters]
        self._step += 1
        new = self._step**self.decay
        for p, g, (row, column) in zip(parameters, gradients, self._moments, strict=True):
            square = g.square() + self.eps
            if g.dim() > 1:
                row.lerp_(square.mean(-1), new)
                column.lerp_(square.mean(-2), new)
                share = row / row.mean(-1, keepdim=True)
                update = g * share.rsqrt()[..., :, None] * column.rsqrt()[..., None, :]
            else:
                row.lerp_(square, new)
                update = g * row.rsqrt()
            update = update / (update.square().mean().sqrt() / self.most).clamp_min(1)
            if self.weight_decay:
                p.mul_(1 - rate * self.weight_decay)
            p.sub_(rate * update)

    def memory(self) -> list[Tensor]:
        """See `Optimiser`: the number of steps, then rows and columns of each parameter."""
        return [torch.tensor(self._step), *(x for pair in self._moments for x in pair)] if self._step else []

    def recall(self, memory: list[Tensor]) -> None:
        """See `Optimiser`."""
        self._step = int(memory[0]) if memory else 0
        self._moments = list(zip(memory[1::2], memory[2::2], strict=True))


def _zeros(p: Tensor) -> tuple[Tensor, Tensor]:
    if p.dim() > 1:
        return p.new_zeros(p.shape[:-1]), p.new_zeros((*p.shape[:-2], p.shape[-1]))
    return torch.zeros_like(p), p.new_zeros(0)
