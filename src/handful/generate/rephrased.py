"""Learn and answer with a text and its rewrites (paper 037, RIFF, step 4).

    score_y(x) = alpha log P(y | x) + (1 - alpha) mean_j log P(y | z_j)      z_j rewrites of x
    loss       = - mean_x score of the class

`RephrasedClassifier` is a language model that is asked at a mask, where P is its softmax over the whole vocabulary; or,
with ``hidden``, a small network on the mean of its last states, softmax(W2 gelu(W1 h + b1) + b2), which alone learns.
`ParaphraseAugmented` is any classifier that takes weights: a text counts alpha, each of its m rewrites (1 - alpha) / m,
which is the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.train import AdamW
from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.loop import tune
from handful.tune.prompting import Words, everything, one_hot, refuse_unpaired
from handful.tune.recipe import Data, Readout, Recipe, Seen, Stage
from handful.tune.tuned import Tuned

By = Literal["both", "original", "rewrites"]
Rewrites = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""Gives as many rewrites of each text, such as ``paraphraser.sample``."""
Learn = Callable[[list[str], list[Any], np.ndarray], Callable[[list[str]], np.ndarray]]
"""Takes texts, labels and weights; gives what tells the probabilities of the classes ``[n, C]``."""


def vote(log_p: Tensor, alpha: float = 0.5, by: By = "both") -> Tensor:
    """Scores ``[n, C]`` of log P of a text and of its rewrites ``[n, 1 + m, C]``.

    Raises:
        BadInput: there is no such ``by``.
    """
    if by not in get_args(By):
        raise BadInput(f"by is one of {', '.join(get_args(By))}, not {by!r}")
    original, rewrites = log_p[:, 0], log_p[:, 1:].mean(1)
    if by != "both":
        return {"original": original, "rewrites": rewrites}[by]
    return alpha * original + (1 - alpha) * rewrites


class Voted(Words):
    """The scores of texts with their rewrites, as a readout; an item is the list of its prompts, all as many.

    Args:
        ids: the word of each class ``[C]``.
        alpha: share of the text itself.
        by: what is asked.
    """

    def __init__(self, ids: Tensor, alpha: float = 0.5, by: By = "both") -> None:
        super().__init__(ids)
        self.alpha, self.by = alpha, by

    def look(self, model: nn.Module, inputs: Sequence[Sequence[Prompt]]) -> Tensor:
        flat = [prompt for item in inputs for prompt in item]
        logits: Tensor = model(flat)
        log_p = logits[:, self.ids] - logits.logsumexp(-1, keepdim=True)
        return log_p.view(len(inputs), -1, len(self.ids))

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return vote(features, self.alpha, self.by)


class VotedMean(Readout):
    """The scores of texts with their rewrites by a network on mean states, which begins as ``nn.Linear`` does.

    Args:
        hidden: units of the network.
        alpha, by: as of `Voted`.
    """

    def __init__(self, hidden: int = 128, alpha: float = 0.5, by: By = "both") -> None:
        super().__init__()
        self.hidden, self.alpha, self.by = hidden, alpha, by

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            width = self.mean(model, [item[:1] for item in data.take(torch.arange(1))]).shape[-1]

        def drawn(into: int, *shape: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) / into**0.5)

        self.w1, self.b1 = drawn(width, self.hidden, width), drawn(width, self.hidden)
        ways = len(data.classes)
        self.w2, self.b2 = drawn(self.hidden, ways, self.hidden), drawn(self.hidden, ways)

    def mean(self, model: nn.Module, inputs: Sequence[Sequence[Prompt]]) -> Tensor:
        """Mean states of every prompt of n items ``[n, 1 + m, d]``."""
        assert isinstance(model, LanguageTower)
        flat = [prompt for item in inputs for prompt in item]
        return model.mean(flat).view(len(inputs), len(inputs[0]), -1)

    def look(self, model: nn.Module, inputs: Sequence[Sequence[Prompt]]) -> Tensor:
        inner = functional.gelu(functional.linear(self.mean(model, inputs), self.w1, self.b1))
        return functional.linear(inner, self.w2, self.b2).log_softmax(-1)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return vote(features, self.alpha, self.by)


@dataclass(frozen=True)
class Score:
    """``- sum_c t_c score_c``, the mean over items by weight; scores are no logits: they are not made to sum to 1."""

    name = "score"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        return -seen.mean((seen.targets * seen.logits).sum(1))


@dataclass
class RephrasedClassifier:
    """See `handful.generate.rephrased`.

    Args:
        model: masked (the paper's), causal or seq2seq; its weights stay as they are.
        template: of `handful.encode.template`; the paper's is
            ``"*cls*INSTRUCTION*+sent_0*_._It_was*mask*_.*sep*"``, with the instruction of the task in it.
        words: the answer of each class; of several tokens the first counts.
        rewrites: of texts, the same for the same text; ``None`` answers and learns from texts alone.
        alpha: share of the text itself.
        lr, batch, epochs, weight_decay: of training, by AdamW with AMSGrad at one rate.
        check: steps between two scores on held-out examples.
        changes: what learns; by default every weight, with ``hidden`` none.
        hidden: units of a network on the mean of the states, which answers in place of words (the paper: 128, at a rate
            of 1e-3).
        length: tokens of a prompt at most.
        seed: of every draw.
    """

    model: LanguageModel
    template: str
    words: Mapping[Any, str]
    rewrites: Rewrites | None
    alpha: float = 0.5
    lr: float = 1e-5
    batch: int = 8
    epochs: float = 100
    weight_decay: float = 1e-4
    check: int = 8
    changes: tuple[Placed, ...] | None = None
    hidden: int | None = None
    length: int = 128
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._template = Template(self.template)
        if self.model.kind == "masked" and not self._template.asks:
            raise BadInput(f"template {self.template!r} has no mask; put *mask* where the model is to answer")
        if not 0 <= self.alpha <= 1:
            raise BadInput(f"alpha is a share from 0 to 1, not {self.alpha}")
        if self.hidden is not None and self.hidden < 1:
            raise BadInput(f"hidden is a number of units, at least 1, not {self.hidden}")
        self._ids = first_tokens(self.model, self.words)
        self._questions = Questions(self.model, self._template, self.rewrites)

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    def fit(
        self, texts: Sequence[str], labels: Sequence[Any], dev_texts: Sequence[str] = (), dev_labels: Sequence[Any] = ()
    ) -> RephrasedClassifier:
        """Learn from a few examples and their rewrites, which are written once.

        Args:
            texts, labels: of the examples.
            dev_texts, dev_labels: examples held out; the state is kept that tells most of them by their texts alone.

        Raises:
            BadInput: a label without a word; rewrites that are empty, or more of one text than of another.
        """
        refuse_unpaired(texts, labels, dev_texts, dev_labels)
        targets, judge = one_hot(labels, self.classes), None
        if len(dev_labels):
            judge = partial(self._judged, self._items(dev_texts, False), one_hot(dev_labels, self.classes).argmax(1))
        data = Data(self._items(texts), targets, tuple(map(str, self.classes)))
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, rate="constant", weight_decay=self.weight_decay,
            update=lambda decay: AdamW(weight_decay=decay, amsgrad=True),
        )  # fmt: skip
        every = everything(self.model.tower) if self.hidden is None else ()
        voted = partial(Voted, self._ids) if self.hidden is None else partial(VotedMean, self.hidden)
        recipe = Recipe(
            every if self.changes is None else self.changes, (Score(),), (stage,), readout=partial(voted, self.alpha)
        )
        self.tuned = tune(self.model.tower, data, recipe, seed=self.seed, judge=judge, judge_every=self.check)
        return self

    def scores(self, texts: Sequence[str], by: By = "both") -> Tensor:
        """``[n, C]``, before `fit` of the model as it is; ``by`` the text alone or its rewrites alone."""
        return self._scores(self._items(texts, by != "original"), by)

    def predict(self, texts: Sequence[str], by: By = "both") -> np.ndarray:
        """The class of each text ``[n]``."""
        return np.asarray(np.array(self.classes)[self.scores(texts, by).argmax(1).numpy()])

    def believes(self, texts: Sequence[str]) -> Tensor:
        """log P(y | text) ``[n, C]``, of the texts alone: what RIFF's reward is made of."""
        return self.scores(texts, "original")

    def _scores(self, items: list[list[Prompt]], by: By, tuned: Tuned | None = None) -> Tensor:
        used, tower = tuned or self.tuned, self.model.tower
        readout: Any = Voted(self._ids, self.alpha, by)
        if self.hidden is not None:
            if used is None:
                raise BadInput("this classifier has not been fitted")
            readout = copy(used.readout)
            readout.by = by
        if used is None:
            with torch.inference_mode():
                parts = [items[at : at + self.batch] for at in range(0, len(items), self.batch)]
                return torch.cat([readout(readout.look(tower, some), tower) for some in parts]).clone()
        return Tuned(tower, used.delta, readout, used.classes).logits(items, self.batch)

    def _judged(self, items: list[list[Prompt]], labels: Tensor, tuned: Tuned) -> float:
        return float((self._scores(items, "original", tuned).argmax(1) == labels).float().mean())

    def _items(self, texts: Sequence[str], rewritten: bool = True) -> list[list[Prompt]]:
        return self._questions.of(texts, min(self.length, self.model.most), rewritten)


def first_tokens(model: LanguageModel, words: Mapping[Any, str]) -> Tensor:
    """The first token of the word of each class ``[C]``. Raises `BadInput` unless there are two that differ in it."""
    found = LabelWords.of(model.tokenizer, words)
    ids = [own[0] for own in found.ids]
    if len(set(ids)) < max(2, len(ids)):
        raise BadInput(f"the words {', '.join(found.words)} must be two at least, and differ in their first token")
    return torch.tensor(ids)


@dataclass
class Questions:
    """Puts texts and their rewrites, which are written once, into a template.

    Args:
        model: whose tokenizer and reach count.
        template: what is asked.
        rewrites: as of `RephrasedClassifier`.
    """

    model: LanguageModel
    template: Template
    rewrites: Rewrites | None
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, texts: Sequence[str], length: int, rewritten: bool = True) -> list[list[Prompt]]:
        """The prompts of each text and of its rewrites, of ``length`` tokens at most.

        Raises:
            BadInput: no texts; no room for them; see `checked`.
        """
        if not len(texts):
            raise BadInput("no texts")
        some: Sequence[Sequence[str]] = [()] * len(texts)
        if rewritten and self.rewrites is not None:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            self._known |= dict(zip(new, checked(new, self.rewrites), strict=True))
            some = [self._known[text] for text in texts]
        elif rewritten:
            some = [(text,) for text in texts]
        room = self.template.room(self.model.tokenizer, length)

        def asked(text: str) -> Prompt:
            return self.template.encode(self.model.tokenizer, [text.removesuffix(".")], first=room)

        return [[asked(one) for one in (text, *others)] for text, others in zip(texts, some, strict=True)]


def checked(texts: Sequence[str], rewrites: Rewrites) -> list[tuple[str, ...]]:
    """Rewrites of each text. Raises `BadInput` for an empty one, or more of one text than of another."""
    found = [tuple(some) for some in rewrites(texts)] if len(texts) else []
    if len(found) != len(texts):
        raise BadInput(f"{len(texts)} texts, but rewrites of {len(found)}")
    for text, some in zip(texts, found, strict=True):
        if not some or len(some) != len(found[0]):
            raise BadInput(f"text {text[:60]!r} has {len(some)} rewrites, the first one {len(found[0])}")
        if not all(one.strip() for one in some):
            raise BadInput(f"a rewrite of {text[:60]!r} is empty; leave it out, or put another in its place")
    return found


class ParaphraseAugmented:
    """Any classifier of texts, with rewrites. See `handful.generate.rephrased`.

    Args:
        learn: makes the classifier, such as ``encoded(encoder(), head("logistic"))``.
        rewrites: of texts.
        alpha: share of the text itself.
    """

    def __init__(self, learn: Learn, rewrites: Rewrites, alpha: float = 0.5) -> None:
        if not 0 <= alpha <= 1:
            raise BadInput(f"alpha is a share from 0 to 1, not {alpha}")
        self.learn, self.rewrites, self.alpha = learn, rewrites, alpha
        self._tells: Callable[[list[str]], np.ndarray] | None = None

    def fit(self, texts: Sequence[str], labels: Sequence[Any]) -> ParaphraseAugmented:
        """Learn from a few examples and their rewrites. Raises `BadInput`, see `checked`."""
        if len(texts) != len(labels):
            raise BadInput(f"{len(texts)} texts, but {len(labels)} labels")
        found = checked(texts, self.rewrites)
        every = [one for text, some in zip(texts, found, strict=True) for one in (text, *some)]
        m = len(found[0])
        weight = np.tile([self.alpha, *[(1 - self.alpha) / m] * m], len(texts))
        self._tells = self.learn(every, [label for label in labels for _ in range(m + 1)], weight)
        return self

    def scores(self, texts: Sequence[str], by: By = "both") -> Tensor:
        """``[n, C]``, columns as the classifier has them. Raises `BadInput` before `fit`."""
        if self._tells is None:
            raise BadInput("this classifier has not been fitted")
        found = checked(texts, self.rewrites)
        every = [one for text, some in zip(texts, found, strict=True) for one in (text, *some)]
        p = torch.from_numpy(np.asarray(self._tells(every), dtype=np.float64))
        return vote(p.clamp_min(1e-30).log().view(len(texts), 1 + len(found[0]), -1), self.alpha, by)


def encoded(encoder: Any, head: Any) -> Learn:
    """``learn`` of `ParaphraseAugmented`: an encoder of `handful.encode` and a head that takes ``sample_weight``."""
    from sklearn.base import clone

    def learn(texts: list[str], labels: list[Any], weight: np.ndarray) -> Callable[[list[str]], np.ndarray]:
        fitted = clone(head).fit(encoder.encode(texts), labels, sample_weight=weight)
        return lambda others: np.asarray(fitted.predict_proba(encoder.encode(others)))

    return learn
