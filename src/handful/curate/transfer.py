"""What training on another task first brings, and how well a ranking finds the best one (114, What to Pre-Train on?
Efficient Intermediate Task Selection, 2021).

    g(s, t)     = (E(s -> t) - E_0(t)) / E_0(t)            E_0 from scratch; means over restarts
    Regret@k    = (max_s E(s, t) - max of the first k) / max_s E(s, t)          in percent
    NDCG        = sum_i (2^rel_i - 1) / log2(i + 1), over that of the true order;  rel is E, from 0 to 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from handful.errors import BadInput
from handful.tune.delta import Delta
from handful.tune.loop import tune
from handful.tune.mera import MerA
from handful.tune.plain import EVERYTHING
from handful.tune.recipe import Data, Readout, Recipe
from handful.tune.tuned import Tuned
from handful.tune.zoo import From

Score = Callable[[Tuned, Data], float]


@dataclass(frozen=True)
class Source:
    """A task that may be trained on first.

    Args:
        name: of it.
        data: its examples.
        delta: what was learnt on them; rankers that read nothing but data do without.
        readout: learnt along with it.
        kind: of task, such as ``"classification"``.
    """

    name: str
    data: Data
    delta: Delta | None = None
    readout: Readout | None = None
    kind: str = ""

    def learnt(self) -> Delta:
        """The delta. Raises `BadInput` where there is none."""
        if self.delta is None:
            raise BadInput(f"source {self.name!r} has nothing learnt (delta), which this takes")
        return self.delta


def accuracy(tuned: Tuned, data: Data) -> float:
    """The share of ``data`` that is answered rightly."""
    return float((tuned.logits(data.inputs).argmax(1) == data.labels).float().mean())


def train_source(
    name: str, model: nn.Module, data: Data, dev: Data, *, full: bool = False, score: Score = accuracy, kind: str = "",
    seed: int = 0,
) -> Source:  # fmt: skip
    """A source trained as in the paper: the epoch that scores best on ``dev`` is kept.

    Args:
        name, kind: see `Source`.
        model: the frozen encoder.
        data, dev: learnt from, and scored on.
        full: every weight, at 3e-5 for 3 epochs, in place of an adapter behind each feed-forward at 1e-4 for 15; 32
            examples a step.
        score: of what came out.
        seed: of every draw.
    """
    made = MerA(lr=3e-5, epochs=3).recipe(EVERYTHING) if full else MerA().recipe()
    epoch = math.ceil(len(data) / made.stages[0].batch)
    tuned = tune(model, data, made, seed=seed, judge=lambda now: score(now, dev), judge_every=epoch)
    return Source(name, data, tuned.delta, tuned.readout, kind)


@dataclass(frozen=True)
class Transfer:
    """What every source brings to a target.

    Attributes:
        scratch: E_0, the mean score without a source.
        scores: E of each source.
    """

    scratch: float
    scores: dict[str, float]

    def gains(self) -> dict[str, float]:
        """g of each source. Raises `BadInput` where E_0 is not above 0, so that a relative gain has no meaning."""
        if not self.scratch > 0:
            raise BadInput(f"the score from scratch is {self.scratch:g}; relative gains need one above 0")
        return {name: (score - self.scratch) / self.scratch for name, score in self.scores.items()}


def transfer(
    model: nn.Module, sources: Sequence[Source], target: Data, test: Data, recipe: Recipe, *, score: Score = accuracy,
    restarts: int = 5, seed: int = 0,
) -> Transfer:  # fmt: skip
    """Train on ``target`` from each source and from scratch, each ``restarts`` times, with a fresh readout.

    Args:
        model: the frozen encoder.
        sources: each with a delta of the recipe's changes.
        target, test: learnt from, and scored on.
        recipe: how; its slot ``start`` must be free.
        score: of what came out; higher is better.
        restarts: seeds.
        seed: the first of them.

    Raises:
        BadInput: no sources, or none learnt; fewer than one restart.
    """
    _named(sources)
    if restarts < 1:
        raise BadInput(f"restarts is {restarts}; it must be at least 1")

    def mean(made: Recipe) -> float:
        return sum(score(tune(model, target, made, seed=seed + i), test) for i in range(restarts)) / restarts

    return Transfer(mean(recipe), {s.name: mean(recipe | Recipe(start=From(s.learnt()))) for s in sources})


def _named(sources: Sequence[Source]) -> None:
    """Raise `BadInput` where there are no sources, or two of a name."""
    if not sources:
        raise BadInput("there is no source to choose from")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two sources are called {name!r}")


@dataclass(frozen=True)
class Regret:
    """How much is lost by training on the best of the first k only.

    Attributes:
        percent: of the best score; ``None`` where that is not above 0.
        absolute: in units of the score.
    """

    percent: float | None
    absolute: float


def regret(true: Mapping[str, float], ranking: Sequence[str], k: int = 1) -> Regret:
    """Regret@k of a ranking.

    Args:
        true: E of every source.
        ranking: their names, the best first.
        k: how many are tried.

    Raises:
        BadInput: the ranking is not of these sources; k is not 1 to their number.
    """
    _same(true, ranking)
    if not 1 <= k <= len(ranking):
        raise BadInput(f"k is {k}; there are {len(ranking)} sources")
    best = max(true.values())
    lost = best - max(true[name] for name in ranking[:k])
    return Regret(100 * lost / best if best > 0 else None, lost)


def ndcg(true: Mapping[str, float], ranking: Sequence[str]) -> float:
    """The normalised discounted cumulative gain of a ranking, 1 for the true order.

    Args:
        true: E of every source, from 0 to 1.
        ranking: their names, the best first.

    Raises:
        BadInput: the ranking is not of these sources; a score is outside of 0 to 1; all are 0.
    """
    _same(true, ranking)
    for name, value in true.items():
        if not 0 <= value <= 1:
            raise BadInput(f"NDCG takes scores from 0 to 1; {name!r} has {value:g}: scale them")
    best = _gain(sorted(true.values(), reverse=True))
    if not best:
        raise BadInput("all scores are 0, so that no order is better than another")
    return _gain([true[name] for name in ranking]) / best


def brought(true: Mapping[str, float], ranking: Sequence[str], k: int = 1) -> dict[str, float]:
    """The ``mean`` and the ``best`` score, or gain, of the first k. Raises `BadInput` as `regret`."""
    regret(true, ranking, k)
    values = [true[name] for name in ranking[:k]]
    return {"mean": sum(values) / k, "best": max(values)}


def _gain(relevance: Sequence[float]) -> float:
    return sum((2**rel - 1) / math.log2(place + 1) for place, rel in enumerate(relevance, start=1))


def _same(true: Mapping[str, float], ranking: Sequence[str]) -> None:
    for name in sorted({*ranking} ^ {*true}):
        raise BadInput(f"source {name!r} is in the ranking or in the scores only")
    if len({*ranking}) < len(ranking) or not ranking:
        raise BadInput("a ranking names every source once")
    if not all(math.isfinite(value) for value in true.values()):
        raise BadInput("a score is no number")


def relative(values: Mapping[str, float]) -> dict[str, float]:
    """Scores scaled to 0 to 1, the worst to the best, for `ndcg`; all 1 where they are equal.

    Raises:
        BadInput: there are none, or one is no number.
    """
    if not values or not all(math.isfinite(value) for value in values.values()):
        raise BadInput("scores to be scaled are one at least, and all numbers")
    low, high = min(values.values()), max(values.values())
    rows = torch.tensor(list(values.values()), dtype=torch.float64)
    scaled = (rows - low) / (high - low) if high > low else torch.ones_like(rows)
    return dict(zip(values, scaled.tolist(), strict=True))
