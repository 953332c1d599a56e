"""A classifier that learns from descriptions of its classes instead of labelled texts.

077: Gao, Ghosh, Gimpel, The Benefits of Label-Description Training for Zero-Shot Text Classification, 2023.

    input    a description in a pattern that asks for the class: "a game of two teams Category: <mask>."
    loss     -log p(word of the class) at the mask, over the whole vocabulary
    answer   the likeliest of the classes' words
    without  a pattern: a new head on the first token, cross-entropy over classes (`first_token`)
    learns   everything but the lower half of the blocks; the table of words learns

    texts, labels = read_descriptions("manual_24.tsv", ("world", "sport", "business", "technology"))
    trainer = LabelDescriptionTrainer(model, {"world": "World", …}, TOPIC[0]).fit(texts, labels)

Descriptions are made by `handful.tune.describe`. `shuffled` and `with_new_words` show how much the words matter.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.train import seeded
from handful.encode.hf import quiet
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.describe import MASK, Pattern
from handful.tune.fillers import CrossEntropy
from handful.tune.first_token import FirstToken
from handful.tune.loop import tune
from handful.tune.own import Own
from handful.tune.prompting import Words
from handful.tune.recipe import Data, Recipe, Seen, Stage
from handful.tune.sites import Where, depths, sites
from handful.tune.tuned import Tuned


@dataclass(frozen=True)
class WholeVocabulary:
    """``-log p(word)`` over all words, the mean over items by weight.

    Args:
        ids: the word of each class ``[C]``.
    """

    ids: Tensor
    name = "whole vocabulary"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        each = functional.cross_entropy(seen.features, self.ids[seen.labels], reduction="none")
        return seen.mean(each)


@dataclass
class LabelDescriptionTrainer:
    """See `handful.tune.label_descriptions`.

    Args:
        model: masked; its weights stay as they are.
        words: the word of each class, one token each; without it and ``pattern``, a head on the first token.
        pattern: how the class is asked for.
        steps: 2160, of the head on the first token 1920; 0 asks the model as it is.
        lr: 5e-7, of the head on the first token 1e-5. The paper has 5e-5 for words that do not fit their class.
        batch: descriptions a step.
        freeze_half: whether the lower half of the blocks stays as it is.
        length: tokens of a text and its pattern at most; texts are cut at the end that is away from the pattern.
        seed: of every draw.
    """

    model: LanguageModel
    words: Mapping[Any, str] | None = None
    pattern: Pattern | None = None
    steps: int | None = None
    lr: float | None = None
    batch: int = 1
    freeze_half: bool = True
    length: int = 256
    seed: int = 0
    tuned: Tuned | None = field(default=None, init=False)
    classes: tuple[Any, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.model.kind != "masked":
            raise BadInput(f"{self.model.name!r} is {self.model.kind}; descriptions are learnt by a masked model")
        if (self.words is None) != (self.pattern is None):
            raise BadInput("a pattern asks for words: give both, or neither for a head on the first token")
        self._ids = None if self.words is None else LabelWords.of(self.model.tokenizer, self.words).single

    def fit(self, texts: Sequence[str], labels: Sequence[Hashable]) -> LabelDescriptionTrainer:
        """Learn from descriptions.

        Args:
            texts: descriptions.
            labels: of each its class, a key of ``words`` if there are any.

        Raises:
            BadInput: a label without a word, a class without a description, one class only; see `prompt`.
        """
        if len(texts) != len(labels):
            raise BadInput(f"{len(texts)} descriptions, but {len(labels)} labels")
        seen = sorted(set(labels), key=str)
        self.classes = tuple(seen) if self.words is None else tuple(self.words)
        for label in seen:
            if label not in self.classes:
                raise BadInput(f"label {label!r} has no word; there are {', '.join(map(repr, self.classes))}")
        if missing := [c for c in self.classes if c not in seen]:
            raise BadInput(f"class {missing[0]!r} has no description")
        if len(seen) < 2:
            raise BadInput("one class only: there is nothing to tell apart")
        codes = torch.tensor([self.classes.index(label) for label in labels])
        data = Data(self._asked(texts), codes, tuple(map(str, self.classes)))
        asks = self._ids is not None
        steps = self.steps if self.steps is not None else 2160 if asks else 1920
        lr = self.lr if self.lr is not None else 5e-7 if asks else 1e-5
        stage = Stage(steps=steps, lr=lr, batch=self.batch, rate="constant")
        readout = FirstToken if self._ids is None else partial(Words, self._ids)
        objective = CrossEntropy() if self._ids is None else WholeVocabulary(self._ids)
        changes = learning(self.model.tower, self.freeze_half)
        recipe = Recipe(changes, (objective,), (stage,), readout=readout)
        self.tuned = tune(self.model.tower, data, recipe, seed=self.seed)
        return self

    def logits(self, texts: Sequence[str]) -> Tensor:
        """``[n, C]``: of the classes' words alone. Raises `BadInput` before `fit`."""
        if self.tuned is None:
            raise BadInput("this classifier has not been fitted")
        return self.tuned.logits(self._asked(texts))

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """``[n, C]``, as the classes stand in ``classes``."""
        return np.asarray(self.logits(texts).softmax(1).numpy())

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """The class of each text ``[n]``."""
        return np.asarray(np.array(self.classes)[self.logits(texts).argmax(1).numpy()])

    def _asked(self, texts: Sequence[str]) -> list[Prompt]:
        return [prompt(self.model, text, self.pattern, self.length) for text in texts]


def prompt(model: LanguageModel, text: str, pattern: Pattern | None, length: int = 256) -> Prompt:
    """A text with its pattern, as the model takes it; cut at the end that is away from the pattern.

    Raises:
        BadInput: the pattern alone is too long; the text has a mask of its own; the mask is not where the pattern
            says it is; the tokenizer frames no input.
    """
    tokenizer = model.tokenizer
    mask, room = tokenizer.mask_token_id, min(length, model.most) - 2
    frame = tokenizer.cls_token_id, tokenizer.sep_token_id
    if None in frame:
        raise BadInput(f"the tokenizer of {model.name!r} has no tokens that begin and end an input")
    asking = "" if pattern is None else pattern.text.replace(MASK, tokenizer.mask_token)
    behind = pattern is not None and pattern.behind
    with quiet():
        ids = tokenizer.encode((f"{text} {asking}" if behind else f"{asking} {text}").strip(), add_special_tokens=False)
    ids = [frame[0], *(ids[-room:] if behind else ids[:room]), frame[1]]
    found = Prompt.of(ids, mask)
    if pattern is None:
        return replace(found, masks=())
    if len(found.masks) != 1:
        raise BadInput(f"{pattern.text!r} and its text have {len(found.masks)} masks in {room + 2} tokens, not one")
    if pattern.place is not None and found.masks[0] != pattern.place + (1 if pattern.place >= 0 else len(ids) - 1):
        raise BadInput(f"the mask of {pattern.text!r} is token {found.masks[0]} of {len(ids)}, not at {pattern.place}")
    return found


def learning(model: nn.Module, freeze_half: bool = True) -> tuple[Placed, ...]:
    """Every parameter learns, but for those of the lower half of the blocks."""
    every = sites(model)
    depth = depths(every)
    free = [s.name for s in every if not freeze_half or s.block is None or s.block >= depth[s.tower] / 2]
    placed = []
    for kind in dict.fromkeys(name.rpartition(".")[2] for name, _ in model.named_parameters()):
        names = [name for name in free if isinstance(getattr(model.get_submodule(name), kind, None), Tensor)]
        if names:
            placed.append(Placed(Own(), Where((), kind, sites=tuple(names), tied=True)))
    return tuple(placed)


def shuffled(words: Mapping[Any, str], seed: int = 0) -> dict[Any, str]:
    """The words in another order, none at its own class. Raises `BadInput` for fewer than two."""
    if len(words) < 2:
        raise BadInput(f"{len(words)} words cannot be shuffled; give two or more")
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(words))
        if (order != np.arange(len(words))).all():
            listed = list(words.values())
            return {name: listed[i] for name, i in zip(words, order, strict=True)}


def with_new_words(model: LanguageModel, classes: Sequence[Any], seed: int = 0) -> tuple[LanguageModel, dict[Any, str]]:
    """A copy of the model with a word a class that it has never seen, and these words.

    Their vectors are normal with the deviation that the model's configuration begins with.
    """
    tokenizer, body = copy.deepcopy(model.tokenizer), copy.deepcopy(model.tower.body)
    words = {name: f"RANDOM{number}" for number, name in enumerate(classes)}
    if (added := tokenizer.add_tokens(list(words.values()))) != len(words):
        raise BadInput(f"only {added} of {len(words)} new words are unknown to {model.name!r}")
    made: Any = body
    with seeded(seed):
        made.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(words.values())))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        table = made.get_input_embeddings().weight
        table[ids] = made.config.initializer_range * torch.randn(len(ids), table.shape[1], generator=generator)
    return LanguageModel(body, tokenizer, model.kind, model.name), words


@dataclass(frozen=True)
class Spread:
    """What `over_patterns` gives.

    Attributes:
        mean: of all accuracies.
        deviation: over all of them (n - 1): how much an answer depends on the wording and the seed.
        accuracies: ``[patterns, seeds]``.
    """

    mean: float
    deviation: float
    accuracies: np.ndarray


def over_patterns(
    trainer: LabelDescriptionTrainer, patterns: Sequence[Pattern], texts: Sequence[str], labels: Sequence[Hashable],
    test_texts: Sequence[str], test_labels: Sequence[Hashable], seeds: Sequence[int] = (1111, 111, 11, 1, 42),
) -> Spread:  # fmt: skip
    """The paper's protocol: trained anew with each pattern and seed, accuracy on the test set.

    With ``trainer.steps = 0`` it is that of zero-shot answers, for which one seed is enough.
    """
    if not patterns or not seeds or not len(test_labels) or len(test_texts) != len(test_labels):
        raise BadInput("give patterns, seeds, and test texts with their labels")
    found = np.zeros((len(patterns), len(seeds)))
    for row, pattern in enumerate(patterns):
        for column, seed in enumerate(seeds):
            fitted = replace(trainer, pattern=pattern, seed=seed).fit(texts, labels)
            found[row, column] = (fitted.predict(test_texts) == np.asarray(test_labels)).mean()
    return Spread(float(found.mean()), float(found.std(ddof=1)) if found.size > 1 else 0.0, found)
