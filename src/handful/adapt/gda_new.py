"""Gaussian discriminants of classes without examples, from the examples of other classes near their text.

Paper 065: Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", 2024,
its base-to-new generalisation. With v_1 ... v_k the k = 64 examples nearest to the text t of a new class:

    mu_t = (sum_i v_i + 16 t) / (k + 16)
    P    = mean over new classes of  D ((k - 1) Sigma_t + tr(Sigma_t) I)^-1,
           Sigma_t = sum_i (v_i - t)(v_i - t)' / (k - 1)
    w_t  = P mu_t,   b_t = -mu_t.P mu_t / 2

P is never made: (R'R + c I)^-1 = (I - R'(R R' + c I)^-1 R) / c with the k rows v_i - t of R.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.distances import unit

NEAREST, COPIES = 64, 16


def synthesised(x: Tensor, weight: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """``w [U, D]`` and ``b [U]`` of classes known by their text; fewer than 64 examples are all taken.

    Args:
        x: examples ``[N, D]``.
        weight: of each ``[N]``; one of weight 2 is two of the nearest, one of weight 0 none.
        text: unit class text ``[U, D]``.
    """
    cosine = (text @ unit(x).mT).masked_fill(weight <= 0, -2.0)
    index = cosine.topk(min(NEAREST, len(x)), -1).indices
    share = weight[index]
    share = torch.minimum(share, (NEAREST - share.cumsum(-1) + share).clamp_min(0))  # [U, k]: 64 in all
    near, k = x[index], share.sum(-1, keepdim=True)
    mean = ((share[..., None] * near).sum(-2) + COPIES * text) / (k + COPIES)

    r = share.sqrt()[..., None] * (near - text[:, None])  # [U, k, D]
    ridge = r.square().sum((-2, -1)) / (k[:, 0] - 1).clamp_min(1)
    ridge = ridge.clamp_min(torch.finfo(x.dtype).eps)
    eye = torch.eye(r.shape[-2], dtype=x.dtype, device=x.device)
    width = x.shape[-1]
    solved = torch.linalg.solve(r @ r.mT + ridge[:, None, None] * eye, r) * (width / ridge)[:, None, None]
    pulled = (mean @ r.flatten(0, 1).mT) @ solved.flatten(0, 1) / len(text)
    w = (width / ridge).mean() * mean - pulled
    return w, -0.5 * (w * mean).sum(-1)
