"""GPAM: Gaussian prototypes with a radius, so that an item can be none of the classes.

Paper 058: Guo, Zhang, Wang, Lei, Li, Wang, Liu, "Few-shot Open Relation Extraction with Gaussian Prototype and Adaptive
Margin", 2024. The part in feature space; the authors train an encoder below it, and published no code.

    x_i        <- a x_i + (1 - a) mean of its variants; variants stay as further rows
    sigma2_kj  = (n_kj s2_kj + nu s2_pool) / (n_kj + nu),  s2_pool where n_kj <= 1
    d_k(q)     = -log sum_j pi_kj N(q; mu_kj, diag sigma2_kj)
    b_k        = mean_i d_k(x_i) + m_k,  x_i not being in mu_k and sigma2_k
    m_k        = softplus(u) min_j (d_k(mu_j) - d_k(mu_k))
    known  <=>   d_k(q) <= b_k for the nearest k

u is learnt from the support and negatives: mid-points of an example and the mean of the nearest other class, examples
pushed just outside the radius, items of none of the classes if there are any. With t = temperature times D:

    L = CE([-d / t, -b_nearest / t]) + l1 mean [d_y - b_y]_+ / t + l2 mean_k,negatives [b_k + m_k - d_k]_+ / t
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.open_head import OpenHead
from handful.adapt.parameters import count, finite
from handful.core.mixtures import Mixtures
from handful.core.task import Query, State, Task, lowest
from handful.core.train import Adam, cosine, descend
from handful.errors import BadInput
from handful.protocols import Needs

START = 0.125
"""Share of the way to the nearest other class at which the margin starts: twice as far is the middle of the way."""
OUTSIDE = 0.1
"""Share of the way by which examples are pushed outside the radius that this makes."""


@dataclass(eq=False, repr=False, kw_only=True)
class GPAM(OpenHead):
    """Gaussian prototypes with a radius each: `predict_open` answers "none of these" outside all of them.

    ``background`` are items of none of the classes, for the margin to be learnt from; it works without. A view
    ``variants [n, V, d]`` holds rows of each item with what should not matter changed.

    Args:
        n_components: Gaussians a class, at most.
        shrinkage: nu, how many examples the pooled variance is worth.
        margin: ``"adaptive"`` as above, or the share of the way to the nearest other class; infinite: no item is
            unknown.
        debias: a, the share of an item itself beside its variants.
        l1, l2: weights of the losses that keep known items inside and negatives outside.
        temperature: of the losses.
        steps, lr: of Adam on u; its rate falls to 0 along a cosine.
    """

    key: ClassVar[str] = "gpam"
    needs: ClassVar[Needs] = Needs(gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "mean": "C J D", "variance": "C J D", "share": "C J", "mass": "C", "radius": "C",
    }  # fmt: skip

    n_components: int = 1
    shrinkage: float = 1.0
    margin: float | Literal["adaptive"] = "adaptive"
    debias: float = 0.5
    l1: float = 1.0
    l2: float = 1.0
    temperature: float = 0.1
    steps: int = 100
    lr: float = 0.05

    def adapt(self, task: Task) -> State:
        """State: ``mean``, ``variance [*b, C, J, D]``, ``share [*b, C, J]``, ``mass``, ``radius [*b, C]``."""
        self._check()
        x, y = self._rows(task)
        fitted = Mixtures.of(x, y, self.n_components, self.shrinkage)
        if bool(fitted.raised.any()):
            warnings.warn("a class without spread: its variance is that of all classes", UserWarning, stacklevel=2)
        found = fitted.distances_left_out(x, y, self.shrinkage)
        inside = (y * found).sum(-2) / fitted.mass.clamp_min(torch.finfo(x.dtype).tiny)
        gap = _gap(fitted)
        if self.margin == "adaptive":
            u = self._learn(task, x, y, fitted, found, inside, gap)
            margin = torch.nn.functional.softplus(u)[..., None] * gap
        else:
            margin = torch.full_like(gap, math.inf) if self.margin == math.inf else gap * float(self.margin)
        radius = (inside + margin).clamp_max(-lowest(x))
        return {
            "mean": fitted.mean, "variance": fitted.variance, "share": fitted.share, "mass": fitted.mass,
            "radius": torch.where(fitted.mass > 0, radius, 0.0),
        }  # fmt: skip

    def answer(self, state: State, query: Query) -> Tensor:
        """``-d_k(q)``; a class without examples gets the lowest logit."""
        return -mixtures(state).distances(query.x)

    def beyond(self, state: State, x: Tensor) -> Tensor:
        """``d_k - b_k`` of the nearest class ``[*b, Q]``."""
        return beyond(state, x)

    def _rows(self, task: Task) -> tuple[Tensor, Tensor]:
        """Rows ``[*b, N (1 + V), D]`` and labels of the items and their variants."""
        x, y, variants = task.x, task.y, task.views.get("variants")
        if variants is None:
            return x, y
        if variants.dim() != x.dim() + 1 or variants.shape[-1] != x.shape[-1]:
            raise BadInput(f"the view 'variants' must be [n, V, {x.shape[-1]}], not of shape {tuple(variants.shape)}")
        variants = torch.where(task.weight[..., None, None] > 0, variants.to(x.dtype), 0.0)
        plain = self.debias * x + (1 - self.debias) * variants.mean(-2)
        rows = torch.cat([plain[..., None, :], variants], -2)
        return rows.flatten(-3, -2), y.repeat_interleave(rows.shape[-2], -2)

    def _learn(
        self, task: Task, x: Tensor, y: Tensor, fitted: Mixtures, found: Tensor, inside: Tensor, gap: Tensor
    ) -> Tensor:
        """u ``[*b]``."""
        start = x.new_full(x.shape[:-2], math.log(math.expm1(START)))
        scale = self.temperature * x.shape[-1]
        away, weight = self._negatives(task, x, y, fitted, inside + START * gap, (START + OUTSIDE) * gap + inside)
        there, own = fitted.mass > 0, y.sum(-1)
        known = own.sum(-1).clamp_min(1e-30)
        total = weight.sum(-1).clamp_min(1e-30)
        nearest, far = found.argmin(-1), away.argmin(-1)
        real = there.sum(-1).clamp_min(1)

        def losses(parameters: list[Tensor], _: Tensor) -> Tensor:
            margin = torch.nn.functional.softplus(parameters[0])[..., None] * gap
            b = inside + margin
            none = torch.cat([-found, -b.gather(-1, nearest)[..., None]], -1).div(scale).log_softmax(-1)[..., :-1]
            classed = -torch.where(y > 0, y * none, 0.0).sum((-2, -1)) / known
            outside = torch.cat([-away, -b.gather(-1, far)[..., None]], -1).div(scale).log_softmax(-1)[..., -1]
            classed = (classed - (weight * outside).sum(-1) / total) / 2
            ranged = (torch.where(y > 0, y, 0.0) * (found - b[..., None, :]).clamp_min(0)).sum((-2, -1)) / known
            over = ((b + margin)[..., None, :] - away).clamp_min(0) * there[..., None, :]
            kept = (weight * over.sum(-1)).sum(-1) / total / real
            return classed + (self.l1 * ranged + self.l2 * kept) / scale

        steps = [torch.empty(0)] * self.steps
        return descend([start], losses, steps, cosine(self.lr, max(self.steps, 1)), Adam())[0]

    def _negatives(
        self, task: Task, x: Tensor, y: Tensor, fitted: Mixtures, radius: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distances ``[*b, M, C]`` of made-up and given items of no class, and their weights ``[*b, M]``."""
        own, total = y.argmax(-1), y.sum(-1)
        others = fitted.distances(x).scatter(-1, own[..., None], torch.inf)
        beside = fitted.centre.gather(-2, others.argmin(-1)[..., None].expand_as(x))
        midway = (x + beside) / 2
        pushed, moved = fitted.pushed(x, own, target)
        rows, weights = [midway, pushed], [total, total * moved]
        if task.background is not None:
            given = task.background.x.to(x.dtype).expand(*x.shape[:-2], -1, -1)
            rows, weights = [*rows, given], [*weights, x.new_ones(given.shape[:-1])]
        return fitted.distances(torch.cat(rows, -2)), torch.cat(weights, -1)

    def _check(self) -> None:
        count("n_components", self.n_components, 1)
        if self.shrinkage != math.inf:
            finite("shrinkage", self.shrinkage, least=0)
        if self.margin not in ("adaptive", math.inf):
            if isinstance(self.margin, str):
                raise BadInput(f"margin is 'adaptive' or a number from 0, not {self.margin!r}")
            finite("margin", self.margin, least=0)
        finite("debias", self.debias, least=0, most=1)
        finite("l1", self.l1, least=0)
        finite("l2", self.l2, least=0)
        finite("temperature", self.temperature, above=0)
        count("steps", self.steps)
        finite("lr", self.lr, above=0)


def mixtures(state: State) -> Mixtures:
    """The classes of a state."""
    return Mixtures(state["mean"], state["variance"], state["share"], state["mass"])


def beyond(state: State, x: Tensor) -> Tensor:
    """``d_k - b_k`` of the nearest class k of the rows ``x [*b, Q, D]``: ``[*b, Q]``."""
    found = mixtures(state).distances(x)
    near, k = found.min(-1)
    return near - state["radius"].gather(-1, k)


def _gap(fitted: Mixtures) -> Tensor:
    """``min_j (d_k(mu_j) - d_k(mu_k))`` ``[*b, C]``: how far the nearest other class is, as class k measures; of
    several components the nearest."""
    c, j = fitted.share.shape[-2:]
    found = fitted.distances(fitted.mean.flatten(-3, -2)).mT  # [k, means of all]
    found = torch.where((fitted.share > 0).flatten(-2)[..., None, :], found, torch.inf)
    nearest = found.reshape(*found.shape[:-1], c, j).amin(-1)
    same = torch.eye(c, dtype=torch.bool, device=found.device)
    others = nearest.masked_fill(same, torch.inf).amin(-1)
    gap = (others - nearest.diagonal(dim1=-2, dim2=-1)).clamp_min(0)
    return torch.where((fitted.mass > 0) & others.isfinite(), gap, 0.0)
