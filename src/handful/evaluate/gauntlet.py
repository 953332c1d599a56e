"""Many benchmarks in one number that chance does not flatter.

score      (a - chance) / (best - chance)          0 for a guesser, 1 for a model without an error

paper 121 (Flan): the mean over suites of the mean score of their tasks, `normalised_average`
paper 185 (LIMIT): weighted means by category, a category with a benchmark missing dropped whole, and the mean of
    the categories, `Gauntlet`. Its accuracies are means over parts of a benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from handful.errors import BadInput

Weighting = Literal["equal", "size", "log-size"]


def rescaled(score: float, chance: float, best: float = 1.0) -> float:
    """How far a score is from chance to the best. Raises `BadInput` when chance is not below the best."""
    if not chance < best:
        raise BadInput(f"a guesser scores {chance:g}, which is not below the best, {best:g}")
    return (score - chance) / (best - chance)


def normalised_average(
    suites: Mapping[str, Mapping[str, float]],
    chance: Mapping[str, Mapping[str, float]] | Mapping[str, float],
    best: float = 1.0,
) -> float:
    """The mean over suites of the mean over their tasks of `rescaled` scores.

    Args:
        suites: by suite and task the score.
        chance: of a guesser, by suite, or by suite and task.
        best: the highest score there is.

    Raises:
        BadInput: no scores; one that is above the best, or no number; the chance of a task is not given.
    """
    if not suites or not all(suites.values()):
        raise BadInput("there are no scores to average: a suite is empty")
    means = []
    for suite, tasks in suites.items():
        own = chance.get(suite)
        if own is None or (isinstance(own, Mapping) and set(tasks) - set(own)):
            raise BadInput(f"the score of a guesser is not given for all of suite {suite!r}")
        for task, a in tasks.items():
            if not -math.inf < a <= best:
                raise BadInput(f"the score of {task!r} in suite {suite!r} is {a:g}; the best there is is {best:g}")
        each = [rescaled(a, own[task] if isinstance(own, Mapping) else own, best) for task, a in tasks.items()]
        means.append(sum(each) / len(each))
    return sum(means) / len(means)


@dataclass(frozen=True)
class Benchmark:
    """One of a category.

    Args:
        name: of it.
        shots: examples that are shown.
        chance: accuracy of a guesser.
    """

    name: str
    shots: int = 0
    chance: float = 0.0

    @property
    def key(self) -> str:
        """By what its results are found."""
        return f"{self.name}/{self.shots}-shot"


@dataclass(frozen=True)
class GauntletScores:
    """Scores by category, means of them, and what was dropped.

    Args:
        categories: score of each that is whole.
        averages: by name the mean of its categories that are whole; ``None`` where none is.
        missing: by dropped category the benchmarks without results.
    """

    categories: Mapping[str, float]
    averages: Mapping[str, float | None]
    missing: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Gauntlet:
    """Categories of benchmarks (185).

    Args:
        categories: by name.
        weighting: of the benchmarks of a category: the same, by their items, or by the binary logarithm of these, at
            least 1.
        subtract: take the accuracy of chance off.
        rescale: and divide by what is left above it; needs ``subtract``.
        averages: by name the categories whose mean it is; by default ``"average"`` of all.
    """

    categories: Mapping[str, Sequence[Benchmark]]
    weighting: Weighting = "equal"
    subtract: bool = True
    rescale: bool = True
    averages: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if self.weighting not in get_args(Weighting):
            raise BadInput(f"weighting is {self.weighting!r}; it is one of {', '.join(get_args(Weighting))}")
        if self.rescale and not self.subtract:
            raise BadInput("accuracies can be rescaled only with chance subtracted: set subtract=True")
        for name, parts in (self.averages or {}).items():
            if name in self.categories or not parts or set(parts) - set(self.categories):
                raise BadInput(f"average {name!r} must have a name of its own and be of categories that there are")
        for name, some in self.categories.items():
            if not some:
                raise BadInput(f"category {name!r} has no benchmark")
            for one in some:
                if not 0 <= one.chance < 1:
                    raise BadInput(f"benchmark {one.name!r} has chance {one.chance:g}; it is at least 0 and below 1")

    def score(self, results: Mapping[str, Sequence[float]], sizes: Mapping[str, int] | None = None) -> GauntletScores:
        """Judge results.

        Args:
            results: by `Benchmark.key` the accuracy of each of its parts.
            sizes: items by the same key; needed unless all weigh the same.

        Raises:
            BadInput: a size is needed and not given; a result is empty, or no share of items.
        """
        scores: dict[str, float] = {}
        missing: dict[str, tuple[str, ...]] = {}
        for name, some in self.categories.items():
            if absent := tuple(one.key for one in some if one.key not in results):
                missing[name] = absent
                continue
            weights = np.array([self._weight(one, sizes) for one in some])
            scores[name] = float(weights @ [self._scored(one, results[one.key]) for one in some] / weights.sum())
        averages: dict[str, float | None] = {}
        for name, parts in (self.averages or {"average": tuple(self.categories)}).items():
            whole = [scores[part] for part in parts if part in scores]
            averages[name] = sum(whole) / len(whole) if whole else None
        return GauntletScores(scores, averages, missing)

    def _scored(self, one: Benchmark, parts: Sequence[float]) -> float:
        if not len(parts):
            raise BadInput(f"the result of {one.key!r} is empty; leave it out, or give the accuracy of each part")
        if not all(0 <= part <= 1 for part in parts):
            raise BadInput(f"the result of {one.key!r} holds {list(parts)[:4]}; an accuracy is from 0 to 1")
        accuracy = float(np.mean(parts))
        if self.rescale:
            return rescaled(accuracy, one.chance)
        return accuracy - one.chance if self.subtract else accuracy

    def _weight(self, one: Benchmark, sizes: Mapping[str, int] | None) -> float:
        if self.weighting == "equal":
            return 1.0
        if sizes is None or one.key not in sizes:
            raise BadInput(f"weighting by {self.weighting!r} needs the number of items of {one.key!r}")
        n = max(sizes[one.key], 1)
        return float(n) if self.weighting == "size" else max(math.log2(n), 1.0)
