"""From indices to tensors: a batch of episodes as one `Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.core.distances import unit
from handful.core.task import Background, ClassText, Query, Task, make_task
from handful.errors import BadInput
from handful.evaluate.indices import Episodes


@dataclass(frozen=True)
class Batch:
    """A task ``[e, …]`` with the way of each query ``[e, Q]`` and which queries are real ``[e, Q]``."""

    task: Task
    answers: Tensor
    real: Tensor

    def single(self) -> Batch:
        """The first episode, without a batch dimension, as heads that take one task at a time expect it."""
        task = self.task
        return Batch(
            replace(
                task,
                support=task.support[0],
                labels=task.labels[0],
                weight=task.weight[0],
                item=task.item[0],
                class_mask=task.class_mask[0],
                prior=_first(task.prior),
                text=None if task.text is None else ClassText(task.text.vectors[0], task.text.mask[0]),
                views=_firsts(task.views),
                query=_single_query(task.query),
            ),
            self.answers[0],
            self.real[0],
        )


@dataclass(frozen=True)
class Pool:
    """The items episodes are drawn from, and what else is known.

    Args:
        x: features ``[n, D]``.
        views: further arrays ``[n, …]`` by name.
        text: class text of all classes ``[C, M, Dt]``.
        logit_scale: multiplies the cosine of item and class text in zero-shot logits.
        background: items of base classes.
    """

    x: Tensor
    views: Mapping[str, Tensor]
    text: ClassText | None = None
    logit_scale: float = 100.0
    background: Background | None = None

    @property
    def width(self) -> int:
        """Numbers an item takes, all views together."""
        return sum(int(np.prod(a.shape[1:])) for a in (self.x, *self.views.values()))

    def batch(self, episodes: Episodes, seed: int = 0) -> Batch:
        """Gather episodes; support rows come way by way, shot by shot, padding last."""
        device = self.x.device
        rows, way, real = (torch.as_tensor(a, device=device) for a in compact(episodes.support))
        asked, answers, asked_real = (torch.as_tensor(a, device=device) for a in compact(episodes.query))
        codes = torch.as_tensor(episodes.classes, dtype=torch.long, device=device)
        class_mask = codes >= 0
        text = None if self.text is None else _take_text(self.text, codes)
        views = {name: _rows(view, rows) for name, view in self.views.items()}
        asked_views = {name: _rows(view, asked) for name, view in self.views.items()}
        x, q = _rows(self.x, rows), _rows(self.x, asked)
        task = make_task(
            x,
            way,
            ways=codes.shape[1],
            weight=real.to(x.dtype),
            class_mask=class_mask,
            prior=self._prior(x, views, text),
            text=text,
            views=views,
            query=Query(q, self._prior(q, asked_views, text), asked_real, asked_views),
            background=self.background,
            seed=seed,
        )
        return Batch(task, answers, asked_real)

    def _prior(self, x: Tensor, views: Mapping[str, Tensor], text: ClassText | None) -> Tensor | None:
        if text is None:
            return None
        mean = text.mean
        return self.logit_scale * unit(views.get("aligned", x).to(mean.dtype)) @ mean.mT


def compact(index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, their way and whether they are real, ``[e, N]`` each, from ``[e, W, K]`` with -1 for padding.

    N is the most real rows an episode has; padding points at row 0 and way 0.
    """
    e, w, k = index.shape
    flat = index.reshape(e, w * k).astype(np.int64)
    way = np.broadcast_to(np.repeat(np.arange(w), k), flat.shape)
    real = flat >= 0
    if not real.all():
        order = np.argsort(~real, axis=1, kind="stable")[:, : real.sum(axis=1).max()]
        flat, way = np.take_along_axis(flat, order, axis=1), np.take_along_axis(way, order, axis=1)
        real = flat >= 0
    return np.where(real, flat, 0), np.where(real, way, 0), real


def class_text(text: Mapping[Any, Any], classes: Sequence[Any] | np.ndarray, like: Tensor) -> ClassText:
    """Class text ``[C, M, Dt]`` of ``classes`` from vectors ``[m, Dt]`` (or ``[Dt]``) by label; some may have none.

    Args:
        text: vectors by label.
        classes: C labels.
        like: what items are compared by, ``[n, Dt]``: its width, kind and device are taken.

    Raises:
        BadInput: text for none of the classes, or vectors of another width.
    """
    known = {c: np.atleast_2d(np.asarray(text[name], dtype=float)) for c, name in enumerate(classes) if name in text}
    if not known:
        raise BadInput(f"class text for none of the labels; it names {', '.join(map(str, list(text)[:5]))}")
    vectors = np.zeros((len(classes), max(map(len, known.values())), like.shape[1]))
    mask = np.zeros(vectors.shape[:2], dtype=bool)
    for c, row in known.items():
        if row.shape[1] != like.shape[1]:
            name = str(classes[c])
            raise BadInput(
                f"class text of {name!r} has width {row.shape[1]}, but items have {like.shape[1]} to compare"
            )
        vectors[c, : len(row)], mask[c, : len(row)] = row, True
    return ClassText(unit(torch.as_tensor(vectors).to(like)), torch.as_tensor(mask, device=like.device))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """``x[index]``, twice as fast."""
    return x.index_select(0, index.flatten()).reshape(*index.shape, *x.shape[1:])


def _take_text(text: ClassText, codes: Tensor) -> ClassText:
    real = codes >= 0
    index = codes.clamp_min(0)
    return ClassText(text.vectors[index], text.mask[index] & real[..., None])


def _single_query(query: Query | None) -> Query | None:
    if query is None:
        return None
    return Query(query.x[0], _first(query.prior), _first(query.mask), _firsts(query.views))


def _first(x: Tensor | None) -> Tensor | None:
    return None if x is None else x[0]


def _firsts(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: view[0] for name, view in views.items()}
