"""MetaOptNet's head: a linear support vector machine of several classes, on unit rows.

Kwonjoon Lee, Maji, Ravichandran, Soatto, "Meta-Learning with Differentiable Convex Optimization", 2019, as paper 111
(Luo et al., "A Closer Look at Few-shot Classification Again", 2023) has it among its heads; the machine is that of
Crammer and Singer (2001), solved in the dual:

    min_a  sum_m |W_m|^2 / 2 + (rho / 2) |a|^2 - sum_i a_i^{y_i},     W_m = sum_i a_i^m x_i
    s.t.   a_i^m <= C [m = y_i],   sum_m a_i^m = 0;                   logits W z, no bias

With b = C e_y - a each row's constraint is a simplex of size C. The authors add rho = 1 to keep their solver from
failing; it makes the problem strongly convex, so that Nesterov's projected gradient, for all tasks of a batch at once,
comes nearer by the factor 1 - sqrt(rho / L) a step, L = rho + the largest eigenvalue of x x'. A row that counts w times
is sqrt(w) x_i with the label sqrt(w) e_y, so that its cost is C w.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.logistic import held_out
from handful.adapt.parameters import finite
from handful.core.distances import unit
from handful.core.simplex import onto_simplex
from handful.core.task import Query, State, Task
from handful.protocols import Needs, Ranges

ACCURACY = 1e-8
"""How near to the optimum the last step is, as a share of where it began."""
FOLDS = 5
"""For out-of-fold logits: there is no closed form without an item."""


@dataclass(eq=False, repr=False, kw_only=True)
class MetaOpt(Head):
    """MetaOptNet's linear support vector machine of several classes (Crammer and Singer) on unit rows.

    Args:
        C: cost of an example on the wrong side of the margin; weights multiply it.
        ridge: rho.
    """

    key: ClassVar[str] = "metaopt"
    needs: ClassVar[Needs] = Needs(gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D"}
    leaves: ClassVar[Literal["item", "fold"]] = "fold"
    ranges: ClassVar[Ranges] = {"C": (0.01, 10.0), "ridge": (0.01, 10.0)}

    C: float = 0.1
    ridge: float = 1.0

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: W ``[*b, C, D]``."""
        return {"weight": self._fit(task, task.y)}

    def answer(self, state: State, query: Query) -> Tensor:
        """``W z``."""
        return unit(query.x) @ state["weight"].mT

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Out-of-fold logits; all folds are one batch."""
        held = held_out(task, FOLDS)
        weight = self._fit(task, torch.where(held, 0.0, task.y))
        return torch.where(held, unit(task.x) @ weight.mT, 0.0).sum(0)

    def _fit(self, task: Task, y: Tensor) -> Tensor:
        """W ``[..., C, D]`` for labels times weights ``y [..., N, C]``; a row of zeros counts for nothing."""
        finite("C", self.C, above=0)
        finite("ridge", self.ridge, above=0)
        root = y.sum(-1, keepdim=True).sqrt()
        return crammer_singer(unit(task.x) * root, y / root.clamp_min(1e-30), self.C, task.class_mask, self.ridge)


def crammer_singer(x: Tensor, labels: Tensor, cost: float, class_mask: Tensor, ridge: float) -> Tensor:
    """W ``[..., C, D]`` of the machine above.

    Args:
        x: rows ``[..., N, D]``.
        labels: e_y ``[..., N, C]``; of a row of zeros nothing is learnt.
        cost: C.
        class_mask: which classes are real ``[..., C]``.
        ridge: rho, above 0.
    """
    narrow = x.mT @ x if x.shape[-1] < x.shape[-2] else x @ x.mT
    largest = ridge + torch.linalg.matrix_norm(narrow)  # Frobenius: not below the largest eigenvalue
    root = (ridge / largest).sqrt()[..., None, None]
    speed, rate = (1 - root) / (1 + root), 1 / largest[..., None, None]
    most = cost * labels
    there, total = class_mask[..., None, :], most.sum(-1, keepdim=True)
    a = ahead = torch.zeros_like(most)
    for _ in range(math.ceil(-math.log(ACCURACY) / float(root.min()))):
        slope = x @ (x.mT @ ahead) + ridge * ahead - labels
        new = most - onto_simplex(most - ahead + rate * slope, there, total)
        ahead, a = new + speed * (new - a), new
    return a.mT @ x
