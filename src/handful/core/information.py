"""Cross-entropy of the support and mutual information of the queries: the loss and its slope in the logits.

    L = w_s sum_i y_i . (-log p_i) / sum_i m_i  -  w_m H(mean_q p_q)  +  w_c mean_q H(p_q),      p = softmax(s)

    dL/ds_i = w_s (m_i p_i - y_i) / sum_i m_i                                        support, of weight m_i = sum_k y_ik
    dL/ds_q = p_q (h_q - p_q . h_q) / Q,   h_q = w_m log(mean_q p_q) - w_c log p_q                              queries

Classes come before rows: logits are ``[*b, C, N + Q]``, the support first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handful.core.softem import real_classes, shares
from handful.core.task import lowest


@dataclass(frozen=True)
class Information:
    """The loss of a set of tasks.

    Args:
        target: ``w_s y_i / sum m``, zero for queries ``[*b, C, N + Q]``.
        fit: ``w_s m_i / sum m``, zero for queries ``[*b, 1, N + Q]``.
        share: ``1 / Q``, zero for the support and for padding ``[*b, 1, N + Q]``.
        unreal: classes without examples ``[*b, C, 1]``; ``None`` where there are none.
        marginal, conditional: w_m, w_c.
    """

    target: Tensor
    fit: Tensor
    share: Tensor
    unreal: Tensor | None
    marginal: float
    conditional: float

    @classmethod
    def of(cls, y: Tensor, real: Tensor, weights: tuple[float | Tensor, float, float]) -> Information:
        """From labels times weights of the support ``[*b, N, C]``, which queries are real ``[*b, Q]``, w_s, w_m, w_c.

        w_s may differ from task to task ``[*b]``.
        """
        n, q = y.shape[-2], real.shape[-1]
        target = y.mT * (weights[0] / y.sum((-2, -1)))[..., None, None]
        unreal = ~real_classes(y)[..., None]
        return cls(
            torch.nn.functional.pad(target, (0, q)),
            torch.nn.functional.pad(target.sum(-2, keepdim=True), (0, q)),
            torch.nn.functional.pad(shares(real.to(y.dtype)), (n, 0))[..., None, :],
            unreal if bool(unreal.any()) else None,
            *weights[1:],
        )

    def log_probabilities(self, s: Tensor) -> Tensor:
        """``log softmax(s)`` over the classes that have examples."""
        return (s if self.unreal is None else s.masked_fill(self.unreal, lowest(s))).log_softmax(-2)

    def loss(self, s: Tensor) -> Tensor:
        """``L [*b]``."""
        log_p = self.log_probabilities(s)
        p = log_p.exp()
        fit = -torch.where(self.target > 0, self.target * log_p, 0.0).sum((-2, -1))
        mean = (p * self.share).sum(-1)
        marginal = -(mean * _log(mean)).sum(-1)
        conditional = -(p * log_p * self.share).sum((-2, -1))
        return fit - self.marginal * marginal + self.conditional * conditional

    def slope(self, s: Tensor) -> Tensor:
        """``dL/ds [*b, C, N + Q]``."""
        h = self.log_probabilities(s)
        p = h.exp()
        h = h.mul_(-self.conditional)
        if self.marginal:
            h.add_(_log((p * self.share).sum(-1, keepdim=True)), alpha=self.marginal)
        h.sub_((p * h).sum(-2, keepdim=True)).mul_(self.share).add_(self.fit)
        return h.mul_(p).sub_(self.target)


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log_()
