"""Vectors that learn in front of what a frozen language model reads.

    soft prompt    P [n, d] in front of the word embeddings (prompt tuning: Lester et al., The Power of Scale for
                   Parameter-Efficient Prompt Tuning, 2021)
    prefix         P [n, layers 2 heads w]: keys and values in front of those of every layer (prefix tuning: Li and
                   Liang, Prefix-Tuning: Optimizing Continuous Prompts for Generation, 2021; P-tuning v2, 2022);
                   a seq2seq model has three: of the reader, of the writer, and of the writer's attention to the reader
                   P itself learns, or P = W2 tanh(W1 E + b1) + b2 with E [n, k], W1 [h, k], which is steadier

Both stand in front of the special tokens too, and give what peft's of the same numbers gives. They change what goes
into a model, so that they cannot be merged into its weights. The model is a `LanguageTower` of
`handful.encode.language_tower`.

    recipe = PromptTuning(tokens=20).recipe() | Recipe(readout=partial(Words, words.single))
    tune(model.tower, Data(model.fill(template, texts), labels), recipe)
    PromptClassifier(model, template, words, changes=PrefixTuning().recipe().changes)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.front_layers import FAMILIES
from handful.encode.language_tower import LanguageTower
from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, register
from handful.tune.delta import Delta, Placed
from handful.tune.lora import kaiming
from handful.tune.recipe import Data, Readout, Recipe, Stage
from handful.tune.sites import Where

WORDS = Where(names=r"(?:^|\.)front\.words$")
KEYS = Where(names=r"(?:^|\.)front\.(?:keys|reader|writer|across)$")
"""The places of a language tower; a seq2seq one has keys and values in three."""


def _checked(weight: Tensor, tokens: int, spread: float) -> None:
    if weight.dim() != 2 or len(weight):
        raise BadInput("vectors in front are placed at WORDS or KEYS of a language tower")
    if tokens < 1 or not spread > 0:
        raise BadInput(f"tokens are 1 at least and spread is above 0, not {tokens} and {spread}")
    if not weight.shape[1]:
        raise BadInput(
            "nothing can go in front there: the configuration does not say how wide the model's layers are, or they "
            f"take no keys and values (of seq2seq models those of {', '.join(FAMILIES)} do, in transformers 5.24)"
        )


@register
@dataclass(frozen=True)
class SoftPrompt(Change):
    """See `handful.tune.front`; place it at `WORDS`.

    Args:
        tokens: n.
        spread: standard deviation of the first numbers; peft's is 1.
    """

    key: ClassVar[str] = "soft-prompt"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    tokens: int = 20
    spread: float = 0.02

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        _checked(weight, self.tokens, self.spread)
        return Begun({"P": _drawn((self.tokens, weight.shape[1]), self.spread, weight, generator)})

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        return torch.cat([y, t["P"]])


@register
@dataclass(frozen=True)
class Prefix(Change):
    """See `handful.tune.front`; place it at `KEYS`.

    Args:
        tokens: n.
        spread: standard deviation of the first P, or E.
        through: k, the width of what P is made of; ``None`` lets P itself learn.
        inner: h; k by default.
    """

    key: ClassVar[str] = "prefix"
    modes: ClassVar[frozenset[Mode]] = frozenset({"branch"})
    tokens: int = 20
    spread: float = 0.02
    through: int | None = None
    inner: int | None = None

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        _checked(weight, self.tokens, self.spread)
        wide, k = weight.shape[1], self.through
        h = self.inner or k
        if k is None:
            return Begun({"P": _drawn((self.tokens, wide), self.spread, weight, generator)})
        if k < 1 or h is None or h < 1:
            raise BadInput(f"through is a width of 1 at least, not {k}, as is inner, not {h}")
        maps = {"W1": kaiming(h, k, weight, generator), "W2": kaiming(wide, h, weight, generator)}
        biases = {"b1": weight.new_zeros(h), "b2": weight.new_zeros(wide)}
        return Begun({"E": _drawn((self.tokens, k), self.spread, weight, generator), **maps, **biases})

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        if self.through is None:
            return torch.cat([y, t["P"]])
        inner = torch.tanh(functional.linear(t["E"], t["W1"], t["b1"]))
        return torch.cat([y, functional.linear(inner, t["W2"], t["b2"])])


def _drawn(size: tuple[int, int], spread: float, like: Tensor, generator: torch.Generator) -> Tensor:
    return (spread * torch.randn(size, generator=generator)).to(like)


@dataclass(frozen=True)
class AsWords:
    """A soft prompt begins as the embeddings of these tokens, over and over until it is full: fills the slot `start`.

    Args:
        ids: of the tokens, such as those of a question in words, or of the classes' names.
    """

    ids: tuple[int, ...]

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        if not self.ids:
            raise BadInput("a prompt that begins as words needs one token at least")
        if not isinstance(model, LanguageTower):
            raise BadInput("a prompt can begin as words in a language tower only")
        body: Any = model.body
        table = body.get_input_embeddings().weight
        for holder in delta.each():
            if isinstance(holder.change, SoftPrompt):
                rows = [self.ids[at % len(self.ids)] for at in range(holder.change.tokens)]
                with torch.no_grad():
                    holder.tensors["P"].copy_(table[rows])


@dataclass(frozen=True)
class PromptTuning:
    """A soft prompt alone learns.

    Args:
        tokens: of the prompt (Lester et al.: 20 suffice for large models, 100 were tried).
        words: tokens it begins as; at random without them.
        steps, lr, batch: of training; ours, as Lester et al. tune T5 with Adafactor at 0.3 for 30,000 steps.
    """

    tokens: int = 20
    words: tuple[int, ...] = ()
    steps: int = 1000
    lr: float = 1e-2
    batch: int = 8

    def recipe(self) -> Recipe:
        """As slots."""
        start = AsWords(self.words) if self.words else None
        stage = Stage(steps=self.steps, lr=self.lr, batch=self.batch, weight_decay=1e-5)
        return Recipe((Placed(SoftPrompt(self.tokens), WORDS),), stages=(stage,), start=start)


@dataclass(frozen=True)
class PrefixTuning:
    """A prefix of every layer alone learns; in a seq2seq model three, each of that many tokens.

    Args:
        tokens: of the prefix (Li and Liang: 10 for tables to text, 200 for summaries).
        through: see `Prefix`.
        steps, lr, batch: of training; ours.
    """

    tokens: int = 20
    through: int | None = None
    steps: int = 1000
    lr: float = 5e-3
    batch: int = 8

    def recipe(self) -> Recipe:
        """As slots."""
        stage = Stage(steps=self.steps, lr=self.lr, batch=self.batch)
        return Recipe((Placed(Prefix(self.tokens, through=self.through), KEYS),), stages=(stage,))
