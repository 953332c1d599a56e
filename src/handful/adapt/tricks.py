"""What the tricks of paper 171 compute, one function each; see `handful.adapt.fscil_tricks`."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.distances import unit


def projected(x: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """``W2 silu(W1 x)`` of rows ``x [*b, N, D]``; the rows themselves where the projector has no weights."""
    if not inner.shape[-2]:
        return x
    return torch.nn.functional.silu(unit(x) * float(x.shape[-1] ** 0.5) @ inner.mT) @ outer.mT


def supervised_contrast(u: Tensor, y: Tensor, tau: float) -> Tensor:
    """Mean of L_i over the examples that have others of their class ``[*b]``, see `handful.adapt.fscil_tricks`.

    Args:
        u: unit rows ``[*b, N, E]``.
        y: labels times weights ``[*b, N, C]``; a row of zeros is not there.
        tau: temperature.
    """
    there, code = y.sum(-1) > 0, y.argmax(-1)
    other = ~torch.eye(u.shape[-2], dtype=torch.bool, device=u.device) & there[..., None, :] & there[..., None]
    log_p = (u @ u.mT / tau).masked_fill(~other, -torch.inf).log_softmax(-1)
    positive = other & (code[..., None, :] == code[..., None])
    many = positive.sum(-1)
    each = -torch.where(positive, log_p, 0.0).sum(-1) / many.clamp_min(1)
    return each.sum(-1) / (many > 0).sum(-1).clamp_min(1)


def least_important(weights: list[Tensor], gradients: tuple[Tensor, ...], share: float) -> list[Tensor]:
    """1 for the ``share`` of all weights with the smallest ``|weight gradient|``, in the shapes of ``weights``."""
    flat = [(w * g).abs().flatten(-2) for w, g in zip(weights, gradients, strict=True)]
    together = torch.cat(flat, -1)
    chosen = together.sort(dim=-1, stable=True).indices[..., : round(share * together.shape[-1])]
    mask = torch.zeros_like(together).scatter(-1, chosen, 1.0)
    parts = mask.split([f.shape[-1] for f in flat], -1)  # type: ignore[no-untyped-call]
    return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]


def partners(n: int, draw: torch.Generator, free: int) -> tuple[Tensor, Tensor]:
    """The class that each of n is mixed with, and its virtual class from n on ``[n]``; -1 where none is ``free``."""
    order = torch.randperm(n, generator=draw)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    virtual = torch.arange(n) if n > 2 else torch.zeros(n, dtype=torch.long)  # of two classes there is one mix
    return partner, torch.where(virtual < free, virtual + n, -1)


def with_virtual(target: Tensor, code: Tensor, virtual: Tensor, there: Tensor) -> Tensor:
    """Labels of the rows ``target [*b, N, C]`` and of their mixes after them, for classes and virtual ones."""
    n = target.shape[-1]
    own = virtual[code[..., 0].cpu()].to(target.device)
    mixed = torch.nn.functional.one_hot(own.clamp_min(0), there.shape[-1]).to(target)
    mixed = mixed * ((own >= 0) * target.sum(-1))[..., None] * there[..., None, :]
    wide = torch.nn.functional.pad(target, (0, there.shape[-1] - n))
    return torch.cat([wide, mixed], -2)
