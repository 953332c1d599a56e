"""Adafactor (Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018).

    v        of matrices a row and a column of means of g^2 + eps_1 instead of all of them; of vectors each
    beta_t   1 - t ** -0.8, the share of v that stays
    step     u = g / sqrt(v), shortened where its root mean square is above 1; p <- p - rate max(eps_2, rms(p)) u

No first moment; the rate is relative to the size of the parameter, unless ``relative`` is off: p <- p - rate u. As
`transformers` has it with ``relative_step=False``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Adafactor:
    """See `handful.core.adafactor`.

    Args:
        weight_decay: share of a parameter that each step of its own size takes off.
        eps: eps_1 and eps_2.
        decay: exponent of beta_t.
        clip: root mean square of a step at most, before the rate.
        relative: ``scale_parameter`` of `transformers`.
    """

    weight_decay: float = 0.0
    eps: tuple[float, float] = (1e-30, 1e-3)
    decay: float = -0.8
    clip: float = 1.0
    relative: bool = True
    _second: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _step: int = 0

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `handful.core.train.Update`."""
        self._second = self._second or [self._begun(p) for p in parameters]
        self._step += 1
        fresh = self._step**self.decay  # 1 - beta_t
        for p, g, (row, column) in zip(parameters, gradients, self._second, strict=True):
            squared = g.square() + self.eps[0]
            if p.dim() > 1:
                row.lerp_(squared.mean(-1), fresh)
                column.lerp_(squared.mean(-2), fresh)
                share = row / row.mean(-1, keepdim=True)
                u = g * share.rsqrt()[..., :, None] * column.rsqrt()[..., None, :]
            else:
                row.lerp_(squared, fresh)
                u = g * row.rsqrt()
            u = u / (_rms(u) / self.clip).clamp_min(1)
            size = rate * _rms(p).clamp_min(self.eps[1]) if self.relative else torch.tensor(rate)
            p.sub_(size * (u + self.weight_decay * p))

    def memory(self) -> list[Tensor]:
        """See `handful.core.train.Optimiser`: the number of steps, then the second moments."""
        return [torch.tensor(self._step), *(x for one in self._second for x in one)] if self._step else []

    def recall(self, memory: list[Tensor]) -> None:
        """See `handful.core.train.Optimiser`."""
        self._step = int(memory[0]) if memory else 0
        self._second = list(zip(memory[1::2], memory[2::2], strict=True))

    @staticmethod
    def _begun(p: Tensor) -> tuple[Tensor, Tensor]:
        """Means of rows and of columns; of a vector all of it, and nothing."""
        if p.dim() < 2:
            return torch.zeros_like(p), p.new_zeros(0)
        return p.new_zeros(p.shape[:-1]), p.new_zeros((*p.shape[:-2], p.shape[-1]))


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()
