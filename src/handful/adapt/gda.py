"""Gaussian discriminant analysis: Gaussian classes, one shared covariance, in closed form; mixed with zero-shot logits.

Paper 065: Wang, Liang, Sheng, He, Wang, Tan, "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", 2024.

    P = D ((n - 1) Sigma + tr(Sigma) I)^-1                        Kubokawa and Srivastava's ridge estimate (eq. 6)
    w_c = P mu_c,   b_c = log pi_c - mu_c.P mu_c / 2              (eq. 4)
    logits = s z W' + alpha (z w' + b)                            (eq. 7)

Classes of which there is text and no example get their w and b from the examples near their text: `gda_new`. Without
any label: `gda_unsupervised`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.gda_new import synthesised
from handful.adapt.parameters import finite, one_of
from handful.core.calibration import pick
from handful.core.distances import sqeuclidean, unit
from handful.core.gaussians import Discriminant
from handful.core.task import ClassText, Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

GRID = tuple(10.0**power for power in range(-4, 3))
START = 0.1
Shrinkage = Literal["ks", "none", "classes", "ledoit-wolf", "oas"]


@dataclass(eq=False, repr=False, kw_only=True)
class GDA(Head):
    """Linear discriminant analysis made for few shots; without class text the Gaussian part alone.

    Where no class has two different rows there is no covariance: the identity takes its place (nearest class mean).

    Args:
        alpha: how much of the Gaussian part is added to the zero-shot logits; ``"loo"`` chooses among powers of ten
            from 1e-4 to 1e2 by closed-form leave-one-out (0.1, the reference's start, where a class has a single item
            or the shrinkage has no closed form). Without class text it plays no part.
        shrinkage: ``"ks"`` as above, ``"none"`` (pseudo-inverse of the covariance), ``"classes"`` (of the mean of the
            classes' covariances, which the paper takes where new classes follow), ``"ledoit-wolf"`` or ``"oas"``.
        priors: ``"uniform"`` or ``"empirical"`` class priors in the bias.
        normalize: make rows unit first, as the paper does.

    ``predict(X, classes=...)`` answers for classes without examples too, where their class text is as wide as the
    features.
    """

    key: ClassVar[str] = "gda"
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C", "alpha": ""}
    ranges: ClassVar[Ranges] = {"shrinkage": ("ks", "ledoit-wolf", "oas"), "normalize": (True, False)}
    open_classes: ClassVar[bool] = True
    open_rows: ClassVar[tuple[str, ...]] = ("weight", "bias")

    alpha: float | Literal["loo"] = "loo"
    shrinkage: Shrinkage = "ks"
    priors: Literal["uniform", "empirical"] = "uniform"
    normalize: bool = True

    @property
    def directions(self) -> bool:
        """Rows are made unit, unless told otherwise."""
        return self.normalize

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``, ``alpha [*b]``."""
        self._check()
        gaussian = self._gaussian(task)
        weight, bias = gaussian.weights(self.precision(gaussian))
        mass = task.y.sum(-2)
        bias = torch.where(mass > 0, bias + self._log_prior(mass), lowest(bias))
        return {"weight": weight, "bias": bias, "alpha": self._choose(task, gaussian)}

    def without_examples(self, task: Task, state: State, text: ClassText) -> State:
        """See `gda_new`; to empirical priors such a class is one of mean size."""
        weight, bias = synthesised(self._rows(task.x), task.weight, text.mean)
        prior = self._log_prior(torch.ones_like(task.y.sum(-2)))[..., :1]
        return {"unseen_weight": weight, "unseen_bias": bias + prior}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z W' + alpha (z w' + b)``."""
        gaussian = self._rows(query.x) @ state["weight"].mT + state["bias"][..., None, :]
        return _mix(query.prior, state["alpha"][..., None, None], gaussian)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form for ``shrinkage="ks"`` and rows of one class each; alpha is held, the ridge is refitted."""
        self._check()
        if not self._closed(task).all():
            return None
        gaussian = self._gaussian(task)
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
        elif self.shrinkage in ("none", "classes"):
            small = values <= values.amax(-1, keepdim=True) * width * torch.finfo(values.dtype).eps
            times = (n - 1).clamp_min(1) if self.shrinkage == "none" else 1.0
            inverse = torch.where(small, 0.0, times / values)
        else:
            delta = shrinkage_intensity(gaussian, self.shrinkage)[..., None]
            inverse = n / ((1 - delta) * values + delta * trace / width).clamp_min(torch.finfo(values.dtype).tiny)
        return torch.where(gaussian.flat[..., None], 1.0, inverse)

    def _check(self) -> None:
        if isinstance(self.alpha, str):
            if self.alpha != "loo":
                raise BadInput(f"alpha is a number or 'loo', not {self.alpha!r}")
        else:
            finite("alpha", self.alpha, least=0)
        one_of("shrinkage", self.shrinkage, get_args(Shrinkage))
        one_of("priors", self.priors, ("uniform", "empirical"))

    def _gaussian(self, task: Task) -> Discriminant:
        """Of the support; with ``"classes"`` rows count so that their scatter is the mean of the classes' covariances,
        those of a single row left out."""
        y = task.y
        if self.shrinkage == "classes":
            mass = y.sum(-2)
            several = mass > 1 + 1e-6
            share = torch.where(several, 1 / (mass - 1).clamp_min(1e-6), 1e-6)
            y = y * (share / several.sum(-1, keepdim=True).clamp_min(1))[..., None, :]
        return Discriminant.of(self._rows(task.x), y)

    def _read_unseen(self, dtype: Any) -> tuple[np.ndarray, ClassText | None]:
        labels, text = super()._read_unseen(dtype)
        fits = text is not None and text.vectors.shape[-1] == self.n_features_in_
        return (labels, text) if fits else (labels[:0], None)

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
