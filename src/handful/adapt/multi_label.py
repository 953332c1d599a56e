"""Several labels an item: one logistic regression for each label against its absence.

    min_(w_c, b_c)  C sum_i CE(y_ic, sigmoid(w_c z_i + b_c)) + |w_c|^2 / 2,   for each label c

A label that all rows have, or none, has w_c = 0 and the log-odds of n + 1/2 rows against 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite
from handful.core.column_regression import fit_columns
from handful.core.task import Query, State, Task
from handful.errors import BadInput
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class MultiLabelLogistic(Head):
    """Logistic regression label by label, for items with any number of labels.

    Fitted on one label a row it is one-vs-rest, and answers with one label.

    Args:
        C: inverse strength of the penalty, as in scikit-learn.
        threshold: probability above which an item has a label; ``"f1"`` takes, for each label, the one that has the
            best F1 on rows left out (0.5 for a label that fewer than two items have or lack).
        folds: how many, for rows left out.
    """

    key: ClassVar[str] = "multi-label-logistic"
    needs: ClassVar[Needs] = Needs(gradient=True, multi_label=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C"}
    leaves: ClassVar[Literal["item", "fold"]] = "fold"

    C: float = 1.0
    threshold: float | Literal["f1"] = 0.5
    folds: int = 5

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]``."""
        weight, bias = self._fit(task)
        return {"weight": weight, "bias": bias}

    def answer(self, state: State, query: Query) -> Tensor:
        """``w_c z + b_c``."""
        return query.x @ state["weight"].mT + state["bias"][..., None, :]

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Out-of-fold logits, all folds in one batch."""
        fold = label_folds(task, count("folds", self.folds, least=2))
        index = torch.arange(self.folds, device=fold.device).reshape(-1, *[1] * fold.dim())
        held = fold == index  # [F, *b, N]
        x, n = task.x, len(index)
        some = replace(
            task,
            support=x.expand(n, *x.shape),
            labels=task.labels.expand(n, *task.labels.shape),
            weight=torch.where(held, 0.0, task.weight),
            class_mask=task.class_mask.expand(n, *task.class_mask.shape),
        )
        weight, bias = self._fit(some)
        logits = x @ weight.mT + bias[..., None, :]
        return torch.where(held[..., None], logits, 0.0).sum(0)

    def thresholds(self, task: Task) -> Tensor:
        """The logit of ``threshold`` for every label, or by F1 on rows left out."""
        like = task.y.sum(-2)
        if not isinstance(self.threshold, str):
            p = finite("threshold", self.threshold, above=0, most=1)
            if p == 1:
                raise BadInput("threshold must be below 1")
            return torch.full_like(like, p).logit()
        if self.threshold != "f1":
            raise BadInput(f"threshold is a probability or 'f1', not {self.threshold!r}")
        logits = self.leave_one_out(task)
        assert logits is not None
        first, there = task.items.first[..., None], (task.weight > 0)[..., None]
        having = ((task.y > 0) & first).sum(-2)
        lacking = ((task.y <= 0) & first & there).sum(-2)
        return torch.where((having < 2) | (lacking < 2), 0.0, best_f1(logits, task.y, task.weight))

    def _fit(self, task: Task) -> tuple[Tensor, Tensor]:
        strength, have = finite("C", self.C, above=0), task.y
        lack = (task.weight.clamp_min(0)[..., None] - have).clamp_min(0)
        many, few = have.sum(-2), lack.sum(-2)
        constant = (many <= 0) | (few <= 0)  # the free intercept would run away
        told = (~constant).to(have.dtype)[..., None, :]
        weight, bias = fit_columns(task.x, told * have, told * lack, strength)
        return weight, torch.where(constant, (many + 0.5).log() - (few + 0.5).log(), bias)


def label_folds(task: Task, folds: int) -> Tensor:
    """Fold of each row ``[*b, N]``: the items of the rarest label first, dealt out in turn (plain, not iterative).

    Every item is dealt with its rarest label; those without any are dealt together. Rows of an item stay together.
    """
    first = task.items.first
    size = ((task.y > 0) & first[..., None]).sum(-2)
    rarest = torch.where(task.y > 0, size[..., None, :], torch.iinfo(size.dtype).max).min(-1)
    kind = torch.where((task.y > 0).any(-1), rarest.indices, task.y.shape[-1])
    return task.items.dealt(kind, folds)


def best_f1(logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Threshold ``[*b, C]`` with the best F1 of ``logits [*b, N, C]``, halfway between the two logits it lies between.

    Args:
        logits: of each row and label.
        y: labels times weights ``[*b, N, C]``.
        weight: ``[*b, N]``; rows of weight 0 do not count.
    """
    there = weight > 0
    ranked, order = logits.masked_fill(~there[..., None], -torch.inf).sort(-2, descending=True)
    hit, said = y.gather(-2, order).cumsum(-2), weight.clamp_min(0)[..., None].expand_as(y).gather(-2, order).cumsum(-2)
    score = 2 * hit / (said + y.sum(-2, keepdim=True)).clamp_min(torch.finfo(y.dtype).tiny)
    below = torch.cat([ranked[..., 1:, :], ranked[..., -1:, :] - 2], -2)
    below = torch.where(below.isfinite(), below, ranked - 2)
    score = torch.where((below < ranked) & ranked.isfinite(), score, -1.0)  # equal logits stand or fall together
    at = score.argmax(-2, keepdim=True)
    return ((ranked + below) / 2).gather(-2, at)[..., 0, :]
