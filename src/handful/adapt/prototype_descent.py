"""Prototypes moved by gradient: how logits depend on them, and the steps of Adam on an `Information` loss.

Every metric sees a prototype w and a row x by c = w . x and |w|^2 only:

    sqeuclidean    s = t (c - |w|^2 / 2)            A = t            B = -t      (|x|^2 sways no softmax over classes)
    euclidean      s = -t |x - w|                   A = t / |x - w|  B = -t / |x - w|
    cosine         s = t c / |w|,  |x| = 1          A = t / |w|      B = -s / |w|^2

with A = ds/dc and B = 2 ds/d|w|^2, so that dL/dw_k = sum_i (dL/ds_ki) (A_ki x_i + B_ki w_k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from handful.core.distances import unit
from handful.core.information import Information
from handful.core.train import Adam

Metric = Literal["sqeuclidean", "euclidean", "cosine"]


@dataclass(frozen=True)
class Likeness:
    """Logits of rows by prototypes.

    Args:
        metric: see above.
        temperature: t.
    """

    metric: Metric
    temperature: float

    def prepared(self, x: Tensor) -> Tensor:
        """The rows ``[*b, n, D]`` as `logits` wants them."""
        return unit(x) if self.metric == "cosine" else x

    def logits(self, w: Tensor, x: Tensor, square: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """``s [*b, C, n]``, A and B for prototypes ``w [*b, C, D]`` and prepared rows of squares ``[*b, 1, n]``."""
        t, c, length = self.temperature, w @ x.mT, w.square().sum(-1, keepdim=True)
        if self.metric == "sqeuclidean":
            return torch.sub(c, length, alpha=0.5).mul_(t), t, -t
        if self.metric == "cosine":
            length = length.clamp_min(1e-24)
            scale = t * length.rsqrt()
            s = c.mul_(scale)
            return s, scale, -s / length
        # Not below what the number format can tell from 0: a row on its prototype does not pull.
        both = length + square
        distance = torch.maximum(torch.sub(both, c, alpha=2), 8 * torch.finfo(x.dtype).eps * both).sqrt_()
        return -t * distance, t / distance, -t / distance


def descend_prototypes(
    w: Tensor, x: Tensor, likeness: Likeness, information: Information, *, steps: int, lr: float
) -> Tensor:
    """Prototypes ``[*b, C, D]`` after ``steps`` of Adam; ``x`` is support and queries ``[*b, N + Q, D]``."""
    w, x, adam = w.clone(), likeness.prepared(x), Adam()
    square = x.square().sum(-1)[..., None, :]
    for _ in range(steps):
        s, a, b = likeness.logits(w, x, square)
        slope = information.slope(s)
        gradient = (slope * a) @ x
        gradient.addcmul_((slope * b).sum(-1, keepdim=True), w)
        adam([w], (gradient,), lr)
    return w
