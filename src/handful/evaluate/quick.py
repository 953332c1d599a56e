"""How many examples a model needs (paper 178, Gupta et al., Instruction Tuned Models are Quick Learners, 2023).

    curve      the score on tested rows, the mean over tasks, by budget of examples; a band by resampling tasks
    crossing   the least budget whose score reaches a target, on the curve made monotone, straight in log budget
    saving     budget of B / budget of A at one score

Starts, such as an instruction-tuned model and a plain one, learn each task on its own or all jointly, from inputs with
instructions or without; the score is ROUGE-L, exact match or F1 of words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from sklearn.isotonic import IsotonicRegression

from handful.core.intervals import Estimate, percentiles, resample
from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.evaluate.in_context import Answerer, answerer
from handful.evaluate.wording import measured
from handful.pretrain.examples import Example
from handful.pretrain.instruct import Instruct, quick_learner
from handful.pretrain.quick import SIZES, QuickTask, make_budgets
from handful.protocols import Progress


@dataclass(frozen=True)
class Curve:
    """Score by budget.

    Args:
        start: what was tuned.
        budgets: names, such as ``"10"``.
        rows: examples learnt from at each budget, the mean over tasks (learnt on their own) or a task (jointly).
        scores: ``[budgets, tasks]``.
        tasks: names.
        band: mean over tasks with its interval, by budget.
        categories: of each task.
        leaks: whether each task is tested on what is learnt.
        zero: score of each task before anything is learnt ``[tasks]``.
        cut: how many texts were longer than the settings allow and cut, in learning and in asking, by ``"inputs"`` and
            ``"targets"``.
    """

    start: str
    budgets: tuple[str, ...]
    rows: np.ndarray
    scores: np.ndarray
    tasks: tuple[str, ...]
    band: tuple[Estimate, ...]
    categories: tuple[str, ...]
    leaks: tuple[bool, ...]
    zero: np.ndarray
    cut: Mapping[str, int] = field(default_factory=dict)

    def table(self) -> list[dict[str, Any]]:
        """A row a budget; by category where there are some."""
        out = [{"start": self.start, "budget": "0", "rows": 0.0, "value": float(self.zero.mean())}]
        for name, rows, estimate, scores in zip(self.budgets, self.rows, self.band, self.scores, strict=True):
            row: dict[str, Any] = {"start": self.start, "budget": name, "rows": float(rows), **estimate.as_dict()}
            for category in dict.fromkeys(filter(None, self.categories)):
                row[category] = float(scores[[one == category for one in self.categories]].mean())
            out.append(row)
        return out


def sample_efficiency(
    starts: Mapping[str, LanguageModel],
    tasks: Sequence[QuickTask],
    sizes: Sequence[int | str] = SIZES,
    *,
    joint: bool = False,
    measure: Literal["rouge-l", "exact", "f1"] = "rouge-l",
    settings: Instruct | None = None,
    most: int = 128,
    leaking: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Curve]:
    """The curve of each start.

    Args:
        starts: models by name; they are as they were afterwards.
        tasks: see `handful.pretrain.quick.quick_task`, with instructions or without.
        sizes: budgets; jointly each takes the same from every task.
        joint: one model of all tasks instead of one a task.
        measure: see `measured`.
        settings: of tuning; the paper's by default.
        most: tokens of an answer at most.
        leaking: count tasks that are tested on what they learn as well; else they are left out.
        seed: of training.
        progress: called with (runs done, runs in all).

    Raises:
        BadInput: no starts; no tasks are left.
    """
    fair = [task for task in tasks if leaking or not task.leaks]
    if not starts or not fair:
        raise BadInput(f"give a model to start from and tasks; of {len(tasks)} tasks {len(fair)} do not leak")
    names = [task.name for task in fair]
    if len(set(names)) < len(names):
        raise BadInput("two tasks have one name")
    how = settings or quick_learner()
    budgets = [make_budgets(task.train, sizes) for task in fair]
    runs = len(starts) * len(sizes) * (1 if joint else len(fair))
    done, out = 0, {}
    for start, model in starts.items():

        def score(answer: Answerer, some: Sequence[QuickTask]) -> list[float]:
            return [_score(answer, task, measure) for task in some]

        before = dict(how.framing.cut)
        plain = replace(how.framing, separator=False)  # which the model as it is has never seen
        zero = score(answerer(model, None, plain, most=most, stop=None), fair)
        scores = np.empty((len(sizes), len(fair)))
        for at, size in enumerate(map(str, sizes)):
            groups = [list(range(len(fair)))] if joint else [[i] for i in range(len(fair))]
            for group in groups:
                learnt: list[Example] = [one for i in group for one in budgets[i][size]]
                tuned = how.fit(model, learnt, seed=seed)
                answer = answerer(model, tuned, how.framing, most=most, stop=None)
                scores[at, group] = score(answer, [fair[i] for i in group])
                done += 1
                if progress is not None:
                    progress(done, runs)
        rows = np.array([np.mean([len(b[str(size)]) for b in budgets]) for size in sizes])
        out[start] = Curve(
            start, tuple(map(str, sizes)), rows, scores, tuple(names), band(scores), tuple(t.category for t in fair),
            tuple(t.leaks for t in fair), np.array(zero), {k: n - before[k] for k, n in how.framing.cut.items()},
        )  # fmt: skip
    return out


def band(scores: np.ndarray, replicates: int = 1000, seed: int = 0) -> tuple[Estimate, ...]:
    """Mean over tasks of ``scores [budgets, tasks]``, with percentiles over resampled tasks; one task tells nothing."""
    means = scores.mean(1)
    if scores.shape[1] == 1:
        return tuple(Estimate(float(mean), 0.0, 1.0) for mean in means)
    table = np.concatenate([scores.T, np.ones((scores.shape[1], 1))], axis=1)
    drawn = resample(table, lambda sums: sums[:, :-1] / sums[:, -1:], replicates=replicates, seed=seed)
    return tuple(percentiles(float(mean), drawn[:, at]) for at, mean in enumerate(means))


def crossing(rows: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray, target: float) -> float | None:
    """The least number of examples with which the target is reached; ``None`` where no budget reaches it.

    Args:
        rows: budgets ``[n]`` above 0.
        scores: at each ``[n]``; where more examples seem to hurt, neighbours are averaged (isotonic regression).
        target: score to be reached.

    Raises:
        BadInput: not as many scores as budgets; budgets that are not above 0 or not numbers; a target that is none.
    """
    x, y = np.asarray(rows, dtype=float), np.asarray(scores, dtype=float)
    if x.shape != y.shape or not x.size or not (np.isfinite(x) & (x > 0)).all() or not np.isfinite(y).all():
        raise BadInput(f"{x.size} budgets above 0 and as many scores are needed, not {y.size}")
    if not np.isfinite(target):
        raise BadInput(f"the target is a score, not {target}")
    x, where = np.unique(np.log(x), return_inverse=True)
    y = np.bincount(where, y) / np.bincount(where)
    y = IsotonicRegression(increasing=True).fit_transform(x, y)
    reached = np.flatnonzero(y >= target)
    if not reached.size:
        return None
    at = int(reached[0])
    if at == 0:
        return float(np.exp(x[0]))
    share = (target - y[at - 1]) / (y[at] - y[at - 1])
    return float(np.exp(x[at - 1] + share * (x[at] - x[at - 1])))


@dataclass(frozen=True)
class Saving:
    """Examples that two starts need for one score.

    Args:
        target: the score.
        first, second: examples of each; ``None`` where it is not reached.
        ratio: ``second / first``; ``None`` where one is not reached. Its interval is over resampled tasks in which
            both reach the target.
    """

    target: float
    first: float | None
    second: float | None
    ratio: Estimate | None


def saving(first: Curve, second: Curve, target: float, replicates: int = 1000, seed: int = 0) -> Saving:
    """How many times as many examples the second start needs. Raises `BadInput` where the curves' tasks differ."""
    if first.tasks != second.tasks or first.budgets != second.budgets:
        raise BadInput("the two curves are not of the same tasks and budgets")
    a, b = (crossing(one.rows, one.scores.mean(1), target) for one in (first, second))
    if a is None or b is None:
        return Saving(target, a, b, None)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(replicates):
        some = rng.integers(len(first.tasks), size=len(first.tasks))
        both = [crossing(one.rows, one.scores[:, some].mean(1), target) for one in (first, second)]
        if both[0] is not None and both[1] is not None:
            drawn.append(both[1] / both[0])
    ratio = percentiles(b / a, np.array(drawn)) if drawn else Estimate(b / a, 0.0, float("inf"))
    return Saving(target, a, b, ratio)


def _score(answer: Answerer, task: QuickTask, measure: str) -> float:
    said = answer(task.test)
    return float(measured(said, [one.targets for one in task.test], measure).mean())
