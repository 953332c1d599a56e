"""Heads that grow: ``grow(X, y)`` adds classes to a fitted head without the examples it was fitted on.

What a head learnt is spread to the classes old and new, in their order, with rows of zeros where nothing is known yet;
the head's `Growing.extend` fills those in.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.checks import check_finite, check_views
from handful.adapt.inputs import read_items, read_labels, read_more, read_rows, to_tensor
from handful.core.gaussians import class_means
from handful.core.task import State, Task, make_task
from handful.errors import BadInput


class Growing(Head):
    """A head that takes further classes after ``fit``; for what it must say, see `extend`."""

    known_too: ClassVar[bool] = False
    """Whether `grow` also takes examples of classes it knows."""
    one_by_one: ClassVar[bool] = True
    """Whether new classes that come one by one give what they give together."""
    settled: ClassVar[bool] = True
    """Whether the logits of old classes stay as they are."""
    trains: ClassVar[bool] = False
    """Whether `grow` takes steps by the gradient, rather than no time."""
    pool_too: ClassVar[bool] = False
    """Whether `grow` also learns from items without labels."""

    @abstractmethod
    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """What changes in the state when the classes of ``task`` are learnt.

        Args:
            state: what was learnt before, for the classes old and new: along axes C of `Head.shapes`, zero for a new
                class.
            task: the new examples; its labels ``[*b, N, C]`` are of classes old and new.
            fresh: which classes are new ``[C]``.
        """

    def grow(self, X: Any, y: Any, unlabelled: Any = None) -> Self:
        """Learn further classes from features ``X [n, d]`` (an array or `Features`) and n labels.

        Args:
            X: features of examples.
            y: their labels.
            unlabelled: features ``[m, d]`` of items of any class, old or new, for heads that learn from them; without
                rows it is as if there were none.

        Raises:
            BadInput: features of another width or that cannot be used, and, but for heads that take them, a class that
                is known already or unlabelled items. The head is then as it was.
        """
        check_is_fitted(self)
        x, views = read_rows(self, X, reset=False, directions=self.directions)
        y = read_labels(y, len(x))
        check_views(self, views)
        known = np.intersect1d(self.classes_, y).tolist()
        if known and not self.known_too:
            raise BadInput(f"class {known[0]!r} is known already: give grow() the examples of new classes only")
        if unlabelled is not None and not self.pool_too:
            raise BadInput(f"{type(self).__name__} learns nothing from items without labels: leave out unlabelled=")
        pool = unlabelled if unlabelled is not None and len(unlabelled) else None
        classes = _union(self.classes_, y)
        dtype = next((t.dtype for t in self.state_.values() if t.is_floating_point()), torch.float32)
        old = np.searchsorted(classes, self.classes_)
        state, fresh = self._spread(old, len(classes))
        support = to_tensor(x, self.device, dtype)
        task = make_task(
            support,
            torch.as_tensor(np.searchsorted(classes, y), device=self.device),
            ways=len(classes),
            item=torch.as_tensor(read_items(X, len(x)), device=self.device),
            views={name: to_tensor(view, self.device, dtype) for name, view in views.items()},
            unlabelled=None if pool is None else read_more(pool, support, "unlabelled"),
            seed=0 if self.random_state is None else int(self.random_state),
        )
        with torch.no_grad():
            state |= self.extend(state, task, fresh)
        check_finite(self, state)
        self.classes_, self.state_ = classes, {name: tensor.contiguous() for name, tensor in state.items()}
        return self

    def _spread(self, old: np.ndarray, ways: int) -> tuple[State, Tensor]:
        """The state with its old classes at the places ``old`` among ``ways``, and which are new."""
        at = torch.as_tensor(old, device=self.device)
        fresh = torch.ones(ways, dtype=torch.bool, device=self.device).index_fill(0, at, False)
        axes = {**self.shapes, **({"text": "C T"} if "text" in self.state_ else {})}
        spread = {}
        for name, tensor in self.state_.items():
            out = tensor
            for axis, letter in enumerate(axes[name].split()):
                if letter == "C":
                    wider = out.new_zeros(*out.shape[:axis], ways, *out.shape[axis + 1 :])
                    out = wider.index_copy(axis, at, out)
            spread[name] = out
        return spread, fresh


def drawn_means(x: Tensor, y: Tensor, shot: int, draw: torch.Generator) -> Tensor:
    """Means of ``shot`` examples of every class, drawn without replacement (all, where there are fewer) ``[*b, C, D]``.

    Args:
        x: rows ``[*b, N, D]``.
        y: labels times weights ``[*b, N, C]``.
        shot: at least 1.
        draw: tasks of a batch are drawn alike.
    """
    order = torch.rand(x.shape[-2], generator=draw).to(x.device)
    first = torch.where(y > 0, order[:, None], -1.0)
    least = first.topk(min(shot, x.shape[-2]), dim=-2).values[..., -1:, :]
    return class_means(x, torch.where((y > 0) & (first >= least), y, 0.0))[0]


def _union(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Labels old and new, sorted. Raises `BadInput` where text stands beside numbers."""
    try:
        if (old.dtype.kind in "biuf") == (new.dtype.kind in "biuf"):
            return np.union1d(old, new)
    except TypeError:  # objects of different kinds
        pass
    raise BadInput(f"the head knows labels like {old.tolist()[0]!r}, not like {new.tolist()[0]!r}: give the same kind")
