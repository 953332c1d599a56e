"""What heads share whose support is a cache of keys that vote: who votes on whom, and strengths that are searched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from handful.adapt.parameters import finite
from handful.core.calibration import pick
from handful.core.task import Task, mask_classes
from handful.errors import BadInput


def others(affinity: Tensor, task: Task) -> Tensor:
    """``affinity [..., N, N]`` of support rows to support keys, 0 between rows of one item."""
    same = task.items.same
    own = torch.eye(affinity.shape[-1], dtype=torch.bool, device=affinity.device) if same is None else same
    return affinity.masked_fill(own, 0.0)


def closest(cosines: Tensor, label: Tensor) -> Tensor:
    """The largest of ``cosines [*b, n, K]`` among the keys of each class ``[*b, n, C]``; -1 where a class has none.

    ``label [*b, K, C]`` is above 0 for the classes a key is of.
    """
    share, index = label.topk(max(1, int((label > 0).sum(-1).max())), dim=-1)  # most often one class a key
    best = cosines.new_full((*cosines.shape[:-1], label.shape[-1]), -1.0)
    for one, here in zip(index.unbind(-1), share.unbind(-1), strict=True):
        candidates = torch.where(here[..., None, :] > 0, cosines, -1.0)
        best = best.scatter_reduce(-1, one[..., None, :].expand_as(cosines), candidates, "amax")
    return best.clamp_min(-1)


def stepped(low: float, top: float, steps: int) -> tuple[float, ...]:
    """The grid of Tip-Adapter and what follows it: ``low + i (top - low) / steps``, ``top`` not in it."""
    return tuple(low + i * (top - low) / steps for i in range(steps))


@dataclass(frozen=True)
class Strength:
    """A strength that is a number or searched.

    Args:
        name: of the parameter.
        start: used while others are trained, and where nothing can be judged.
        grid: what is tried.
        least: the smallest number that makes sense.
        most: the largest.
    """

    name: str
    start: float
    grid: tuple[float, ...]
    least: float = 0.0
    most: float = math.inf

    def given(self, value: float | Literal["loo"]) -> float:
        """The number, or ``start`` where it is searched. Raises `BadInput` for any other word or number."""
        if value == "loo":
            return self.start
        if isinstance(value, str):
            raise BadInput(f"{self.name} is a number or 'loo', not {value!r}")
        return finite(self.name, value, least=self.least, most=self.most)

    def tried(self, value: float | Literal["loo"]) -> tuple[float, ...]:
        """The number alone, or the grid."""
        return self.grid if value == "loo" else (self.given(value),)


def search(
    sets: Iterable[Tensor], task: Task, tried: Sequence[Sequence[float]], start: Sequence[float]
) -> list[Tensor]:
    """The combination of strengths whose left-out logits explain the labels best: one ``[*b]`` a strength.

    Args:
        sets: left-out logits ``[S, *b, N, C]`` in several parts, for the combinations of ``tried`` in order, the last
            strength fastest. The best of each part meet again at the end, so that not all are in memory at once.
        task: whose support was left out.
        tried: the values of each strength.
        start: what is used in tasks with a class of a single item, where leave-one-out cannot judge.
    """
    like = task.labels.new_ones(task.labels.shape[:-2])
    fixed = [value * like for value in start]
    if math.prod(map(len, tried)) == 1 or not (judged := task.fewest_items >= 2).any():
        return fixed
    winners, places, seen = [], [], 0
    for part in sets:
        part = mask_classes(part, task.class_mask)
        at = pick(part, task.y, task.class_mask)
        winners.append(part.gather(0, at[None, ..., None, None].expand(1, *part.shape[1:]))[0])
        places.append(at + seen)
        seen += len(part)
    best = pick(torch.stack(winners), task.y, task.class_mask)
    place = torch.stack(places).gather(0, best[None])[0]
    found = []
    for values in reversed(tried):
        found.append(like.new_tensor(values)[place % len(values)])
        place = place // len(values)
    return [torch.where(judged, chosen, given) for chosen, given in zip(reversed(found), fixed, strict=True)]
