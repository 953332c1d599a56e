"""`Head`: one scikit-learn classifier around a batched core.

A head is a dataclass whose fields are its parameters, and two pure functions: ``adapt(task) -> state`` learns from the
support, ``answer(state, query) -> logits`` answers. Everything scikit-learn asks for is here, once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from handful.adapt.checks import check_needs, check_shapes
from handful.adapt.inputs import (
    PLACES,
    Features,
    check_device,
    read_background,
    read_items,
    read_label_sets,
    read_labels,
    read_more,
    read_other_text,
    read_rows,
    read_text,
    to_tensor,
    zero_shot_logits,
)
from handful.core.calibration import fit_scale, hedged
from handful.core.task import ClassText, Query, State, Task, make_task, mask_classes
from handful.core.text_rows import with_text_rows
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

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
        unlabelled: features ``[U, d]`` of items without labels, for heads that use them; `Features` with the same views
            where the examples have views.
        random_state: seed of heads that draw.
        device: where tensors live, as in `torch.device`.

    Attributes (after ``fit``):
        classes_: labels, sorted, ``[C]``.
        state_: what was learnt, tensors by name.
        n_features_in_: width of the features.
        unseen_: labels with class text but no examples, sorted; only where `open_classes` holds.
    """

    key: ClassVar[str] = ""
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {}
    """Axes of every tensor of the state after ``*b``: C classes, D the width of the features, other letters free."""
    ranges: ClassVar[Ranges] = {}
    """What ``handful bench --tune-on`` searches; empty where the defaults stay."""
    learns_from_pool: ClassVar[bool] = False
    """Whether ``unlabelled`` items, where there are any, change what is learnt."""
    leaves: ClassVar[Literal["item", "fold"]] = "item"
    """What `leave_one_out` fits without: exactly the row's item, or the fold it is in."""
    small_steps: ClassVar[bool] = False
    """Whether an answer takes many operations on small tensors, which pay when many episodes share them."""
    open_classes: ClassVar[bool] = False
    """Whether class text makes a class (``state["text"]``), so that ``classes=`` may name one without examples."""
    open_rows: ClassVar[tuple[str, ...]] = ()
    """What else of the state has a row a class; `without_examples` gives those of classes known by text alone."""

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

    def without_examples(self, task: Task, state: State, text: ClassText) -> State:
        """Rows of `open_rows`, by ``unseen_`` and their name, for U classes known by their text alone."""
        return {}

    def thresholds(self, task: Task) -> Tensor:
        """Logit ``[*b, C]`` above which an item has a label, for heads that give items several."""
        return torch.zeros_like(task.y.sum(-2))

    @property
    def several_labels(self) -> bool:
        """Whether the fitted head gives an item any number of labels."""
        check_is_fitted(self)
        return self.needs.multi_label and "threshold" in self.state_

    @property
    def together(self) -> bool:
        """Whether queries sway each other, so that all must be answered at once."""
        return self.needs.transductive

    @property
    def directions(self) -> bool:
        """Whether only the direction of a row counts, so that a row of zeros cannot be used."""
        return False

    def logits(self, data: Any, classes: Sequence[Any] | None = None) -> Tensor | np.ndarray:
        """Logits of the queries of a `Task` ``[*b, Q, C]``, or of items ``[n, C]`` by the fitted head.

        Args:
            data: the task, or features ``[n, d]``.
            classes: labels to choose among, one column each in this order, instead of `classes_`; where
                `open_classes` holds, those of `unseen_` too. A task knows its classes itself.

        Raises:
            BadInput: a task without queries, a class the head cannot answer for.
        """
        with torch.no_grad():
            if isinstance(data, Task):
                if data.query is None:
                    raise BadInput("the task has no queries to answer")
                if classes is not None:
                    raise BadInput("a task has its own classes: leave out classes=")
                return mask_classes(self.answer(self.adapt(data), data.query), data.class_mask)
            check_is_fitted(self)
            x, views = read_rows(self, data, reset=False, directions=self.directions)
            step = len(x) if self.together else CHUNK
            parts = [slice(at, at + step) for at in range(0, len(x), step)]
            state, columns = (self.state_, None) if classes is None else self._among(classes)
            answers = [
                self.answer(state, self._query(x[part], {name: view[part] for name, view in views.items()}, state))
                for part in parts
            ]
            answer = torch.cat(answers)
            return np.asarray((answer if columns is None else answer[:, columns]).cpu())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from features ``[n, d]`` (an array or `Features`) and n labels.

        A head that takes several labels a row also takes a matrix ``[n, C]`` of 0 and 1, or a set of labels a row.

        Raises:
            BadInput: features that cannot be used, one class only, fewer shots than the head needs, class text missing
                where the head needs it, a parameter that makes no sense.
        """
        x, views = read_rows(self, X, reset=True, directions=self.directions)
        sets = read_label_sets(y, len(x)) if self.needs.multi_label else None
        weight = np.ones(len(x), dtype=x.dtype)
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, x, dtype=x.dtype, ensure_non_negative=True)
        if sets is None:
            self.classes_, codes = np.unique(read_labels(y, len(x)), return_inverse=True)
            counts = np.bincount(codes[weight > 0], minlength=len(self.classes_))
        else:
            codes, self.classes_ = sets
            counts = codes[weight > 0].sum(0)
        self._check_needs(counts, views)
        task = self._task(x, views, codes, weight, read_items(X, len(x)))
        with torch.no_grad():
            state = self.adapt(task)
            if sets is not None:
                state = {**state, "threshold": self.thresholds(task)}
        if task.text is not None:
            state = {**state, "text": task.text.mean}
        if self.open_classes:
            self.unseen_, unseen = self._read_unseen(x.dtype)
            if unseen is not None:
                state = {**state, "unseen": unseen.mean, **self.without_examples(task, state, unseen)}
        self.state_ = {name: tensor.contiguous() for name, tensor in state.items()}  # as a file gives it back
        return self

    def predict(self, X: Any, classes: Sequence[Any] | None = None) -> np.ndarray:
        """The label with the highest logit for each row, of `classes_` or of ``classes`` (see `logits`); of several
        labels a row, 1 for those it has ``[n, C]``."""
        logits = self.logits(X, classes)
        if self.several_labels:
            if classes is not None:
                raise BadInput("several labels a row: leave out classes=, and take the columns you want")
            return (np.asarray(logits) > self.state_["threshold"].cpu().numpy()).astype(int)
        labels = self.classes_ if classes is None else np.asarray(classes)
        answer: np.ndarray = labels[np.asarray(logits).argmax(-1)]
        return answer

    def predict_proba(self, X: Any, classes: Sequence[Any] | None = None) -> np.ndarray:
        """Probabilities ``[n, C]``: the softmax of the logits (see `logits`); of several labels a row, the sigmoid."""
        logits = torch.as_tensor(np.asarray(self.logits(X, classes)))
        out: np.ndarray = (logits.sigmoid() if self.several_labels else logits.softmax(-1)).numpy()
        return out

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits ``[n, C]``; for two classes the second minus the first ``[n]``, as scikit-learn has it.

        Of several labels a row: how far each logit is above the label's threshold ``[n, C]``.
        """
        logits = np.asarray(self.logits(X))
        if self.several_labels:
            above: np.ndarray = logits - self.state_["threshold"].cpu().numpy()
            return above
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    # --- from arrays to tensors -------------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = tags.target_tags.multi_output = self.needs.multi_label
        return tags

    def _check_needs(self, counts: np.ndarray, views: Mapping[str, np.ndarray]) -> None:
        check_needs(self, counts, views)

    def _task(
        self, x: np.ndarray, views: Mapping[str, np.ndarray], codes: np.ndarray, weight: np.ndarray, items: np.ndarray
    ) -> Task:
        device = check_device(self.device)
        text = None
        if self.text is not None:
            text = read_text(self.text, self.classes_, dtype=x.dtype, every=self.needs.text, device=device)
        support = to_tensor(x, device)
        pool = None if self.unlabelled is None else read_more(self.unlabelled, support, "unlabelled")
        given = self.unlabelled.views if isinstance(self.unlabelled, Features) else {}
        views_of_pool = {name: to_tensor(np.asarray(view), device) for name, view in given.items()}
        tensors = {name: to_tensor(view, device) for name, view in views.items()}
        return make_task(
            support,
            torch.as_tensor(codes, dtype=torch.long if codes.ndim == 1 else support.dtype, device=device),
            ways=len(self.classes_),
            weight=torch.as_tensor(weight, device=device),
            item=torch.as_tensor(items, device=device),
            text=text,
            prior=None if text is None else self._prior(support, tensors, text.mean),
            views=tensors,
            background=read_background(self.background, support),
            unlabelled=pool,
            prior_unlabelled=self._prior_of(pool, views_of_pool, text),
            views_unlabelled=views_of_pool,
            seed=0 if self.random_state is None else int(self.random_state),
        )

    def _prior_of(self, x: Tensor | None, views: Mapping[str, Tensor], text: ClassText | None) -> Tensor | None:
        """Zero-shot logits of unlabelled items ``[U, C]``, where they are in a space with class text."""
        if x is None or text is None or ("aligned" not in views and x.shape[-1] != text.vectors.shape[-1]):
            return None
        return self._prior(x, views, text.mean)

    def _query(self, x: np.ndarray, views: Mapping[str, np.ndarray], state: State) -> Query:
        tensors = {name: to_tensor(view, self.device) for name, view in views.items()}
        dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
        q, text = to_tensor(x, self.device, dtype), state.get("text")
        return Query(q, None if text is None else self._prior(q, tensors, text), views=tensors)

    def _prior(self, x: Tensor, views: Mapping[str, Tensor], text: Tensor) -> Tensor | None:
        """Zero-shot logits of rows by class text; ``None`` for heads whose class text lives in a space of its own."""
        return zero_shot_logits(x, views, text, self.logit_scale)

    def _read_unseen(self, dtype: Any) -> tuple[np.ndarray, ClassText | None]:
        """Labels with class text but no examples, sorted, and their text, if there are any."""
        return read_other_text(self.text or {}, self.classes_, dtype=dtype, device=self.device)

    def _among(self, classes: Sequence[Any]) -> tuple[State, Tensor | None]:
        """The state that answers for ``classes``; or the head's own, and which columns of its answer are theirs."""
        wanted = [] if isinstance(classes, str) else [c.item() if isinstance(c, np.generic) else c for c in classes]
        if not wanted or len(set(wanted)) < len(wanted):
            raise BadInput(f"classes= is a list of different labels to choose among, not {classes!r}")
        known = [*self.classes_.tolist(), *(self.unseen_.tolist() if self.open_classes else [])]
        if strange := [label for label in wanted if label not in known]:
            why = (
                "give its class text to fit()" if self.open_classes else f"head {self.key!r} learns from examples only"
            )
            raise BadInput(f"class {strange[0]!r} is not known: {why}")
        index = torch.as_tensor([known.index(label) for label in wanted], device=self.device)
        if not self.open_classes:
            return self.state_, index
        pairs = {"text": "unseen"} | {name: f"unseen_{name}" for name in self.open_rows}
        state = dict(self.state_)
        for name in pairs.keys() & state.keys():
            state[name] = torch.cat([state[part] for part in (name, pairs[name]) if part in state])[index]
        return state, None

    # --- what ships -------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Any]:
        """Constructor parameters that are plain values, as a model file keeps them.

        Class text is in the state, what was learnt from other items too, and where tensors live is up to the machine.
        """
        plain = (str, int, float, bool, type(None), list, tuple)
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_KEPT}
        values = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        return {k: v for k, v in values.items() if isinstance(v, plain)}

    @classmethod
    def restore(
        cls,
        parameters: Mapping[str, Any],
        classes: np.ndarray,
        state: State,
        width: int,
        unseen: np.ndarray | None = None,
    ) -> Self:
        """The fitted head a model file describes. What it describes is not yet believed: see `check_state`."""
        head = cls(**parameters)
        head.classes_, head.state_, head.n_features_in_ = classes, state, width
        if cls.open_classes:
            head.unseen_ = classes[:0] if unseen is None else unseen
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
        if self.several_labels:
            return 1.0
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
        more = {"unseen": "unseen T"} if self.open_classes and len(self.unseen_) else {}
        more |= {f"unseen_{name}": f"unseen{self.shapes[name][1:]}" for name in self.open_rows if more}
        if self.shapes or more:
            text = {"text": "C T"} if self.needs.text or "text" in self.state_ else {}
            text |= {"threshold": "C"} if self.several_labels else {}
            sizes = {"C": len(self.classes_), "D": self.n_features_in_, "unseen": len(self.unseen_) if more else 0}
            check_shapes({**self.shapes, **text, **more}, self.state_, sizes)
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
