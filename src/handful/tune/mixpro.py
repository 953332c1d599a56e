"""MixPro: mixed texts, mixed states and many wordings of the question (paper 106, Li, Dou, Hou, Feng, Mu, Zhu, Sun,
Che, MixPro: Simple yet Effective Data Augmentation for Prompt-based Learning, 2023).

    template    each time an item is seen, one of the templates at random; an answer is the mean of the logits over all
    token       e = s e_i + (1 - s) e_j        word embeddings of item i and of item j in the template of i
    sentence    h = s h_i + (1 - s) h_j        last hidden states where i and j ask; then the head for words
    loss        CE(z_i, y_i) + mixed(token) + mixed(sentence),     mixed = s CE(z, y_i) + (1 - s) CE(z, y_j)
    s ~ Beta(alpha, alpha) for each pair; j is a random order of the batch
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.prompting import Texts, Words, everything, listed, one_hot, refuse_unpaired
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.tuned import Tuned

Level = Literal["token", "sentence", "template"]
LEVELS: tuple[Level, ...] = ("token", "sentence", "template")


def shares(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """s ``[count]`` from Beta(alpha, alpha)."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count)).float()


def mixed(rows: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """``s x_i + (1 - s) x_j`` of ``rows [B, …]`` and ``j = partner [B]``."""
    s = share.reshape(-1, *[1] * (rows.dim() - 1))
    return s * rows + (1 - s) * rows[partner]


@dataclass(frozen=True)
class Worded:
    """An item with the template that it is asked in.

    Args:
        texts: of the item.
        template: its number.
    """

    texts: tuple[str, ...]
    template: int


@dataclass(frozen=True)
class Wordings:
    """Templates, and how items are put into them; fills the slot `augment`, where it draws a template an item.

    Args:
        model: whose tokenizer counts.
        templates: one at least, of as many texts each.
        length: tokens at most.
        draws: whether a template is drawn for each item; otherwise the first one asks.
    """

    model: LanguageModel
    templates: tuple[Template, ...]
    length: int = 128
    draws: bool = True

    def __call__(self, inputs: Any, rows: Tensor, generator: torch.Generator) -> list[Worded]:
        ways = len(self.templates) if self.draws else 1
        chosen = torch.randint(ways, (len(inputs),), generator=generator).tolist()
        return [Worded(tuple(item), number) for item, number in zip(inputs, chosen, strict=True)]

    def ask(self, item: Worded, like: Worded | None = None) -> Prompt:
        """The item in its template, or in that of ``like``, each text as long as there."""
        number, most = (like or item).template, min(self.length, self.model.most)
        room, texts = self._rooms[number], () if like is None else like.texts
        return self.templates[number].encode(
            self.model.tokenizer, item.texts, first=room, others=room, most=most, like=texts
        )

    @cached_property
    def _rooms(self) -> list[int]:
        """Tokens of a text at most, in each template."""
        most = min(self.length, self.model.most)
        return [template.room(self.model.tokenizer, most) for template in self.templates]


@dataclass(frozen=True)
class MixedLoss:
    """See `handful.tune.mixpro`; the readout is `Words`.

    Args:
        wordings: how items are asked.
        levels: which of ``"token"`` and ``"sentence"`` are mixed.
        alpha: of the shares.
    """

    wordings: Wordings
    levels: tuple[Level, ...] = LEVELS
    alpha: float = 0.5
    name = "mixpro"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        model, items = seen.model, seen.inputs
        assert isinstance(model, LanguageTower)
        n = len(items)
        levels = {"token", "sentence"} & {*self.levels} if n > 1 else set()
        if n == 1 and {"token", "sentence"} & {*self.levels}:
            warnings.warn("a batch of one item has no partner to mix it with; it is learnt from as it is", stacklevel=2)
        prompts = [self.wordings.ask(item) for item in items]
        partner, states = torch.randperm(n, generator=seen.generator), shares(n, self.alpha, seen.generator)
        within = "sentence" in levels

        def mix(h: Tensor) -> Tensor:
            return torch.cat([h, mixed(h, partner, states)]) if within else h

        logits = seen.readout(model.after(prompts, mix), model)
        loss = _soft(logits[:n], seen.targets, seen.weight)
        if within:
            loss = loss + _soft(logits[n:], mixed(seen.targets, partner, states), seen.weight)
        if "token" in levels:
            share = shares(n, self.alpha, seen.generator)
            others = [self.wordings.ask(items[j], like=items[i]) for i, j in enumerate(partner.tolist())]
            blended = seen.readout(model.blend(prompts, others, share), model)
            loss = loss + _soft(blended, mixed(seen.targets, partner, share), seen.weight)
        return loss


def _soft(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy with soft targets, the mean by weight."""
    return (weight * -(targets * logits.log_softmax(-1)).sum(-1)).sum() / weight.sum()


@dataclass
class MixProClassifier:
    """See `handful.tune.mixpro`.

    Args:
        model: masked (the paper's) or causal; its weights stay as they are.
        templates: several wordings of the question, in the language of `handful.encode.template`.
        words: the answer of each class, one token each.
        levels: what is mixed: ``"token"``, ``"sentence"``, and ``"template"``, without which the first one asks alone.
        alpha: of the shares, or several (the paper tries 0.1, 0.2, 0.5, 1), chosen by the held-out score.
        steps, lr, batch: of training.
        check: steps between two scores on held-out examples.
        changes: what learns; by default every weight.
        length: tokens of a prompt at most.
        seed: of every draw.
    """

    model: LanguageModel
    templates: Sequence[str]
    words: Mapping[Any, str]
    levels: tuple[Level, ...] = LEVELS
    alpha: float | Sequence[float] = 0.5
    steps: int = 1000
    lr: float = 1e-5
    batch: int = 8
    check: int = 100
    changes: tuple[Placed, ...] | None = None
    length: int = 128
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)
    score: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.model.kind == "seq2seq":
            raise BadInput("MixPro mixes states of a masked or a causal model, not of a seq2seq one")
        if unknown := [level for level in self.levels if level not in LEVELS]:
            raise BadInput(f"there is no level {unknown[0]!r}; there are {', '.join(LEVELS)}")
        if not self.templates or isinstance(self.templates, str):
            raise BadInput("give a list of templates, at least one")
        if not self._alphas or not all(alpha > 0 for alpha in self._alphas):
            raise BadInput(f"alpha must be above 0, not {self.alpha}")
        made = tuple(map(Template, self.templates))
        for template in made:
            if template.asks != (self.model.kind == "masked"):
                raise BadInput(f"template {template.source!r}: one *mask* for a masked model, none for a causal one")
        self._wordings = Wordings(self.model, made, self.length, "template" in self.levels)
        self._ids = LabelWords.of(self.model.tokenizer, self.words).single
        if len(self._ids) < 2:
            raise BadInput("one word: classes need two at least")

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    @property
    def _alphas(self) -> tuple[float, ...]:
        return tuple(self.alpha) if isinstance(self.alpha, Sequence) else (self.alpha,)

    def fit(
        self, texts: Texts, labels: Sequence[Any], dev_texts: Texts = (), dev_labels: Sequence[Any] = ()
    ) -> MixProClassifier:
        """Learn from a few examples; of the states of a run the best on the held-out ones is kept.

        Raises:
            BadInput: a label without a word; several alphas and nothing to choose by.
        """
        items, held = listed(texts), listed(dev_texts)
        refuse_unpaired(items, labels, held, dev_labels)
        if len(self._alphas) > 1 and not held:
            raise BadInput("several alphas are chosen by held-out examples; give some, or one alpha")
        data = Data(items, one_hot(labels, self.classes), tuple(map(str, self.classes)))
        truth = one_hot(dev_labels, self.classes).argmax(1) if held else None
        judge = None if truth is None else partial(self._judged, held, truth)
        self.tuned, self.score = None, None
        for alpha in self._alphas:
            recipe = self.recipe(alpha)
            found = tune(self.model.tower, data, recipe, seed=self.seed, judge=judge, judge_every=self.check)
            score = None if judge is None else judge(found)
            if self.tuned is None or (score is not None and (self.score is None or score > self.score)):
                self.tuned, self.score = found, score
        return self

    def recipe(self, alpha: float) -> Recipe:
        """As slots."""
        return Recipe(
            everything(self.model.tower) if self.changes is None else self.changes,
            (MixedLoss(self._wordings, self.levels, alpha),),
            (Stage(steps=self.steps, lr=self.lr, batch=self.batch),),
            augment=(self._wordings,),
            readout=partial(Words, self._ids),
        )

    def logits(self, texts: Texts) -> Tensor:
        """``[n, C]``, the mean over the templates. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self._logits(listed(texts), self.tuned)

    def predict(self, texts: Texts) -> np.ndarray:
        """The class of each item ``[n]``."""
        return np.asarray(np.array(self.classes)[self.logits(texts).argmax(1).numpy()])

    def _logits(self, items: list[list[str]], tuned: Tuned) -> Tensor:
        asking = range(len(self.templates)) if "template" in self.levels else range(1)
        each = [tuned.logits([self._wordings.ask(Worded(tuple(item), k)) for item in items]) for k in asking]
        return torch.stack(each).mean(0)

    def _judged(self, items: list[list[str]], truth: Tensor, tuned: Tuned) -> float:
        return float((self._logits(items, tuned).argmax(1) == truth).float().mean())
