"""Classes as Gaussians that lean on base classes: ``N(mean_c, sum_b mix_cb F_b'F_b + level_c I)``.

A base class leans on itself alone. F_b has the principal axes of its examples for rows, each as long as the standard
deviation along it: no example is kept, and where a class has fewer examples than features nothing is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.gaussians import class_means


def principal_axes(x: Tensor, y: Tensor) -> Tensor:
    """F ``[*b, C, R, D]`` of every class: ``F'F`` is the covariance of its rows (their number less one), zero for a
    class of one example.

    Args:
        x: rows ``[*b, N, D]``.
        y: labels times weights ``[*b, N, C]``.
    """
    mean, mass = class_means(x, y)
    most = int((y > 0).sum(-2).max())  # rows of the largest class: R is that, or D
    weight, place = (t.mT for t in y.topk(most, -2))  # [*b, C, most]
    rows = x.gather(-2, place.flatten(-2)[..., None].expand(*place.shape[:-2], -1, x.shape[-1]))
    rows = rows.reshape(*place.shape, x.shape[-1]) - mean[..., None, :]
    spread = (weight / (mass - 1).clamp_min(1e-6)[..., None]).sqrt()
    spread = torch.where((mass > 1 + 1e-6)[..., None], spread, 0.0)
    _, values, axes = torch.linalg.svd(spread[..., None] * rows, full_matrices=False)
    factor: Tensor = values[..., None] * axes
    return factor


def drawn(mean: Tensor, mix: Tensor, level: Tensor, factor: Tensor, n: int, most: int, draw: torch.Generator) -> Tensor:
    """n rows of each of K classes ``[K, n, D]``.

    Args:
        mean: ``[K, D]``.
        mix: shares of the classes of ``factor`` ``[K, C]``, at most ``most`` of them above 0 a row.
        level: ``[K]``.
        factor: F ``[C, R, D]``.
        n: how many.
        most: see ``mix``.
        draw: what draws.
    """
    share, of = mix.topk(min(most, mix.shape[-1]), -1)
    k, d = mean.shape

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw, dtype=torch.float64).to(mean)

    out = mean[:, None] + level.sqrt()[:, None, None] * normal(k, n, d)
    for j in range(of.shape[-1]):  # a few: base classes a class leans on
        out = out + share[:, j, None, None].sqrt() * (normal(k, n, factor.shape[-2]) @ factor[of[:, j]])
    return out
