"""Entropic optimal transport by Sinkhorn's sweeps, many problems at once; without entropy, see `matching`.

    P = argmin_(P >= 0)  <P, cost> + reg sum P log P,   rows of P summing to ``a`` and columns to ``b``

One sweep scales every column n of P to sum to ``b_n``, then every row m to sum to ``a_m``. Where a marginal is 0
nothing is sent: that is how padding stays out. A problem leaves the batch as soon as it has converged, so that a batch
gives what a loop gives.

Where mass hardly mixes, sweeps come closer ever more slowly. Problems that are not solved after some get a step of
Newton's before each further sweep, on the logarithms f of the rows' factors: with columns scaled, row sums r change by

    dr = L df,   L = diag(r) - P diag(1 / b) P^T,   the Laplacian of a graph of rows

so that L df = a - r. The step is shortened by log(1 + d) / d, d = max df - min df, with which such sums of logarithms
of sums of exponentials always come closer (Sun, Tran-Dinh, "Generalized self-concordant functions", 2019, for nu = 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from handful.errors import BadInput

Sums = Callable[[Tensor], Tensor]
Sweep = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(p, its column sums, a, b) -> p`` after one sweep; p may be a logarithm."""
ALONE = 5
"""Sweeps before Newton's steps begin: most plans are found by then, and a sweep is the cheaper of the two."""


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
        tol: a problem is solved when no column's sum is off by more than this, and than the number format can tell. Row
            sums are exact then.
        max_sweeps: and at the latest after so many, those that follow a step of Newton's among them.
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
        p = _until_converged(_sweep, _newton, lambda p: p.sum(-2), log_p.exp_(), a, b, tol, max_sweeps)
    else:
        sums: Sums = lambda p: p.logsumexp(-2).exp()  # noqa: E731
        p = _until_converged(_log_sweep, _log_newton, sums, log_p, a, b, tol, max_sweeps).exp()
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
    return float(span) < -0.45 * math.log(torch.finfo(log_p.dtype).tiny)  # which a float32 tensor would round to 0


def _sweep(p: Tensor, columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    p = _scaled(p, columns, b, -2)
    return _scaled(p, p.sum(-1), a, -1)


def _newton(p: Tensor, columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    p = _scaled(p, columns, b, -2)
    return p.mul_(_rows(p, a, b).exp()[..., None])


def _scaled(p: Tensor, sums: Tensor, wanted: Tensor, dim: int) -> Tensor:
    return p.mul_((wanted / sums.clamp_min(torch.finfo(p.dtype).tiny)).unsqueeze(dim))


def _log_sweep(log_p: Tensor, _columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _log_scaled(_log_scaled(log_p, b, -2), a, -1)


def _log_newton(log_p: Tensor, _columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    log_p = _log_scaled(log_p, b, -2)
    return log_p + _rows(log_p.exp(), a, b)[..., None]


def _log_scaled(log_p: Tensor, wanted: Tensor, dim: int) -> Tensor:
    lowest = torch.finfo(log_p.dtype).min / 8
    return log_p + (wanted.log() - log_p.logsumexp(dim)).nan_to_num(0.0, 0.0, lowest).unsqueeze(dim)


def _rows(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """By how much to move the logarithms of the rows' factors ``[*b, M]``; at most 0, as only differences count."""
    dtype, p, a, b = p.dtype, p.double(), a.double(), b.double()
    r = p.sum(-1)
    laplacian = -(p / b.clamp_min(torch.finfo(b.dtype).tiny)[..., None, :]) @ p.mT
    off = laplacian.diagonal_scatter(torch.zeros_like(r), dim1=-2, dim2=-1)
    degree = -off.sum(-1)  # without the difference of two numbers nearly alike that is on the diagonal
    hold = torch.where(a > 0, 1e-12 * degree + 1e-200, 1.0)  # adding alike to all of f changes nothing: L is singular
    matrix = off + torch.diag_embed(degree + hold)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    step = torch.cholesky_solve((a - r)[..., None], factor).squeeze(-1)
    step = torch.where((failed > 0)[..., None], 0.0, step).nan_to_num(0.0, 0.0, 0.0)
    step = step - torch.where(a > 0, step, -torch.inf).amax(-1, keepdim=True)
    step = torch.where(a > 0, step, 0.0)
    d = -step.amin(-1, keepdim=True)
    return (step * (d.log1p() / d.clamp_min(torch.finfo(d.dtype).tiny))).to(dtype)


def _until_converged(
    sweep: Sweep, newton: Sweep, sums: Sums, p: Tensor, a: Tensor, b: Tensor, tol: float, max_sweeps: int
) -> Tensor:
    """Sweep those problems that are not solved yet, and put solved ones back where they came from."""
    out, index, columns = p, None, sums(p)
    near = (4 * torch.finfo(b.dtype).eps * a.amax(-1)).clamp_min_(tol)
    for done in range(1, max_sweeps + 1):
        if done > ALONE:
            p = newton(p, columns, a, b)
            columns = sums(p)
        p = sweep(p, columns, a, b)
        columns = sums(p)
        busy = (columns - b).abs_().amax(-1) > near
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
        p, a, b, columns, index, near = (t[busy] for t in (p, a, b, columns, index, near))
    return out
