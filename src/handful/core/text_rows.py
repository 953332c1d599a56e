"""Class names as examples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from handful.core.task import Task
from handful.errors import BadInput


def with_text_rows(task: Task, weight: Tensor | float) -> Task:
    """The task with each class' text as one more support row of ``weight`` ``[*b]``; needs text as wide as the
    features.

    The rows are items of their own. This is how class names help a head that knows nothing of text: as `weight`
    pseudo-examples each.
    """
    if task.text is None or task.text.vectors.shape[-1] != task.support.shape[-1]:
        raise BadInput("text rows need class text of the width of the features")
    mean = task.text.mean.to(task.support.dtype)
    batch, c = task.support.shape[:-2], task.labels.shape[-1]
    mean = mean.expand(*batch, *mean.shape[-2:])
    rows = torch.as_tensor(weight, dtype=mean.dtype, device=mean.device).expand(batch)[..., None].expand(*batch, c)
    rows = torch.where(task.text.mask.any(-1) & task.class_mask, rows, 0.0)
    eye = torch.eye(c, dtype=mean.dtype, device=mean.device).expand(*batch, c, c)
    first = task.item.amax(-1, keepdim=True) + 1
    prior = task.prior
    if prior is not None:
        prior = torch.cat([prior, torch.zeros(*batch, c, c, dtype=prior.dtype, device=prior.device)], -2)
    return replace(
        task,
        support=torch.cat([task.support, mean], -2),
        labels=torch.cat([task.labels, eye], -2),
        weight=torch.cat([task.weight, rows], -1),
        item=torch.cat([task.item, first + torch.arange(c, device=mean.device).expand(*batch, c)], -1),
        prior=prior,
        views={},
    )
