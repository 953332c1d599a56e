"""Many two-sided linear fits that share their rows: logistic regressions or squared-hinge machines, a column each.

    min_(w_k, b_k)  sum_i p_ik l(w_k x_i + b_k) + n_ik l(-(w_k x_i + b_k)) + |w_k|^2 / (2 c)
    l(m) = log(1 + exp(-m))  or  max(0, 1 - m)^2

p and n are the weights with which a row speaks for and against a column. One eigenbasis of the rows serves all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from handful.core.lowrank import row_space
from handful.core.softmax_regression import minimise

Loss = Literal["logistic", "squared-hinge"]


def fit_columns(
    x: Tensor,
    positive: Tensor,
    negative: Tensor,
    c: float,
    *,
    loss: Loss = "logistic",
    intercept: bool = True,
    tolerance: float = 1e-5,
    max_steps: int = 1000,
) -> tuple[Tensor, Tensor]:
    """Weights ``[*b, K, D]`` and intercepts ``[*b, K]`` (0 without ``intercept``, which is not penalised).

    Args:
        x: rows ``[*b, N, D]``.
        positive, negative: p and n ``[*b, N, K]``; a row that is 0 in both is not there. A column that is 0 in both
            comes out as 0.
        c: inverse strength.
        loss: see the head of this file.
        intercept: whether there is one.
        tolerance: stop when no entry of a step exceeds this share of the largest weight.
        max_steps: and at the latest after this many.
    """
    mass = (positive + negative).amax(-1, keepdim=True)  # [*b, N, 1]
    total = mass.sum((-2, -1), keepdim=True).clamp_min(1e-30)
    x = torch.where(mass > 0, x, 0.0)
    centre = (mass.mT @ x) / total if intercept else torch.zeros_like(x[..., :1, :])
    rows, span = row_space(torch.where(mass > 0, x - centre, 0.0))
    scatter, vectors = torch.linalg.eigh((rows * mass).mT @ rows)
    span = vectors if span is None else span @ vectors
    rows = rows @ vectors
    bend = 0.25 if loss == "logistic" else 2.0
    curvature = bend * scatter[..., None].clamp_min(0)
    penalty = torch.full_like(curvature, 1 / c)
    if intercept:
        rows = torch.cat([rows, torch.ones_like(mass)], -1)
        curvature, penalty = torch.cat([curvature, bend * total], -2), torch.cat([penalty, torch.zeros_like(total)], -2)
    problem = _Columns(rows, positive, negative, penalty, loss)
    b = minimise(problem, curvature + penalty, tolerance, max_steps)
    bias = b[..., -1:, :] if intercept else torch.zeros_like(b[..., :1, :])
    weights = span @ (b[..., :-1, :] if intercept else b)
    return weights.mT, (bias - centre @ weights)[..., 0, :]


@dataclass(frozen=True)
class _Columns:
    """The objective as `handful.core.softmax_regression.minimise` takes it."""

    rows: Tensor
    y: Tensor
    against: Tensor
    penalty: Tensor
    loss: Loss

    @property
    def mass(self) -> Tensor:
        return (self.y + self.against).amax(-1, keepdim=True)

    def value(self, b: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        if self.loss == "logistic":
            fit = self.y * torch.nn.functional.softplus(-logits) + self.against * torch.nn.functional.softplus(logits)
            error = (self.y + self.against) * logits.sigmoid() - self.y
        else:
            short, over = (1 - logits).clamp_min(0), (1 + logits).clamp_min(0)
            fit = self.y * short.square() + self.against * over.square()
            error = 2 * (self.against * over - self.y * short)
        ridge = 0.5 * self.penalty * b.square()
        return fit.sum((-2, -1), keepdim=True) + ridge.sum((-2, -1), keepdim=True), error
