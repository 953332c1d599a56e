"""Answers to the same queries under several templates (080): what is lost where the wording is another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from handful.core.intervals import Estimate, mean_interval
from handful.errors import BadInput
from handful.evaluate.in_context import Answerer, right
from handful.evaluate.toy_tasks import ToyTask
from handful.pretrain.examples import Example, with_shots


@dataclass(frozen=True)
class Shift:
    """Answers to n queries under T templates, the known ones first.

    Args:
        known: how many are.
        right: ``[T, n]``, 1 for a right answer.
        said: the answers, by template.
    """

    known: int
    right: np.ndarray
    said: tuple[tuple[str, ...], ...]

    @property
    def drop(self) -> np.ndarray:
        """Of each query ``[n]``: the share of known templates under which it is right, less that of the others."""
        out: np.ndarray = self.right[: self.known].mean(0) - self.right[self.known :].mean(0)
        return out

    @property
    def agreement(self) -> float:
        """See `agreement`."""
        return agreement(self.said)


def agreement(said: Sequence[Sequence[str]]) -> float:
    """Share of queries answered alike under two templates, the mean over pairs.

    Raises:
        BadInput: there are fewer than two templates.
    """
    if len(said) < 2:
        raise BadInput("one template agrees with no other; give two at least")
    pairs = [np.mean([a == b for a, b in zip(x, y, strict=True)]) for x, y in combinations(said, 2)]
    return float(np.mean(pairs))


def shift(
    answer: Answerer, task: ToyTask, known: Sequence[str], other: Sequence[str],
    shots: Sequence[tuple[str, str]] = (), shown_in: int = 0,
) -> Shift:  # fmt: skip
    """Ask all queries of a task under every template.

    Args:
        answer: what is asked.
        task: its queries.
        known, other: templates with ``{text}``.
        shots: examples that are shown.
        shown_in: in which known template.
    """
    said, hit = [], []
    for template in (*known, *other):
        asked = written(task, task.queries, template, shots, known[shown_in])
        found = answer(asked)
        said.append(tuple(found))
        hit.append(right(asked, found, "same"))
    return Shift(len(known), np.stack(hit), tuple(said))


def written(
    task: ToyTask, pairs: Sequence[tuple[str, str]], template: str, shots: Sequence[tuple[str, str]] = (),
    shown_in: str = "",
) -> list[Example]:  # fmt: skip
    """Texts in a template, behind examples in another."""
    front = [(shown_in.replace("{text}", text), answer) for text, answer in shots]
    return [
        Example(with_shots(template.replace("{text}", text), front, " ", "\n\n"), answer, task.options, task.name)
        for text, answer in pairs
    ]


def summary(shifts: Sequence[Shift]) -> dict[str, Any]:
    """Of one task, way and number of examples, over seeds."""
    right_ = np.mean([one.right for one in shifts], axis=0)
    known = shifts[0].known

    def over(values: np.ndarray, low: float = 0.0) -> dict[str, float]:
        return mean_interval(values, within=(low, 1.0)).as_dict()

    by_template = right_.mean(1)
    return {
        "known": over(right_[:known].mean(0)), "other": over(right_[known:].mean(0)),
        "drop": over(np.mean([one.drop for one in shifts], axis=0), -1.0),
        "worst": float(by_template.min()), "spread": float(by_template.std()),
        "agreement": float(np.mean([one.agreement for one in shifts])),
    }  # fmt: skip


def advised(name: str, prompt: Sequence[Sequence[Shift]], tune: Sequence[Sequence[Shift]]) -> str:
    """Which way loses less when the wording changes, by the paired difference of drops over queries.

    Args:
        name: of the model.
        prompt, tune: by task and seed; the drop of a query is its mean over seeds.
    """
    of_query = [
        np.mean([a.drop - b.drop for a, b in zip(some, others, strict=True)], axis=0)
        for some, others in zip(prompt, tune, strict=True)
    ]
    difference: Estimate = mean_interval(np.concatenate(of_query))
    shown = f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
    levels = [float(np.mean([one.right[one.known :].mean() for some in way for one in some])) for way in (prompt, tune)]
    rest = f"other wordings: {levels[0]:.2f} prompted, {levels[1]:.2f} tuned"
    if difference.low > 0:
        return f"{name}: tuning holds up better; prompting drops {shown} more where the wording changes ({rest})"
    if difference.high < 0:
        return f"{name}: prompting holds up better; its drop less that of tuning is {shown} ({rest})"
    return f"{name}: which holds up better cannot be told; drop of prompting less that of tuning {shown} ({rest})"
