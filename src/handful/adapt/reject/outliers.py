"""Unknownness by the judge of paper 107 (`handful.adapt.dafos`), trained on episodes of the classes themselves.

Rows are made unit first. Some of the classes play the unknown ones of an episode, beside features made from noise and
items of none of the classes, if there are any. There is one domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.dafos import DAFOSNet, beyond, state_of
from handful.adapt.dafos_train import Base, train
from handful.adapt.reject.base import Rejecter
from handful.core.distances import unit
from handful.core.task import State, Task
from handful.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class DAFOSRejecter(Rejecter):
    """What a small network, trained to tell known from unknown, makes of the distances to the nearest classes.

    Every fold takes a training of its own, so that it is shorter than the head's; sizes and rate are ours, tried on
    Banking77.

    Args:
        way, unknown: classes of an episode, fewer where there are not so many.
        shots: examples of each.
        queries, width, episodes, lr, pseudo_known: as `handful.adapt.dafos.DAFOSNet` has them.
    """

    kind: ClassVar[str] = "dafos-net"
    negatives: ClassVar[bool] = True
    shapes: ClassVar[Mapping[str, str]] = DAFOSNet.shapes

    way: int = 10
    unknown: int = 5
    shots: int = 4
    queries: int = 2
    width: int = 256
    episodes: int = 300
    lr: float = 1e-3
    pseudo_known: bool = False

    def adapt(self, task: Task) -> State:
        """The state of the head, its judge and encoder trained for each task of a batch by itself.

        Raises:
            BadInput: fewer than two classes with two examples.
        """
        x, y, batch = unit(task.x), task.y, task.x.shape[:-2]
        others = x[..., :0, :] if task.background is None else unit(task.background.x.to(x)).expand(*batch, -1, -1)
        flat = [t.reshape(math.prod(batch), *t.shape[len(batch) :]) for t in (x, y, others)]
        states = [self._one(*parts, seed=task.seed) for parts in zip(*flat, strict=True)]
        return {name: torch.stack([s[name] for s in states]).reshape(*batch, *t.shape) for name, t in states[0].items()}

    def unknownness(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        """Logit of "unknown" less that of "known"."""
        return beyond(state, unit(x))

    def _one(self, x: Tensor, y: Tensor, others: Tensor, *, seed: int) -> State:
        order = x[:, 0].sort(stable=True).indices  # episodes are drawn by place: rows in another order draw the same
        order = order[y[order].argmax(-1).sort(stable=True).indices]
        code, rows = y[order].argmax(-1), y[order].sum(-1) > 0
        code, rows = code[rows], x[order][rows]
        several = torch.bincount(code, minlength=y.shape[-1]) > 1
        ways = int(several.sum())
        if ways < 2:
            raise BadInput("dafos-net learns from classes with two examples or more: at least two of them are needed")
        known = min(self.way, max(2, ways - 1))
        head = DAFOSNet(
            way=known,
            unknown=min(self.unknown, ways - known),
            shots=(self.shots, self.shots),
            **{name: value for name, value in asdict(self).items() if name not in ("way", "unknown", "shots")},
        )
        use = several[code]
        base = Base(rows[use], code[use], torch.zeros_like(code[use]), others)
        return state_of(train(head, base, seed), x, y)
