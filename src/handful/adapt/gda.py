"""Gaussian discriminant analysis: Gaussian classes, one shared covariance, in closed form; mixed with zero-shot logits.

Paper 065: Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", 2024.

    P = D ((n - 1) Sigma + tr(Sigma) I)^-1                        Kubokawa and Srivastava's ridge estimate (eq. 6)
    w_c = P mu_c,   b_c = log pi_c - mu_c.P mu_c / 2              (eq. 4)
    logits = s z W' + alpha (z w' + b)                            (eq. 7)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.core.calibration import pick
from handful.core.distances import sqeuclidean, unit
from handful.core.gaussians import Discriminant
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

GRID = tuple(10.0**power for power in range(-4, 3))
START = 0.1


@dataclass(eq=False, repr=False, kw_only=True)
class GDA(Head):
    """Linear discriminant analysis made for few shots; without class text the Gaussian part alone.

    Where no class has two different rows there is no covariance: the identity takes its place (nearest class mean).

    Args:
        alpha: how much of the Gaussian part is added to the zero-shot logits; ``"loo"`` chooses among powers of ten
            from 1e-4 to 1e2 by closed-form leave-one-out (0.1, the reference's start, where a class has a single item
            or the shrinkage has no closed form). Without class text it plays no part.
        shrinkage: ``"ks"`` as above, ``"none"`` (pseudo-inverse of the covariance), ``"ledoit-wolf"`` or ``"oas"``.
        priors: ``"uniform"`` or ``"empirical"`` class priors in the bias.
        normalize: make rows unit first, as the paper does.
    """

    key: ClassVar[str] = "gda"
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C", "alpha": ""}
    ranges: ClassVar[Ranges] = {"shrinkage": ("ks", "ledoit-wolf", "oas"), "normalize": (True, False)}

    alpha: float | Literal["loo"] = "loo"
    shrinkage: Literal["ks", "none", "ledoit-wolf", "oas"] = "ks"
    priors: Literal["uniform", "empirical"] = "uniform"
    normalize: bool = True

    @property
    def directions(self) -> bool:
        """Rows are made unit, unless told otherwise."""
        return self.normalize

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``, ``alpha [*b]``."""
        self._check()
        gaussian = Discriminant.of(self._rows(task.x), task.y)
        weight, bias = gaussian.weights(self.precision(gaussian))
        mass = task.y.sum(-2)
        bias = torch.where(mass > 0, bias + self._log_prior(mass), lowest(bias))
        return {"weight": weight, "bias": bias, "alpha": self._choose(task, gaussian)}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z W' + alpha (z w' + b)``."""
        gaussian = self._rows(query.x) @ state["weight"].mT + state["bias"][..., None, :]
        return _mix(query.prior, state["alpha"][..., None, None], gaussian)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form for ``shrinkage="ks"`` and rows of one class each; alpha is held, the ridge is refitted."""
        self._check()
        if not self._closed(task).all():
            return None
        gaussian = Discriminant.of(self._rows(task.x), task.y)
        alpha = self._choose(task, gaussian)[..., None, None]
        return _mix(task.offset, alpha, self._left_out(task, gaussian))

    def held(self, state: State) -> Self:
        """With the alpha that was chosen."""
        return replace(self, alpha=float(state["alpha"]))

    def precision(self, gaussian: Discriminant) -> Tensor:
        """Eigenvalues ``[*b, r]`` of P in the eigenbasis of the within-class scatter (n - 1) Sigma."""
        values, width = gaussian.values, gaussian.width
        n = gaussian.y.sum((-2, -1))[..., None]
        trace = gaussian.trace[..., None]
        if self.shrinkage == "ks":
            inverse = width / (values + trace / (n - 1).clamp_min(1))
        elif self.shrinkage == "none":
            small = values <= values.amax(-1, keepdim=True) * width * torch.finfo(values.dtype).eps
            inverse = torch.where(small, 0.0, (n - 1).clamp_min(1) / values)
        else:
            delta = shrinkage_intensity(gaussian, self.shrinkage)[..., None]
            inverse = n / ((1 - delta) * values + delta * trace / width).clamp_min(torch.finfo(values.dtype).tiny)
        return torch.where(gaussian.flat[..., None], 1.0, inverse)

    def _check(self) -> None:
        if isinstance(self.alpha, str):
            if self.alpha != "loo":
                raise BadInput(f"alpha is a number or 'loo', not {self.alpha!r}")
        elif not 0 <= self.alpha < math.inf:
            raise BadInput(f"alpha must be finite and not below 0, not {self.alpha}")
        if self.shrinkage not in ("ks", "none", "ledoit-wolf", "oas"):
            raise BadInput(f"shrinkage is 'ks', 'none', 'ledoit-wolf' or 'oas', not {self.shrinkage!r}")
        if self.priors not in ("uniform", "empirical"):
            raise BadInput(f"priors is 'uniform' or 'empirical', not {self.priors!r}")

    def _rows(self, x: Tensor) -> Tensor:
        return unit(x) if self.normalize else x

    def _log_prior(self, mass: Tensor) -> Tensor:
        """``log pi`` ``[..., C]``; uniform priors are the same for all and left out."""
        if self.priors == "uniform":
            return torch.zeros_like(mass)
        return (mass / mass.sum(-1, keepdim=True)).clamp_min(1e-12).log()

    def _closed(self, task: Task) -> Tensor:
        """Whether leave-one-out has a closed form for the task ``[*b]``: every row, and all rows of an item, of one
        class.
        """
        items = task.items
        label = task.y.argmax(-1).to(task.y.dtype)[..., None]
        mixed = (items.total(label) != label * items.total(torch.ones_like(label)))[..., 0] & (task.weight > 0)
        soft = (task.y > 0).sum(-1) > 1
        return ~(mixed | soft).any(-1) & (self.shrinkage == "ks")

    def _left_out(self, task: Task, gaussian: Discriminant) -> Tensor:
        logits = gaussian.without_item(task.items)
        prior = self._log_prior((task.y.sum(-2)[..., None, :] - task.items.total(task.y)).clamp_min(0))
        return torch.where(logits > lowest(logits) / 2, logits + prior, lowest(logits))

    def _choose(self, task: Task, gaussian: Discriminant) -> Tensor:
        like = task.labels.new_ones(task.labels.shape[:-2])
        if not isinstance(self.alpha, str):
            return like * self.alpha
        if task.offset is None:
            return like
        grid = like.new_tensor(GRID)
        steps = grid.reshape(-1, *[1] * task.labels.dim())
        index = pick(_mix(task.offset, steps, self._left_out(task, gaussian)), task.y, task.class_mask)
        return torch.where(self._closed(task) & (task.fewest_items >= 2), grid[index], START)


def _mix(prior: Tensor | None, alpha: Tensor, gaussian: Tensor) -> Tensor:
    """``prior + alpha gaussian``; what is impossible stays so however small alpha is."""
    if prior is None:
        return gaussian
    return torch.where(gaussian > lowest(gaussian) / 2, prior + alpha * gaussian, lowest(gaussian))


def shrinkage_intensity(gaussian: Discriminant, kind: str) -> Tensor:
    """Ledoit and Wolf's (2004) or the oracle-approximating (Chen et al. 2010) shrinkage in [0, 1] of the pooled
    within-class covariance ``[*b]``."""
    y, d = gaussian.y, gaussian.width
    n = y.sum((-2, -1))
    trace = gaussian.trace / n
    square = (gaussian.values / n[..., None]).square().sum(-1)
    if kind == "oas":
        top = square / d**2 + (trace / d).square()
        bottom = (n + 1) * (square / d**2 - (trace / d).square() / d)
        return torch.where(bottom > 0, top / bottom.clamp_min(1e-30), 1.0).clamp(0, 1)
    norms = sqeuclidean(gaussian.x, gaussian.mean)
    noise = ((y * norms.square()).sum((-2, -1)) / n - square) / n
    spread = square - trace.square() / d
    return torch.where(spread > 0, noise / spread.clamp_min(1e-30), 1.0).clamp(0, 1)
