"""Heads that look at no label: class text says what the classes are, items without labels say where they lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from handful.adapt.base import Head
from handful.core.task import Task
from handful.errors import BadInput


@dataclass(eq=False, repr=False, kw_only=True)
class WithoutLabels(Head):
    """Base of such heads. Examples, when given, are items like those of ``unlabelled``: their labels are ignored."""

    learns_from_pool: ClassVar[bool] = True

    def fit_unlabelled(self, X: Any) -> Self:
        """Learn from features ``[n, d]`` without labels; the classes are those of ``text``.

        Raises:
            BadInput: no class text, fewer items than classes, or what `fit` refuses.
        """
        if not self.text:
            raise BadInput(f"{type(self).__name__} needs class text: give text={{label: vectors}}")
        labels = np.unique(np.asarray(list(self.text)))
        n = len(X)
        if n < len(labels):
            raise BadInput(f"{n} items without labels are fewer than the {len(labels)} classes of the class text")
        return self.fit(X, labels[np.arange(n) % len(labels)])  # which label stands where is not looked at


def with_pool(task: Task) -> Task:
    """The task with its unlabelled items as further rows of the support, zeros as their labels.

    Raises:
        BadInput: the unlabelled items are not in a space with class text.
    """
    pool = task.unlabelled
    if pool is None:
        return task
    if task.prior is not None and task.prior_unlabelled is None:
        raise BadInput("the unlabelled items are not in a space with class text: give them a view 'aligned' as well")
    more = (*task.weight.shape[:-1], pool.shape[-2])
    pool = pool.to(task.support).expand(*more, -1)
    last = task.item.amax(-1, keepdim=True) + 1
    views = {name: view for name, view in task.views.items() if name in task.views_unlabelled}
    return replace(
        task,
        support=torch.cat([task.support, pool], -2),
        labels=torch.cat([task.labels, task.labels.new_zeros(*more, task.labels.shape[-1])], -2),
        weight=torch.cat([task.weight, task.weight.new_ones(more)], -1),
        item=torch.cat([task.item, last + torch.arange(more[-1], device=last.device)], -1),
        prior=None
        if task.prior is None or task.prior_unlabelled is None
        else torch.cat([task.prior, task.prior_unlabelled.to(task.prior).expand(*more, -1)], -2),
        views={
            name: torch.cat([view, task.views_unlabelled[name].to(view)], len(more) - 1) for name, view in views.items()
        },
        unlabelled=None,
        prior_unlabelled=None,
        views_unlabelled={},
    )
