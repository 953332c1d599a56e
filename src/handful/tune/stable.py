"""Fine-tuning that does not collapse on few examples (172, Revisiting Few-sample BERT Fine-tuning, 2020).

optimiser   AdamW with its bias correction; BERTAdam leaves it out, so that step t is longer by
            c_t = (1 - b1^t) / sqrt(1 - b2^t):  3.2 at first, 6.5 at t = 10, 1.3 at t = 1000
begin       the top blocks anew: maps N(0, 0.02), biases 0, norms 1 and 0
length      more steps than three passes; a tenth to warm up, then linear to 0
compared    decay towards the pre-trained weights, mixout, a learning rate that falls from block to block
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from handful.core.train import AdamW
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.fillers import CrossEntropy, Linear
from handful.tune.moved import Fresh, Moved
from handful.tune.recipe import Recipe, Stage
from handful.tune.sites import LINEAR, ROLES, Where

MAPS = (*LINEAR, "projection")
"""Roles of linear maps: what mixout mixes."""


@dataclass(frozen=True)
class Stable:
    """Full fine-tuning with a linear head, top blocks begun anew, more steps (172).

    Args:
        reinit: how many top blocks begin anew; the paper takes up to 6 of 24, two suit a model of six.
        steps: of training.
        lr: of the head and, times ``block_decay`` a block downwards, of the encoder.
        batch: items a step.
        optimiser: ``"adamw"``, or ``"bertadam"`` to see what it does.
        block_decay: factor of the rate from a block to the one below it; 1 for none, 0.95 in the paper.
        mixout: p of linear maps, 0.1 in the paper; the model's own dropout is off then.
        prior_decay: of the distance to the weights that training began from; the head has none.
    """

    reinit: int = 2
    steps: int = 400
    lr: float = 2e-5
    batch: int = 32
    optimiser: Literal["adamw", "bertadam"] = "adamw"
    block_decay: float = 1.0
    mixout: float = 0.0
    prior_decay: float = 0.0

    def recipe(self) -> Recipe:
        """As slots."""
        if self.reinit < 0:
            raise BadInput(f"reinit is a number of blocks, not {self.reinit}")
        if self.optimiser not in ("adamw", "bertadam"):
            raise BadInput(f"the optimiser is 'adamw' or 'bertadam', not {self.optimiser!r}")
        debias = self.optimiser == "adamw"
        stage = Stage(
            steps=self.steps, lr=self.lr, batch=self.batch, warmup=0.1, clip=1.0, weight_decay=self.prior_decay,
            block_decay=self.block_decay, dropout=not self.mixout,
            update=lambda decay: AdamW(weight_decay=decay, debias=debias),
            readout_update=lambda decay: AdamW(weight_decay=0.0, debias=debias),
        )  # fmt: skip
        changes: tuple[Placed, ...] = ()
        if self.reinit:
            top = f"top{self.reinit}"
            changes = (
                Placed(Fresh(), Where(LINEAR, blocks=top)),
                Placed(Fresh("zeros"), Where((*LINEAR, "norm"), "bias", blocks=top)),
                Placed(Fresh("ones"), Where(("norm",), blocks=top)),
            )
        changes += (
            Placed(Moved(self.mixout), Where(MAPS)),
            Placed(Moved(), Where(tuple(role for role in ROLES if role not in MAPS)), needed=False),
            Placed(Moved(), Where(ROLES, "bias")),
        )
        return Recipe(changes, (CrossEntropy(),), (stage,), readout=Linear)


@dataclass(frozen=True)
class Instability:
    """How a way of tuning fares over seeds.

    Args:
        scores: of each seed.
        failed: share of seeds that are not above the majority class.
    """

    scores: tuple[float, ...]
    failed: float

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.scores))

    @property
    def std(self) -> float:
        """Over seeds, with n - 1."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else 0.0

    @property
    def best(self) -> float:
        """The largest."""
        return max(self.scores)


def instability(score: Callable[[int], float], seeds: Iterable[int], majority: float) -> Instability:
    """Scores of ``score(seed)``, and how many runs learnt nothing.

    Args:
        score: tunes with that seed and says how often it is right.
        seeds: as many runs.
        majority: how often the most frequent class is right.

    Raises:
        BadInput: no seeds.
    """
    found = tuple(score(seed) for seed in seeds)
    if not found:
        raise BadInput("give at least one seed")
    return Instability(found, float(np.mean([value <= majority for value in found])))
