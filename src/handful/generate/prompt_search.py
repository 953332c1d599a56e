"""A prompt of plain tokens, found by gradients: the model stays as it is (paper 037, RIFF, as a mode of tuning; after
Shin et al., AutoPrompt, 2020).

    prompt   k tokens t_1 … t_k behind the first special token of the question
    score    L(t) = mean over a batch of log P(y | t, x); with rewrites alpha of it and 1 - alpha of their mean
    step     one place p of the prompt is drawn; of the words w with (e_w - e_{t_p}) . dL / de_p > 0 the `top` largest
             are tried there by L itself; the `beam` best prompts stay, the old ones among them

The gradient is that of the embedding at the place; the authors' code takes that of its row in the table, which is the
same where the token stands there alone and the table is not the head's as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt
from handful.encode.template import Template
from handful.errors import BadInput
from handful.generate.rephrased import By, Questions, Rewrites, first_tokens, vote
from handful.tune.prompting import one_hot, refuse_unpaired

Tokens = tuple[int, ...]


def replacements(table: Tensor, slope: Tensor, old: int, top: int, never: Sequence[int] = ()) -> list[int]:
    """The words that promise most in place of ``old``, the best first, none that promises nothing.

    Args:
        table: embeddings ``[V, d]``.
        slope: of the score, by the embedding that stands there ``[d]``.
        old: the word that stands there.
        top: at most so many.
        never: words that are not taken, such as a second mask.
    """
    gains = ((table - table[old]) @ slope).index_fill(0, torch.tensor(list(never), dtype=torch.long), 0.0)
    gain, words = gains.topk(min(top, len(table)))
    return [word for word, g in zip(words.tolist(), gain.tolist(), strict=True) if g > 0]


@dataclass
class PromptSearch:
    """See `handful.generate.prompt_search`.

    Args:
        model: masked, with a head for words; causal models are asked behind the text.
        template: of `handful.encode.template`, without an instruction, which is what is searched.
        words: the answer of each class; of several tokens the first counts.
        rewrites: of texts, as of `RephrasedClassifier`; ``None`` learns from texts alone.
        start: what the prompt begins as, such as an instruction; by default random words.
        tokens: k, of a random start.
        beam, top, batch, epochs: of the search.
        check: steps between two scores on held-out examples.
        alpha: share of the text itself.
        length: tokens of a prompt at most.
        seed: of every draw.

    Attributes (after ``fit``):
        found: the tokens.
    """

    model: LanguageModel
    template: str
    words: Mapping[Any, str]
    rewrites: Rewrites | None = None
    start: str = ""
    tokens: int = 20
    beam: int = 1
    top: int = 4
    batch: int = 2
    epochs: int = 100
    check: int = 8
    alpha: float = 0.5
    length: int = 128
    seed: int = 0
    found: Tokens | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._template = Template(self.template)
        if self.model.kind == "seq2seq" or (self.model.kind == "masked" and not self._template.asks):
            raise BadInput(
                f"template {self.template!r} must ask a masked model at its *mask*, or a causal one behind it"
            )
        if min(self.tokens, self.beam, self.top, self.batch, self.epochs, self.check) < 1 or not 0 <= self.alpha <= 1:
            raise BadInput("tokens, beam, top, batch, epochs and check are 1 at least, alpha is a share from 0 to 1")
        self._ids = first_tokens(self.model, self.words)
        self._questions = Questions(self.model, self._template, self.rewrites)

    @property
    def classes(self) -> tuple[Any, ...]:
        """As ``words`` has them."""
        return tuple(self.words)

    @property
    def prompt(self) -> str:
        """What was found, as text. Raises `BadInput` before `fit`."""
        return str(self.model.tokenizer.decode(self._found()))

    def fit(
        self, texts: Sequence[str], labels: Sequence[Any], dev_texts: Sequence[str] = (), dev_labels: Sequence[Any] = ()
    ) -> PromptSearch:
        """Search on a few examples and their rewrites, which are written once.

        Args:
            texts, labels: of the examples.
            dev_texts, dev_labels: examples held out; the prompt is kept that tells most of them by their texts alone.

        Raises:
            BadInput: a label without a word; no room for the prompt; see `handful.generate.rephrased.checked`.
        """
        refuse_unpaired(texts, labels, dev_texts, dev_labels)
        targets = one_hot(labels, self.classes).argmax(1)
        held = one_hot(dev_labels, self.classes).argmax(1) if len(dev_labels) else None
        generator = torch.Generator().manual_seed(self.seed)
        prompts = [self._start(generator)]
        items = self._items(texts, len(prompts[0]))
        asked = self._items(dev_texts, len(prompts[0]), False) if held is not None else []
        best, steps = (-1.0, prompts[0]), 0
        for _ in range(self.epochs):
            for rows in torch.split(torch.randperm(len(items), generator=generator), self.batch):
                some = [items[row] for row in rows.tolist()]
                prompts = self.step(prompts, some, targets[rows], generator)
                steps += 1
                if held is not None and steps % self.check == 0:
                    right = float((self._scores(prompts[0], asked, "original").argmax(1) == held).float().mean())
                    best = max(best, (right, prompts[0]), key=lambda one: one[0])
        self.found = prompts[0] if held is None or best[0] < 0 else best[1]
        return self

    def step(
        self, prompts: Sequence[Tokens], items: list[list[Prompt]], targets: Tensor, generator: torch.Generator
    ) -> list[Tokens]:
        """The ``beam`` best prompts after one place was searched."""
        place = int(torch.randint(len(prompts[0]), (1,), generator=generator))
        table = self.model.tower.body.get_input_embeddings().weight.detach()  # type: ignore[operator]
        new: list[Tokens] = []
        for prompt in dict.fromkeys(prompts):
            slope = self.slope(prompt, place, items, targets)
            for word in replacements(table, slope, prompt[place], self.top, self.model.tokenizer.all_special_ids):
                new.append((*prompt[:place], word, *prompt[place + 1 :]))
        # Of equally good ones a new prompt stands before an old one, as in the authors' code.
        score = {one: float(self._likelihood(one, items, targets)) for one in dict.fromkeys([*new, *prompts])}
        return sorted(score, key=lambda one: -score[one])[: self.beam]

    def slope(self, prompt: Tokens, place: int, items: list[list[Prompt]], targets: Tensor) -> Tensor:
        """``dL / de`` ``[d]`` of the embedding at a place of the prompt."""
        table: Any = self.model.tower.body.get_input_embeddings()  # type: ignore[operator]
        moved = torch.zeros(table.weight.shape[1], requires_grad=True)
        ahead = self._ahead(items) + place

        def add(module: Any, given: Any, out: Tensor) -> Tensor:
            shift = torch.zeros_like(out)
            shift[:, ahead] = 1
            return out + shift * moved

        handle = table.register_forward_hook(add)
        try:
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(self._likelihood(prompt, items, targets, grad=True), moved)
        finally:
            handle.remove()
        return slope

    def scores(self, texts: Sequence[str], by: By = "both") -> Tensor:
        """``[n, C]``; ``by`` the text alone or its rewrites alone. Raises `BadInput` before `fit`."""
        found = self._found()
        return self._scores(found, self._items(texts, len(found), by != "original"), by)

    def predict(self, texts: Sequence[str], by: By = "both") -> np.ndarray:
        """The class of each text ``[n]``."""
        return np.asarray(np.array(self.classes)[self.scores(texts, by).argmax(1).numpy()])

    def believes(self, texts: Sequence[str]) -> Tensor:
        """log P(y | text) ``[n, C]``, of the texts alone: what RIFF's reward is made of."""
        return self.scores(texts, "original")

    def _found(self) -> Tokens:
        if self.found is None:
            raise BadInput("no prompt has been searched yet: call fit")
        return self.found

    def _start(self, generator: torch.Generator) -> Tokens:
        tokenizer = self.model.tokenizer
        if self.start.strip():
            return tuple(tokenizer.encode(self.start, add_special_tokens=False))
        plain = torch.tensor([i for i in range(len(tokenizer)) if i not in set(tokenizer.all_special_ids)])
        return tuple(plain[torch.randint(len(plain), (self.tokens,), generator=generator)].tolist())

    def _items(self, texts: Sequence[str], taken: int, rewritten: bool = True) -> list[list[Prompt]]:
        """The questions of each text and of its rewrites, with room for a prompt of ``taken`` tokens."""
        return self._questions.of(texts, min(self.length, self.model.most) - taken, rewritten)

    def _ahead(self, items: list[list[Prompt]]) -> int:
        """Where the prompt stands: behind a special token that every question begins with."""
        return int(items[0][0].ids[0] in self.model.tokenizer.all_special_ids)

    def _scores(self, prompt: Tokens, items: list[list[Prompt]], by: By, grad: bool = False) -> Tensor:
        at = self._ahead(items)
        flat = [question.inserted(at, prompt) for item in items for question in item]
        with torch.set_grad_enabled(grad):
            logits = torch.cat([self.model.tower(flat[i : i + 64]) for i in range(0, len(flat), 64)])
            log_p = logits[:, self._ids] - logits.logsumexp(-1, keepdim=True)
            return vote(log_p.view(len(items), -1, len(self._ids)), self.alpha, by)

    def _likelihood(self, prompt: Tokens, items: list[list[Prompt]], targets: Tensor, grad: bool = False) -> Tensor:
        return self._scores(prompt, items, "both", grad)[torch.arange(len(items)), targets].mean()
