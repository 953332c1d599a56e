"""Classes as mixtures of Gaussians with diagonal covariances, shrunk to the pooled variance.

sigma2_kj = (n_kj s2_kj + nu s2_pool) / (n_kj + nu),   s2_pool where n_kj <= 1
d_k(q)    = -log sum_j pi_kj N(q; mu_kj, diag sigma2_kj)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handful.core.gaussians import class_means
from handful.core.task import lowest

ROUNDS = 20
"""Of expectation and maximisation, where a class has several components."""
FLOOR = 1e-6
"""Least variance of a feature, over the mean of the pooled variances."""
_NOTHING = 1e-6
"""Share of a component's weight below which nothing is left of it."""
_ONE = 1 + 1e-5
"""Weight up to which a component has the variance of one row, none: shares add up to 1 with a rounding error."""


@dataclass(frozen=True)
class Mixtures:
    """C classes of J components each.

    Args:
        mean, variance: ``[*b, C, J, D]``.
        share: ``[*b, C, J]``, pi; 0 for a component without examples.
        mass: ``[*b, C]``; 0 for a class without examples, which is infinitely far.
        raised: ``[*b, C]``, whether a class of several examples had no spread of its own and nothing to shrink to.
    """

    mean: Tensor
    variance: Tensor
    share: Tensor
    mass: Tensor
    raised: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.bool))

    @classmethod
    def of(cls, x: Tensor, y: Tensor, components: int, shrinkage: float) -> Mixtures:
        """From rows ``[*b, N, D]``, zero where padded, and labels times weights ``[*b, N, C]``."""
        centre, mass = class_means(x, y)
        own = y.mT[..., None]  # [*b, C, N, 1]
        if components == 1:
            return cls._measured(x, own, mass, shrinkage)
        near = _farthest(x, y, centre, components)
        for _ in range(ROUNDS):
            fitted = cls._measured(x, own * near, mass, shrinkage)
            near = fitted._parts(x).movedim(-3, -2).softmax(-1)
        return cls._measured(x, own * near, mass, shrinkage)

    @classmethod
    def _measured(cls, x: Tensor, part: Tensor, mass: Tensor, shrinkage: float) -> Mixtures:
        """From the part ``[*b, C, N, J]`` of each row in each component."""
        flat = part.movedim(-2, -3).flatten(-2)  # [*b, N, C J]
        mean, n = class_means(x, flat)
        c, j = part.shape[-3], part.shape[-1]
        origin = x.mean(-2, keepdim=True)  # squares keep their digits far from 0
        square, _ = class_means((x - origin).square(), flat)
        variance = (square - (mean - origin).square()).clamp_min(0).reshape(*x.shape[:-2], c, j, x.shape[-1])
        mean, n = mean.reshape(variance.shape), n.reshape(variance.shape[:-1])
        pool = _pooled(mean, variance, n)
        floor = FLOOR * pool.mean(-1)[..., None, None, None]
        trust = torch.zeros_like(n) if shrinkage == math.inf else n / (n + shrinkage).clamp_min(1e-30)
        flat_class = (variance <= floor).all(-1) & (n > _ONE)
        trust = torch.where((n <= _ONE) | (flat_class & (shrinkage == 0)), 0.0, trust)[..., None]
        variance = (trust * variance + (1 - trust) * pool[..., None, None, :]).clamp_min(floor)
        share = n / mass.clamp_min(torch.finfo(x.dtype).tiny)[..., None]
        return cls(mean, variance, share, mass, (flat_class & (shrinkage == 0)).any(-1))

    @property
    def centre(self) -> Tensor:
        """Class means ``[*b, C, D]``."""
        return (self.share[..., None] * self.mean).sum(-2)

    def distances(self, x: Tensor) -> Tensor:
        """``d_k`` of rows ``[*b, Q, D]``: ``[*b, Q, C]``; that of a class without examples is ``-lowest``."""
        found = -self._parts(x).logsumexp(-1)
        return torch.where((self.mass > 0)[..., None, :], found, -lowest(found))

    def distances_left_out(self, x: Tensor, y: Tensor, shrinkage: float) -> Tensor:
        """`distances` of the rows learnt from, each to its own class as if it had not been learnt from.

        Without a row of weight r a component of n rows has, its pooled variance held,

            x - mu' = n / (n - r) (x - mu),   sigma2' = ((n + nu) sigma2 - n r / (n - r) (x - mu)^2) / (n - r + nu)

        The only row of a class stays in it.
        """
        own, weight, found = y.argmax(-1), y.sum(-1, keepdim=True), self.distances(x)
        j, width = self.share.shape[-1], x.shape[-1]
        row = own[..., None].expand(*own.shape, j)
        wide = row[..., None].expand(*row.shape, width)
        mean, variance = (t.gather(-3, wide) for t in (self.mean, self.variance))  # [*b, N, J, D]
        n = (self.share * self.mass[..., None]).gather(-2, row)
        part = weight * self._parts(x).gather(-2, row[..., None, :])[..., 0, :].softmax(-1)
        left = (n - part).clamp_min(0)
        there = left > _NOTHING * n
        grown = torch.where(there, n / torch.where(there, left, 1.0), 1.0)[..., None]
        away = (x[..., None, :] - mean).square()
        if shrinkage != math.inf:
            over = torch.where(left > _ONE, left, 0.0)[..., None] + shrinkage  # of one row there is no variance
            less = (n[..., None] + shrinkage) * variance - grown * part[..., None] * away
            known = (n[..., None] > _ONE) & (over > 0)
            floor = FLOOR * variance.mean(-1, keepdim=True)
            variance = torch.where(known, (less / torch.where(known, over, 1.0)).clamp_min(floor), variance)
        logs = -((2 * math.pi * variance).log() + grown.square() * away / variance).sum(-1) / 2
        rest = left.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        logs = torch.where(there, (left / rest).clamp_min(torch.finfo(x.dtype).tiny).log() + logs, -torch.inf)
        alone = ~there.any(-1, keepdim=True)
        moved = -logs.masked_fill(alone, 0.0).logsumexp(-1, keepdim=True)
        old = found.gather(-1, own[..., None])
        return found.scatter(-1, own[..., None], torch.where(alone | (weight <= 0), old, moved))

    def pushed(self, x: Tensor, own: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Rows moved away from the mean of their nearest component of class ``own [*b, N]`` until that component alone
        has distance ``target [*b, C]``; and 1 for a row that could be moved ``[*b, N]``, 0 for others."""
        parts = self._parts(x)
        j = parts.gather(-2, own[..., None, None].expand(*own.shape, 1, parts.shape[-1]))[..., 0, :].argmax(-1)
        at = own * parts.shape[-1] + j
        mean, variance = (t.flatten(-3, -2).gather(-2, at[..., None].expand_as(x)) for t in (self.mean, self.variance))
        q = ((x - mean).square() / variance).sum(-1) / 2
        level = -parts.flatten(-2).gather(-1, at[..., None])[..., 0] - q
        wanted = target.gather(-1, own) - level
        able = (q > 1e-9) & (wanted > 0)
        stretch = torch.where(able, wanted / torch.where(able, q, 1.0), 1.0).sqrt()
        return mean + stretch[..., None] * (x - mean), able.to(x.dtype)

    @property
    def _level(self) -> Tensor:
        """``log pi_kj N(mu_kj; mu_kj, sigma2_kj)`` ``[*b, C, J]``."""
        tiny = torch.finfo(self.share.dtype).tiny
        logs = torch.where(self.share > 0, self.share.clamp_min(tiny).log(), lowest(self.share))
        return logs - (2 * math.pi * self.variance).log().sum(-1) / 2

    def _parts(self, x: Tensor) -> Tensor:
        """``log pi_kj N(x; mu_kj, sigma2_kj)`` ``[*b, N, C, J]``."""
        c, j = self.share.shape[-2:]
        origin = (self.mass[..., None] * self.centre).sum(-2) / self.mass.sum(-1)[..., None].clamp_min(1e-30)
        x, mean = x - origin[..., None, :], (self.mean - origin[..., None, None, :]).flatten(-3, -2)
        variance = self.variance.flatten(-3, -2)
        scaled = mean / variance
        square = x.square() @ (1 / variance).mT - 2 * x @ scaled.mT + (mean * scaled).sum(-1)[..., None, :]
        return self._level[..., None, :, :] - square.clamp_min(0).reshape(*x.shape[:-1], c, j) / 2


def _pooled(mean: Tensor, variance: Tensor, n: Tensor) -> Tensor:
    """Variance of each feature within components ``[*b, D]``; where none has two different examples, one number for all
    features: the mean variance of the means."""
    weight = n[..., None]
    total, parts = n.sum((-2, -1))[..., None], (n > 0).sum((-2, -1))[..., None]
    pool = (weight * variance).sum((-3, -2)) / (total - parts).clamp_min(1)
    grand = (weight * mean).sum((-3, -2)) / total.clamp_min(1e-30)
    apart = ((weight > 0) * (mean - grand[..., None, None, :]).square()).sum((-3, -2)) / parts.clamp_min(1)
    level = apart.mean(-1, keepdim=True)
    level = torch.where(level > 0, level, 1.0)
    flat = pool.mean(-1, keepdim=True) <= 1e-9 * level
    return torch.where(flat, level, pool)


def _farthest(x: Tensor, y: Tensor, centre: Tensor, components: int) -> Tensor:
    """To which of J starting points a row is nearest ``[*b, C, N, J]``, 0 or 1: of each class the example farthest from
    its mean, then again and again the one farthest from those chosen."""
    there = y.mT > 0
    far = (torch.cdist(centre, x)).masked_fill(~there, -1.0)
    points: list[Tensor] = []
    for _ in range(components):
        point = x.gather(-2, far.argmax(-1)[..., None].expand_as(centre))  # [*b, C, D]
        away = torch.cdist(point, x)
        far = (away if not points else torch.minimum(far, away)).masked_fill(~there, -1.0)
        points.append(away)
    return torch.nn.functional.one_hot(torch.stack(points, -1).argmin(-1), components).to(x.dtype)
