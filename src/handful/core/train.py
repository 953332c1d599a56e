"""The one training loop of heads: parameters keep their batch dimensions and the losses of all tasks are summed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

BETA1, BETA2 = 0.9, 0.999


def adamw(
    start: list[Tensor],
    losses: Callable[[list[Tensor], Tensor], Tensor],
    *,
    rows: Tensor,
    epochs: int,
    lr: float,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    batch_size: int = 256,
    seed: int = 0,
) -> list[Tensor]:
    """Minimise ``losses(parameters, row indices) -> [*b]`` with AdamW and a cosine to zero over all steps.

    The numbers are those of `torch.optim.AdamW`, whose first use imports a compiler for seconds. Every update depends
    on its own task's gradient only, so a batch gives what a loop over its tasks gives as long as all rows fit into one
    step. ``rows`` are the indices of the rows to go through: leave out what is padding in every task.
    """
    parameters = [p.detach().clone() for p in start]
    first, second = [torch.zeros_like(p) for p in parameters], [torch.zeros_like(p) for p in parameters]
    each = math.ceil(len(rows) / batch_size)
    generator = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)] if each > 1 else rows
        for part in (order[at : at + batch_size] for at in range(0, len(order), batch_size)):
            rate = lr * (1 + math.cos(math.pi * step / (epochs * each))) / 2
            step += 1
            for p, g, m, v in zip(parameters, _gradient(parameters, losses, part), first, second, strict=True):
                m.lerp_(g, 1 - BETA1)
                v.lerp_(g.square(), 1 - BETA2)
                spread = (v / (1 - BETA2**step)).sqrt() + eps
                p.mul_(1 - rate * weight_decay).sub_(rate / (1 - BETA1**step) * m / spread)
    return parameters


def _gradient(
    parameters: list[Tensor], losses: Callable[[list[Tensor], Tensor], Tensor], rows: Tensor
) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        free = [p.detach().requires_grad_() for p in parameters]
        return torch.autograd.grad(losses(free, rows).sum(), free)
