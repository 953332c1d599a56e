"""What LFA (paper 162) minimises: how far features ``v [*b, N, D]`` are from their class text ``p [*b, C, D]``.

Each loss is the mean over the rows of ``y [*b, N, C]`` (labels times weights, a zero row is not there): ``[*b]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from handful.core.distances import unit
from handful.core.losses import cross_entropy

Kind = Literal["arerank", "csls", "contrastive", "triplet"]
TEMPERATURE = 0.07
MARGIN = 0.1
TINY = 1e-12


def adaptive_reranking(v: Tensor, p: Tensor, y: Tensor, real: Tensor, k: int, margin_scale: float) -> Tensor:
    """``mean_j max(0, |v - p_y| + m_j - |v - p_j|)`` over the k nearest classes j, ``m_j = (1 - p_y.p_j) / scale``.

    Rows are made unit first.
    """
    v, ways = unit(v), real.sum(-1)
    distance = (2 - 2 * v @ p.mT).clamp_min(TINY).sqrt().masked_fill(~real[..., None, :], torch.inf)
    k = min(k, p.shape[-2])
    near, index = distance.topk(k, dim=-1, largest=False)
    there = torch.arange(k, device=v.device) < ways[..., None, None]
    near = torch.where(there, near, 0.0)
    margin = (1 - p @ p.mT) / margin_scale
    margins = (
        margin[..., None, :, :]
        .expand(*distance.shape, -1)
        .gather(-2, index[..., None].expand(*index.shape, p.shape[-2]))
    )  # [*b, N, k, C]: of the nearest classes and of each the row may be of
    own = torch.where(real[..., None, :], distance, 0.0)[..., None, :]
    loss = torch.where(there[..., None], (own + margins - near[..., None]).clamp_min(0), 0.0).sum(-2)
    return _mean(loss / there.sum(-1, keepdim=True), y)


def csls(v: Tensor, p: Tensor, y: Tensor, real: Tensor, k: int, margin_scale: float) -> Tensor:
    """Minus the similarity ``2 v.t - max_t' v.t' - mean of the k largest v'.t`` of rows and their class text t."""
    v, t, there = unit(v), unit(y @ p), y.sum(-1) > 0
    both = there[..., :, None] & there[..., None, :]
    similar = (v @ t.mT).masked_fill(~both, -torch.inf)
    to_text = similar.amax(-1)
    nearest = similar.mT.topk(min(k, v.shape[-2]), dim=-1).values
    found = nearest > -torch.inf
    to_items = torch.where(found, nearest, 0.0).sum(-1) / found.sum(-1).clamp_min(1)
    loss = torch.where(there, to_text + to_items - 2 * (v * t).sum(-1), 0.0)
    mass = y.sum(-1)
    return (mass * loss).sum(-1) / mass.sum(-1).clamp_min(1e-30)


def contrastive(v: Tensor, p: Tensor, y: Tensor, real: Tensor, k: int, margin_scale: float) -> Tensor:
    """Cross entropy of ``v.p / 0.07``, rows as they are."""
    return cross_entropy(v @ p.mT / TEMPERATURE, y, real)


def triplet(v: Tensor, p: Tensor, y: Tensor, real: Tensor, k: int, margin_scale: float) -> Tensor:
    """``max(0, |v - p_y| + 0.1 - |v - p_j|)``, j the nearest other class by cosine, rows as they are."""
    scores = (unit(v) @ p.mT).masked_fill(~real[..., None, :], -torch.inf)
    nearest = scores.topk(2, dim=-1).indices
    first, second = nearest[..., :1], nearest[..., 1:]
    classes = torch.arange(p.shape[-2], device=v.device)
    other = torch.where(first == classes, second, first)  # the nearest that is not c, for every c
    squares = v.square().sum(-1, keepdim=True) - 2 * v @ p.mT + p.square().sum(-1)[..., None, :]
    distance = squares.clamp_min(TINY).sqrt()
    return _mean((distance + MARGIN - distance.gather(-1, other)).clamp_min(0), y)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "arerank": adaptive_reranking,
    "csls": csls,
    "contrastive": contrastive,
    "triplet": triplet,
}


def _mean(loss: Tensor, y: Tensor) -> Tensor:
    return torch.where(y > 0, y * loss, 0.0).sum((-2, -1)) / y.sum((-2, -1)).clamp_min(1e-30)
