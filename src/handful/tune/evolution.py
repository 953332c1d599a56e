"""Evolution instead of gradients: one CMA-ES a layer, in turn (BBTv2, Sun et al. 2022, section 4).

    p_i = A_i z_i        A_i fixed, z_i in R^d searched, all zero at first
    each round, for i = 1 … L: ask popsize z_i, judge each with the other layers as they are, tell, p_i = A_i z_best

z_best is the best that the search of layer i has ever seen, though the other layers moved since, as in the authors'
code. CMA-ES (Hansen 2016) is that of the package ``cma``; it needs the losses of its guesses, and no gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.errors import BadInput


def needs_cma() -> Any:
    """The package. Raises `BadInput` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses matplotlib, which only its own plots need
            import cma
    except ImportError as error:
        raise BadInput(
            'search without gradients needs the package cma; run: pip install "handful[blackbox]"'
        ) from error
    return cma


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Args:
        prompts: p_i of each layer, as ``maps`` give them.
        calls: how often the loss was asked for.
        failed: how many of those gave no number.
        losses: of each call, ``inf`` where there was no number.
    """

    prompts: list[Tensor]
    calls: int
    failed: int
    losses: list[float]


@dataclass(frozen=True)
class Evolution:
    """See `handful.tune.evolution`.

    Args:
        sigma: length of the first steps.
        popsize: guesses a layer and round.
        budget: calls of the loss at most; what is no whole round is not used.
        bound: of each number of z, to both sides; none by default.
        seed: of every guess.
    """

    sigma: float = 0.2
    popsize: int = 20
    budget: int = 8000
    bound: float | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        if self.popsize < 2 or not self.sigma > 0:
            raise BadInput(f"popsize is 2 at least and sigma above 0, not {self.popsize} and {self.sigma}")
        if self.seed < 0:
            raise BadInput(f"the seed of a search is 0 or more, not {self.seed}")
        if self.bound is not None and not self.bound > 0:
            raise BadInput(f"bound must be above 0, not {self.bound}")

    def rounds(self, layers: int) -> int:
        """How many rounds the budget is. Raises `BadInput` for not a single one."""
        if self.budget < self.popsize * layers:
            raise BadInput(
                f"a budget of {self.budget} calls is not one round; it takes popsize x layers = "
                f"{self.popsize * layers} at least"
            )
        return self.budget // (self.popsize * layers)

    @torch.no_grad()
    def search(
        self,
        loss: Callable[[Sequence[Tensor]], float],
        maps: Sequence[Tensor],
        look: Callable[[int, Sequence[Tensor]], None] | None = None,
    ) -> Found:
        """Search for prompts of small loss.

        Args:
            loss: of the prompts of all layers; a candidate for which it is no number is passed over.
            maps: A_i ``[P, d]`` of each layer.
            look: told the number of a call, from 1, and the prompts it judged.

        Raises:
            BadInput: the budget is not one round; ``cma`` is not installed; no call ever gave a number.
        """
        rounds = self.rounds(len(maps))
        strategies = self._strategies([a.shape[1] for a in maps], rounds)
        prompts = [a.new_zeros(len(a)) for a in maps]
        lowest, losses = [math.inf] * len(maps), list[float]()
        for _ in range(rounds):
            for layer, (strategy, a) in enumerate(zip(strategies, maps, strict=True)):
                guesses = strategy.ask()
                best = prompts[layer]
                for z in guesses:
                    tried = [*prompts]
                    tried[layer] = a @ torch.as_tensor(z, dtype=a.dtype)
                    value = float(loss(tried))
                    losses.append(value if math.isfinite(value) else math.inf)
                    if look is not None:
                        look(len(losses), tried)
                    if losses[-1] < lowest[layer]:
                        lowest[layer], best = losses[-1], tried[layer]
                strategy.tell(guesses, losses[-len(guesses) :])
                prompts[layer] = best
        failed = sum(map(math.isinf, losses))
        if failed == len(losses):
            raise BadInput("the loss gave no number in any call; look at the model and its inputs")
        return Found(prompts, len(losses), failed, losses)

    def _strategies(self, sizes: Sequence[int], rounds: int) -> list[Any]:
        """One a layer; they share one stream of random numbers, which is no one else's."""
        cma, draw = needs_cma(), np.random.default_rng(self.seed)
        options: dict[str, Any] = {"popsize": self.popsize, "maxiter": rounds, "verbose": -9}
        options |= {"seed": np.nan, "randn": lambda *shape: draw.standard_normal(shape)}  # nan: seed nothing
        if self.bound is not None:
            options["bounds"] = [-self.bound, self.bound]
        return [cma.CMAEvolutionStrategy(size * [0.0], self.sigma, dict(options)) for size in sizes]
