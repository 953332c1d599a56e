"""Small made-up tasks, and what can be done to them that should not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.inputs import PLACES
from handful.core.task import Background, ClassText, Query, Task, make_task

WIDTH, WAYS, QUERIES = 7, 3, 5
SHOTS = (4, 3, 2)


def made_up_task(head: Head, seed: int = 0, dtype: torch.dtype = torch.float64, shots: tuple[int, ...] = SHOTS) -> Task:
    """A small task with what ``head`` needs, with unequal shots, and class text in the space of the features."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=draw, dtype=torch.float64)
        x = x.softmax(-1) if head.needs.simplex else x.abs() if head.needs.positive else x
        return x.to(dtype)

    shots = tuple(max(k, head.needs.min_shots) for k in shots)
    labels = torch.repeat_interleave(torch.arange(WAYS), torch.tensor(shots))
    centre = 1.5 * normal(WAYS, WIDTH)
    x, q = centre[labels] + normal(len(labels), WIDTH), normal(QUERIES, WIDTH)
    text = torch.nn.functional.normalize(centre + normal(WAYS, WIDTH), dim=-1)
    unit = torch.nn.functional.normalize
    sizes = {view: (*([PLACES[view]] if view in PLACES else []), WIDTH) for view in head.needs.views}
    query = Query(
        q, 10 * unit(q, dim=-1) @ text.mT, views={view: normal(QUERIES, *size) for view, size in sizes.items()}
    )
    task = make_task(
        x,
        labels,
        ways=WAYS,
        text=ClassText(text[:, None], torch.ones(WAYS, 1, dtype=torch.bool)),
        prior=10 * unit(x, dim=-1) @ text.mT,
        views={view: normal(len(labels), *size) for view, size in sizes.items()},
        query=query,
        unlabelled=normal(6, WIDTH) if head.needs.unlabelled else None,
    )
    if not head.needs.background:
        return task
    draw.manual_seed(97)  # the tasks of a batch share their background
    return replace(task, background=Background(normal(12, WIDTH), torch.arange(12) % 4))


def tasks(head: Head, dtype: torch.dtype = torch.float64) -> list[Task]:
    """With class text and, where the head can do without, also without."""
    task = made_up_task(head, dtype=dtype)
    return [task] if head.needs.text else [task, bare(task)]


def bare(task: Task) -> Task:
    """The task without class text."""
    assert task.query is not None
    return replace(task, text=None, prior=None, query=replace(task.query, prior=None))


def rows(task: Task, index: Tensor) -> Task:
    """The task with the support rows at ``index``."""
    return replace(
        task,
        **{name: getattr(task, name)[index] for name in ("support", "labels", "weight", "item")},
        prior=None if task.prior is None else task.prior[index],
        views={name: view[index] for name, view in task.views.items()},
    )


def ask(task: Task, index: Tensor) -> Task:
    """The task with the queries at ``index``."""
    q = task.query
    assert q is not None
    prior = None if q.prior is None else q.prior[index]
    return replace(task, query=Query(q.x[index], prior, views={name: view[index] for name, view in q.views.items()}))


def pad(task: Task, garbage: float) -> Task:
    """The task with four more rows, three more queries and two more classes of garbage."""

    def more(x: Tensor | None, *sizes: int) -> Any:
        if x is None:
            return None
        out = x.new_full([n + k for n, k in zip(x.shape, [*sizes, *[0] * x.dim()], strict=False)], garbage)
        out[tuple(slice(n) for n in x.shape)] = x
        return out

    q, n = task.query, task.support.shape[0]
    assert q is not None
    text = task.text and ClassText(more(task.text.vectors, 2), torch.cat([task.text.mask, task.text.mask[:2]]))
    return replace(
        task,
        support=more(task.support, 4),
        labels=more(task.labels, 4, 2),
        weight=torch.cat([task.weight, task.weight.new_zeros(4)]),
        item=torch.cat([task.item, torch.tensor([0, n, n, n + 1])]),
        class_mask=torch.cat([task.class_mask, torch.zeros(2, dtype=torch.bool)]),
        prior=more(task.prior, 4, 2),
        text=text,
        views={name: more(view, 4) for name, view in task.views.items()},
        query=Query(
            more(q.x, 3),
            more(q.prior, 3, 2),
            torch.cat([torch.ones(QUERIES, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)]),
            {name: more(view, 3) for name, view in q.views.items()},
        ),
    )


def stack(tasks: list[Task]) -> Task:
    """One batch of several tasks of the same sizes."""

    def joined(values: list[Any]) -> Any:
        return None if values[0] is None else torch.stack(values)

    first, queries = tasks[0], [task.query for task in tasks if task.query is not None]
    texts = [task.text for task in tasks if task.text is not None]
    names = ("support", "labels", "weight", "item", "class_mask", "prior", "unlabelled")
    return replace(
        first,
        **{name: joined([getattr(task, name) for task in tasks]) for name in names},
        text=ClassText(joined([t.vectors for t in texts]), joined([t.mask for t in texts])) if texts else None,
        views={name: joined([task.views[name] for task in tasks]) for name in first.views},
        query=Query(
            joined([q.x for q in queries]),
            joined([q.prior for q in queries]),
            views={name: joined([q.views[name] for q in queries]) for name in queries[0].views},
        ),
    )
