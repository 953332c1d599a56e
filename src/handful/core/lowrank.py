"""Fewer dimensions without loss."""

from __future__ import annotations

import torch
from torch import Tensor


def row_space(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Coordinates ``[*b, N, r]`` of rows ``x [*b, N, D]`` in an orthonormal basis ``[*b, D, r]`` of their span.

    All inner products stay. r = N where N < D; otherwise there is nothing to gain: the rows as they are, and ``None``.
    """
    if x.shape[-1] <= x.shape[-2]:
        return x, None
    basis, triangle = torch.linalg.qr(x.mT)
    return triangle.mT, basis
