"""AdamW that is held where it began, and let go as training goes on.

    minimised   l(t) L(p) + (w - l(t)) gamma / 2 |p - p0|^2        l(t) = w / (1 + exp(-k (t - t0)))
    step        p <- p - a_t l(t) m / (sqrt(v) + eps)              a_t = rate sqrt(1 - b2^t) / (1 - b1^t)
                p <- p - rate (w - l(t)) gamma (p - p0)

The pull does not pass through the moments. RecAdam: Chen et al., Recall and Learn, 2020; as it is used in 072, Avoiding
Inference Heuristics in Few-shot Prompt-based Finetuning, 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from handful.core.train import BETA1, BETA2
from handful.errors import BadInput

Schedule = Literal["sigmoid", "linear", "constant"]
SCHEDULES = ("sigmoid", "linear", "constant")


@dataclass
class AnchoredAdamW:
    """See `handful.core.anchored`; an `Optimiser` of `handful.core.train`.

    Args:
        t0: step at which half of the loss is the task's (``"linear"``: all of it).
        gamma: strength of the pull.
        k: how fast l(t) rises there, ``"sigmoid"`` only.
        schedule: of l(t): ``"sigmoid"``, ``"linear"``, which is min(1, t / t0), or ``"constant"``, which is 1.
        weight: w; with 0 nothing is held, and the whole loss is the task's.
        eps: added to sqrt(v), before the correction of its bias.
        weight_decay: p <- (1 - rate weight_decay) p, last.
        anchors: p0 of each parameter; ``None`` is where it was at the first step.
    """

    t0: float
    gamma: float = 5000.0
    k: float = 0.01
    schedule: Schedule = "sigmoid"
    weight: float = 1.0
    eps: float = 1e-6
    weight_decay: float = 0.0
    betas: tuple[float, float] = (BETA1, BETA2)
    anchors: list[Tensor] | None = None
    _moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _step: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise BadInput(f"schedule is one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        if not (self.t0 > 0 and self.gamma >= 0 and self.weight >= 0 and math.isfinite(self.k)):
            raise BadInput("t0 must be above 0, gamma and weight not below, and k a number")

    def share(self, step: int) -> float:
        """l(t) of step 1, 2, …"""
        if self.schedule == "sigmoid":
            return self.weight / (1 + math.exp(min(-self.k * (step - self.t0), 700.0)))
        return self.weight * (min(1.0, step / self.t0) if self.schedule == "linear" else 1.0)

    def __call__(self, parameters: list[Tensor], gradients: tuple[Tensor, ...], rate: float) -> None:
        """See `Update`. Raises `BadInput` for anchors of other shapes, and for a pull that would overshoot."""
        if self.anchors is None:
            self.anchors = [p.detach().clone() for p in parameters]
        self._check(parameters, rate)
        self._moments = self._moments or [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self._step += 1
        beta1, beta2 = self.betas
        length = rate * math.sqrt(1 - beta2**self._step) / (1 - beta1**self._step)
        share = self.share(self._step) if self.weight else 1.0
        pull = rate * (self.weight - share) * self.gamma if self.weight else 0.0
        for p, p0, g, (m, v) in zip(parameters, self.anchors, gradients, self._moments, strict=True):
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            p.addcdiv_(m, v.sqrt().add_(self.eps), value=-length * share)
            if pull:
                p.sub_(pull * (p - p0))
            if self.weight_decay:
                p.mul_(1 - rate * self.weight_decay)

    def _check(self, parameters: list[Tensor], rate: float) -> None:
        assert self.anchors is not None
        shapes, wanted = ([tuple(t.shape) for t in some] for some in (self.anchors, parameters))
        if shapes != wanted:
            at = next(
                (i for i, pair in enumerate(zip(shapes, wanted, strict=False)) if pair[0] != pair[1]), len(shapes)
            )
            raise BadInput(f"anchors do not fit the parameters, from number {at} of {len(wanted)} on")
        if rate * self.gamma * self.weight > 1:
            raise BadInput(
                f"a pull of gamma {self.gamma:g} at the learning rate {rate:g} overshoots: their product is above 1"
            )

    def memory(self) -> list[Tensor]:
        """See `Optimiser`: the number of steps, then anchor and moments of each parameter."""
        if not self._step or self.anchors is None:
            return []
        some = zip(self.anchors, self._moments, strict=True)
        return [torch.tensor(self._step), *(x for p0, pair in some for x in (p0, *pair))]

    def recall(self, memory: list[Tensor]) -> None:
        """See `Optimiser`."""
        if memory:
            self._step, self.anchors = int(memory[0]), list(memory[1::3])
            self._moments = list(zip(memory[2::3], memory[3::3], strict=True))
