"""The nearest point of a simplex."""

from __future__ import annotations

import torch
from torch import Tensor


def onto_simplex(z: Tensor, there: Tensor, total: Tensor | float = 1.0) -> Tensor:
    """The nearest rows to ``z [..., C]`` that are not negative and sum to ``total [..., 1]``, zero where ``there
    [..., C]`` is false (Held, Wolfe, Crowder 1974: one number is taken from every entry, what falls below 0 is 0)."""
    z = z.masked_fill(~there, -torch.inf)
    ordered = z.sort(-1, descending=True).values
    above = ordered.masked_fill(ordered.isinf(), 0.0).cumsum(-1) - total
    n = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    size = (ordered * n > above).sum(-1, keepdim=True).clamp_min(1)
    return (z - above.gather(-1, size - 1) / size).clamp_min(0)
