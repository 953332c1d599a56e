"""LFA without labels: items are shared out among class texts by optimal transport, then turned towards them.

Paper 162: Ouali, Bulat, Martinez, Tzimiropoulos, "Black Box Few-Shot Adaptation for Vision-Language models", 2023, its
unsupervised form. With unit items X and class texts P:

    S = transport between X and P, uniform marginals, cost |x - p|^2 / 2, entropy 0.05^2, rows made to add up to 1
    y_i = argmax_c S_ic;  W by beta-Procrustes;  then five rounds of  S from unit(X W) and P,  W refined
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.lfa import LFA
from handful.adapt.parameters import count
from handful.adapt.without_labels import WithoutLabels, with_pool
from handful.core.distances import unit
from handful.core.task import State, Task
from handful.core.transport import sinkhorn
from handful.protocols import Needs

BLUR = 0.05
TOL, SWEEPS = 1e-8, 1000
"""Of the transport: it ends when a sweep changes no class total by more, or after so many."""


@dataclass(eq=False, repr=False, kw_only=True)
class LFAUnsupervised(WithoutLabels, LFA):
    """A rotation towards class text found without labels.

    Labels of examples are not looked at; ``fit_unlabelled(X)`` needs none. Classes are taken to be equally frequent.

    Args:
        rounds: of sharing out and refining.
        n_iter: steps of the refinement in every round; each sees all items.
        beta, loss, k, margin_scale, noise, dropout, orthogonal, matrix, lr, weight_decay, project: as of `LFA`.
    """

    key: ClassVar[str] = "lfa-unsupervised"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True, assumes_balanced=True)

    rounds: int = 5

    def adapt(self, task: Task) -> State:
        """State as of `LFA`."""
        self._check()
        count("rounds", self.rounds)
        task = with_pool(task)
        x, text = self._spaces(task)
        hard = replace(task, labels=_one_hot(shared_out(x, text, task)))
        turned = average = self._turned(hard, x, text)
        for i in range(self.rounds):
            soft = shared_out(unit(x @ turned), text, task)
            y = soft if self.loss == "csls" else _one_hot(soft)  # as coded: the mean of texts, or the nearest
            turned, average = self._refined(replace(task, labels=y, seed=task.seed * 31 + i), x, text, turned, 1.0)
        return self._state(task, turned, average)


def shared_out(x: Tensor, text: Tensor, task: Task) -> Tensor:
    """S ``[*b, N, C]`` for unit rows ``x [*b, N, K]`` and ``text [*b, C, K]``; zero for padded rows and classes."""
    weight, real = task.weight.clamp_min(0).double(), task.class_mask.double()
    cost = 1 - x.double() @ text.double().mT
    a, b = (share / share.sum(-1, keepdim=True) for share in (weight, real))
    plan = sinkhorn(cost, BLUR**2, a, b, tol=TOL, max_sweeps=SWEEPS, domain="log")
    return (plan / plan.sum(-1, keepdim=True).clamp_min(1e-30)).to(x.dtype)


def _one_hot(share: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(share.argmax(-1), share.shape[-1]).to(share.dtype)
