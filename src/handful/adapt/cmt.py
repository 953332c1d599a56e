"""CMT: a small network maps items into the space of signatures; the nearest class answers.

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017.

    f(x) = second tanh(first x),  trained on  sum_i |f(x_i) - phi_(y_i)|^2,  logit_c = -|f(x) - phi_c|^2 / 2

CMT* first asks whether an item is novel: with sigma_k^2 the mean square by which items of seen class k miss phi_k, it
is where  max_k log N(f(x); phi_k, sigma_k^2 I)  is below that of a given share of the examples. Novel items can only be
of classes without examples, others only of classes with some. Examples are judged by networks trained without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.logistic import stratified_folds
from handful.adapt.packed import uniform
from handful.adapt.parameters import count, finite
from handful.adapt.signatures import Known, SignatureHead
from handful.core.distances import sqeuclidean
from handful.core.task import State, lowest
from handful.core.train import Adam, cosine, descend
from handful.protocols import Needs

FOLDS = 5
"""Parts of the support, each judged by the network trained on the others."""


@dataclass(eq=False, repr=False, kw_only=True)
class CMT(SignatureHead):
    """A two-layer network from features to signatures, optionally with a look for novelty.

    Args:
        hidden: units between the layers.
        steps: of Adam over all rows together, their length falling to 0 by a cosine.
        lr: length of the first.
        novelty: share of the examples that would be taken for novel; 0 is CMT without the look, above it is CMT*.
    """

    key: ClassVar[str] = "cmt"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {
        **SignatureHead.shapes,
        "first": "H D",
        "second": "T H",
        "known": "C T",
        "seen": "C",
        "variance": "C",
        "limit": "",
    }

    hidden: int = 50
    steps: int = 300
    lr: float = 0.01
    novelty: float = 0.0

    def learn(self, known: Known) -> State:
        """State: ``first [*b, H, D]``, ``second [*b, T, H]``; of seen classes ``known [*b, C, T]``, ``seen`` and
        ``variance`` ``[*b, C]``; ``limit [*b]`` below which a density is that of a novel item."""
        count("hidden", self.hidden, 1)
        count("steps", self.steps)
        finite("lr", self.lr, above=0)
        finite("novelty", self.novelty, least=0, most=1)
        x, y, s = known.x, known.y, known.s
        first, second = self._train(x, y, s, known.task.seed)
        f = mapped(first, second, x)
        if self.novelty:  # what the network was trained on is too near to tell what is new
            fold = stratified_folds(known.task, FOLDS)
            index = torch.arange(FOLDS, device=x.device).reshape(-1, *[1] * fold.dim())
            held = (fold == index)[..., None]  # [F, *b, N, 1]
            others = self._train(x.expand(FOLDS, *x.shape), torch.where(held, 0.0, y), s, known.task.seed)
            f = torch.where(held, mapped(*others, x), 0.0).sum(0)
        miss = y * sqeuclidean(f, s)
        mass, width = y.sum(-2).clamp_min(1e-30), s.shape[-1]
        pooled = miss.sum((-2, -1)) / y.sum((-2, -1)).clamp_min(1e-30) / width
        variance = torch.maximum(miss.sum(-2) / mass / width, 1e-2 * pooled[..., None]).clamp_min(1e-8)
        state = {"first": first, "second": second, "known": s, "seen": known.seen.to(x.dtype), "variance": variance}
        return {**state, "limit": self._limit(_density(state, f), y.sum(-1))}

    def _train(self, x: Tensor, y: Tensor, s: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        mass = y.sum((-2, -1)).clamp_min(1e-30)
        draw = torch.Generator().manual_seed(seed)
        sizes = ((self.hidden, x.shape[-1]), (s.shape[-1], self.hidden))
        start = [uniform(size, 1 / math.sqrt(size[1]), draw).to(x).expand(*x.shape[:-2], *size) for size in sizes]

        def losses(parameters: list[Tensor], _: Tensor) -> Tensor:
            return (y * sqeuclidean(mapped(parameters[0], parameters[1], x), s)).sum((-2, -1)) / mass

        each = [torch.zeros(0, device=x.device)] * self.steps
        first, second = descend(start, losses, each, cosine(self.lr, max(1, self.steps)), Adam())
        return first, second

    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """Half the squared distances, negative, times ``logit_scale``; CMT* rules classes out."""
        f, text = mapped(state["first"], state["second"], x), state["text"]
        logits = -0.5 * self.logit_scale * sqeuclidean(f, text)
        if not self.novelty:
            return logits
        same = (text[..., :, None, :] == state["known"][..., None, :, :]).all(-1) & (state["seen"] > 0)[..., None, :]
        old = same.any(-1)[..., None, :]  # a class is known by its signature
        novel = (_density(state, f) < state["limit"][..., None])[..., None]
        out = (novel & old & ~old.all(-1, keepdim=True)) | (~novel & ~old & old.any(-1, keepdim=True))
        return logits.masked_fill(out, lowest(logits))

    def _limit(self, density: Tensor, weight: Tensor) -> Tensor:
        """The density below which a share ``novelty`` of the weight lies ``[*b]``."""
        ordered = density.masked_fill(weight <= 0, torch.inf).sort(-1)
        below = weight.gather(-1, ordered.indices).cumsum(-1)
        at = (below <= self.novelty * weight.sum(-1, keepdim=True)).sum(-1, keepdim=True)
        limit = ordered.values.gather(-1, at.clamp_max(density.shape[-1] - 1))[..., 0]
        return torch.where(limit.isfinite(), limit, -lowest(limit))


def mapped(first: Tensor, second: Tensor, x: Tensor) -> Tensor:
    """``f(x)`` ``[*b, Q, T]``."""
    return (x @ first.mT).tanh() @ second.mT


def _density(state: State, f: Tensor) -> Tensor:
    """``max_k log N(f; phi_k, sigma_k^2 I)`` over seen classes ``[*b, Q]``."""
    variance, width = state["variance"][..., None, :], f.shape[-1]
    log_n = -0.5 * (sqeuclidean(f, state["known"]) / variance + width * (2 * math.pi * variance).log())
    return log_n.masked_fill((state["seen"] <= 0)[..., None, :], -torch.inf).amax(-1)
