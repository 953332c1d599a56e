"""`Head`: one scikit-learn classifier around a batched core.

A head is a dataclass whose fields are its parameters, and two pure functions: ``adapt(task) -> state`` learns from the
support, ``answer(state, query) -> logits`` answers. Everything scikit-learn asks for is here, once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from handful.adapt.inputs import (
    PLACES,
    Features,
    check_device,
    read_background,
    read_items,
    read_labels,
    read_more,
    read_rows,
    read_text,
    to_tensor,
    zero_shot_logits,
)
from handful.core.calibration import fit_scale, hedged
from handful.core.task import Query, State, Task, make_task, mask_classes
from handful.core.text_rows import with_text_rows
from handful.errors import BadInput
from handful.protocols import Needs

__all__ = ["Features", "Head", "with_text_rows"]

_NOT_KEPT = ("text", "background", "unlabelled", "device")
CHUNK = 8192
"""Queries answered at a time, so that memory does not grow with what is asked."""


@dataclass(eq=False, repr=False, kw_only=True)
class Head(ClassifierMixin, BaseEstimator):
    """Base of every head.

    Args:
        text: class text by label: an array ``[m, dt]`` (or ``[dt]``) of vectors a class, in the space of the features
            or, when the features carry a view ``aligned``, in the space of that. Labels without an entry have none.
        logit_scale: what multiplies cosines of items and class text in zero-shot logits (CLIP's exp(4.605) = 100).
        background: features ``[B, d]`` of items of base classes, or ``(features, labels)``, for heads that use them.
        unlabelled: features ``[U, d]`` of items without labels, for heads that use them.
        random_state: seed of heads that draw.
        device: where tensors live, as in `torch.device`.

    Attributes (after ``fit``):
        classes_: labels, sorted, ``[C]``.
        state_: what was learnt, tensors by name.
        n_features_in_: width of the features.
    """

    key: ClassVar[str] = ""
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {}
    """Axes of every tensor of the state after ``*b``: C classes, D the width of the features, other letters free."""
    leaves: ClassVar[Literal["item", "fold"]] = "item"
    """What `leave_one_out` fits without: exactly the row's item, or the fold it is in."""

    text: Mapping[Any, Any] | None = None
    logit_scale: float = 100.0
    background: Any = None
    unlabelled: Any = None
    random_state: int | None = None
    device: str = "cpu"

    @abstractmethod
    def adapt(self, task: Task) -> State:
        """Learn from the support of ``task``; every tensor of the state has the task's leading batch dimensions."""

    @abstractmethod
    def answer(self, state: State, query: Query) -> Tensor:
        """Logits ``[*b, Q, C]`` of ``query``, padded classes not yet masked."""

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Logits ``[*b, N, C]`` of each support row by the head fitted without its item, where a closed form exists.

        Strengths are chosen from all rows and held (see `held`). ``None``: resample instead.
        """
        return None

    def held(self, state: State) -> Self:
        """The head with the strengths it chose for one task (a state without batch dimensions) as fixed parameters."""
        return self

    @property
    def together(self) -> bool:
        """Whether queries sway each other, so that all must be answered at once."""
        return self.needs.transductive

    @property
    def directions(self) -> bool:
        """Whether only the direction of a row counts, so that a row of zeros cannot be used."""
        return False

    def logits(self, data: Any) -> Tensor | np.ndarray:
        """Logits of the queries of a `Task` ``[*b, Q, C]``, or of items ``[n, C]`` by the fitted head.

        Raises:
            BadInput: a task without queries.
        """
        with torch.no_grad():
            if isinstance(data, Task):
                if data.query is None:
                    raise BadInput("the task has no queries to answer")
                return mask_classes(self.answer(self.adapt(data), data.query), data.class_mask)
            check_is_fitted(self)
            x, views = read_rows(self, data, reset=False, directions=self.directions)
            step = len(x) if self.together else CHUNK
            parts = [slice(at, at + step) for at in range(0, len(x), step)]
            answers = [
                self.answer(self.state_, self._query(x[part], {name: view[part] for name, view in views.items()}))
                for part in parts
            ]
            return np.asarray(torch.cat(answers).cpu())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from features ``[n, d]`` (an array or `Features`) and n labels.

        Raises:
            BadInput: features that cannot be used, one class only, fewer shots than the head needs, class text missing
                where the head needs it, a parameter that makes no sense.
        """
        x, views = read_rows(self, X, reset=True, directions=self.directions)
        y = read_labels(y, len(x))
        weight = np.ones(len(x), dtype=x.dtype)
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, dtype=x.dtype, ensure_non_negative=True)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self._check_needs(codes[weight > 0], views)
        task = self._task(x, views, codes, weight, read_items(X, len(x)))
        with torch.no_grad():
            state = self.adapt(task)
        if task.text is not None:
            state = {**state, "text": task.text.mean}
        self.state_ = {
            name: tensor.contiguous() for name, tensor in state.items()
        }  # as a file gives it back, bit for bit
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The label with the highest logit for each row."""
        logits = self.logits(X)
        answer: np.ndarray = self.classes_[np.asarray(logits).argmax(-1)]
        return answer

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities ``[n, C]``: the softmax of the logits."""
        logits = torch.as_tensor(np.asarray(self.logits(X)))
        out: np.ndarray = logits.softmax(-1).numpy()
        return out

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits ``[n, C]``; for two classes the second minus the first ``[n]``, as scikit-learn has it."""
        logits = np.asarray(self.logits(X))
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    # --- from arrays to tensors -------------------------------------------------------------------------------------

    def _check_needs(self, codes: np.ndarray, views: Mapping[str, np.ndarray]) -> None:
        name = type(self).__name__
        if self.needs.text and self.text is None:
            raise BadInput(f"{name} needs class text: give text={{label: vectors}}")
        if self.needs.background and self.background is None:
            raise BadInput(f"{name} needs items of base classes: give background=features, or (features, labels)")
        if self.needs.unlabelled and self.unlabelled is None:
            raise BadInput(f"{name} needs items without labels: give unlabelled=features")
        for view in self.needs.views:
            if view not in views:
                raise BadInput(f"{name} needs features with a view {view!r}")
        counts = np.bincount(codes, minlength=len(self.classes_))
        if (counts > 0).sum() < 2:
            only = "" if not counts.any() else f" ({self.classes_[counts.argmax()]!r})"
            raise BadInput(f"one class only{only}: at least two classes with examples of weight above 0 are needed")
        if counts.min() < self.needs.min_shots:
            few = self.classes_[counts.argmin()]
            raise BadInput(f"class {few!r} has {counts.min()} examples; {name} needs {self.needs.min_shots} a class")

    def _task(
        self, x: np.ndarray, views: Mapping[str, np.ndarray], codes: np.ndarray, weight: np.ndarray, items: np.ndarray
    ) -> Task:
        device = check_device(self.device)
        text = None
        if self.text is not None:
            text = read_text(self.text, self.classes_, dtype=x.dtype, every=self.needs.text, device=device)
        support = to_tensor(x, device)
        tensors = {name: to_tensor(view, device) for name, view in views.items()}
        return make_task(
            support,
            torch.as_tensor(codes, dtype=torch.long, device=device),
            ways=len(self.classes_),
            weight=torch.as_tensor(weight, device=device),
            item=torch.as_tensor(items, device=device),
            text=text,
            prior=None if text is None else zero_shot_logits(support, tensors, text.mean, self.logit_scale),
            views=tensors,
            background=read_background(self.background, support),
            unlabelled=None if self.unlabelled is None else read_more(self.unlabelled, support, "unlabelled"),
            seed=0 if self.random_state is None else int(self.random_state),
        )

    def _query(self, x: np.ndarray, views: Mapping[str, np.ndarray]) -> Query:
        tensors = {name: to_tensor(view, self.device) for name, view in views.items()}
        dtype = next((t.dtype for t in self.state_.values() if t.is_floating_point()), torch.float32)
        q, text = to_tensor(x, self.device, dtype), self.state_.get("text")
        prior = None if text is None else zero_shot_logits(q, tensors, text, self.logit_scale)
        return Query(q, prior, views=tensors)

    # --- what ships -------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Any]:
        """Constructor parameters that are plain values, as a model file keeps them.

        Class text is in the state, what was learnt from other items too, and where tensors live is up to the machine.
        """
        plain = (str, int, float, bool, type(None), list, tuple)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v for k, v in values.items() if k not in _NOT_KEPT and isinstance(v, plain)}

    @classmethod
    def restore(cls, parameters: Mapping[str, Any], classes: np.ndarray, state: State, width: int) -> Self:
        """The fitted head a model file describes. What it describes is not yet believed: see `check_state`."""
        head = cls(**parameters)
        head.classes_, head.state_, head.n_features_in_ = classes, state, width
        return head

    def view_widths(self) -> dict[str, int]:
        """Width of each view that queries of the fitted head must have."""
        widths = dict.fromkeys(self.needs.views, 1)
        text = self.state_.get("text")
        if text is not None and text.shape[-1] != self.n_features_in_:
            widths["aligned"] = text.shape[-1]
        return widths

    def view_places(self) -> dict[str, int]:
        """How many rows an item has in each view that has several."""
        return dict(PLACES)

    def spread(self, X: Any, y: Any) -> float:
        """What multiplies the fitted head's logits so that, by examples left out, their softmax means what it says.

        1 where the head cannot leave anything out. ``X, y`` are what it was fitted on.
        """
        x, views = read_rows(self, X, reset=False, directions=self.directions)
        codes = np.searchsorted(self.classes_, read_labels(y, len(x)))
        task = self._task(x, views, codes, np.ones(len(x), dtype=x.dtype), read_items(X, len(x)))
        with torch.no_grad():
            left_out = self.held(self.state_).leave_one_out(task) if bool((task.fewest_items >= 2).all()) else None
            if left_out is None:
                return 1.0
            target = hedged(task.y, task.class_mask)
            return float(fit_scale(left_out, target, task.class_mask)[0])

    def check_state(self) -> None:
        """Whether the state is whole: names and axes as in `shapes`, numbers finite, and it answers for every class.

        Raises:
            BadInput: naming the tensor that does not fit.
        """
        check_is_fitted(self)
        for name, tensor in self.state_.items():
            if not tensor.isfinite().all():
                raise BadInput(f"the state's {name!r} has numbers that are not finite")
        if self.shapes:
            text = {"text": "C T"} if self.needs.text or "text" in self.state_ else {}
            sizes = {"C": len(self.classes_), "D": self.n_features_in_}
            _check_shapes({**self.shapes, **text}, self.state_, sizes)
        places = self.view_places()
        views = {
            name: np.ones((1, *([places[name]] if name in places else []), width))
            for name, width in self.view_widths().items()
        }
        try:
            answer = np.asarray(self.logits(Features(np.ones((1, self.n_features_in_)), views)))
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadInput(
                f"the state of {type(self).__name__} does not answer: {' '.join(str(error).split())}"
            ) from error
        if answer.shape != (1, len(self.classes_)):
            raise BadInput(f"the state answers with shape {answer.shape}, not for {len(self.classes_)} classes")


def _check_shapes(shapes: Mapping[str, str], state: State, sizes: dict[str, int]) -> None:
    if odd := sorted(shapes.keys() ^ state.keys()):
        raise BadInput(f"the state has tensors {sorted(state)}, not {sorted(shapes)}: {odd[0]!r} is odd")
    for name, axes in shapes.items():
        shape, letters = tuple(state[name].shape), axes.split()
        if len(shape) != len(letters) or any(sizes.setdefault(a, n) != n for a, n in zip(letters, shape, strict=True)):
            wanted = ", ".join(str(sizes.get(a, a)) for a in letters)
            raise BadInput(f"the state's {name!r} has shape {shape}, not ({wanted})")
