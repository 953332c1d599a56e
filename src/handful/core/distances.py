"""Distances and similarities between rows, with any leading batch dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Rows of ``x [..., d]`` divided by their Euclidean length; a zero row stays zero."""
    return torch.nn.functional.normalize(x, dim=-1)


def unit_(x: Tensor) -> Tensor:
    """`unit`, in the memory of ``x``: what is as large as the features is not made twice."""
    return x.div_(x.norm(dim=-1, keepdim=True).clamp_min_(1e-12))


def sqeuclidean(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances ``[..., n, m]`` of ``a [..., n, d]`` and ``b [..., m, d]``, not below 0.

    Both are moved by the mean of ``b`` first: distances do not change, and far from the origin the expansion
    |a|^2 - 2ab + |b|^2 would lose its digits.
    """
    origin = b.mean(-2, keepdim=True)
    a, b = a - origin, b - origin
    squares = a.norm(dim=-1).square()[..., :, None] + b.norm(dim=-1).square()[..., None, :]
    found: Tensor = (squares - 2 * (a @ b.mT)).clamp_min(0)
    return found


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines ``[..., n, m]`` of the rows of ``a [..., n, d]`` and ``b [..., m, d]``."""
    return (a @ unit(b).mT).div_(a.norm(dim=-1, keepdim=True).clamp_min(1e-12))
