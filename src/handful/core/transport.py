"""Entropic optimal transport by Sinkhorn's sweeps, many problems at once; without entropy, see `matching`.

    P = argmin_(P >= 0)  <P, cost> + reg sum P log P,   rows of P summing to ``a`` and columns to ``b``

One sweep scales every column n of P to sum to ``b_n``, then every row m to sum to ``a_m``. Where a marginal is 0
nothing is sent: that is how padding stays out. A problem leaves the batch as soon as it has converged, so that a batch
gives what a loop gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from handful.errors import BadInput

Sweep = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(p, its column sums, a, b) -> p`` after one sweep; p may be a logarithm."""


def sinkhorn(
    cost: Tensor,
    reg: float,
    a: Tensor,
    b: Tensor,
    *,
    tol: float = 1e-6,
    max_sweeps: int = 1000,
    domain: Literal["auto", "probability", "log"] = "auto",
) -> Tensor:
    """The plan ``[*b, M, N]`` between ``a [*b, M]`` and ``b [*b, N]``, both with the same total.

    Args:
        cost: ``[*b, M, N]``.
        reg: how much entropy counts, in units of the cost.
        tol: a problem is solved when a sweep changes no column's sum by more than this. Row sums are exact then; column
            sums are off by more than ``tol`` where convergence is slow.
        max_sweeps: and at the latest after so many.
        domain: ``"probability"`` is fastest but loses plans whose costs span more than the exponent of the number
            format can hold; ``"log"`` never does; ``"auto"`` looks at the costs.

    Raises:
        BadInput: reg not above 0.
    """
    if not 0 < reg < float("inf"):
        raise BadInput(f"the regularisation of the transport must be above 0, not {reg}")
    batch, (m, n) = cost.shape[:-2], cost.shape[-2:]
    a, b = a.expand(*batch, m).reshape(-1, m), b.expand(*batch, n).reshape(-1, n)
    log_p = cost.reshape(-1, m, n) / -reg
    if not bool((a > 0).all() & (b > 0).all()):
        log_p = log_p.masked_fill((a[..., :, None] <= 0) | (b[..., None, :] <= 0), -torch.inf)
    # What is added to a whole column of costs changes no plan.
    log_p = log_p - log_p.amax(-2, keepdim=True).clamp_min(torch.finfo(cost.dtype).min)
    if domain == "auto":
        domain = "probability" if _fits(log_p) else "log"
    if domain == "probability":
        p = _until_converged(_sweep, lambda p: p.sum(-2), log_p.exp_(), a, b, tol, max_sweeps)
    else:
        p = _until_converged(_log_sweep, lambda p: p.logsumexp(-2).exp(), log_p, a, b, tol, max_sweeps).exp()
    return p.reshape(*batch, m, n)


def matching(cost: Tensor) -> Tensor:
    """The cheapest plan ``[*b, M, M]`` between uniform marginals 1 / M, without entropy: one over M at each pair.

    Raises:
        BadInput: the costs are not square, or not finite.
    """
    from scipy.optimize import linear_sum_assignment

    m = cost.shape[-1]
    if cost.shape[-2] != m:
        raise BadInput(f"units are matched one to one, so that costs are square, not {tuple(cost.shape)}")
    if not bool(torch.isfinite(cost).all()):
        raise BadInput("units with numbers that are not finite cannot be matched")
    plan = torch.zeros_like(cost)
    for one, found in zip(plan.reshape(-1, m, m), cost.reshape(-1, m, m), strict=True):
        rows, columns = linear_sum_assignment(found.detach().cpu().numpy())
        one[rows, columns] = 1 / m
    return plan


def _fits(log_p: Tensor) -> bool:
    """Whether exponentials of the costs, and twice as much, can be told from zero."""
    span = -log_p.masked_fill(log_p == -torch.inf, 0.0).amin()
    return bool(span < -0.45 * torch.tensor(torch.finfo(log_p.dtype).tiny).log())


def _sweep(p: Tensor, columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    tiny = torch.finfo(p.dtype).tiny
    p = p.mul_((b / columns.clamp_min(tiny))[..., None, :])
    return p.mul_((a / p.sum(-1).clamp_min_(tiny))[..., None])


def _log_sweep(log_p: Tensor, _columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    lowest = torch.finfo(log_p.dtype).min / 8
    log_p = log_p + (b.log() - log_p.logsumexp(-2)).nan_to_num(0.0, 0.0, lowest)[..., None, :]
    return log_p + (a.log() - log_p.logsumexp(-1)).nan_to_num(0.0, 0.0, lowest)[..., None]


def _until_converged(
    sweep: Sweep, sums: Callable[[Tensor], Tensor], p: Tensor, a: Tensor, b: Tensor, tol: float, max_sweeps: int
) -> Tensor:
    """Sweep those problems that are not solved yet, and put solved ones back where they came from."""
    out, index, columns = p, None, sums(p)
    for done in range(1, max_sweeps + 1):
        before, p = columns, sweep(p, columns, a, b)
        columns = sums(p)
        busy = (columns - before).abs_().amax(-1) > tol
        left = int(busy.sum()) if done < max_sweeps else 0
        if left == len(busy):
            continue
        if index is None:
            out, index = p.clone() if left else p, torch.arange(len(p), device=p.device)
        elif not left:
            out[index] = p
        else:
            out[index[~busy]] = p[~busy]
        if not left:
            break
        p, a, b, columns, index = p[busy], a[busy], b[busy], columns[busy], index[busy]
    return out
