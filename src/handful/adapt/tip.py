"""Tip-Adapter: the support as a cache of keys and values beside the zero-shot classifier; and its fine-tuned form.

Zhang, Fang, Gao, Li, Zhang, Qiao, Li, "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", 2022
(compared with in papers 002, 060 and 140).

    logits = s z W' + alpha exp(-beta (1 - z F')) Y
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import others
from handful.adapt.zero_shot import prior_logits
from handful.core.calibration import pick
from handful.core.distances import unit
from handful.core.kernels import rbf
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task
from handful.core.train import adamw, each_of
from handful.errors import BadInput
from handful.protocols import Needs, Ranges

START = {"alpha": 1.17, "beta": 1.0}
"""Of the reference's ImageNet configuration."""
TOP = {"alpha": 3.0, "beta": 7.0}
STEPS = 20


@dataclass(eq=False, repr=False, kw_only=True)
class TipAdapter(Head):
    """Cache of the support, training-free.

    Args:
        alpha: weight of the cache, 1.17 in the reference's ImageNet configuration; ``"loo"`` searches 20 values from
            0.1 to 3 as the reference does on its validation set, here by leave-one-out over items (1.17 where a class
            has a single item).
        beta: sharpness, 1 in the reference; ``"loo"`` searches 20 values from 0.1 to 7.
    """

    key: ClassVar[str] = "tip-adapter"
    needs: ClassVar[Needs] = Needs(text=True)
    shapes: ClassVar[Mapping[str, str]] = {"keys": "N D", "value": "N C", "alpha": "", "beta": ""}
    ranges: ClassVar[Ranges] = {"alpha": (0.1, 10.0), "beta": (0.5, 20.0)}

    alpha: float | Literal["loo"] = 1.17
    beta: float | Literal["loo"] = 1.0

    @property
    def directions(self) -> bool:
        """Cosines only."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``keys [*b, N, D]``, ``value [*b, N, C]``, ``alpha [*b]``, ``beta [*b]``."""
        return self._state(unit(task.x), task)

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z W' + alpha exp(-beta (1 - z F')) Y``."""
        votes = rbf(unit(query.x), state["keys"], state["beta"][..., None, None]) @ state["value"]
        return prior_logits(query.prior) + state["alpha"][..., None, None] * votes

    def leave_one_out(self, task: Task) -> Tensor | None:
        """An item's own rows do not vote on it."""
        state = self.adapt(task)
        votes = others(rbf(unit(task.x), state["keys"], state["beta"][..., None, None]), task) @ task.y
        return prior_logits(task.offset) + state["alpha"][..., None, None] * votes

    def held(self, state: State) -> Self:
        """With the alpha and beta that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]))

    def _state(self, keys: Tensor, task: Task) -> State:
        alpha, beta = self._choose(keys, task)
        return {"keys": keys, "value": task.y, "alpha": alpha, "beta": beta}

    def _choose(self, keys: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        like = task.labels.new_ones(task.labels.shape[:-2])
        prior = prior_logits(task.offset)
        alphas, betas = _values("alpha", self.alpha, like), _values("beta", self.beta, like)
        start = _start("alpha", self.alpha) * like, _start("beta", self.beta) * like
        if len(alphas) * len(betas) == 1:
            return start
        x, steps = unit(task.x), alphas.reshape(-1, *[1] * task.labels.dim())
        sets = torch.cat([prior + steps * (others(rbf(x, keys, beta), task) @ task.y) for beta in betas])
        index = pick(sets, task.y, task.class_mask)
        judged = task.fewest_items >= 2
        return (
            torch.where(judged, alphas[index % len(alphas)], start[0]),
            torch.where(judged, betas[index // len(alphas)], start[1]),
        )


@dataclass(eq=False, repr=False, kw_only=True)
class TipAdapterF(TipAdapter):
    """Tip-Adapter with trained keys.

    Strengths that are searched are searched after training, with the trained keys, an item's own rows left out.

    Args:
        epochs: passes over the support, 20 in the reference.
        lr: of AdamW with epsilon 1e-4, decayed to 0 by a cosine over all steps.
        batch_size: rows a step; with more rows than that, their order is drawn with ``random_state``.
    """

    key: ClassVar[str] = "tip-adapter-f"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)

    epochs: int = 20
    lr: float = 1e-3
    batch_size: int = 256

    def adapt(self, task: Task) -> State:
        """State as of `TipAdapter`, with trained keys."""
        if self.epochs < 0 or self.batch_size < 1:
            raise BadInput(f"epochs from 0, batch_size from 1, not {self.epochs} and {self.batch_size}")
        if not 0 < self.lr < math.inf:
            raise BadInput(f"lr must be finite and above 0, not {self.lr}")
        return self._state(self._train(task), task)

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Trained keys know every row: resample instead."""
        return None

    def _train(self, task: Task) -> Tensor:
        x, y, prior = unit(task.x), task.y, prior_logits(task.offset)
        alpha, beta = _start("alpha", self.alpha), _start("beta", self.beta)
        mass = y.sum(-1, keepdim=True)

        def loss(parameters: list[Tensor], rows: Tensor) -> Tensor:
            keys = each_of(parameters[0], mass)
            logits = prior[..., rows, :] + alpha * rbf(x[..., rows, :], keys, beta) @ y
            return cross_entropy(logits, y[..., rows, :], task.class_mask)

        return adamw(
            [x],
            loss,
            rows=real_rows(task),
            epochs=self.epochs,
            lr=self.lr,
            eps=1e-4,
            batch_size=self.batch_size,
            seed=task.seed,
        )[0]


def _values(name: str, value: float | str, like: Tensor) -> Tensor:
    """The values to try ``[S]``."""
    if not isinstance(value, str):
        return like.new_tensor([_start(name, value)])
    if value != "loo":
        raise BadInput(f"{name} is a number or 'loo', not {value!r}")
    return 0.1 + torch.arange(STEPS, dtype=like.dtype, device=like.device) * (TOP[name] - 0.1) / STEPS


def _start(name: str, value: float | str) -> float:
    """The value itself, or the reference's where it is searched."""
    if isinstance(value, str):
        return START[name]
    if not 0 <= value < math.inf:
        raise BadInput(f"{name} must be finite and not below 0, not {value}")
    return float(value)
