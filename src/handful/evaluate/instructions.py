"""What instruction tuning brings (paper 121, Flan: Chung et al., Scaling Instruction-Finetuned Language Models, 2022).

    benchmark   `judge`: suites of tasks held out, answered at once or by reasoning first, and their normalised average
    study       `task_scaling`: the same as a function of how many tasks were learnt, such as 1, 4, 16, 64

What is tested must not be learnt: tasks of one name, and inputs that share 13 words in a row with what is learnt, are
refused (`handful.pretrain.overlap`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handful.core.intervals import Estimate, mean_interval
from handful.core.shares import Shares, checked_weights
from handful.encode.lm import LanguageModel
from handful.encode.say import say
from handful.errors import BadInput
from handful.evaluate.gauntlet import normalised_average
from handful.evaluate.in_context import Answerer, answerer, prompted, right, shown
from handful.evaluate.wording import short_answer
from handful.pretrain.examples import Example, Framing, by_task
from handful.pretrain.instruct import Instruct
from handful.pretrain.mixture import InstructionMixture
from handful.pretrain.overlap import refuse_leaks
from handful.pretrain.reasoning import answer_of, majority
from handful.protocols import Progress
from handful.tune.delta import attached
from handful.tune.tuned import Tuned


@dataclass(frozen=True)
class Suite:
    """Tasks that are tested alike, such as MMLU with five examples shown.

    Args:
        name: of it; one that reasons counts apart from the one that does not, as in the paper.
        examples: tested ones, of one task or several.
        pool: what is shown is drawn from those of the same task.
        k: examples shown.
        chance: score of a guesser in each task; by default 1 / options, whether the suite reasons or not, and 0
            for free text.
        reasons: whether the answer is read behind a phrase such as "the answer is"; then free text counts as well.
    """

    name: str
    examples: Sequence[Example]
    pool: Sequence[Example] = ()
    k: int = 0
    chance: float | None = None
    reasons: bool = False

    @property
    def guesser(self) -> dict[str, float]:
        """Score of a guesser in each task."""

        def chance(some: Sequence[Example]) -> float:
            return float(np.mean([1 / len(one.options) if one.options else 0 for one in some]))

        own = self.chance
        return {task: chance(some) if own is None else own for task, some in by_task(self.examples).items()}


@dataclass(frozen=True)
class SuiteScore:
    """A suite's score.

    Args:
        name: of the suite.
        tasks: score of each task.
        mean: over tasks, with the interval over tested examples.
        normalised: the mean over tasks of their normalised scores, 0 for a guesser.
    """

    name: str
    tasks: Mapping[str, float]
    mean: Estimate
    normalised: float


@dataclass(frozen=True)
class Judged:
    """All suites, and the mean of their normalised scores."""

    suites: tuple[SuiteScore, ...]
    average: float

    def table(self) -> list[dict[str, Any]]:
        """A row a suite, and one of the average."""
        rows = [
            {"suite": one.name, "tasks": len(one.tasks), **one.mean.as_dict(), "normalised": one.normalised}
            for one in self.suites
        ]
        return [*rows, {"suite": "average", "normalised": self.average}]


def reasoner(
    model: LanguageModel, tuned: Tuned | None = None, framing: Framing | None = None, *, most: int = 64,
    samples: int = 1, temperature: float = 0.7, seed: int = 0,
) -> Answerer:  # fmt: skip
    """What asks a language model to reason, and reads its answer behind the last "the answer is".

    Args:
        model, tuned, framing: see `answerer`.
        most: tokens of the reasoning and its answer at most.
        samples: 1 takes the likeliest tokens; of several the answer most agree on counts (self-consistency).
        temperature, seed: of the samples.
    """
    frame = framing or Framing()
    if samples < 1:
        raise BadInput(f"samples is {samples}; take at least one")

    def ask(examples: Sequence[Example]) -> list[str]:
        prompts = prompted(frame, model, examples)
        warmth = temperature if samples > 1 else 0.0
        with attached(tuned.delta if tuned else None, model.tower):
            each = [
                say(model, prompts, most, stop=None, temperature=warmth, seed=seed + number)
                for number in range(samples)
            ]
        return [majority([answer_of(said) for said in one], short_answer) or "" for one in zip(*each, strict=True)]

    return ask


def judge(
    suites: Sequence[Suite], answer: Answerer, reason: Answerer | None = None, *, learnt: Sequence[Example] = (),
    seed: int = 0,
) -> Judged:  # fmt: skip
    """Score suites of held-out tasks.

    Args:
        suites: names differ.
        answer: answers those that do not reason.
        reason: answers those that do.
        learnt: what the judged model was tuned on; it must not be in what is tested.
        seed: of what is shown.

    Raises:
        BadInput: no suites; a suite is empty, reasons without ``reason``, or has no chance from 0 to 1; a tested task
            was learnt.
    """
    names = [suite.name for suite in suites]
    if not names or len(set(names)) < len(names) or not all(suite.examples for suite in suites):
        raise BadInput("give suites, each with a name of its own and examples")
    out: list[SuiteScore] = []
    for suite in suites:
        if learnt:
            refuse_leaks(learnt, suite.examples)
        if suite.chance is not None and not 0 <= suite.chance < 1:
            raise BadInput(f"suite {suite.name!r} has chance {suite.chance:g}; it is at least 0 and below 1")
        if suite.reasons and reason is None:
            raise BadInput(f"suite {suite.name!r} reasons; say who reasons, such as reasoner(model)")
        pools = by_task(suite.pool)
        tasks: dict[str, float] = {}
        scores: list[np.ndarray] = []
        for task, some in by_task(suite.examples).items():
            asked = shown(some, pools.get(task, ()), suite.k, seed)
            who = reason if suite.reasons and reason is not None else answer
            judged = [replace(one, options=()) for one in some] if suite.reasons else some
            scores.append(right(judged, who(asked)))
            tasks[task] = float(scores[-1].mean())
        weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in scores])  # tasks count alike
        hit = np.concatenate(scores) > 0
        mean = Shares(weights=checked_weights(weights, len(hit)))(hit, np.ones(len(hit), dtype=bool))
        normalised = normalised_average({suite.name: tasks}, {suite.name: suite.guesser})
        out.append(SuiteScore(suite.name, tasks, mean, normalised))
    return Judged(tuple(out), sum(one.normalised for one in out) / len(out))


def task_scaling(
    model: LanguageModel,
    mixture: InstructionMixture,
    suites: Sequence[Suite],
    *,
    counts: Sequence[int] = (1, 4, 16, 64),
    examples: int = 1000,
    settings: Instruct | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    most: int = 8,
    reason_most: int = 64,
    progress: Progress | None = None,
    tuned: Callable[[int, int, Tuned], None] | None = None,
) -> list[dict[str, Any]]:
    """The normalised average on held-out suites by how many tasks were learnt.

    Args:
        model: causal or seq2seq; it is as it was afterwards.
        mixture: of the tasks that may be learnt; the first of a random order by seed, so that sets are nested.
        suites: held out.
        counts: how many tasks; those above the number of tasks are left out. 0, the model as it is, stands in front.
        examples: drawn of each mixture, the same number whatever its tasks.
        settings: of tuning.
        seeds: of the order of tasks and of training.
        most, reason_most: tokens of an answer at most, without and with reasoning.
        progress: called with (runs done, runs in all).
        tuned: called with tasks, seed and what was tuned.

    Returns:
        Rows ``{"tasks", "value", "low", "high", "each"}``: the mean over seeds with Student's interval.

    Raises:
        BadInput: no count fits; a tested task is learnt.
    """
    fitting = [n for n in counts if 1 <= n <= len(mixture.tasks)]
    if not fitting or not seeds:
        raise BadInput(f"there are {len(mixture.tasks)} tasks to learn, which none of {list(counts)} fits, or no seed")
    how = settings or Instruct()

    def scored(learned: Tuned | None) -> float:
        # A model that never learnt the separator is asked without: it would take it for the end.
        frame = replace(how.framing, separator=how.framing.separator and learned is not None)
        said = answerer(model, learned, frame, most=most)
        reasons = reasoner(model, learned, frame, most=reason_most)
        return judge(suites, said, reasons).average

    before = scored(None)
    rows: list[dict[str, Any]] = [{"tasks": 0, "value": before, "low": before, "high": before, "each": [before]}]
    for done, n in enumerate(fitting):
        each = []
        for number, seed in enumerate(seeds):
            order = np.random.default_rng(seed).permutation(len(mixture.tasks))[:n]
            part = replace(mixture, tasks=[mixture.tasks[int(i)] for i in order], seed=seed)
            drawn = part.draw(examples)
            for suite in suites:
                refuse_leaks(drawn, suite.examples)
            learned = how.fit(model, drawn, seed=seed)
            each.append(scored(learned))
            if tuned is not None:
                tuned(n, seed, learned)
            if progress is not None:
                progress(done * len(seeds) + number + 1, len(fitting) * len(seeds))
        rows.append({"tasks": n, **mean_interval(each).as_dict(), "each": each})
    return rows
