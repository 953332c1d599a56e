"""LP++: a linear probe beside the class text, each class blending in its own share of the text.

Huang, Shakeri, Dolz, Boudiaf, Bahig, Ben Ayed, "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", 2024.
With unit rows f and unit class text t_c:

    logits_c = w_c f + b_c + alpha_c t_c f
    min_(w, b, alpha)  mean_i CE(y_i, softmax(logits_i))

No rate is searched: each block starts where the data say and takes steps that its curvature allows.

    w_c = sum of the class' examples, b_c = 0         steps of 4 n / (largest eigenvalue of F'F), with momentum
    alpha_c = 250 mean over c and its i of t_c f_i     steps of n / (4 max_c sum_i (t_c f_i)^2), every tenth pass
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count
from handful.adapt.zero_shot import prior_logits
from handful.core.distances import unit
from handful.core.losses import cross_entropy
from handful.core.task import Query, State, Task
from handful.core.train import descend
from handful.protocols import Needs

START = 250.0
"""What the mean cosine of examples and their class text is multiplied by to give the first alpha."""
EVERY = 10
MOMENTUM = 0.9


@dataclass(eq=False, repr=False, kw_only=True)
class LPPlusPlus(Head):
    """Linear probe plus a learnt share of the class text, with steps from the curvature.

    The reference keeps the pass that is best on a validation set; here it is the last one. The steps are long, and on
    features far from the class text it can fall behind it.

    Args:
        epochs: passes over the support, all of it at once.
    """

    key: ClassVar[str] = "lp++"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C", "alpha": "C"}

    epochs: int = 300

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``, ``alpha [*b, C]``."""
        count("epochs", self.epochs)
        x, y, cosines = unit(task.x), task.y, prior_logits(task.offset) / self.logit_scale
        start = [y.mT @ x, torch.zeros_like(y[..., 0, :]), self._alpha(task, cosines)]
        mass = y.sum(-1)
        n = mass.sum(-1).clamp_min(1e-30)
        spread = torch.linalg.matrix_norm(mass.sqrt()[..., None] * x, 2).square()
        share = (mass[..., None] * cosines.square()).sum(-2).amax(-1)
        update = _Blocks(4 * n / spread.clamp_min(1e-30), n / (4 * share.clamp_min(1e-30)))

        def losses(parameters: list[Tensor], _: Tensor) -> Tensor:
            return cross_entropy(_logits(x, cosines, *parameters), y, task.class_mask)

        passes = torch.arange(self.epochs)
        weight, bias, alpha = descend(start, losses, passes, lambda step: 1.0, update)
        return {"weight": weight, "bias": bias, "alpha": alpha}

    def answer(self, state: State, query: Query) -> Tensor:
        """``w f + b + alpha t f``."""
        cosines = prior_logits(query.prior) / self.logit_scale
        return _logits(unit(query.x), cosines, state["weight"], state["bias"], state["alpha"])

    def _alpha(self, task: Task, cosines: Tensor) -> Tensor:
        """The same for all classes ``[*b, C]``."""
        mean = (task.y * cosines).sum(-2) / task.y.sum(-2).clamp_min(1e-30)
        return (START * mean.sum(-1) / task.ways)[..., None].expand_as(mean)


@dataclass
class _Blocks:
    """Momentum for weights and biases; for alpha, on every tenth pass, a step down all its gradients so far.

    That they add up is how the authors coded it, and what their numbers come from.
    """

    rate: Tensor
    alpha_rate: Tensor
    _velocity: list[Tensor] = field(default_factory=list)
    _pass: int = 0

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        self._velocity = self._velocity or [torch.zeros_like(p) for p in parameters]
        self._pass += 1
        for g, v, momentum in zip(gradients, self._velocity, (MOMENTUM, MOMENTUM, 1.0), strict=True):
            v.mul_(momentum).add_(g)
        parameters[0].sub_(rate * self.rate[..., None, None] * self._velocity[0])
        parameters[1].sub_(rate * self.rate[..., None] * self._velocity[1])
        if self._pass % EVERY == 0:
            parameters[2].sub_(rate * self.alpha_rate[..., None] * self._velocity[2])


def _logits(x: Tensor, cosines: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor) -> Tensor:
    return x @ weight.mT + bias[..., None, :] + alpha[..., None, :] * cosines
