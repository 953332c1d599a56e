"""AMU-Tuning: a second encoder corrects the zero-shot model, the more the less sure that is.

Paper 122: Tang, Lin, Wang, Zhu, Hu, "AMU-Tuning: Effective Logit Bias for CLIP-based Few-shot Learning", 2024. With
unit features z, unit features h of the second encoder and p the softmax of the zero-shot logits s0:

    s = s0 + alpha u(p) l,   s0 = s z W'
    l = (v h - mean_c) / std_c                  for each item, over classes; v starts at the class means of h
    u = (kurtosis(p) / 250)^(-rho)              large where p is flat
    min_v  lambda CE(s) + (1 - lambda) CE(l)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite, one_of
from handful.adapt.proto_clip import cosines_left_out
from handful.adapt.zero_shot import prior_logits
from handful.core.calibration import accuracy
from handful.core.distances import unit
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task, mask_classes
from handful.core.train import adamw
from handful.errors import BadInput
from handful.protocols import Needs

Kind = Literal["kurtosis", "entropy", "energy", "max", "max-min", "std", "top5", "none"]
KINDS = ("kurtosis", "entropy", "energy", "max", "max-min", "std", "top5", "none")
TAU = 2.0
TINY = 1e-12


@dataclass(eq=False, repr=False, kw_only=True)
class AMUTuning(Head):
    """Linear predictor on a second encoder's features, added to the zero-shot logits where they are unsure.

    The features carry the second encoder's as a view ``aux``.

    Args:
        alpha: weight of the correction.
        lam: share of the loss of the sum; the rest is that of the correction alone.
        uncertainty: how doubt is measured from the zero-shot probabilities, see `doubt`; with two classes
            ``"kurtosis"`` is the same for every item, and ``"max"`` stands in.
        rho: power of the doubt.
        kurtosis_scale: what the kurtosis is divided by; ``None``: a quarter of the number of classes, which is the
            reference's 250 for ImageNet's 1000.
        epochs: passes over the support.
        lr: of AdamW (epsilon 1e-4, decay 0.01), falling to 0 by a cosine.
        batch_size: rows a step, their order drawn with ``random_state``.
    """

    key: ClassVar[str] = "amu-tuning"
    needs: ClassVar[Needs] = Needs(text=True, views=("aux",), gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C A", "real": "C"}

    alpha: float = 0.5
    lam: float = 0.35
    uncertainty: Kind = "kurtosis"
    rho: float = 0.4
    kurtosis_scale: float | None = None
    epochs: int = 50
    lr: float = 1e-3
    batch_size: int = 8

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, A]`` on the second features, and which classes are ``real [*b, C]``."""
        self._check(task)
        h, y, prior, real = _aux_rows(task), task.y, prior_logits(task.offset), task.class_mask
        doubts = self._doubt(prior, real)

        def losses(parameters: list[Tensor], rows: Tensor) -> Tensor:
            bias = standardised(h[..., rows, :] @ parameters[0].mT, real)
            fused = prior[..., rows, :] + self.alpha * doubts[..., rows, :] * bias
            target = y[..., rows, :]
            return self.lam * cross_entropy(fused, target, real) + (1 - self.lam) * cross_entropy(bias, target, real)

        weight = adamw(
            [class_means(h, y)],
            losses,
            rows=real_rows(task),
            epochs=self.epochs,
            lr=self.lr,
            eps=1e-4,
            batch_size=self.batch_size,
            seed=task.seed,
        )[0]
        return {"weight": weight, "real": real}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s0 + alpha u l``."""
        prior, real = prior_logits(query.prior), state["real"]
        h = unit(query.views["aux"].to(state["weight"].dtype))
        bias = standardised(h @ state["weight"].mT, real)
        return prior + self.alpha * self._doubt(prior, real) * bias

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        return super().view_widths() | {"aux": self.state_["weight"].shape[-1]}

    def _doubt(self, prior: Tensor, real: Tensor) -> Tensor:
        return doubt(prior, real, self.uncertainty, self.rho, self.kurtosis_scale)

    def _check(self, task: Task) -> None:
        one_of("uncertainty", self.uncertainty, KINDS)
        finite("alpha", self.alpha, least=0)
        finite("lam", self.lam, least=0, most=1)
        finite("rho", self.rho, least=0)
        if self.kurtosis_scale is not None:
            finite("kurtosis_scale", self.kurtosis_scale, above=0)
        finite("lr", self.lr, above=0)
        count("epochs", self.epochs)
        count("batch_size", self.batch_size, 1)
        if self.uncertainty == "top5" and int(task.ways.min()) < 5:
            raise BadInput(f"uncertainty 'top5' needs 5 classes or more, not {int(task.ways.min())}")


def complementarity(task: Task) -> tuple[Tensor, Tensor]:
    """What the second encoder is worth: how good it is alone, and how often it only repeats the zero-shot model.

    Returns:
        The accuracy ``[*b]`` of the nearest class mean of the view ``aux``, the item left out, and the share ``[*b]``
        of examples for which both put the same class first.
    """
    prior = mask_classes(prior_logits(task.offset), task.class_mask)
    alone = mask_classes(cosines_left_out(replace(task, support=task.views["aux"])), task.class_mask)
    same = (alone.argmax(-1) == prior.argmax(-1)).to(task.y.dtype)
    weight = task.y.sum(-1)
    return accuracy(alone, task.y), (same * weight).sum(-1) / weight.sum(-1)


def class_means(h: Tensor, y: Tensor) -> Tensor:
    """``[*b, C, A]``: the mean of the rows ``h [*b, N, A]`` of each class of ``y [*b, N, C]``."""
    return (y.mT @ h) / y.sum(-2)[..., None].clamp_min(1e-30)


def standardised(logits: Tensor, real: Tensor) -> Tensor:
    """Each row minus its mean, over its (unbiased) standard deviation, over the real classes; 0 for padded ones."""
    inside = real[..., None, :]
    logits = torch.where(inside, logits, 0.0)
    ways = inside.sum(-1, keepdim=True).to(logits.dtype)
    centred = torch.where(inside, logits - logits.sum(-1, keepdim=True) / ways, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / (ways - 1)
    return centred / variance.clamp_min(TINY).sqrt()


def doubt(prior: Tensor, real: Tensor, kind: Kind, rho: float, kurtosis_scale: float | None = None) -> Tensor:
    """How unsure zero-shot logits ``[*b, n, C]`` are, ``[*b, n, 1]``.

    With p their softmax over the real classes: ``"kurtosis"`` ``(kurtosis(p) / scale)^(-rho)``, ``"entropy"``
    ``exp(rho H(p) / log C)``, ``"energy"`` ``E^(-rho)`` with ``E = tau (log sum exp((p - max p) / tau) + max p)``,
    ``"max"`` ``(max p)^(-rho)``, ``"max-min"`` ``(max p - min p)^(-rho)``, ``"std"`` the standard deviation of p,
    ``"top5"`` ``(p_1 - p_5)^(-rho)``, the fifth largest being p_5; ``"none"`` 1.
    """
    inside = real[..., None, :]
    p = prior.masked_fill(~inside, -torch.inf).softmax(-1)
    ways = inside.sum(-1, keepdim=True).to(p.dtype)
    most = p.amax(-1, keepdim=True)
    if kind == "none":
        return torch.ones_like(most)
    if kind == "entropy":
        entropy = -torch.where(p > 0, p * p.clamp_min(1e-45).log(), 0.0).sum(-1, keepdim=True)
        return (rho * entropy / ways.log()).exp()
    if kind == "energy":
        pressed = ((p - most) / TAU).masked_fill(~inside, -torch.inf).logsumexp(-1, keepdim=True)
        return (TAU * (pressed + most)).clamp_min(TINY) ** -rho
    if kind == "max":
        return most**-rho
    if kind == "max-min":
        least = p.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
        return (most - least).clamp_min(TINY) ** -rho
    if kind == "top5":
        return (most - p.topk(5, dim=-1).values[..., -1:]).clamp_min(TINY) ** -rho
    if kind == "std":
        return _moments(p, inside, ways)[0].sqrt()
    scale = ways / 4 if kurtosis_scale is None else kurtosis_scale
    flat = (_moments(p, inside, ways)[1] / scale) ** -rho
    return torch.where(ways > 2, flat, most**-rho)  # of two classes the kurtosis is always 1/4


def _moments(p: Tensor, inside: Tensor, ways: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased variance and kurtosis ``[*b, n, 1]`` over the real classes; of a p without spread the least there is."""
    centred = torch.where(inside, p - 1 / ways, 0.0)
    most = centred.abs().amax(-1, keepdim=True)
    shape = centred / most.clamp_min(torch.finfo(p.dtype).tiny)  # fourth powers of small numbers would be lost
    variance = shape.square().sum(-1, keepdim=True) / (ways - 1)
    kurtosis = (shape**4).sum(-1, keepdim=True) / (ways * variance.square()).clamp_min(TINY)
    return variance * most.square(), kurtosis.maximum(((ways - 1) / ways).square())


def _aux_rows(task: Task) -> Tensor:
    if "aux" not in task.views:
        raise BadInput("AMUTuning needs features with a view 'aux': those of the second encoder")
    return unit(torch.where(task.weight[..., None] > 0, task.views["aux"].to(task.support.dtype), 0.0))
