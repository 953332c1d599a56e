"""Losses of a support, each example counting by its weight: one number a task."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.task import Task, mask_classes


def cross_entropy(logits: Tensor, y: Tensor, class_mask: Tensor) -> Tensor:
    """Mean over examples of ``-sum_c y_c log softmax(logits)_c``: ``[*b]``, in nats.

    Args:
        logits: ``[*b, N, C]``.
        y: labels times weights ``[*b, N, C]``; a zero row is not there.
        class_mask: ``[*b, C]``; padded classes are left out of the softmax.
    """
    log_p = mask_classes(logits, class_mask).log_softmax(-1)
    return -torch.where(y > 0, y * log_p, 0.0).sum((-2, -1)) / y.sum((-2, -1)).clamp_min(1e-30)


def real_rows(task: Task) -> Tensor:
    """Indices of the support rows that are no padding in some task of the batch."""
    n = task.weight.shape[-1]
    return (task.weight > 0).reshape(-1, n).any(0).nonzero()[:, 0]
