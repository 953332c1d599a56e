"""Prompt-based fine-tuning: a language model's own words as the classes' logits.

Words    the logits of one word a class, where the model is asked     (masked, next token, decoder's first)
Ranked   the log-likelihood of whole answers, by their length         (all three kinds of model)

tune(model.tower, Data(model.fill(template, texts), labels), Recipe(readout=partial(Words, words.single), …))
tune(model.tower, Data(model.questions(texts, choices), labels), Recipe(readout=Ranked, …))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.language_tower import normalised
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.own import Own
from handful.tune.recipe import Data, Readout, Seen
from handful.tune.sites import Where, refuse_bare

Texts = Sequence[str] | Sequence[Sequence[str]]
"""A text an item, or several."""


def listed(texts: Texts) -> list[list[str]]:
    """The texts of each item, as a list. Raises `BadInput` for one text in place of a list, and for what is none."""
    refuse_one(texts)
    out = []
    for number, item in enumerate(texts):
        several = item.tolist() if isinstance(item, np.ndarray) else [item] if isinstance(item, str) else item
        if not isinstance(several, (list, tuple)) or not all(isinstance(text, str) for text in several):
            raise BadInput(f"item {number} is {str(item)[:60]!r}, a {type(item).__name__}: give a text, or several")
        out.append(list(several))
    return out


def refuse_one(texts: Texts) -> None:
    """Raise `BadInput` for one text in place of a list."""
    if isinstance(texts, str):
        raise BadInput(f"texts are a list of them, not the one text {texts[:60]!r}")


def refuse_unpaired(
    texts: Sequence[Any], labels: Sequence[Any] | Tensor, dev_texts: Sequence[Any], dev_labels: Sequence[Any]
) -> None:
    """Raise `BadInput` unless each text has a label, of those learnt from and of those held out."""
    if len(texts) != len(labels) or len(dev_texts) != len(dev_labels):
        raise BadInput(f"{len(texts)} and {len(dev_texts)} texts, but {len(labels)} and {len(dev_labels)} labels")


def one_hot(labels: Sequence[Any], classes: Sequence[Any], what: str = "word") -> Tensor:
    """Targets ``[n, C]`` of labels that are among ``classes``. Raises `BadInput` for one that has no ``what``."""
    number = {name: c for c, name in enumerate(classes)}
    if unknown := [label for label in labels if label not in number]:
        raise BadInput(f"label {unknown[0]!r} has no {what}; there are {', '.join(map(repr, classes))}")
    codes = torch.tensor([number[label] for label in labels], dtype=torch.long)
    return functional.one_hot(codes, len(number)).float()


class Words(Readout):
    """Of the logits over the vocabulary ``[B, V]`` the columns of the classes' words.

    Args:
        ids: the word of each class ``[C]``, see `handful.encode.prompt.LabelWords.single`.
    """

    def __init__(self, ids: Tensor) -> None:
        super().__init__()
        self.register_buffer("ids", ids.clone())

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        if len(self.ids) != len(data.classes):
            raise BadInput(f"{len(self.ids)} words, but {len(data.classes)} classes")

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return features[:, self.ids]

    ids: Tensor


class Ranked(Readout):
    """Of the answers' likelihoods, token by token ``[B, A, T]``, their sum by ``tokens ** length_norm``: ``[B, C]``.

    Column c is answer c. Items with fewer answers than others have ``-inf`` behind them.

    Args:
        length_norm: 1 is the mean over tokens, 0 the sum.
    """

    def __init__(self, length_norm: float = 1.0) -> None:
        super().__init__()
        self.length_norm, self.ways = length_norm, 0

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        self.ways = len(data.classes)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        scores = normalised(features, self.length_norm)
        if scores.shape[1] > self.ways:
            raise BadInput(f"an item has {scores.shape[1]} answers, but there are {self.ways} classes")
        return functional.pad(scores, (0, self.ways - scores.shape[1]), value=float("-inf"))


def everything(model: nn.Module) -> tuple[Placed, ...]:
    """Full fine-tuning: every parameter of ``model`` learns, those that modules share once.

    Raises:
        BadInput: a parameter that is in none of its modules, and so could not be changed.
    """
    refuse_bare(model)
    kinds = dict.fromkeys(name.rpartition(".")[2] for name, _ in model.named_parameters())
    return tuple(Placed(Own(), Where(names="", parameter=kind, tied=True)) for kind in kinds)


def divergence(q: Tensor, logits: Tensor) -> Tensor:
    """``KL(q || softmax(logits))`` of each row ``[B]``."""
    return (torch.xlogy(q, q) - q * logits.log_softmax(-1)).sum(-1)


@dataclass(frozen=True)
class Divergence:
    """``KL(q || p)`` of soft targets q and the softmax p of the logits, the mean over items by weight."""

    name = "divergence"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        return seen.mean(divergence(seen.targets, seen.logits))


def between(values: Sequence[float] | Tensor, low: float, high: float) -> Tensor:
    """Targets ``[n, 2]`` of a number between two words: how much of the low one, how much of the high one.

    ``q = (1 - (y - low) / (high - low), (y - low) / (high - low))`` (Gao et al., LM-BFF, section 3.1).

    Raises:
        BadInput: a number lies outside the bounds.
    """
    try:
        y = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"between bounds stand numbers, not such as {str(list(values)[:3])[:60]}") from error
    if not low < high:
        raise BadInput(f"the bounds are {low} and {high}; the first must be below the second")
    if not bool(((y >= low) & (y <= high)).all()):
        raise BadInput(f"numbers run from {float(y.min())} to {float(y.max())}, but the bounds are {low} and {high}")
    share = (y - low) / (high - low)
    return torch.stack([1 - share, share], 1)


def number_of(logits: Tensor, low: float, high: float) -> Tensor:
    """``low + (high - low) p_1`` ``[n]`` of two words' logits ``[n, 2]``: what `between` is undone by."""
    return low + (high - low) * logits.softmax(-1)[:, 1]
