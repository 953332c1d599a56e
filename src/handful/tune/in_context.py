"""Prompting with examples instead of tuning, and what either costs (the comparison of 027, Liu et al., Few-Shot
Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, 2022, sections 3.4 and 4).

    prompt       example 1, its answer, …, example k, its answer, the question; answers are ranked as in `t_few`
    inference    operations: N a token of a seq2seq model, of which a token sees one half; 2 N of a causal one
    training     three times that, of `steps` batches
    in context   every question reads the k examples again: k tokens_e + tokens_q
    stored       4 bytes for each number that was learnt, or for each token of the examples
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from handful.encode.asking import context_of
from handful.encode.language_tower import normalised
from handful.encode.lm import LanguageModel, choices_of
from handful.encode.prompt import Prompt, Question
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune.prompting import listed

BYTES = 4
"""Of a stored number, or token."""


@dataclass(frozen=True)
class Costs:
    """What a few-shot method costs.

    Attributes:
        inference: operations a question.
        training: operations before the first question.
        stored: bytes a task.
    """

    inference: float
    training: float
    stored: int

    def total(self, questions: float) -> float:
        """Operations of training and so many questions."""
        return self.training + questions * self.inference


def tuned_costs(
    parameters: float, trained: int, tokens: float, *, steps: int = 1000, batch: int = 8,
    kind: Literal["seq2seq", "causal"] = "seq2seq",
) -> Costs:  # fmt: skip
    """Of a model tuned by a few examples.

    Args:
        parameters: N.
        trained: numbers that learn, and are stored.
        tokens: of a question with all its answers, on average.
        steps, batch: of training.
        kind: of model.
    """
    one = _operations(parameters, tokens, kind)
    if trained < 1 or steps < 0 or batch < 1:
        raise BadInput(f"{trained} numbers learn in {steps} steps of {batch}; none of that can be")
    return Costs(one, 3 * one * steps * batch, BYTES * trained)


def prompted_costs(
    parameters: float,
    shots: int,
    tokens: float,
    example_tokens: float,
    *,
    kind: Literal["seq2seq", "causal"] = "causal",
) -> Costs:
    """Of a model that is shown ``shots`` examples of ``example_tokens`` tokens each with every question."""
    if shots < 0 or example_tokens < 0:
        raise BadInput(f"{shots} examples of {example_tokens} tokens cannot be")
    shown = shots * example_tokens
    return Costs(_operations(parameters, shown + tokens, kind), 0.0, round(BYTES * shown))


def break_even(tuned: Costs, prompted: Costs) -> float:
    """After how many questions the tuned model has cost less; infinity if a question costs no less."""
    saved = prompted.inference - tuned.inference
    return (tuned.training - prompted.training) / saved if saved > 0 else float("inf")


def _operations(parameters: float, tokens: float, kind: str) -> float:
    if kind not in ("seq2seq", "causal"):
        raise BadInput(f"kind is 'seq2seq' or 'causal', not {kind!r}")
    if not parameters > 0 or not tokens > 0:
        raise BadInput(f"{parameters:g} parameters and {tokens:g} tokens: both must be above 0")
    return (1 if kind == "seq2seq" else 2) * parameters * tokens


@dataclass
class InContext:
    """Answers by examples in the prompt; nothing is tuned. See `handful.tune.in_context`.

    Args:
        model: causal or seq2seq.
        template: of a text, in the language of `handful.encode.template`, without an answer.
        shots: k examples, drawn once; all by default.
        separator: between an answer and the next example.
        length_norm: p of `t_few`.
        batch: questions at a time.
        seed: of the draw and the order.
    """

    model: LanguageModel
    template: str
    shots: int | None = None
    separator: str = "\n"
    length_norm: float = 1.0
    batch: int = 8
    seed: int = 0
    shown: tuple[int, ...] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.model.kind == "masked":
            raise BadInput("a masked model is not prompted with examples here; see handful.tune.demonstrations")
        if self.batch < 1:
            raise BadInput(f"batch is a number of questions, 1 at least, not {self.batch}")
        self._template = Template(self.template)

    def fit(
        self, texts: Sequence[str] | Sequence[Sequence[str]], labels: Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
    ) -> InContext:  # fmt: skip
        """Draw the examples; arguments as for `TFewClassifier.fit`.

        Raises:
            BadInput: a label that is none of its choices; a choice twice; more examples are asked for than there are.
        """
        if len(labels) != len(texts):
            raise BadInput(f"{len(texts)} texts, but {len(labels)} labels")
        self.model.answers(len(texts), choices)
        for number, (label, some) in enumerate(zip(labels, choices_of(len(texts), choices), strict=True)):
            if label not in some:
                raise BadInput(f"label {label!r} of example {number} is none of its choices {list(some)[:5]}")
        shots = len(texts) if self.shots is None else self.shots
        if not 0 <= shots <= len(texts):
            raise BadInput(f"{shots} examples are to be shown, but there are {len(texts)}")
        rows = np.random.default_rng(self.seed).permutation(len(texts))[:shots].tolist()
        items = listed(texts)
        shown = [(items[row], labels[row]) for row in rows]
        self.shown, self._context = tuple(rows), context_of(self.model, self._template, shown, self.separator)
        return self

    def logits(
        self, texts: Sequence[str] | Sequence[Sequence[str]], choices: Sequence[str] | Sequence[Sequence[str]]
    ) -> Tensor:
        """``-score`` of each answer ``[n, C]``, ``-inf`` behind the last of an item.

        Raises:
            BadInput: before `fit`; no texts; examples and question are more than the model reads.
        """
        questions = self.questions(texts, choices)
        if not questions:
            raise BadInput("no texts")
        ways = max(len(one.answers) for one in questions)
        parts = []
        with torch.no_grad():
            for at in range(0, len(questions), self.batch):
                scores = normalised(self.model.tower(questions[at : at + self.batch]), self.length_norm)
                parts.append(torch.nn.functional.pad(scores, (0, ways - scores.shape[1]), value=float("-inf")))
        return torch.cat(parts)

    def predict(
        self, texts: Sequence[str] | Sequence[Sequence[str]], choices: Sequence[str] | Sequence[Sequence[str]]
    ) -> np.ndarray:
        """The answer to each item ``[n]``."""
        best = self.logits(texts, choices).argmax(1).tolist()
        return np.array([some[c] for some, c in zip(choices_of(len(texts), choices), best, strict=True)], dtype=object)

    def questions(
        self, texts: Sequence[str] | Sequence[Sequence[str]], choices: Sequence[str] | Sequence[Sequence[str]]
    ) -> list[Question]:
        """What the model is asked: the examples, then the text."""
        if self.shown is None:
            raise BadInput("this classifier has not been fitted")
        answers = self.model.answers(len(texts), choices)
        asked = [Prompt.of((*self._context, *self._ask(item)), None) for item in listed(texts)]
        return [Question(self.model.prompt(one), tuple(own)) for one, own in zip(asked, answers, strict=True)]

    def costs(self, questions: Sequence[Question]) -> Costs:
        """Of this model on these questions of its own."""
        own = [len(one.prompt.ids) - len(self._context) + sum(map(len, one.answers)) for one in questions]
        shots = max(len(self.shown or ()), 1)
        parameters = sum(p.numel() for p in self.model.tower.parameters())
        kind: Literal["seq2seq", "causal"] = "causal" if self.model.kind == "causal" else "seq2seq"
        return prompted_costs(
            parameters, shots, float(np.mean(own)), len(self._context) / shots, kind=kind
        )  # fmt: skip

    def _ask(self, item: Sequence[str]) -> tuple[int, ...]:
        return self._template.encode(self.model.tokenizer, item).ids


@dataclass(frozen=True)
class Middle:
    """The median of scores, and their first and third quartile: how the paper reports templates and seeds."""

    median: float
    low: float
    high: float


def middle(scores: Any) -> Middle:
    """Of accuracies of any shape, such as ``[seeds, templates]``."""
    values = np.asarray(scores, dtype=float).ravel()
    if not len(values) or np.isnan(values).any():
        raise BadInput("give at least one accuracy, and only numbers")
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Middle(float(median), float(low), float(high))
