"""TEEN: new classes from a few examples, their prototypes moved towards the base classes they are like; no training.

Paper 175: Wang, Zhou, Zhang, Zhan, Ye, "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration",
2023.

    c_b = mean of the examples of base class b,  b = unit(c_b)
    p   = unit(mean of the examples of the new class)
    w   = softmax_b(tau p.b),  delta = unit(sum_b w_b b)
    c_new = (1 - alpha) p + alpha delta
    logit_k(q) = scale cos(q, c_k)

Only base classes calibrate, so new classes may come one by one or together. With alpha = 1 and a large tau a new class
is the copy of its nearest base class and cannot be told from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.growing import Growing
from handful.adapt.parameters import finite
from handful.adapt.prototypes import Prototypes
from handful.core.distances import cosine, unit
from handful.core.gaussians import class_means
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs


def calibrated(novel: Tensor, base: Tensor, weight: Tensor, alpha: float, tau: float) -> Tensor:
    """``(1 - alpha) p + alpha delta`` ``[*b, K, D]`` of the means ``novel [*b, K, D]`` by those of base classes.

    Args:
        novel: means of new classes, of any length but 0.
        base: ``[*b, C, D]``.
        weight: ``[*b, C]``; a row of ``base`` where it is 0 takes no part.
        alpha: share of the base classes.
        tau: sharpness of their softmax.
    """
    novel, base = unit(novel), unit(base)
    like = (tau * novel @ base.mT).masked_fill(weight[..., None, :] <= 0, -torch.inf)
    return (1 - alpha) * novel + alpha * unit(like.softmax(-1) @ base)


@dataclass(eq=False, repr=False, kw_only=True)
class TEEN(Growing):
    """Class means that grow: new classes lean on the base classes they are like.

    ``fit`` learns the base classes, `Growing.grow` adds new ones without the old examples.

    Args:
        alpha: share of the base classes in a new prototype, 0 to 1 (the paper's for CUB and mini-ImageNet; 0.1 for
            CIFAR-100). 0 is the nearest class mean by cosine.
        tau: sharpness with which a new class picks base classes; 0 takes the mean of all.
        scale: multiplies the cosines (the paper's for CUB and mini-ImageNet; 16 for CIFAR-100).
    """

    key: ClassVar[str] = "teen"
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {"prototype": "C D", "mass": "C", "base": "C"}

    alpha: float = 0.5
    tau: float = 16.0
    scale: float = 32.0

    @property
    def directions(self) -> bool:
        """Cosines are blind to length."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``prototype [*b, C, D]``, ``mass [*b, C]`` and ``base [*b, C]``, 1 for a base class.

        Raises:
            BadInput: a parameter out of range, a class whose examples cancel out.
        """
        self._check_parameters()
        mean, mass = class_means(task.x, task.y)
        refuse_no_direction(mean, mass, task.x)
        return {"prototype": mean, "mass": mass, "base": task.class_mask.to(mean.dtype)}

    def answer(self, state: State, query: Query) -> Tensor:
        """``scale cos(q, c_k)``; a class without examples gets the lowest logit."""
        logits = self.scale * cosine(query.x, state["prototype"])
        return torch.where(state["mass"][..., None, :] > 0, logits, lowest(logits))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: what is fitted are base classes, plain class means."""
        return Prototypes(metric="cosine", temperature=1 / self.scale).leave_one_out(task)

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """See `Growing.extend`; raises `BadInput` for a class whose examples cancel out."""
        self._check_parameters()
        mean, mass = class_means(task.x, task.y)
        refuse_no_direction(mean, mass, task.x)
        moved = calibrated(mean, state["prototype"], state["base"] * state["mass"], self.alpha, self.tau)
        prototype = torch.where(fresh[..., None], moved, state["prototype"])
        return {"prototype": prototype, "mass": state["mass"] + mass}

    def _check_parameters(self) -> None:
        finite("alpha", self.alpha, least=0, most=1)
        finite("tau", self.tau, least=0)
        finite("scale", self.scale, above=0)


def refuse_no_direction(mean: Tensor, mass: Tensor, x: Tensor) -> None:
    """Raise `BadInput` where the mean of a class is zero but for rounding."""
    rounding = 4 * torch.finfo(x.dtype).eps * x.norm(dim=-1).amax(-1)
    if bool(((mean.norm(dim=-1) <= rounding[..., None]) & (mass > 0)).any()):
        raise BadInput("the examples of a class cancel out: their mean is zero and has no direction")
