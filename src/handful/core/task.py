"""`Task`: what every head adapts to. A user's data set is a batch of one, a benchmark a batch of thousands.

Every field carries the same leading batch dimensions ``*b``, and may be padded: a support row with weight 0, a query
with mask ``False`` and a class with mask ``False`` hold garbage that must change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from handful.core.items import Items
from handful.errors import BadInput

State = dict[str, Tensor]
"""What a head has learnt, by name: tensors with leading ``*b``, ready to be saved."""


@dataclass(frozen=True)
class ClassText:
    """Vectors of texts that describe the classes, in the space of a text tower.

    Args:
        vectors: unit vectors ``[*b, C, M, Dt]``; Dt may differ from the width of the features.
        mask: ``[*b, C, M]``, ``False`` where a class has fewer than M texts.
    """

    vectors: Tensor
    mask: Tensor

    @property
    def mean(self) -> Tensor:
        """The unit mean of each class' vectors ``[*b, C, Dt]``; zero for a class without text."""
        total = torch.where(self.mask[..., None], self.vectors, 0.0).sum(-2)
        return torch.nn.functional.normalize(total, dim=-1)


@dataclass(frozen=True)
class Query:
    """What is asked: features ``x [*b, Q, D]``, with zero-shot logits ``prior [*b, Q, C]`` where class text exists."""

    x: Tensor
    prior: Tensor | None = None
    mask: Tensor | None = None
    views: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Background:
    """Items of base classes, which the task's classes are none of.

    Args:
        x: features ``[B, D]``, shared by all tasks.
        labels: base class of each ``[B]``, 0 to K - 1; ``None`` where nobody knows.
        views: further arrays ``[B, …]`` by name.
    """

    x: Tensor
    labels: Tensor | None = None
    views: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """``[D]``."""
        return self.x.mean(0)

    @property
    def class_means(self) -> Tensor:
        """``[K, D]``. Raises `BadInput` without labels."""
        if self.labels is None:
            raise BadInput("the background items need labels: give background=(features, labels)")
        y = torch.nn.functional.one_hot(self.labels).to(self.x.dtype)
        return (y.mT @ self.x) / y.sum(0)[:, None].clamp_min(1)


@dataclass(frozen=True)
class Task:
    """A few labelled examples, what else is known, and optionally the queries.

    Args:
        support: features ``[*b, N, D]``.
        labels: ``[*b, N, C]``, one-hot or soft.
        weight: ``[*b, N]``; 0 marks padding.
        item: ``[*b, N]`` integers; rows that show the same item leave together in leave-one-out.
        class_mask: ``[*b, C]``; ``False`` marks a padded class.
        prior: zero-shot logits of the support ``[*b, N, C]``.
        text: see `ClassText`.
        views: further arrays of the support, ``[*b, N, …]`` by name.
        query: see `Query`; only transductive heads look at it while adapting.
        unlabelled: ``[*b, U, D]``.
        prior_unlabelled, views_unlabelled: their zero-shot logits ``[*b, U, C]`` and further arrays, as of the support.
        background: see `Background`.
        seed: for heads that draw.
    """

    support: Tensor
    labels: Tensor
    weight: Tensor
    item: Tensor
    class_mask: Tensor
    prior: Tensor | None = None
    text: ClassText | None = None
    views: Mapping[str, Tensor] = field(default_factory=dict)
    query: Query | None = None
    unlabelled: Tensor | None = None
    prior_unlabelled: Tensor | None = None
    views_unlabelled: Mapping[str, Tensor] = field(default_factory=dict)
    background: Background | None = None
    seed: int = 0

    @property
    def y(self) -> Tensor:
        """Labels times weights ``[*b, N, C]``, zero on padding whatever stands there."""
        real = (self.weight[..., None] > 0) & self.class_mask[..., None, :]
        return torch.where(real, self.labels * self.weight[..., None], 0.0)

    @property
    def x(self) -> Tensor:
        """Support features, zero on padding."""
        return torch.where(self.weight[..., None] > 0, self.support, 0.0)

    @property
    def offset(self) -> Tensor | None:
        """Zero-shot logits of the support ``[*b, N, C]``, zero on padding; ``None`` without class text."""
        if self.prior is None:
            return None
        real = (self.weight[..., None] > 0) & self.class_mask[..., None, :]
        return torch.where(real, self.prior, 0.0)

    @property
    def ways(self) -> Tensor:
        """How many classes are real ``[*b]``."""
        return self.class_mask.sum(-1)

    @property
    def pool(self) -> Query | None:
        """The unlabelled items as something that is asked; ``None`` where there are none."""
        if self.unlabelled is None:
            return None
        return Query(self.unlabelled, self.prior_unlabelled, views=self.views_unlabelled)

    @property
    def one_row_an_item(self) -> bool:
        """Whether no two support rows show the same item."""
        ordered = self.item.sort(-1).values
        return bool((ordered[..., 1:] != ordered[..., :-1]).all())

    @property
    def items(self) -> Items:
        """Which rows leave together in leave-one-out."""
        return Items.of(None if self.one_row_an_item else self.item, self.weight > 0)

    @property
    def fewest_items(self) -> Tensor:
        """Items of the real class that has fewest ``[*b]``; below 2, leave-one-out cannot judge."""
        items = ((self.y > 0) & self.items.first[..., None]).sum(-2)
        return torch.where(self.class_mask, items, torch.iinfo(items.dtype).max).amin(-1)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Task:
        """The task with ``fn`` applied to support, query, unlabelled and background features."""
        return replace(
            self,
            support=fn(self.support),
            query=None if self.query is None else replace(self.query, x=fn(self.query.x)),
            unlabelled=None if self.unlabelled is None else fn(self.unlabelled),
            background=None if self.background is None else replace(self.background, x=fn(self.background.x)),
        )


def make_task(
    support: Tensor,
    labels: Tensor,
    *,
    ways: int | None = None,
    weight: Tensor | None = None,
    item: Tensor | None = None,
    class_mask: Tensor | None = None,
    **more: Any,
) -> Task:
    """A `Task` with the fields that can be derived filled in; ``more`` are further fields of it.

    ``labels`` may be integers ``[*b, N]`` (then ``ways`` counts the classes) or rows ``[*b, N, C]``.

    Raises:
        BadInput: no support, one class only, or shapes that do not fit together.
    """
    if labels.dtype == torch.long:
        labels = torch.nn.functional.one_hot(labels, ways or int(labels.max()) + 1)
    labels = labels.to(support.dtype)
    batch, n, c = labels.shape[:-2], labels.shape[-2], labels.shape[-1]
    if support.shape[:-1] != labels.shape[:-1]:
        raise BadInput(f"support {tuple(support.shape)} and labels {tuple(labels.shape)} differ before the last axis")
    if n < 1 or support.shape[-1] < 1:
        raise BadInput(f"the support is empty: it has shape {tuple(support.shape)}")
    if c < 2:
        raise BadInput("one class only: at least two classes are needed")
    device = support.device
    return Task(
        support=support,
        labels=labels,
        weight=torch.ones(*batch, n, dtype=support.dtype, device=device) if weight is None else weight,
        item=torch.arange(n, device=device).expand(*batch, n) if item is None else item,
        class_mask=torch.ones(*batch, c, dtype=torch.bool, device=device) if class_mask is None else class_mask,
        **more,
    )


def lowest(like: Tensor) -> float:
    """The logit of a class that cannot be: finite, and far below everything that was computed."""
    return torch.finfo(like.dtype).min / 4


def places(order: Tensor, real: Tensor) -> Tensor:
    """How many real entries of ``order [..., n]`` are smaller than each ``[*b, n]``; what is not real comes last.

    Entries that are equal share a place.
    """
    order = torch.where(real, order, torch.inf)
    return torch.searchsorted(order.sort(-1).values, order)


def mask_classes(logits: Tensor, class_mask: Tensor) -> Tensor:
    """``logits [*b, Q, C]`` with padded classes at the lowest finite number, so that softmax gives them nothing."""
    return logits.masked_fill(~class_mask[..., None, :], torch.finfo(logits.dtype).min)
