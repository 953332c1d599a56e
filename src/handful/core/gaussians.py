"""Class means, and classes as Gaussians that share a covariance; both also without each item in turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handful.core.items import Items
from handful.core.lowrank import row_space
from handful.core.task import lowest

_NOTHING = 1e-6
"""Share of a class' weight below which nothing is left of it."""


def class_means(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted means ``[*b, C, D]`` and total weights ``[*b, C]`` of rows ``x [*b, N, D]`` under ``y [*b, N, C]``.

    The mean of a class without weight is zero.
    """
    mass = y.sum(-2)
    return (y.mT @ x) / mass.clamp_min(torch.finfo(x.dtype).tiny)[..., None], mass


def means_without_item(x: Tensor, y: Tensor, items: Items) -> tuple[Tensor, Tensor, Tensor]:
    """The class means without each row's own item, as inner products.

        m_ik = (sum_j y_jk x_j - sum_(j in item of i) y_jk x_j) / (sum_j y_jk - sum_(j in item of i) y_jk)

    Returns:
        ``x_i . m_ik``, ``|m_ik|^2`` and whether class k has nothing left without item i, all ``[*b, N, C]``.
    """
    total, mass = y.mT @ x, y.sum(-2)[..., None, :]
    left = mass - items.total(y)
    gone = left <= _NOTHING * mass
    left = torch.where(gone, 1.0, left)
    xx = items.gram(x, x)
    own = items.times(xx, y)  # x_i . sum_(j in item) y_jk x_j
    xt = x @ total.mT
    cross = (xt - own) / left
    square = total.square().sum(-1)[..., None, :] - 2 * items.total(y * xt) + items.total(y * own)
    return cross, square / left.square(), gone


@dataclass(frozen=True)
class Discriminant:
    """Linear discriminants ``x.P mu_c - mu_c.P mu_c / 2`` of rows, in the eigenbasis of their within-class scatter S.

    P is diagonal there, so every function of S costs nothing once the basis is known.

    Args:
        x: rows ``[*b, N, r]``, r = min(N, D).
        y: labels times weights ``[*b, N, C]``.
        mean: class means ``[*b, C, r]``.
        values: eigenvalues of S ``[*b, r]``.
        basis: columns ``[*b, D, r]``; x = (features) basis.
    """

    x: Tensor
    y: Tensor
    mean: Tensor
    values: Tensor
    basis: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Discriminant:
        """From rows ``[*b, N, D]``. S = sum_i sum_c y_ic (x_i - mu_c)(x_i - mu_c)'."""
        x, span = row_space(x)
        mean, _ = class_means(x, y)
        cross = (y @ mean).mT @ x
        scatter = (x * y.sum(-1)[..., None]).mT @ x - cross - cross.mT + (mean * y.sum(-2)[..., None]).mT @ mean
        values, vectors = torch.linalg.eigh(scatter)
        basis = vectors if span is None else span @ vectors
        return cls(x @ vectors, y, mean @ vectors, values.clamp_min(0), basis)

    @property
    def width(self) -> int:
        """D, the width of the features."""
        return self.basis.shape[-2]

    @property
    def trace(self) -> Tensor:
        """tr(S) ``[*b]``."""
        return self.values.sum(-1)

    @property
    def flat(self) -> Tensor:
        """Whether no class has two different rows, so that there is no scatter to speak of ``[*b]``."""
        return _flat(self.trace, (self.y.sum(-1) * self.x.square().sum(-1)).sum(-1))

    def weights(self, precision: Tensor) -> tuple[Tensor, Tensor]:
        """``w [*b, C, D]`` and ``b [*b, C]`` for the eigenvalues ``[*b, r]`` of P."""
        w = self.mean * precision[..., None, :]
        return w @ self.basis.mT, -0.5 * (w * self.mean).sum(-1)

    def without_item(self, items: Items) -> Tensor:
        """Logits ``[*b, N, C]`` of each row under the fit without its item, P = D (S + tr(S) / (n - 1) I)^-1 refitted
        too.

        Rows have one class each, the same for all rows of an item. With R the rows of the item minus their class mean,
        W their weights, v = sum of W, m the weight of the class, S loses R' A R with A^-1 = W^-1 - 11' / m, so

            P_without / D = Q + Q R' (A^-1 - R Q R')^-1 R Q,   Q = (S + ridge_without I)^-1 diagonal.

        A class that was alone with the item has no mean left and gets the lowest logit.
        """
        x, y, mean = self.x, self.y, self.mean
        w, own = y.sum(-1), (y > 0).to(x.dtype)
        mass = (own * y.sum(-2)[..., None, :]).sum(-1)
        left = mass - items.total(w[..., None])[..., 0]
        alone = left <= _NOTHING * mass
        left = torch.where(alone, 1.0, left)
        r = x - own @ mean
        pull = items.total(w[..., None] * r) / left[..., None]
        moved = own @ mean - torch.where(alone[..., None], 0.0, pull)

        n = w.sum(-1, keepdim=True) - items.total(w[..., None])[..., 0]
        lost = items.total((w * r.square().sum(-1))[..., None])[..., 0] + left * pull.square().sum(-1)
        trace = (self.trace[..., None] - lost).clamp_min(0)
        norms = w * x.square().sum(-1)
        flat = _flat(trace, norms.sum(-1, keepdim=True) - items.total(norms[..., None])[..., 0])[..., None]
        ridge = trace / (n - 1).clamp_min(1)
        q = torch.where(flat, 1.0, 1 / (self.values[..., None, :] + torch.where(flat[..., 0], 1.0, ridge)[..., None]))
        r = torch.where(flat, 0.0, r)

        shared = torch.where(alone | (w <= 0), 0.0, 1 / mass.clamp_min(torch.finfo(x.dtype).tiny))
        inverse = torch.where(w > 0, 1 / w.clamp_min(torch.finfo(x.dtype).tiny), 1.0)
        blocks = items.diagonal(inverse) - items.outer(shared, torch.ones_like(w)) - items.gram(r * q, r)
        to_class, to_own = (r * q) @ mean.mT, (r * q * moved).sum(-1, keepdim=True)
        from_x = items.gram(x * q, r)
        cross = (x * q) @ mean.mT + items.times(from_x, items.solve(blocks, to_class))
        square = q @ mean.square().mT + items.total(to_class * items.solve(blocks, to_class))
        cross_own = (x * q * moved).sum(-1, keepdim=True) + items.times(from_x, items.solve(blocks, to_own))
        square_own = (moved * q * moved).sum(-1, keepdim=True) + items.total(to_own * items.solve(blocks, to_own))
        scale = torch.where(flat, 1.0, float(self.width))
        logits = scale * torch.where(own > 0, cross_own - 0.5 * square_own, cross - 0.5 * square)
        return torch.where((own > 0) & alone[..., None], lowest(x), logits)


def _flat(trace: Tensor, energy: Tensor) -> Tensor:
    return trace <= 1e-6 * energy.clamp_min(1e-30)
