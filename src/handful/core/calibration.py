"""How far logits should be spread before the softmax, and which of several sets of logits explains the labels best."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.task import mask_classes


def fit_scale(logits: Tensor, y: Tensor, class_mask: Tensor, steps: int = 50) -> tuple[Tensor, Tensor]:
    """The scale t that minimises the log loss of ``softmax(t logits)``, and that loss.

    The loss is convex in t; Newton's method in log t finds the zero of its slope, kept inside a bracket that bisection
    narrows. t stays within 1e-3 to 1e5 over the largest logit.

    Args:
        logits: ``[..., N, C]``; entries below an eighth of the lowest finite number count as "impossible".
        y: labels times weights, broadcastable to the logits.
        class_mask: broadcastable to ``[..., C]``.
        steps: at most.

    Returns:
        t ``[...]`` and the loss in nats an example ``[...]``.
    """
    lowest = torch.finfo(logits.dtype).min
    real = class_mask[..., None, :].expand(logits.shape) & (logits > lowest / 8)
    y = y.expand(logits.shape)
    possible = torch.where(real, y, 0.0)
    level = torch.where(real, logits, lowest).amax(-1, keepdim=True)
    z = torch.where(real, logits - level, 0.0)
    size = z.abs().amax((-2, -1)).clamp_min(1e-12)
    total = y.sum((-2, -1)).clamp_min(1e-30)
    mass, target = possible.sum(-1), (possible * z).sum((-2, -1))

    low, high = (1e-3 / size).log(), (1e5 / size).log()
    u = (10 / size).log()  # a usual spread
    busy = torch.ones_like(u, dtype=torch.bool)  # each problem stops by itself, whatever is beside it
    for _ in range(steps):
        t = u.exp()
        pz = (t[..., None, None] * z).masked_fill_(~real, -torch.inf).softmax(-1).mul_(z)
        mean = pz.sum(-1)
        slope = (mass * mean).sum(-1) - target
        bend = t * (mass * (pz.mul_(z).sum(-1) - mean.square())).sum(-1)
        low, high = torch.where(slope < 0, u, low), torch.where(slope < 0, high, u)
        newton = u - slope / bend.clamp_min(1e-30)
        after = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        u, busy = torch.where(busy, after, u), busy & ((after - u).abs() >= torch.finfo(u.dtype).eps ** 0.75)
        if not busy.any():
            break
    t = u.exp()
    log_p = (t[..., None, None] * z).masked_fill_(~real, -torch.inf).log_softmax(-1)
    # A label without any possibility costs as much as a flat guess among all classes, twice: bad, but finite.
    flat = 2 * class_mask.sum(-1).to(z.dtype).log()
    loss = -torch.where(possible > 0, possible * log_p, 0.0).sum((-2, -1)) + (y - possible).sum((-2, -1)) * flat
    return t, loss / total


def hedged(y: Tensor, class_mask: Tensor) -> Tensor:
    """Labels that leave a share 1 / (n + 2) of each row to all classes, n the weight of all rows (after Platt 1999).

    That n examples are all right does not make the next one certain: a scale fitted to these labels stays finite.
    """
    y, mask = torch.where(class_mask[..., None, :], y, 0.0), class_mask[..., None, :].to(y.dtype)
    share = 1 / (y.sum((-2, -1), keepdim=True) + 2)
    return (1 - share) * y + share * y.sum(-1, keepdim=True) * mask / mask.sum(-1, keepdim=True).clamp_min(1)


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Share of the mass of ``y [..., N, C]`` that lies where ``logits [..., N, C]`` are highest: ``[...]``."""
    hit = y.expand(logits.shape).gather(-1, logits.argmax(-1, keepdim=True))
    return hit.sum((-2, -1)) / y.sum((-2, -1)).clamp_min(1e-30)


def pick(logits: Tensor, y: Tensor, class_mask: Tensor) -> Tensor:
    """Index ``[*b]`` of the set of leave-one-out logits ``[S, *b, N, C]`` with the highest accuracy.

    Sets within half an example of the best are a tie, decided by the log loss at each one's best scale.
    """
    right = accuracy(mask_classes(logits, class_mask), y) * y.sum((-2, -1))
    tied = right > right.amax(0) - 0.5
    near = tied.reshape(len(tied), -1).any(1)  # the loss is dear: only for sets that are tied in some task
    loss = torch.full_like(right, torch.inf)
    # Where all are right the loss has no least value: after so many steps it still tells who is surer.
    loss[near] = fit_scale(logits[near], y, class_mask, steps=30)[1]
    return torch.where(tied, loss, torch.inf).argmin(0)
