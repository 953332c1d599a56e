"""LM-BFF: a few-shot classifier that asks a language model to fill a blank (paper 012, Gao, Fisch, Chen, Making
Pre-trained Language Models Better Few-shot Learners, 2020).

    input      the text in a template with one mask, then one example a class with its answer (`demonstrations`)
    logits     of the classes' words at the mask; cross-entropy, all weights learn
    numbers    two words, q = (1 - u, u) with u = (y - low) / (high - low); loss KL(q || p),
               answer low + p_1 (high - low)
    answers    the mean of the logits over `samples` draws of examples
    choice     of rates and batches, the run and the state with the best score on as many examples held out

Templates and words are found by `template_search` and `label_search`; `best_of` tries them out.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.core.train import AdamW, Optimiser
from handful.encode import encoder
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.protocols import Encoder
from handful.tune.delta import Placed
from handful.tune.demonstrations import Demonstrations, Way
from handful.tune.fillers import CrossEntropy
from handful.tune.loop import tune
from handful.tune.prompting import (
    Divergence,
    Texts,
    Words,
    between,
    everything,
    listed,
    number_of,
    one_hot,
    refuse_unpaired,
)
from handful.tune.recipe import Data, Recipe, Stage
from handful.tune.tuned import Tuned


@dataclass
class PromptClassifier:
    """See `handful.tune.lm_bff`.

    Args:
        model: masked (the paper's), causal or seq2seq; its weights stay as they are.
        template: in the language of `handful.encode.template`; for a masked model with one mask.
        words: the answer of each class, one token each; of numbers those of the lower and the upper end.
        demos: ``"none"``, ``"random"``, ``"filtered"`` (near examples only), or GPT-3's ``"head"`` and ``"tail"``,
            which need ``steps=0``.
        samples: draws of examples whose logits are averaged (the paper: 16; 4 for MNLI, SNLI and QQP).
        bounds: the lowest and the highest number, for numbers instead of classes.
        steps: of training; 0 asks the model as it is.
        lr, batch: or several, tried all and chosen by the score on held-out examples.
        check: steps between two scores on them.
        smoothing: share of each target that is spread over all classes.
        warmup: share of the steps in which the rate rises.
        changes: what learns; by default every weight. Gradients longer than 1 together are shortened to it.
        update: makes the optimiser, given a weight decay (of 0); such as `Anchored.update`, for as many ``steps``.
        encoder: whose vectors say which examples are near; by default the embedded sentence encoder.
        keep: share of a class' examples that are near enough.
        shown: examples of ``"head"`` and ``"tail"``.
        length: tokens of a prompt at most (the paper: 128, 256 for inference, for some tasks twice that with examples).
        first, others: tokens of the first text at most, and of every other, so that the mask is not cut off.
        seed: of every draw.
    """

    model: LanguageModel
    template: str
    words: Mapping[Any, str]
    demos: Way = "none"
    samples: int = 16
    bounds: tuple[float, float] | None = None
    steps: int = 1000
    lr: float | tuple[float, ...] = (1e-5, 2e-5, 5e-5)
    batch: int | tuple[int, ...] = (2, 4, 8)
    check: int = 100
    smoothing: float = 0.0
    warmup: float = 0.0
    changes: tuple[Placed, ...] | None = None
    update: Callable[[float], Optimiser] = lambda decay: AdamW(weight_decay=decay)
    encoder: Encoder | None = None
    keep: float = 0.5
    shown: int = 32
    length: int = 128
    first: int | None = None
    others: int | None = None
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)
    score: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._template = Template(self.template)
        if self.model.kind == "masked" and not self._template.asks:
            raise BadInput(f"template {self.template!r} has no mask; put *mask* where the model is to answer")
        words = LabelWords.of(self.model.tokenizer, self.words)
        self.ids, self._words = words.single, words
        if len(words.ids) < 2 or (self.bounds is not None and len(words.ids) != 2):
            raise BadInput(f"{len(words.ids)} words: classes need two at least, numbers need two")
        if self.samples < 1:
            raise BadInput(f"samples is {self.samples}; at least one draw is needed")
        if self.demos in ("head", "tail") and self.steps:
            raise BadInput(f"demos={self.demos!r} shows examples to a model as it is; give steps=0")

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    def fit(
        self, texts: Texts, labels: Sequence[Any], dev_texts: Texts = (), dev_labels: Sequence[Any] = ()
    ) -> PromptClassifier:
        """Learn from a few examples.

        Args:
            texts: a text an example, or two.
            labels: keys of ``words``, or numbers within ``bounds``.
            dev_texts, dev_labels: examples held out, by which rate, batch and state are chosen (the paper: as many as
                there are to learn from). Without them one rate and one batch must be given.

        Raises:
            BadInput: a label without a word; several rates or batches and nothing to choose by; see `Demonstrations`.
        """
        items, targets = listed(texts), self.targets(labels)
        held, dev_targets = listed(dev_texts), self.targets(dev_labels) if len(dev_labels) else None
        refuse_unpaired(items, targets, held, dev_labels)
        if common := {tuple(item) for item in items} & {tuple(item) for item in held}:
            warnings.warn(f"{len(common)} held-out texts are learnt from as well", UserWarning, stacklevel=2)
        self._demos = Demonstrations(
            self.model, self._template, self._words, items, self._shown_as(targets), self.demos,
            self._vectors(items), self.keep, self.shown, self.length, self.first, self.others,
        )  # fmt: skip
        if self.demos in ("random", "filtered"):
            self._demos.pools(range(len(items)))  # a class without an example is refused before anything is learnt
        grid = list(itertools.product(_several(self.lr), _several(self.batch)))
        if not grid:
            raise BadInput("lr and batch are one value or several, not none")
        if len(grid) > 1 and dev_targets is None and self.steps:
            raise BadInput("several rates or batches are chosen by held-out examples; give some, or one rate and batch")
        self.tuned, self.score = None, None
        for lr, batch in grid if self.steps else grid[:1]:
            tuned, score = self._run(items, targets, lr, batch, held, dev_targets)
            if self.tuned is None or (score is not None and (self.score is None or score > self.score)):
                self.tuned, self.score = tuned, score
        return self

    def logits(self, texts: Texts) -> Tensor:
        """``[n, C]``, the mean over ``samples`` draws of examples. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self._logits(listed(texts), self.tuned)

    def predict_proba(self, texts: Texts) -> np.ndarray:
        """``[n, C]``, as the classes stand in ``classes``."""
        return np.asarray(self.logits(texts).softmax(1).numpy())

    def predict(self, texts: Texts) -> np.ndarray:
        """The class of each item ``[n]``, or its number where there are ``bounds``."""
        logits = self.logits(texts)
        if self.bounds is not None:
            return np.asarray(number_of(logits, *self.bounds).numpy())
        return np.asarray(np.array(self.classes)[logits.argmax(1).numpy()])

    def asked(self, items: list[list[str]]) -> list[Prompt]:
        """What the model is asked of each item, with examples drawn from the seed. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self._demos.ask(items, torch.Generator().manual_seed(self.seed), self._vectors(items))

    def _run(
        self, items: list[list[str]], targets: Tensor, lr: float, batch: int, held: list[list[str]],
        dev_targets: Tensor | None,
    ) -> tuple[Tuned, float | None]:  # fmt: skip
        recipe = Recipe(
            self.changes if self.changes is not None else everything(self.model.tower),
            (CrossEntropy(self.smoothing) if self.bounds is None else Divergence(),),
            (Stage(steps=self.steps, lr=lr, batch=batch, warmup=self.warmup, clip=1.0, update=self.update),),
            augment=(self._demos,),
            readout=partial(Words, self.ids),
        )
        data = Data(items, targets, tuple(map(str, self.classes)))
        judge = None if dev_targets is None else partial(self.judged, held, dev_targets)
        tuned = tune(self.model.tower, data, recipe, seed=self.seed, judge=judge, judge_every=self.check)
        return tuned, None if judge is None else judge(tuned)

    def judged(self, items: list[list[str]], targets: Tensor, tuned: Tuned) -> float:
        """Accuracy of ``tuned`` on items with these targets, or Pearson's correlation of numbers."""
        logits = self._logits(items, tuned)
        if self.bounds is None:
            return float((logits.argmax(1) == targets.argmax(1)).float().mean())
        pairs = torch.stack([logits.softmax(1)[:, 1], targets[:, 1]])
        return float(torch.corrcoef(pairs)[0, 1].nan_to_num())

    def _logits(self, items: list[list[str]], tuned: Tuned) -> Tensor:
        generator, vectors = torch.Generator().manual_seed(self.seed), self._vectors(items)
        draws = 1 if self.demos == "none" else self.samples
        each = [tuned.logits(self._demos.ask(items, generator, vectors)) for _ in range(draws)]
        return torch.stack(each).mean(0)

    def targets(self, labels: Sequence[Any]) -> Tensor:
        """``[n, C]`` of labels. Raises `BadInput` for a label without a word, or a number beyond the bounds."""
        if self.bounds is not None:
            return between(list(labels), *self.bounds)
        return one_hot(labels, self.classes)

    def _shown_as(self, targets: Tensor) -> Tensor:
        """The class that an example is shown as; numbers are of the upper one above the median."""
        if self.bounds is None:
            return targets.argmax(1)
        return (targets[:, 1] > targets[:, 1].quantile(0.5)).long()

    def _vectors(self, items: list[list[str]]) -> Tensor | None:
        if self.demos != "filtered":
            return None
        separator = self.model.tokenizer.sep_token or self.model.tokenizer.eos_token or "/"
        used = self.encoder or encoder()
        vectors = used.encode([f" {separator} ".join(item) for item in items])
        return torch.from_numpy(np.asarray(vectors, dtype=np.float32))


def best_of(
    classifier: PromptClassifier, templates: Sequence[str], words: Sequence[Mapping[Any, str]], texts: Texts,
    labels: Sequence[Any], dev_texts: Texts, dev_labels: Sequence[Any],
) -> list[PromptClassifier]:  # fmt: skip
    """Each pair of a template and words fitted, the best on held-out examples first.

    The first is the paper's answer; the mean of the logits of the first 20 is its ensemble. The paper tries templates
    and words out with a rate of 1e-5 and a batch of 8.
    """
    if not len(dev_labels):
        raise BadInput("templates and words are chosen by held-out examples; give some")
    made = [replace(classifier, template=t, words=w) for t in templates for w in words]
    fitted = [one.fit(texts, labels, dev_texts, dev_labels) for one in made]
    return sorted(fitted, key=lambda one: -(one.score or 0.0))


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
