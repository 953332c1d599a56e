"""Dirichlet distributions fitted by weight: the maximum of the likelihood, found by majorising it.

log p(z | a) = lnG(sum a) - sum lnG(a_j) + sum (a_j - 1) log z_j
at the maximum   psi(a_j) - psi(sum a) = y_j,   y = weighted mean of log z
a <- (-b + sqrt(b^2 + 4 c)) / (2 c),   c = |2 (lnG(1) - lnG(a + 1) + psi(a + 1) a) / a^2|,
                                       b = psi(a + 1) - psi(sum a) - c a - y
"""

from __future__ import annotations

import torch
from torch import Tensor

LOOK, CLOSE, MOST = 50, 1e-11, 1000
"""Every how many sweeps to look whether |change|^2 / |a|^2 is below CLOSE, and how many there are at most."""
FLOOR = 1e-11
ZETA2, ZETA3, ZETA4 = 1.6449340668482264, 1.2020569031595943, 1.0823232337111382


def log_density(log_z: Tensor, a: Tensor, there: Tensor) -> Tensor:
    """``log p [*b, C, n]`` of rows ``log_z [*b, n, F]`` under ``a [*b, C, F]``; entries not ``there [*b, 1, F]`` are
    left out.
    """
    known = torch.where(there, a, 1.0)
    total = torch.where(there, a, 0.0).sum(-1)
    norm = torch.lgamma(total) - torch.lgamma(known).sum(-1)
    return norm[..., None] + (known - 1) @ torch.where(there, log_z, 0.0).mT


def fit_dirichlet(mean_log: Tensor, start: Tensor, there: Tensor) -> Tensor:
    """``a [*b, C, F]`` from weighted means of log z ``[*b, C, F]``, from ``start`` on, where it stays if not ``there``.

    Every task stops by itself. Gradients pass through all sweeps.
    """
    there = there.expand(start.shape)
    nothing = (~there).all(-1, keepdim=True)
    a, busy = start, torch.ones(start.shape[:-2], dtype=torch.bool, device=start.device)[..., None, None]
    for sweep in range(MOST):
        c, psi = _curvature(a)
        total = torch.where(there, a, 0.0).sum(-1, keepdim=True) + nothing
        b = psi - torch.digamma(total) - c * a - mean_log
        # The root without cancellation where b is positive.
        root = (b.square() + 4 * c).sqrt()
        after = torch.where(b > 0, 2 / (b + root), (root - b) / (2 * c)).clamp_min(FLOOR)
        after = torch.where(there & busy, after, a)
        if sweep and sweep % LOOK == 0:
            with torch.no_grad():
                change = torch.where(there, after - a, 0.0).square().sum((-2, -1), keepdim=True)
                size = torch.where(there, a, 0.0).square().sum((-2, -1), keepdim=True)
                busy = busy & (change >= CLOSE * size)
            if not busy.any():
                return after
        a = after
    return a


def _curvature(a: Tensor) -> tuple[Tensor, Tensor]:
    """c and psi(a + 1). Below ``few`` the difference in c has no digits left; its series has."""
    few = 2e-2 if a.dtype == torch.float32 else 1e-4
    psi, large = torch.digamma(a + 1), a.clamp_min(few)
    exact = (2 * (torch.digamma(large + 1) * large - torch.lgamma(large + 1)) / large.square()).abs()
    series = ZETA2 - 4 / 3 * ZETA3 * a + 3 / 2 * ZETA4 * a.square()
    return torch.where(a > few, exact, series), psi
