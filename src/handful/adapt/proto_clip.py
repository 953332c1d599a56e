"""Proto-CLIP, training-free: close to the image prototype of a class or to its text prototype.

Paper 060: Jishnu Jaykumar P, Palanisamy, Chao, Du, Xiang, "Proto-CLIP: Vision-Language Prototypical Network for
Few-Shot Learning", 2023. With a_c the unit mean of the class' unit examples and t_c its unit text:

    p = alpha softmax(-beta |q - a_c|^2) + (1 - alpha) softmax(-beta |q - t_c|^2)

Logits are log p, whose softmax is p. On unit vectors -|q - a|^2 = 2 q.a - 2, and what all classes share drops out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import Strength, search
from handful.adapt.parameters import finite
from handful.adapt.zero_shot import prior_logits
from handful.core.distances import unit
from handful.core.task import Query, State, Task
from handful.protocols import Needs

ALPHA = Strength("alpha", 0.5, tuple(i / 10 for i in range(11)), most=1.0)
BETA = Strength("beta", 5.0, (*(i / 10 for i in range(1, 10)), *(float(i) for i in range(1, 21))))
NOTHING = 1e-30
"""Stands for an alpha of 0, whose logarithm is not finite."""


def mixed(image: Tensor, text: Tensor, alpha: Tensor | float, beta: Tensor | float, real: Tensor) -> Tensor:
    """``log p`` ``[..., n, C]`` from cosines to the image and the text prototypes, 0 for padded classes."""
    like = image.new_tensor(0.0)
    alpha, real = like + alpha, real[..., None, :]
    by_image, by_text = (
        (2 * beta * cosines).masked_fill(~real, -torch.inf).log_softmax(-1) for cosines in (image, text)
    )
    log_p = torch.logaddexp(
        alpha.clamp_min(NOTHING).log() + by_image.masked_fill(~real, 0.0),
        (1 - alpha).clamp_min(NOTHING).log() + by_text.masked_fill(~real, 0.0),
    )
    return log_p.masked_fill(~real, 0.0)


@dataclass(eq=False, repr=False, kw_only=True)
class ProtoCLIP(Head):
    """Close to the mean example of a class or to its text, training-free.

    Args:
        alpha: share of the image prototypes, 0 to 1; ``"loo"`` searches 0, 0.1 … 1 by closed-form leave-one-out over
            items (0.5 where a class has a single item), as the reference does on a validation set.
        beta: sharpness; ``"loo"`` searches 0.1 … 0.9 and 1 … 20 (5 where a class has a single item).
    """

    key: ClassVar[str] = "proto-clip"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {"prototypes": "C D", "real": "C", "alpha": "", "beta": ""}

    alpha: float | Literal["loo"] = 0.5
    beta: float | Literal["loo"] = 5.0

    @property
    def directions(self) -> bool:
        """Distances of unit rows."""
        return True

    def adapt(self, task: Task) -> State:
        """State: unit ``prototypes [*b, C, D]``, which classes are ``real [*b, C]``, ``alpha, beta [*b]``."""
        alpha, beta = self._strengths(task)
        prototypes = unit(task.y.mT @ unit(task.x))
        return {"prototypes": prototypes, "real": task.class_mask, "alpha": alpha, "beta": beta}

    def answer(self, state: State, query: Query) -> Tensor:
        """``log p``."""
        image, text = unit(query.x) @ state["prototypes"].mT, prior_logits(query.prior) / self.logit_scale
        return mixed(image, text, state["alpha"][..., None, None], state["beta"][..., None, None], state["real"])

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: the item's own rows are taken off the prototypes."""
        alpha, beta = self._strengths(task)
        image, text = cosines_left_out(task), prior_logits(task.offset) / self.logit_scale
        return mixed(image, text, alpha[..., None, None], beta[..., None, None], task.class_mask)

    def held(self, state: State) -> Self:
        """With the strengths that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]))

    def _strengths(self, task: Task) -> list[Tensor]:
        finite("logit_scale", self.logit_scale, above=0)
        tried = [ALPHA.tried(self.alpha), BETA.tried(self.beta)]
        image, text = cosines_left_out(task)[None], prior_logits(task.offset)[None] / self.logit_scale
        betas = image.new_tensor(tried[1]).reshape(-1, *[1] * task.y.dim())
        sets = (mixed(image, text, alpha, betas, task.class_mask) for alpha in tried[0])
        return search(sets, task, tried, [ALPHA.given(self.alpha), BETA.given(self.beta)])


def cosines_left_out(task: Task) -> Tensor:
    """Cosines ``[*b, N, C]`` of each support row and the class prototypes of the other items; 0 where none is left."""
    x, y, items = unit(task.x), task.y, task.items
    total = y.mT @ x
    own = items.within(x @ x.mT)
    product = x @ total.mT - items.times(own, y)
    mass = y.sum(-2, keepdim=True) - items.total(y)
    squares = total.square().sum(-1)[..., None, :] - 2 * items.total(y * (x @ total.mT))
    squares = squares + items.total(y * items.times(own, y))
    left = mass > 1e-6 * y.sum(-2, keepdim=True)
    return torch.where(left, product / squares.clamp_min(1e-12).sqrt(), 0.0)
