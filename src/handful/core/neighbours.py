"""Nearest neighbours among the rows of each problem, and sums over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CELLS = 2**24
"""Distances held at a time."""


@dataclass(frozen=True)
class Neighbours:
    """The graph in which every row points at its k nearest others.

    Args:
        index: ``[*b, n, k]``.
        weight: ``[*b, n, k]``, 1, or 0 where there is no such neighbour.
        symmetric: count an edge half in either direction, so that the graph has a symmetric matrix.
    """

    index: Tensor
    weight: Tensor
    symmetric: bool = False

    @classmethod
    def of(cls, z: Tensor, k: int, real: Tensor, *, gram: Tensor | None = None, symmetric: bool = False) -> Neighbours:
        """Of the real rows ``[*b, n]`` of ``z [*b, n, D]``, whose inner products may be known."""
        n = z.shape[-2]
        square = z.norm(dim=-1).square() if gram is None else gram.diagonal(dim1=-2, dim2=-1)
        square = square.masked_fill(~real, torch.inf)
        step = max(1, CELLS // max(1, square.numel()))
        index, weight = [], []
        for at in range(0, n, step):
            part = slice(at, at + step)
            cross = z[..., part, :] @ z.mT if gram is None else gram[..., part, :]
            distance = torch.add(square[..., None, :], cross, alpha=-2)  # the row's own square changes no order
            distance.diagonal(at, -2, -1).fill_(torch.inf)
            near = distance.topk(min(k, n), -1, largest=False)
            index.append(near.indices)
            weight.append(near.values.isfinite() & real[..., part, None])
        return cls(torch.cat(index, -2), torch.cat(weight, -2).to(z.dtype), symmetric)

    def sum(self, y: Tensor) -> Tensor:
        """``sum_j w_ij y_cj`` for ``y [*b, C, n]``."""
        c, (n, k) = y.shape[-2], self.index.shape[-2:]
        index = self.index.flatten(-2)[..., None, :].expand(*y.shape[:-1], n * k)
        out = (y.gather(-1, index).reshape(*y.shape[:-1], n, k) * self.weight[..., None, :, :]).sum(-1)
        if not self.symmetric:
            return out
        pushed = (y[..., None] * self.weight[..., None, :, :]).reshape(*y.shape[:-2], c, n * k)
        return (out + torch.zeros_like(y).scatter_add_(-1, index, pushed)) / 2
