"""Heads that look at all queries together, and what of them can be shipped.

A transductive head learns twice: from the support (``start``), and then from items without labels taken together
(``move``), which changes its state. With ``transductive=True`` those items are the queries themselves, as in the
papers. With ``False`` they are the ``unlabelled`` items known when the head is fitted: the state is final then, and an
answer no longer depends on which other queries are asked (``inductive``).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.inputs import read_rows
from handful.core.task import Query, State, Task
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class Transductive(Head):
    """Base of the transductive heads.

    Args:
        transductive: answer queries together; ``False``: one by one, by what was learnt from the support and from
            ``unlabelled``.

    Attributes (after ``fit_predict``):
        transduction_: labels of the queries, as scikit-learn's semi-supervised estimators call them.
        inductive_: the head as it is after having seen these queries, answering each further query on its own.
    """

    needs: ClassVar[Needs] = Needs(transductive=True)
    learns_from_pool: ClassVar[bool] = True

    transductive: bool = True

    @abstractmethod
    def start(self, task: Task) -> State:
        """What the support says, tensors with leading ``*b``; among them what `move` needs of it."""

    @abstractmethod
    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits ``[*b, Q, C]`` of queries looked at together, and the state they lead to.

        Queries where ``query.mask`` is ``False`` hold garbage; they must sway nothing.
        """

    @abstractmethod
    def inductive(self, state: State, query: Query) -> Tensor:
        """Logits ``[*b, Q, C]`` of queries that do not sway each other."""

    @property
    def together(self) -> bool:
        """See `Head.together`."""
        return self.transductive

    def adapt(self, task: Task) -> State:
        """`start`, and unless the queries themselves will be looked at, `move` by the unlabelled items."""
        state = self.start(task)
        pool = task.pool
        return state if self.transductive or pool is None else self.move(state, pool)[1]

    def answer(self, state: State, query: Query) -> Tensor:
        """`move`, or `inductive` where ``transductive`` is off."""
        return self.move(state, query)[0] if self.transductive else self.inductive(state, query)

    @property
    def positive_only(self) -> bool:
        """Whether negative features are refused."""
        return self.needs.positive

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.positive_only
        return tags

    def check_state(self) -> None:
        """See `Head.check_state`; a single item is asked, which only makes sense where items do not sway each other."""
        check_is_fitted(self)
        Head.check_state(self._still(self.state_, self.n_features_in_))

    def fit_predict(self, X: Any, y: Any, queries: Any = None) -> np.ndarray:
        """Labels ``[q]`` of ``queries [q, d]``, learnt from ``X [n, d]``, ``y [n]`` and all queries together.

        Without ``queries``, those of ``X``.

        Raises:
            BadInput: as `fit` and `predict` do.
        """
        self.fit(X, y)
        queries = X if queries is None else queries
        self.transduction_: np.ndarray = self.predict(queries)
        self.inductive_ = self.frozen(queries)
        return self.transduction_

    def frozen(self, items: Any) -> Self:
        """The fitted head after a look at ``items [m, d]``: it answers each further query on its own."""
        check_is_fitted(self)
        x, views = read_rows(self, items, reset=False, directions=self.directions)
        with torch.no_grad():
            state = self.move(self.state_, self._query(x, views, self.state_))[1]
        text = {"text": self.state_["text"]} if "text" in self.state_ else {}
        return self._still({name: tensor.contiguous() for name, tensor in {**state, **text}.items()}, x.shape[1])

    def _still(self, state: State, width: int) -> Self:
        """The head that answers each query on its own by ``state``."""
        still: Self = type(self)(**{**self.get_params(deep=False), "transductive": False})
        still.classes_, still.n_features_in_, still.state_ = self.classes_, width, state
        return still


def mean_of(x: Tensor, weight: Tensor) -> Tensor:
    """The mean ``[*b, D]`` of rows ``x [*b, n, D]`` weighted by ``weight [*b, n]``."""
    share = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return (share[..., None, :] @ x).squeeze(-2)


def joined(support: Tensor, query: Tensor, shift: Tensor | None = None) -> Tensor:
    """Support and queries ``[*b, N + Q, D]``, the queries moved by ``shift [*b, D]``: one copy, for they are large."""
    rows = torch.cat([support, query], -2)
    if shift is not None:
        rows[..., support.shape[-2] :, :].add_(shift[..., None, :])
    return rows


def center_(x: Tensor, weight: Tensor) -> Tensor:
    """Subtract `mean_of` from rows ``x [*b, n, D]``, in place; returns it. Rows of weight 0 become zero."""
    mean = mean_of(x, weight)
    x.sub_(mean[..., None, :])
    if not bool((weight > 0).all()):
        x.mul_((weight > 0)[..., None])
    return mean


def real_queries(query: Query) -> Tensor:
    """Which queries are real ``[*b, Q]``, and not padding."""
    if query.mask is not None:
        return query.mask
    return torch.ones(query.x.shape[:-1], dtype=torch.bool, device=query.x.device)


def cleaned(query: Query) -> Query:
    """The queries with zeros where they are padding."""
    if query.mask is None or bool(query.mask.all()):
        return query
    real = query.mask[..., None]
    prior = None if query.prior is None else torch.where(real, query.prior, 0.0)
    return replace(query, x=torch.where(real, query.x, 0.0), prior=prior)
