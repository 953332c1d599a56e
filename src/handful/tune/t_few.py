"""T-Few: one fixed recipe that tunes a language model to choose among answers (paper 027, Liu et al., Few-Shot
Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, 2022).

    score_c = -sum_t log p(token t of answer c) / len_c ** p         the answer is the one with the smallest
    L_LM    mean of -log p over all tokens of the right answers in the batch
    L_LN    cross-entropy of softmax(-score)
    L_UL    mean of -log(1 - p + 0.01) over all tokens of the wrong answers
    L       L_LM + w_LN L_LN + w_UL L_UL

1000 steps of 8 items, Adafactor at 0.003, of which 6 % to warm up, then linear to 0. A text is put into one of the
templates, drawn anew each time. The model's answers are read by `handful.tune.prompting.Ranked`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from handful.core.adafactor import Adafactor
from handful.encode.hf import quiet
from handful.encode.language_tower import normalised
from handful.encode.lm import LanguageModel, choices_of
from handful.encode.prompt import Prompt, Question
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.fillers import Shuffled
from handful.tune.ia3 import ia3
from handful.tune.loop import tune
from handful.tune.prompting import Ranked, Texts, listed
from handful.tune.recipe import Data, Recipe, Seen, Stage, Start
from handful.tune.tuned import Tuned
from handful.tune.zoo import From

MARGIN = 0.01
"""Keeps L_UL finite where a wrong token is certain."""


@dataclass(frozen=True)
class LanguageLoss:
    """L_LM: the mean over tokens, not over items; an item's weight is that of its tokens."""

    name = "lm"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        own: Tensor = seen.features[torch.arange(len(seen.labels)), seen.labels]
        known = own > float("-inf")
        weight = known * seen.weight[:, None]
        return -(weight * torch.where(known, own, 0.0)).sum() / weight.sum()


@dataclass(frozen=True)
class LengthNormalised:
    """L_LN, ``weight`` times.

    Args:
        weight: w_LN.
        length_norm: p.
    """

    weight: float = 1.0
    length_norm: float = 1.0
    name = "length-normalised"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        scores = normalised(seen.features, self.length_norm)
        each = functional.cross_entropy(scores, seen.labels, reduction="none")
        return self.weight * seen.mean(each)


@dataclass(frozen=True)
class Unlikelihood:
    """L_UL, ``weight`` times; 0 where there is no wrong answer.

    Args:
        weight: w_UL.
        reference: add what the authors' code adds: ``-log(1.01)`` for every place of the padded answers that holds no
            token, or one of the right answer. It has no gradient.
    """

    weight: float = 1.0
    reference: bool = False
    name = "unlikelihood"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        known: Tensor = seen.features > float("-inf")
        right = functional.one_hot(seen.labels, known.shape[1]).bool()[..., None]
        wrong = known & ~right
        p = torch.where(wrong, seen.features, float("-inf")).exp()
        each = torch.where(wrong | torch.tensor(self.reference), -torch.log1p(MARGIN - p), 0.0)
        counted = (wrong * seen.weight[:, None, None]).sum().clamp_min(1e-30)
        return self.weight * (each * seen.weight[:, None, None]).sum() / counted


@dataclass(frozen=True)
class TFew:
    """The recipe short of what changes: choose sites with ``changes``.

    Args:
        steps, lr, batch, warmup: of training.
        w_ln, w_ul: of the losses; 0 leaves one out (as the paper does for 77 classes).
        length_norm: p.
        reference: see `Unlikelihood`.
        relative: whether steps go by the size of what learns, see `Adafactor`.
    """

    steps: int = 1000
    lr: float = 3e-3
    batch: int = 8
    warmup: float = 0.06
    w_ln: float = 1.0
    w_ul: float = 1.0
    length_norm: float = 1.0
    reference: bool = False
    relative: bool = True

    def __post_init__(self) -> None:
        if not all(0 <= some < float("inf") for some in (self.w_ln, self.w_ul, self.length_norm)):
            raise BadInput(f"w_ln, w_ul and length_norm are 0 or more: {self.w_ln}, {self.w_ul}, {self.length_norm}")

    def recipe(self, changes: tuple[Placed, ...] = ()) -> Recipe:
        """As a `Recipe`; its inputs are questions, see `LanguageModel.questions`."""
        terms: list[Any] = [LanguageLoss()]
        terms += [LengthNormalised(self.w_ln, self.length_norm)] if self.w_ln else []
        terms += [Unlikelihood(self.w_ul, self.reference)] if self.w_ul else []
        stage = Stage(
            steps=self.steps, lr=self.lr, batch=self.batch, warmup=self.warmup, clip=1.0,
            update=lambda decay: Adafactor(decay, relative=self.relative),
        )  # fmt: skip
        readout = partial(Ranked, self.length_norm)
        return Recipe(changes, tuple(terms), (stage,), readout=readout, sampler=Shuffled(whole=True))


@dataclass(frozen=True)
class Asked:
    """Puts each item into one of several templates, drawn anew: the slot `augment`; an item is texts and answers.

    Args:
        model: whose tokenizer and reach count.
        templates: at least one.
        most: tokens of a prompt at most. Of a longer one a seq2seq model reads the first, and the sign that ends it;
            for another the texts are shortened, so that the question stays.
    """

    model: LanguageModel
    templates: tuple[Template, ...]
    most: int = 256

    def __call__(self, inputs: Any, rows: Tensor, generator: torch.Generator) -> list[Question]:
        drawn = torch.randint(len(self.templates), (len(inputs),), generator=generator).tolist()
        return [self.ask(item, number) for item, number in zip(inputs, drawn, strict=True)]

    def ask(self, item: tuple[Sequence[str], tuple[tuple[int, ...], ...]], number: int) -> Question:
        """The item in template ``number``. Raises `BadInput` where the template leaves no room for texts."""
        texts, answers = item
        template, tokenizer, read = self.templates[number], self.model.tokenizer, self.model.most
        with quiet():  # it would warn of long texts
            whole = template.encode(tokenizer, texts)
        if self.model.kind == "seq2seq":  # the last ones are cut, as by T5's tokenizer
            most, ends = min(self.most, read), template.parts[-1] in ("sep", "sep+")
            if len(whole.ids) > most:
                whole = Prompt.of((*whole.ids[: most - ends], *whole.ids[len(whole.ids) - ends :]), None)
            return Question(whole, answers)
        most = min(self.most, read - max(map(len, answers), default=0))
        if len(whole.ids) > most:
            room = template.room(tokenizer, most)
            whole = template.encode(tokenizer, texts, first=room, others=room)
        return Question(whole, answers)


@dataclass
class TFewClassifier:
    """A few-shot chooser of answers. See `handful.tune.t_few`.

    Args:
        model: seq2seq (the paper's), causal or masked.
        templates: in the language of `handful.encode.template`, one or several.
        settings: of training.
        changes: what learns, for the model's tower; by default the vectors of (IA)^3.
        most: tokens of a prompt at most, see `Asked`.
        start: a run whose delta is begun from, such as one over many tasks (the paper pre-trains the vectors), or what
            fills that slot of a recipe.
        seed: of every draw.
    """

    model: LanguageModel
    templates: Sequence[str]
    settings: TFew = field(default_factory=TFew)
    changes: Callable[[Any], tuple[Placed, ...]] = ia3
    most: int = 256
    start: Tuned | Start | None = None
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.templates or isinstance(self.templates, str):
            raise BadInput("templates are a list, with one at least")
        self._asked = Asked(self.model, tuple(map(Template, self.templates)), self.most)

    def fit(
        self, texts: Texts, labels: Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
    ) -> TFewClassifier:  # fmt: skip
        """Learn from a few examples.

        Args:
            texts: a text an example, or several.
            labels: the right answer of each, one of its choices.
            choices: answers to every item, or for each its own, as many as it may be.

        Raises:
            BadInput: a label that is none of its choices; two of these that have the same tokens; see
                `LanguageModel.answers`.

        Examples that all have one answer are learnt from, with a warning.
        """
        if len(labels) != len(texts):
            raise BadInput(f"{len(texts)} texts, but {len(labels)} labels")
        items, offered = self._items(texts, choices)
        for number, (label, some) in enumerate(zip(labels, offered, strict=True)):
            if label not in some:
                raise BadInput(f"label {label!r} of example {number} is none of its choices {list(some)[:5]}")
            if alike := _alike(some, items[number][1]):
                raise BadInput(
                    f"choices {alike[0]!r} and {alike[1]!r} of example {number} are the same to the tokenizer"
                )
        if len(labels) > 1 and len(set(labels)) == 1:
            warnings.warn(f"all {len(labels)} examples have the answer {labels[0]!r}", UserWarning, stacklevel=2)
        right = torch.tensor([list(some).index(label) for label, some in zip(labels, offered, strict=True)])
        ways = max(map(len, offered))
        data = Data(items, functional.one_hot(right, ways).float())
        placed = self.changes(self.model.tower)
        start = From(self.start.delta) if isinstance(self.start, Tuned) else self.start
        recipe = self.settings.recipe(placed) | Recipe(augment=(self._asked,), start=start)
        self.tuned = tune(self.model.tower, data, recipe, seed=self.seed)
        return self

    def logits(
        self, texts: Texts, choices: Sequence[str] | Sequence[Sequence[str]],
        template: int = 0,
    ) -> Tensor:  # fmt: skip
        """``-score`` of each answer ``[n, C]``, ``-inf`` behind the last of an item, asked with one template."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        if not 0 <= template < len(self.templates):
            raise BadInput(f"there is no template {template}; there are {len(self.templates)}, counted from 0")
        items, offered = self._items(texts, choices)
        questions = [self._asked.ask(item, template) for item in items]
        ways = max(map(len, offered))
        parts = []
        with self.tuned.delta.attached(self.model.tower), torch.no_grad():
            for at in range(0, len(questions), self.settings.batch):
                scores = normalised(
                    self.model.tower(questions[at : at + self.settings.batch]), self.settings.length_norm
                )
                parts.append(functional.pad(scores, (0, ways - scores.shape[1]), value=float("-inf")))
        return torch.cat(parts)

    def predict(
        self, texts: Texts, choices: Sequence[str] | Sequence[Sequence[str]],
        template: int = 0,
    ) -> np.ndarray:  # fmt: skip
        """The answer to each item ``[n]``."""
        _, offered = self._items(texts, choices)
        best = self.logits(texts, choices, template).argmax(1).tolist()
        return np.array([some[c] for some, c in zip(offered, best, strict=True)], dtype=object)

    def accuracies(
        self, texts: Texts, labels: Sequence[str],
        choices: Sequence[str] | Sequence[Sequence[str]],
    ) -> np.ndarray:  # fmt: skip
        """By template ``[T]``; the paper reports their median and quartiles, over five seeds."""
        right = np.array(labels, dtype=object)
        each = [(self.predict(texts, choices, number) == right).mean() for number in range(len(self.templates))]
        return np.array(each, dtype=float)

    def _items(self, texts: Any, choices: Any) -> tuple[list[Any], list[Sequence[str]]]:
        if not len(texts):
            raise BadInput("there are no texts")
        answers = self.model.answers(len(texts), choices)
        items = [(text, tuple(own)) for text, own in zip(listed(texts), answers, strict=True)]
        return items, choices_of(len(texts), choices)


def _alike(choices: Sequence[str], tokens: Sequence[tuple[int, ...]]) -> tuple[str, str] | None:
    """Two choices with the same tokens, where there are such."""
    seen: dict[tuple[int, ...], str] = {}
    for choice, own in zip(choices, tokens, strict=True):
        if own in seen:
            return seen[own], choice
        seen[own] = choice
    return None
