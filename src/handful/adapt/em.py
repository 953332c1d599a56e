"""The iterations of generalised EM, with Gaussian or Dirichlet classes; tensors all through, so that they can be learnt
over. See `handful.adapt.unem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from handful.core.dirichlet import fit_dirichlet, log_density
from handful.core.softem import Rows, among, real_classes, shares


class Model(Protocol):
    """Rows, the support first, and how classes are fitted to them."""

    def fit(self, weight: Tensor, before: Tensor | None) -> Tensor:
        """Parameters of the classes for ``weight [*b, C, n]``, from those of the iteration before."""

    def log_density(self, theta: Tensor) -> Tensor:
        """``[*b, C, n]``."""

    def shown(self, theta: Tensor) -> Tensor:
        """The parameters as a state keeps them ``[*b, C, F]``."""


@dataclass(frozen=True)
class GaussianRows:
    """Unit variance around a mean, the parameters of which are coefficients of the rows; ``scale`` multiplies rows."""

    rows: Rows
    scale: Tensor | float

    def fit(self, weight: Tensor, before: Tensor | None) -> Tensor:
        """Weighted means."""
        return shares(weight)

    def log_density(self, theta: Tensor) -> Tensor:
        """``-|z - w|^2 / 2``."""
        return self.rows.sqeuclidean(theta) * (-0.5 * self.scale**2)

    def shown(self, theta: Tensor) -> Tensor:
        """Means before scaling."""
        return theta @ self.rows.z


@dataclass(frozen=True)
class DirichletRows:
    """Logarithms of probability vectors ``[*b, n, F]``; entries not ``there [*b, 1, F]`` are padding."""

    log_z: Tensor
    there: Tensor

    def fit(self, weight: Tensor, before: Tensor | None) -> Tensor:
        """The most likely parameters; 1 for a class without weight."""
        there = self.there & (weight.sum(-1, keepdim=True) > 0)
        mean = torch.where(there, shares(weight) @ self.log_z, 0.0)
        return fit_dirichlet(mean, torch.ones_like(mean) if before is None else before, there)

    def log_density(self, theta: Tensor) -> Tensor:
        """See `handful.core.dirichlet`."""
        return log_density(self.log_z, theta, self.there)

    def shown(self, theta: Tensor) -> Tensor:
        """As they are."""
        return theta


def generalized_em(
    model: Model,
    y: Tensor,
    real: Tensor,
    lam: Tensor,
    temperature: Tensor,
    *,
    eps: float,
    start: Tensor | None = None,
    hard: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the queries ``[*b, C, Q]`` after the last iteration, the parameters and log shares ``v [*b, C]`` they
    come from.

    Args:
        model: the rows.
        y: labels times weights of the support ``[*b, N, C]``.
        real: which queries are real ``[*b, Q]``.
        lam: one for each iteration ``[L, …]``, the rest broadcastable to ``[*b, C, Q]``; so is ``temperature``.
        eps: added to shares before the logarithm.
        start: assignments ``[*b, C, Q]`` to start from; ``None`` starts from the support alone, and without penalty.
        hard: assign every query to one class after each iteration; ``start`` stays as it is.
    """
    n, known, labels = y.shape[-2], real_classes(y), y.mT
    queries = real.sum(-1)[..., None].clamp_min(1)
    free = torch.nn.functional.pad(labels, (0, real.shape[-1]))
    theta, v = model.fit(free, None), torch.zeros_like(labels[..., 0])
    logits, u = v[..., None], start
    for lam_now, t_now in zip(lam, temperature, strict=True):
        if u is not None:
            u = u * real[..., None, :]
            v = (u.sum(-1) / queries + eps).log()
            theta = model.fit(torch.cat([labels, u], -1), theta if start is not None else None)
        logits = among(known, (model.log_density(theta)[..., n:] + lam_now * v[..., None]) / t_now)
        u = torch.nn.functional.one_hot(logits.argmax(-2), y.shape[-1]).mT.to(y.dtype) if hard else logits.softmax(-2)
    return logits, model.shown(theta), v
