"""Rows that show the same item, and matrices that are zero between rows of different items.

Leave-one-out takes all rows of an item out together. Its closed forms need small matrices, one an item; here they are
the diagonal blocks of one ``[*b, N, N]`` matrix or, where every row is an item of its own, just a diagonal ``[*b, N]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Items:
    """The partition of N support rows into items.

    Args:
        same: ``[*b, N, N]``, whether two rows show one item; ``None`` when every row is an item of its own. A padded
            row is an item of its own.
        first: ``[*b, N]``, whether a row is the first real row of its item.
    """

    same: Tensor | None
    first: Tensor

    @classmethod
    def of(cls, item: Tensor | None, real: Tensor) -> Items:
        """From item numbers ``[*b, N]`` (``None``: all differ) and which rows are real ``[*b, N]``."""
        if item is None:
            return cls(None, real)
        n = item.shape[-1]
        same = (item[..., :, None] == item[..., None, :]) & real[..., :, None] & real[..., None, :]
        earlier = torch.ones(n, n, dtype=torch.bool, device=item.device).tril(-1)
        first = real & ~(same & earlier).any(-1)
        return cls(same | torch.eye(n, dtype=torch.bool, device=item.device), first)

    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products of the rows of ``a`` and ``b`` ``[*b, N, D]`` within items: a block matrix."""
        return (a * b).sum(-1) if self.same is None else torch.where(self.same, a @ b.mT, 0.0)

    def within(self, matrix: Tensor) -> Tensor:
        """The diagonal blocks of ``matrix [*b, N, N]``."""
        return matrix.diagonal(dim1=-2, dim2=-1) if self.same is None else torch.where(self.same, matrix, 0.0)

    def outer(self, a: Tensor, b: Tensor) -> Tensor:
        """``a_i b_j`` of ``[*b, N]`` within items."""
        return a * b if self.same is None else torch.where(self.same, a[..., :, None] * b[..., None, :], 0.0)

    def diagonal(self, a: Tensor) -> Tensor:
        """The block matrix with ``a [*b, N]`` on its diagonal."""
        return a if self.same is None else torch.diag_embed(a)

    def times(self, blocks: Tensor, v: Tensor) -> Tensor:
        """A block matrix times ``v [*b, N, C]``."""
        return blocks[..., None] * v if self.same is None else blocks @ v

    def solve(self, blocks: Tensor, v: Tensor) -> Tensor:
        """The inverse of a block matrix times ``v [*b, N, C]``."""
        return v / blocks[..., None] if self.same is None else torch.linalg.solve(blocks, v)

    def total(self, v: Tensor) -> Tensor:
        """For each row, the sum of ``v [*b, N, C]`` over the rows of its item."""
        return v if self.same is None else self.same.to(v.dtype) @ v

    def dealt(self, kind: Tensor, folds: int) -> Tensor:
        """Fold of each row ``[*b, N]``: the items of each ``kind [*b, N]`` in turn, rows of one item together.

        Kinds start at different folds, so that no fold is short of all of them.
        """
        n = kind.shape[-1]
        earlier = torch.ones(n, n, dtype=torch.bool, device=kind.device).tril(-1)
        mate = (kind[..., :, None] == kind[..., None, :]) & earlier & self.first[..., None, :]
        rank = mate.sum(-1)
        if self.same is not None:  # every row follows the first of its item
            leader = (self.same & self.first[..., None, :]).to(torch.uint8).argmax(-1)
            rank, kind = rank.gather(-1, leader), kind.gather(-1, leader)
        return (rank + kind) % folds
