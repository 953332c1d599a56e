"""What heads share that compare items with class text in one space.

That space is the view ``aligned`` where the features carry one, and the features themselves otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.distances import unit
from handful.core.task import Query, Task
from handful.errors import BadInput


def item_rows(task: Task) -> Tensor:
    """The support in the space of class text, unit rows ``[*b, N, D]``, zero on padding."""
    x = task.views.get("aligned", task.support).to(task.support.dtype)
    return unit(torch.where(task.weight[..., None] > 0, x, 0.0))


def query_rows(query: Query) -> Tensor:
    """The queries in the space of class text, unit rows ``[*b, Q, D]``."""
    return unit(query.views.get("aligned", query.x).to(query.x.dtype))


def text_rows(task: Task) -> Tensor:
    """The unit mean of each class' text ``[*b, C, D]``, zero for a padded class.

    Raises:
        BadInput: no class text, or text of another width than the items it is compared with.
    """
    return same_width(task, any_text_rows(task))


def any_text_rows(task: Task) -> Tensor:
    """As `text_rows`, of whatever width: ``[*b, C, Dt]``. Raises `BadInput` where there is no class text."""
    if task.text is None:
        raise BadInput("no class text: give text={label: vectors}")
    return torch.where(task.class_mask[..., None], task.text.mean.to(task.support.dtype), 0.0)


def text_vectors(task: Task) -> tuple[Tensor, Tensor]:
    """All vectors of class text ``[*b, C, M, D]``, zero where there is none, and where there are some ``[*b, C, M]``.

    Raises:
        BadInput: as `text_rows`.
    """
    if task.text is None:
        raise BadInput("no class text: give text={label: vectors}")
    there = task.text.mask & task.class_mask[..., None]
    return torch.where(there[..., None], same_width(task, task.text.vectors), 0.0), there


def same_width(task: Task, text: Tensor) -> Tensor:
    """``text``, in the precision of the support, once it is sure that it is as wide as what it is compared with."""
    width = task.views.get("aligned", task.support).shape[-1]
    if text.shape[-1] != width:
        raise BadInput(
            f"class text has width {text.shape[-1]} but the features have {width}; "
            "give features with a view 'aligned' of the text's width"
        )
    return text.to(task.support.dtype)
