"""What soft clusterings share: rows, prototypes that are weighted sums of them, assignments ``[*b, C, n]``.

Inside these loops classes come before rows: sums and softmaxes over a few classes are an order of magnitude faster so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows ``z [*b, n, D]``, seen by prototypes ``c = a z`` with coefficients ``a [*b, C, n]``.

    With fewer rows than numbers in each, the inner products of rows are all that is needed: |z - c|^2 costs n numbers,
    not D. They cost as much as ten looks at the rows themselves.
    """

    z: Tensor
    square: Tensor
    gram: Tensor | None

    @classmethod
    def of(cls, z: Tensor, looks: int = 1000) -> Rows:
        """Of ``z [*b, n, D]``, at which one will look so many times."""
        gram = z @ z.mT if z.shape[-2] <= z.shape[-1] and looks > 10 else None
        square = z.norm(dim=-1).square_() if gram is None else gram.diagonal(dim1=-2, dim2=-1)
        return cls(z, square, gram)

    def products(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """``c . z [*b, C, n]`` and ``|c|^2 [*b, C]``."""
        if self.gram is not None:
            cross = a @ self.gram
            return cross, (cross * a).sum(-1)
        c = a @ self.z
        return c @ self.z.mT, c.square().sum(-1)

    def cosine(self, a: Tensor) -> Tensor:
        """Cosines of prototypes and rows ``[*b, C, n]``."""
        cross, square = self.products(a)
        tiny = torch.finfo(cross.dtype).tiny ** 0.5
        lengths = square.clamp_min(0).sqrt()[..., None] * self.square.clamp_min(0).sqrt()[..., None, :]
        return cross / lengths.clamp_min(tiny)

    def sqeuclidean(self, a: Tensor) -> Tensor:
        """Squared distances of prototypes and rows ``[*b, C, n]``, not below 0."""
        cross, square = self.products(a)
        return torch.add(square[..., None] + self.square[..., None, :], cross, alpha=-2).clamp_min_(0)


def shares(weight: Tensor) -> Tensor:
    """Weights ``[*b, C, n]`` divided by their sum over n: coefficients of weighted means. No weight, no mean: zeros."""
    return weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)


def real_classes(y: Tensor) -> Tensor:
    """Which classes have examples ``[*b, C]``, by labels times weights ``y [*b, N, C]``."""
    return y.sum(-2) > 0


def among(real: Tensor, logits: Tensor) -> Tensor:
    """``logits [*b, C, n]`` with -inf where a class ``[*b, C]`` is not real, ready for a softmax over classes."""
    return logits.masked_fill(~real[..., None], -torch.inf)
