"""BBTv2: prompts in every layer of a model that is only called forward (paper 097, Sun, He, Qian, Zhou, Huang, Qiu,
BBTv2: Towards a Gradient-Free Future with Large Language Models, 2022).

    input    [CLS] n ordinary words . text It was [MASK] .
    layer i  h at the places of those words + p_i        p_i = A_i z_i  [n, D],  A_i ~ N(0, s_i^2),  z_i in R^d
             (or, as first in BBT, A_i uniform between -1 / sqrt(d) and 1 / sqrt(d), whatever the layer)
    s_i      alpha sigma_i / (sqrt(d) sigma);   sigma_1 that of the word embeddings, sigma_i that of what layer i - 1
             gives, after five rounds of clipping at three standard deviations
    loss     cross-entropy of the classes' words, over all examples at once; searched by `handful.tune.evolution`

BBT (2022) is the first layer alone: ``layers="input"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.hf import quiet
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.protocols import Progress
from handful.tune.evolution import Evolution, Found
from handful.tune.prompting import Texts, listed, one_hot
from handful.tune.sites import blocks_of

Loss = Literal["cross-entropy", "hinge", "accuracy"]
Projection = Literal["normal", "uniform"]
ROUNDS, WIDTH = 5, 3.0
"""Of clipping, and at how many standard deviations."""


def hinge(logits: Tensor, labels: Tensor, margin: float = 2.0) -> Tensor:
    """``sum_{c != y} max(0, z_c - z_y + margin)``, the mean over items of ``logits [N, C]``."""
    over = (logits - logits.gather(1, labels[:, None]) + margin).clamp_min(0)
    return over.scatter(1, labels[:, None], 0.0).sum(1).mean()


def spread(values: Tensor) -> float:
    """Standard deviation, over n, after five rounds of clipping at three of them around the mean."""
    x = values.double().flatten()
    for _ in range(ROUNDS):
        mean, std = x.mean(), x.std(correction=0)
        x = x.clamp(mean - WIDTH * std, mean + WIDTH * std)
    return float(x.std(correction=0))


@contextmanager
def added(model: nn.Module, prompts: Sequence[Tensor], first: int) -> Iterator[None]:
    """``model`` with ``prompts[i] [n, D]`` added to what goes into block i at places ``first`` to ``first + n - 1``."""

    def hook(p: Tensor) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def plus(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            h = args[0] if args else kwargs["hidden_states"]
            h = h + functional.pad(p, (0, 0, first, h.shape[1] - first - len(p)))
            return ((h, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": h})

        return plus

    blocks = [model.get_submodule(name) for name in blocks_of(model)]
    handles = [
        block.register_forward_pre_hook(hook(p), with_kwargs=True)
        for block, p in zip(blocks, prompts, strict=False)  # one layer alone is the first
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class BlackBoxTuner:
    """See `handful.tune.bbt`.

    Args:
        model: masked or causal; nothing of it learns, and no gradient is taken.
        words: the answer of each class, one token each.
        template: in the language of `handful.encode.template`; the n words go in front.
        prompt_tokens: n.
        first_token: the words are those of the vocabulary from this one on.
        dim: d.
        alpha: of s_i.
        projection: of z, ``"normal"`` with the spread s_i, or ``"uniform"``, which knows neither ``alpha`` nor sigma.
        layers: ``"all"``, or ``"input"`` for the first alone.
        loss: ``"cross-entropy"``, ``"hinge"`` with ``margin``, or ``"accuracy"`` (its negative).
        margin: of the hinge.
        search: how z is searched: steps, guesses, budget, seed.
        check: calls between two looks at held-out examples, with the guess of that call in place.
        length: tokens at most.
    """

    model: LanguageModel
    words: Mapping[Any, str]
    template: str = "*cls*_.*+sent_0*_._It_was*mask*_.*sep+*"
    prompt_tokens: int = 50
    first_token: int = 1000
    dim: int = 500
    alpha: float = 0.2
    projection: Projection = "normal"
    layers: Literal["all", "input"] = "all"
    loss: Loss = "cross-entropy"
    margin: float = 2.0
    search: Evolution = field(default_factory=Evolution)
    check: int = 100
    length: int = 512
    found: Found | None = field(default=None, init=False)
    prompts: list[Tensor] = field(default_factory=list, init=False)
    score: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.model.kind == "seq2seq":
            raise BadInput("prompts in every layer are for a masked or a causal model, not a seq2seq one")
        if self.layers not in ("all", "input") or self.loss not in ("cross-entropy", "hinge", "accuracy"):
            raise BadInput(
                f"layers is all or input, loss cross-entropy, hinge or accuracy: {self.layers!r}, {self.loss!r}"
            )
        if self.projection not in ("normal", "uniform"):
            raise BadInput(f"projection is 'normal' or 'uniform', not {self.projection!r}")
        if min(self.prompt_tokens, self.dim, self.check) < 1 or not self.alpha > 0:
            raise BadInput("prompt_tokens, dim and check are 1 at least, alpha above 0")
        tokenizer = self.model.tokenizer
        self._front = tuple(range(self.first_token, self.first_token + self.prompt_tokens))
        if self._front[-1] >= len(tokenizer) or {*self._front} & {*tokenizer.all_special_ids}:
            raise BadInput(
                f"the vocabulary of {len(tokenizer)} has no {self.prompt_tokens} ordinary words from number "
                f"{self.first_token} on; take fewer, or another first_token"
            )
        self._template = Template(self.template)
        if self._template.asks != (self.model.kind == "masked"):
            raise BadInput(f"template {self.template!r}: one *mask* for a masked model, none for a causal one")
        self._ids = LabelWords.of(tokenizer, self.words).single
        self._blocks = len(blocks_of(self.model.tower))
        if not self._blocks:
            raise BadInput(f"{self.model.name!r} has no transformer blocks that prompts could be added to")
        begins = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
        self._first = int(self._template.parts[0] == "cls" and begins is not None)

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    @torch.no_grad()
    def fit(
        self, texts: Texts, labels: Sequence[Any], dev_texts: Texts = (), dev_labels: Sequence[Any] = (),
        progress: Progress | None = None,
    ) -> BlackBoxTuner:  # fmt: skip
        """Search for prompts.

        Args:
            texts, labels: to learn from.
            dev_texts, dev_labels: held out (the paper: as many): of the guesses looked at the best is kept. Without
                them the last state of the search is.
            progress: called with (calls done, calls in all).

        Raises:
            BadInput: a label without a word; the budget is not one round; ``cma`` is not installed.
        """
        items, held = listed(texts), listed(dev_texts)
        if not items or len(items) != len(labels) or len(held) != len(dev_labels):
            raise BadInput(f"{len(items)} and {len(held)} texts, but {len(labels)} and {len(dev_labels)} labels")
        asked, y = self.ask(items), one_hot(labels, self.classes).argmax(1)
        dev, truth = self.ask(held), one_hot(dev_labels, self.classes).argmax(1)
        layers = 1 if self.layers == "input" else self._blocks
        every = self.search.rounds(layers) * layers * self.search.popsize
        maps, best = self.maps(asked), (-math.inf, list[Tensor]())
        width = len(maps[0]) // self.prompt_tokens

        def judged(prompts: Sequence[Tensor], some: list[Prompt]) -> Tensor:
            return self._logits(some, [p.view(self.prompt_tokens, width) for p in prompts])

        def look(call: int, prompts: Sequence[Tensor]) -> None:
            nonlocal best
            if progress is not None:
                progress(call, every)
            if dev and call % self.check == 0:
                right = float((judged(prompts, dev).argmax(1) == truth).float().mean())
                best = max(best, (right, list(prompts)), key=lambda one: one[0])  # of equals the first

        self.found = self.search.search(lambda p: float(self.loss_of(judged(p, asked), y)), maps, look)
        self.score, kept = (best[0], best[1]) if best[1] else (None, self.found.prompts)
        self.prompts = [p.view(self.prompt_tokens, width) for p in kept]
        return self

    def logits(self, texts: Texts) -> Tensor:
        """``[n, C]``. Raises `BadInput` before `fit`."""
        if self.found is None:
            raise BadInput("this classifier has not been fitted")
        if not len(texts):
            raise BadInput("there are no texts")
        return self._logits(self.ask(listed(texts)), self.prompts)

    def predict(self, texts: Texts) -> np.ndarray:
        """The class of each item ``[n]``."""
        return np.asarray(np.array(self.classes)[self.logits(texts).argmax(1).numpy()])

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of ``logits [N, C]``."""
        if self.loss == "hinge":
            return hinge(logits, labels, self.margin)
        if self.loss == "accuracy":
            return -(logits.argmax(1) == labels).float().mean()
        return functional.cross_entropy(logits, labels)

    def ask(self, items: Sequence[Sequence[str]]) -> list[Prompt]:
        """Items in the template, the n words in front. Raises `BadInput` where they leave no room."""
        n, tokenizer = self.prompt_tokens, self.model.tokenizer
        most = min(self.length, self.model.most) - n
        try:
            room = self._template.room(tokenizer, most)
        except BadInput as error:
            raise BadInput(f"{error}, beside {n} words in front; take fewer, or a greater length") from error
        with quiet():  # it would warn of long texts
            plain = [self._template.encode(tokenizer, item, first=room, others=room, most=most) for item in items]
        return [one.inserted(self._first, self._front) for one in plain]

    @torch.no_grad()
    def maps(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """A_i ``[n D, d]`` of each layer; normal ones at the scale of what these prompts make of it."""
        body: Any = self.model.tower.body
        table = body.get_input_embeddings().weight
        size = (self.prompt_tokens * table.shape[1], self.dim)
        generator = torch.Generator().manual_seed(self.search.seed)
        if self.projection == "uniform":
            layers = self._blocks if self.layers == "all" else 1
            return [(2 * torch.rand(size, generator=generator) - 1) / math.sqrt(self.dim) for _ in range(layers)]
        found = [float(table.double().std(correction=0))]
        if self.layers == "all":
            inputs = self.model.tower.inputs(prompts)
            states = body(**inputs, output_hidden_states=True).hidden_states
            found += [spread(h) for h in states[1 : self._blocks]]
        scale = self.alpha / (math.sqrt(self.dim) * self.search.sigma)
        return [scale * sigma * torch.randn(size, generator=generator) for sigma in found]

    def _logits(self, asked: Sequence[Prompt], prompts: Sequence[Tensor]) -> Tensor:
        with torch.no_grad(), added(self.model.tower, prompts, self._first):
            parts = [self.model.tower(asked[at : at + 64])[:, self._ids] for at in range(0, len(asked), 64)]
        return torch.cat(parts)
