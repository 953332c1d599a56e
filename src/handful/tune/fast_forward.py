"""119 Fast Forwarding Low-Rank Training, 2024. Between ordinary steps the last one is repeated as long as a few
examples that were held out keep getting better.

    Delta  = theta_t - theta_(t-1)            the last step as it was made: momentum, decay and rate are in it
    theta <- theta + Delta                    while the loss on the held-out examples does not rise

What the optimiser remembers, the schedule and the count of steps stay. The walk is a line in what learns: quadratic in
the weight for LoRA, linear for `BRA`. It pays for low-rank changes, not for full fine-tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handful.core.train import AdamW
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.fillers import Linear, Plain
from handful.tune.lora import LoRA
from handful.tune.recipe import Closures, Recipe, Stage, Step
from handful.tune.sites import Where


@dataclass(frozen=True)
class Walk:
    """One walk.

    Args:
        step: after which step of the run's stage, from 1.
        length: how many times the step was repeated and kept.
        losses: on the held-out examples before it, then after each repetition, the last one that was undone among them.
    """

    step: int
    length: int
    losses: tuple[float, ...]


@dataclass(frozen=True)
class FastForward:
    """Fills the slot ``step``; give `tune` the examples as ``held``, which nothing else is to use.

    Args:
        interval: ordinary steps between two walks.
        warmup: steps before the first interval.
        longest: repetitions of a walk at most.
        strict: compare the first repetition too, and take back one that made the loss rise. The authors' code does
            neither.
        step: the ordinary step.
        walks: what happened, appended to; see `Walk`.
    """

    interval: int = 6
    warmup: int = 0
    longest: int = 200
    strict: bool = True
    step: Step = field(default_factory=Plain)
    walks: list[Walk] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.interval < 2 or self.warmup < 0 or self.longest < 1:
            raise BadInput(f"interval is at least 2, warmup at least 0, longest at least 1: {self}")

    def __call__(
        self, closures: Closures, parameters: Sequence[Tensor], update: Callable[[Sequence[Tensor]], None]
    ) -> Tensor:
        """See `handful.tune.recipe.Step`."""
        if "held" not in closures:
            raise BadInput("fast forward needs examples that are held out: tune(…, held=…)")
        done = closures.step + 1 - self.warmup
        if done < 1 or done % self.interval:
            return self.step(closures, parameters, update)
        before = [parameter.detach().clone() for parameter in parameters]
        loss = self.step(closures, parameters, update)
        with torch.no_grad():
            deltas = [parameter - was for parameter, was in zip(parameters, before, strict=True)]
            if any(bool(delta.any()) for delta in deltas):
                self.walks.append(self._walk(closures, parameters, deltas, first=done == self.interval))
        return loss

    def _walk(self, closures: Closures, parameters: Sequence[Tensor], deltas: Sequence[Tensor], first: bool) -> Walk:
        held = closures["held"]
        losses = [float(held())]
        if first and math.isfinite(losses[0]) and float(held()) != losses[0]:
            raise BadInput("the loss on the held-out examples differs between two looks at the same weights")
        length = 0
        while length < self.longest:
            was = [parameter.detach().clone() for parameter in parameters]
            for parameter, delta in zip(parameters, deltas, strict=True):
                parameter.add_(delta)
            losses.append(float(held()))
            free = not self.strict and length == 0
            if losses[-1] <= losses[-2] or (free and not math.isnan(losses[-1])):
                length += 1
                continue
            if self.strict or math.isnan(losses[-1]):
                for parameter, kept in zip(parameters, was, strict=True):
                    parameter.copy_(kept)
            else:
                length += 1
            break
        return Walk(closures.step + 1, length, tuple(losses))

    def passes(self, steps: int, batch: int, held: int) -> float:
        """What a run cost in forward passes of one item: three for an item learnt from, one for one held out.

        The first walk looks twice before it sets out.
        """
        looks = sum(len(walk.losses) for walk in self.walks) + (len(self.walks) > 0)
        return 3.0 * steps * batch + held * looks


@dataclass(frozen=True)
class FastForwardLoRA:
    """The settings of the paper's runs: LoRA on the maps of attention, fast forwarded (119).

    Args:
        rank, alpha, dropout: see `LoRA`.
        lr, epochs, batch: of AdamW, at a constant rate and without weight decay.
        interval, warmup, strict: see `FastForward`.
    """

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.1
    lr: float = 2e-5
    epochs: float = 5
    batch: int = 512
    interval: int = 6
    warmup: int = 0
    strict: bool = True

    def recipe(self) -> Recipe:
        """As slots; to be tuned with ``held``."""
        change = Placed(LoRA(self.rank, self.alpha, self.dropout), Where(("q", "k", "v", "qkv", "o")))
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, rate="constant", update=lambda decay: AdamW(1e-6, decay)
        )
        step = FastForward(self.interval, self.warmup, strict=self.strict)
        return Recipe((change,), stages=(stage,), readout=Linear, step=step)
