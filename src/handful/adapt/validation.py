"""Episodes drawn from items of base classes, by which heads choose what papers choose on validation tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from handful.core.task import Background, Query, Task, make_task

EPISODES, QUERIES = 100, 15


def base_episodes(
    task: Task, *, seed: int, episodes: int = EPISODES, queries: int = QUERIES
) -> tuple[Task, Tensor] | None:
    """Episodes like ``task``, as many ways and shots, and the answers to their queries ``[episodes, Q]``.

    ``None`` where the background has no labels, or not enough classes with enough items.
    """
    base = task.background
    if base is None or base.labels is None:
        return None
    ways = int(task.ways.max())
    shots = max(1, round(float(task.y.sum() / task.ways.sum())))
    size = base.labels.bincount()
    usable = (size > shots).nonzero()[:, 0]
    if len(usable) < ways:
        return None
    each = min(queries, int(size[usable].min()) - shots)
    index = _drawn(base.labels, usable, size, ways, shots + each, episodes, seed)
    way = torch.arange(ways, device=index.device)
    x = base.x[index]
    return make_task(
        x[:, :, :shots].flatten(1, 2),
        way.repeat_interleave(shots).expand(episodes, -1),
        ways=ways,
        query=Query(x[:, :, shots:].flatten(1, 2)),
        background=Background(base.x),
    ), way.repeat_interleave(each).expand(episodes, -1)


def _drawn(labels: Tensor, usable: Tensor, size: Tensor, ways: int, each: int, episodes: int, seed: int) -> Tensor:
    """Positions ``[episodes, ways, each]`` of different items of different classes."""
    draw = torch.Generator().manual_seed(seed)
    device = labels.device
    classes = usable[torch.rand(episodes, len(usable), generator=draw).argsort(-1)[:, :ways].to(device)]
    mixed = (labels + torch.rand(episodes, len(labels), generator=draw, dtype=torch.float64).to(device)).argsort(-1)
    first = (size.cumsum(0) - size)[classes]
    at = (first[..., None] + torch.arange(each, device=device)).flatten(1)
    return mixed.gather(-1, at).reshape(episodes, ways, each)
