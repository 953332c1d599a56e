"""Unknownness as the relative Mahalanobis distance to the nearest class.

Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan, "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
2021:

    M_k(x) = (x - mu_k)' P (x - mu_k)     P from the scatter within classes
    M_0(x) = (x - mu_0)' P_0 (x - mu_0)   P_0 from the scatter of all examples about their mean
    score  = min_k M_k(x) - M_0(x)

Rows are made unit first, and both P are ridge estimates as in `gda`, ``f (S + tr(S) / (n - 1) I)^-1``, S a scatter of n
examples with f degrees of freedom (n - C within classes, n - 1 of all), so that scores mean the same whatever n; the
paper inverts covariances of many examples. Where no class has two different examples, S of the classes is that of all,
and the score is a difference of distances to means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.reject.base import Rejecter
from handful.core.distances import sqeuclidean, unit
from handful.core.gaussians import Discriminant, class_means
from handful.core.task import State, Task


@dataclass(frozen=True, kw_only=True)
class Distance(Rejecter):
    """How much farther an item is from its nearest class than from the middle of all."""

    kind: ClassVar[str] = "distance"
    shapes: ClassVar[Mapping[str, str]] = {
        "mean": "C D", "mass": "C", "basis": "D R", "precision": "R", "rest": "", "middle": "D", "basis0": "D R0",
        "precision0": "R0", "rest0": "",
    }  # fmt: skip

    def adapt(self, task: Task) -> State:
        """State: class means, and each P as its eigenvectors ``[*b, D, R]``, eigenvalues and that of all else."""
        x, y = unit(task.x), task.y
        mean, mass = class_means(x, y)
        everything = y.sum(-1, keepdim=True)
        n, ways = mass.sum(-1), (mass > 0).to(mass).sum(-1)
        all_of = _precision(Discriminant.of(x, everything), n - 1)
        within = Discriminant.of(x, y)
        basis, precision, rest = (
            torch.where(_wide(within.flat, a), b, a) for a, b in zip(_precision(within, n - ways), all_of, strict=True)
        )
        middle = class_means(x, everything)[0][..., 0, :]
        names = ("basis0", "precision0", "rest0")
        return {
            "mean": mean, "mass": mass, "basis": basis, "precision": precision, "rest": rest, "middle": middle,
            **dict(zip(names, all_of, strict=True)),
        }  # fmt: skip

    def unknownness(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        """``min_k M_k - M_0``."""
        x = unit(x)
        near = _mahalanobis(x, state["mean"], state["basis"], state["precision"], state["rest"])
        near = near.masked_fill((state["mass"] <= 0)[..., None, :], torch.inf).amin(-1)
        middle = state["middle"][..., None, :]
        return near - _mahalanobis(x, middle, state["basis0"], state["precision0"], state["rest0"])[..., 0]


def _precision(gaussian: Discriminant, freedom: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvectors ``[*b, D, R]``, their eigenvalues ``[*b, R]``, and the eigenvalue of what is at right angles."""
    n = gaussian.y.sum((-2, -1))
    flat = gaussian.flat
    ridge = torch.where(flat, 1.0, gaussian.trace / (n - 1).clamp_min(1))
    freedom = freedom.clamp_min(1)
    rest = torch.where(flat, 1.0, freedom / ridge)
    values = torch.where(flat[..., None], 1.0, freedom[..., None] / (gaussian.values + ridge[..., None]))
    return gaussian.basis, values, rest


def _mahalanobis(x: Tensor, mean: Tensor, basis: Tensor, precision: Tensor, rest: Tensor) -> Tensor:
    """``(x - mu_k)' P (x - mu_k)`` ``[*b, Q, C]``."""
    weight = (precision - rest[..., None])[..., None, :]
    a, b = x @ basis, mean @ basis
    cross = (a * weight) @ b.mT
    square = (a.square() * weight).sum(-1)[..., :, None] + (b.square() * weight).sum(-1)[..., None, :]
    return square - 2 * cross + rest[..., None, None] * sqeuclidean(x, mean)


def _wide(flag: Tensor, like: Tensor) -> Tensor:
    return flag[(..., *[None] * (like.dim() - flag.dim()))]
