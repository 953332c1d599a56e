"""ProLIP joined with Tip-Adapter-F: the last projection and the keys of a cache are learnt together.

Paper 010: Fahes, Vu, Bursuc, Pérez, de Charette, "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia",
2024. With z from the tuned projection as in `prolip` and z0 = x made unit from the one there was:

    logits = s z W' + alpha exp(-beta (1 - z0 F')) Y,   F one key an item: at first the unit mean of its unit rows
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.parameters import finite
from handful.adapt.prolip import ProLIP, item_labels
from handful.adapt.two_towers import text_rows
from handful.core.distances import unit
from handful.core.kernels import rbf
from handful.core.task import Query, State, Task
from handful.core.train import AdamW, each_of


@dataclass(eq=False, repr=False, kw_only=True)
class ProLIPTip(ProLIP):
    """The tuned last projection of an image tower beside a cache with trained keys.

    The features are those of `ProLIP`: as the projection gives them, those before it as their view ``pre``.

    Args:
        alpha: weight of the cache, 1 in the reference.
        beta: its sharpness, 1 in the reference.
        reg: lambda; ``"1/K"`` and ``"1/K2"`` take it from the mean number K of items a class.
        epochs: passes over the support; of several rows of an item (augmented views) each pass sees one, in turn.
        lr: of AdamW with epsilon 1e-4 and decay 0.01, falling to 0 by a cosine.
    """

    key: ClassVar[str] = "prolip-tip-adapter-f"
    shapes: ClassVar[Mapping[str, str]] = {"change": "B D", "words": "C D", "keys": "K D", "value": "K C"}
    open_classes: ClassVar[bool] = False  # the cache has examples of learnt classes only
    open_rows: ClassVar[tuple[str, ...]] = ()

    alpha: float = 1.0
    beta: float = 1.0

    def adapt(self, task: Task) -> State:
        """State: ``change [*b, B, D]`` of the projection, unit ``words [*b, C, D]``, ``keys [*b, K, D]`` and their
        ``value [*b, K, C]``."""
        finite("alpha", self.alpha, least=0)
        finite("beta", self.beta, least=0)
        z0, (keys, value) = unit(task.x), _cache(task)
        mass = value.sum(-1, keepdim=True)
        change, keys = self._trained(
            task, [keys], lambda more: self._votes(z0, each_of(more[0], mass), value), AdamW(eps=1e-4)
        )
        return {"change": change, "words": text_rows(task), "keys": keys, "value": value}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z W' + alpha exp(-beta (1 - z0 F')) Y``."""
        return super().answer(state, query) + self._votes(unit(query.x), state["keys"], state["value"])

    def _votes(self, z0: Tensor, keys: Tensor, value: Tensor) -> Tensor:
        return self.alpha * (rbf(z0, keys, self.beta) @ value)


def _cache(task: Task) -> tuple[Tensor, Tensor]:
    """One key ``[*b, K, D]`` and value ``[*b, K, C]`` an item, K the most items of a task; values of others are 0.

    However many rows an item has, its value is one label times the mean weight of its rows.
    """
    items, value = task.items, item_labels(task)
    first = items.first & (task.weight > 0)
    order = first.to(torch.uint8).argsort(stable=True, dim=-1, descending=True)[..., : int(first.sum(-1).max())]
    keys = unit(items.total(unit(task.x)))
    keys, value = (t.gather(-2, order[..., None].expand(*order.shape, t.shape[-1])) for t in (keys, value))
    return keys, value
