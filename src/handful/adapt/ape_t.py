"""APE-T: APE with a trained residual of text and keys.

Paper 002: Zhu, Zhang, He, Zhou, Wang, Zhao, Gao, "Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior
Refinement", 2023. A residual r [C, Q], on the channels chosen by text alone, is added to the text and to all keys of a
class, and every key has a weight v:

    logits = s f (W + r)' + alpha exp(-beta (1 - f (F + r)')) (v Y)
           = s f W' + s f r' + alpha exp(beta f r') exp(-beta (1 - f F')) (v Y)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from handful.adapt.ape import ALPHA, BETA, Refined, take
from handful.adapt.cache import others, search
from handful.adapt.parameters import count, finite
from handful.adapt.two_towers import item_rows, query_rows, text_rows
from handful.adapt.zero_shot import prior_logits
from handful.core.kernels import rbf
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task
from handful.core.train import adamw, each_of
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class APET(Refined):
    """APE with a trained residual on text and keys, and a trained weight of each key.

    The channels are those of the text alone. Strengths that are searched are searched after training.

    Args:
        epochs: passes over the support; the reference takes 20 to 200.
        lr: of AdamW (epsilon 1e-3, decay 0.1), falling to 0 by a cosine.
        batch_size: rows a step; with more rows than that, their order is drawn with ``random_state``.
    """

    key: ClassVar[str] = "ape-t"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {
        "keys": "N D",
        "value": "N C",
        "channels": "Q",
        "residual": "C Q",
        "alpha": "",
        "beta": "",
    }

    n_channels: int | float = 0.88
    similarity: float = 0.2
    variance: float = 0.8
    epochs: int = 30
    lr: float = 1e-3
    batch_size: int = 256

    def adapt(self, task: Task) -> State:
        """State: ``keys [*b, N, D]``, ``value [*b, N, C]``, ``channels [*b, Q]``, ``residual [*b, C, Q]``."""
        count("epochs", self.epochs)
        count("batch_size", self.batch_size, 1)
        finite("lr", self.lr, above=0)
        x = item_rows(task)
        channels = self._channels(task, x, text_rows(task), text_only=True)
        residual, weight = self._train(task, x, channels)
        state = {"keys": x, "value": weight * task.y, "channels": channels, "residual": residual}
        alpha, beta = self._search(task, state)
        return {**state, "alpha": alpha, "beta": beta}

    def answer(self, state: State, query: Query) -> Tensor:
        """``s f (W + r)' + alpha exp(-beta (1 - f (F + r)')) (v Y)``."""
        f, beta = query_rows(query), state["beta"][..., None, None]
        moved = take(f, state["channels"]) @ state["residual"].mT
        votes = rbf(f, state["keys"], beta) @ state["value"]
        return self._logits(prior_logits(query.prior), moved, votes, state["alpha"][..., None, None], beta)

    def held(self, state: State) -> Self:
        """With the strengths that were chosen."""
        return replace(self, alpha=float(state["alpha"]), beta=float(state["beta"]))

    def _logits(
        self, prior: Tensor, moved: Tensor, votes: Tensor, alpha: Tensor | float, beta: Tensor | float
    ) -> Tensor:
        return prior + self.logit_scale * moved + alpha * (beta * moved).exp() * votes

    def _train(self, task: Task, x: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        y, prior, f = task.y, prior_logits(task.offset), take(x, channels)
        alpha, beta = ALPHA.given(self.alpha), BETA.given(self.beta)
        affinity = rbf(x, x, beta)

        def losses(parameters: list[Tensor], rows: Tensor) -> Tensor:
            residual, weight = parameters
            moved = f[..., rows, :] @ residual.mT
            votes = affinity[..., rows, :] @ (each_of(weight, y) * y)
            logits = self._logits(prior[..., rows, :], moved, votes, alpha, beta)
            return cross_entropy(logits, y[..., rows, :], task.class_mask)

        residual, weight = adamw(
            [f.new_zeros(*y.shape[:-2], y.shape[-1], f.shape[-1]), torch.ones_like(y)],
            losses,
            rows=real_rows(task),
            epochs=self.epochs,
            lr=self.lr,
            eps=1e-3,
            weight_decay=0.1,
            batch_size=self.batch_size,
            seed=task.seed,
        )
        return residual, weight

    def _search(self, task: Task, state: State) -> list[Tensor]:
        alphas, betas = ALPHA.tried(self.alpha), BETA.tried(self.beta)
        x, prior = state["keys"], prior_logits(task.offset)
        moved = take(x, state["channels"]) @ state["residual"].mT
        steps = x.new_tensor(alphas).reshape(-1, *[1] * x.dim())
        sets = (
            self._logits(prior, moved, others(rbf(x, x, beta), task) @ state["value"], steps, beta) for beta in betas
        )
        beta, alpha = search(sets, task, [betas, alphas], [BETA.given(self.beta), ALPHA.given(self.alpha)])
        return [alpha, beta]
