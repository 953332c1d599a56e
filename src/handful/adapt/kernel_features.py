"""The Gaussian kernel of unit rows by few features, for more rows than a kernel matrix can have.

    k(a, b) = exp(-beta (1 - a.b))  is about  phi(a).phi(b)

Nystroem: with landmarks L among the rows and K_LL = V diag(s) V',  phi(z) = k(z, L) V diag(s)^(-1/2).

Random Fourier features, orthogonal (Yu, Suresh, Choromanski, Holtmann-Rice, Kumar, "Orthogonal Random Features", 2016):
phi(z) = (cos W z, sin W z) / sqrt(M). The M rows of W point in directions that are orthogonal D by D and are as long as
Gaussian vectors of variance beta.

Used by paper 140 for its kernel ridge regression of many examples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from handful.core.kernels import Ridge, rbf


def landmarks(x: Tensor, real: Tensor, n: int, seed: int) -> Tensor:
    """n of the real rows of ``x [*b, N, D]``, drawn: ``[*b, M, D]``, zeros where there are fewer."""
    order = torch.rand(x.shape[-2], generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x.device)
    index = torch.where(real, order, 2.0).argsort(-1)[..., :n]
    at = index[..., None].expand(*index.shape, x.shape[-1])
    return torch.where(real.gather(-1, index)[..., None], x.gather(-2, at), 0.0)


def whitening(keys: Tensor, beta: Tensor) -> Tensor:
    """``V diag(s)^(-1/2)`` ``[*b, M, M]`` of landmarks; directions that are lost in rounding, and zeros, drop out."""
    there = keys.abs().sum(-1) > 0
    kernel = rbf(keys, keys, beta[..., None, None]) * (there[..., :, None] & there[..., None, :])
    s, v = torch.linalg.eigh(kernel)
    small = s <= s.amax(-1, keepdim=True) * s.shape[-1] * torch.finfo(s.dtype).eps
    white: Tensor = v * torch.where(small, 0.0, s.clamp_min(1e-30).rsqrt())[..., None, :]
    return white


def frequencies(width: int, n: int, beta: Tensor, seed: int) -> Tensor:
    """W ``[*b, 2 M, D]`` for n features, each row twice: one for the cosine and one for the sine."""
    draw, half = torch.Generator().manual_seed(seed), math.ceil(n / 2)
    blocks = math.ceil(half / width)
    gauss = torch.randn(2, blocks, width, width, generator=draw, dtype=torch.float64)
    q, r = torch.linalg.qr(gauss[0])
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]  # evenly distributed over rotations
    w = (q * gauss[1].norm(dim=-1, keepdim=True)).flatten(0, 1)[:half]
    return beta.sqrt()[..., None, None] * torch.cat([w, w]).to(beta)


def fourier(z: Tensor, w: Tensor) -> Tensor:
    """Features ``[*b, n, 2 M]`` of unit rows ``[*b, n, D]`` by `frequencies`."""
    half = w.shape[-2] // 2
    angle = z @ w[..., :half, :].mT
    return torch.cat([angle.cos(), angle.sin()], -1) / math.sqrt(half)


def ridge(features: Tensor, target: Tensor, weight: Tensor, strength: Tensor) -> Tensor:
    """``argmin_a sum_i w_i |y_i - phi_i a|^2 + lambda |a|^2`` ``[*b, M, C]``.

    Args:
        features: ``[*b, N, M]``.
        target: ``[*b, N, C]``.
        weight: ``[*b, N]``.
        strength: lambda ``[*b]``.
    """
    root = weight.clamp_min(0).sqrt()[..., None]
    features, target = root * features, root * target
    few = features.shape[-2] < features.shape[-1]  # the smaller of the two systems
    gram, right = (features @ features.mT, target) if few else (features.mT @ features, features.mT @ target)
    solved = Ridge.of(gram, right, torch.ones_like(right[..., 0]), strength).coefficients()
    return features.mT @ solved if few else solved
