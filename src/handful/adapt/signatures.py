"""What the heads of paper 202 share: classes are known by their signatures (attributes, vectors of their names).

Paper 202: Xian, Lampert, Schiele, Akata, "Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and the
Ugly", 2017. A head learns from examples x of seen classes and their signatures phi how the two belong together, and
answers for any class by its signature alone:

    head.fit(X, y)                        text= has the signatures of the classes in y and of others
    head.predict(X, classes=unseen)       zero-shot: only classes without examples can be meant
    head.predict(X, classes=everything)   generalised zero-shot
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import one_of
from handful.core.distances import unit
from handful.core.task import Query, State, Task
from handful.errors import BadInput

Scaling = Literal["std", "unit", "none"]


@dataclass(frozen=True)
class Known:
    """What there is to learn from.

    Args:
        x: scaled rows ``[*b, N, D]``, zero on padding.
        y: labels times weights ``[*b, N, C]``.
        s: signatures ``[*b, C, T]``, unit; zero for a class without examples.
        seen: which classes have examples ``[*b, C]``.
        task: where this is from.
    """

    x: Tensor
    y: Tensor
    s: Tensor
    seen: Tensor
    task: Task


@dataclass(eq=False, repr=False, kw_only=True)
class SignatureHead(Head):
    """Base of the heads of paper 202.

    Signatures are made unit, as the paper has them; they may be of another width than the features. A class of a task
    without examples is an unseen one.

    Args:
        scaling: of features: ``"std"`` (mean 0 and standard deviation 1 over the support), ``"unit"`` or ``"none"``.
    """

    open_classes: ClassVar[bool] = True
    shapes: ClassVar[Mapping[str, str]] = {"centre": "D", "spread": "D"}

    scaling: Scaling = "std"

    @abstractmethod
    def learn(self, known: Known) -> State:
        """What is learnt, beside the scaling and the signatures."""

    @abstractmethod
    def compatibility(self, state: State, x: Tensor) -> Tensor:
        """Logits ``[*b, Q, C]`` of scaled rows for the classes whose signatures are ``state["text"] [*b, C, T]``."""

    def adapt(self, task: Task) -> State:
        """State: scaling ``centre``, ``spread`` ``[*b, D]``, signatures ``text [*b, C, T]``, and what `learn` gives.

        Raises:
            BadInput: a parameter that makes no sense, no class text, a padded class that has examples only.
        """
        one_of("scaling", self.scaling, ("std", "unit", "none"))
        if task.text is None:
            raise BadInput("no class text: give text={label: signature}")
        y = task.y
        seen = y.sum(-2) > 0
        text = torch.where(task.class_mask[..., None], task.text.mean.to(task.support.dtype), 0.0)
        state = self._scaling(task)
        x = torch.where(task.weight[..., None] > 0, self.rows(state, task.x), 0.0)
        return {**state, **self.learn(Known(x, y, torch.where(seen[..., None], text, 0.0), seen, task)), "text": text}

    def answer(self, state: State, query: Query) -> Tensor:
        """See `compatibility`."""
        return self.compatibility(state, self.rows(state, query.x))

    def rows(self, state: State, x: Tensor) -> Tensor:
        """Features, scaled."""
        if self.scaling == "unit":
            return unit(x)
        return (x - state["centre"][..., None, :]) / state["spread"][..., None, :]

    def view_widths(self) -> dict[str, int]:
        """None: signatures have a space of their own."""
        return {}

    def _scaling(self, task: Task) -> State:
        x, w = task.x, task.y.sum(-1, keepdim=True)
        if self.scaling != "std":
            return {"centre": torch.zeros_like(x[..., 0, :]), "spread": torch.ones_like(x[..., 0, :])}
        total = w.sum(-2).clamp_min(torch.finfo(x.dtype).tiny)
        centre = (w * x).sum(-2) / total
        spread = ((w * (x - centre[..., None, :]).square()).sum(-2) / total).sqrt()
        flat = spread <= 10 * torch.finfo(x.dtype).eps * x.abs().amax(-2)
        return {"centre": centre, "spread": torch.where(flat, 1.0, spread)}

    def _prior(self, x: Tensor, views: Mapping[str, Tensor], text: Tensor) -> Tensor | None:
        return None

    def _check_needs(self, codes: np.ndarray, views: Mapping[str, np.ndarray]) -> None:
        super()._check_needs(codes, views)
        if self.text is not None:
            _refuse_odd_signatures(self.text, self.classes_.tolist())


def _refuse_odd_signatures(text: Mapping[Any, Any], seen: list[Any]) -> None:
    """Raise `BadInput` where seen classes cannot be told apart, or -1 stands for an attribute nobody knows."""
    try:
        rows = {label: np.asarray(v, dtype=float) for label, v in text.items()}
    except (TypeError, ValueError):
        return  # refused where the text is read, by the name of its class
    known = [rows[label] for label in seen if label in rows]
    if len(known) > 1 and all(np.array_equal(row, known[0]) for row in known):
        raise BadInput("all classes have the same signature: class text must tell them apart")
    values = np.concatenate([row.ravel() for row in rows.values()]) if rows else np.zeros(0)
    if (values == -1).any() and not ((values < 0) & (values != -1)).any() and (values > 1).any():
        raise BadInput("signatures hold -1 beside values above 1: an attribute nobody knows is no number; fill it in")
