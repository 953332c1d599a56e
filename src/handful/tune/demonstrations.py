"""Examples shown inside a prompt, one a class, drawn anew each time (LM-BFF, Gao et al. 2020, section 6).

    question of the query, then for each class the template filled with an example of it and its answer

From the examples of a class only those most like the query are drawn: of n candidates the ``floor(n // C * keep)``
with the highest cosine. In training an item is never its own example. The control of GPT-3 (``"head"``, ``"tail"``)
shows ``shown`` random examples of any class before or after the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from handful.encode.hf import quiet
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt
from handful.encode.template import Template
from handful.errors import BadInput

Way = Literal["none", "random", "filtered", "head", "tail"]
WAYS: tuple[Way, ...] = ("none", "random", "filtered", "head", "tail")


@dataclass(frozen=True)
class Demonstrations:
    """Makes prompts with examples; in a recipe it is what `augment` does to texts.

    Args:
        model: whose tokenizer and reach count.
        template: of the question alone.
        words: the answers.
        texts: of the examples, n lists of texts.
        labels: of the examples ``[n]``.
        way: ``"none"``, ``"random"``, ``"filtered"``, ``"head"`` or ``"tail"``.
        vectors: of the examples ``[n, d]``, for ``"filtered"``.
        keep: share of the examples of a class that are near enough, for ``"filtered"``.
        shown: how many examples, for ``"head"`` and ``"tail"``.
        length: tokens of a prompt at most, the last ones are cut; those two read what the model reads.
        first, others: tokens of the first text at most, and of every other.
    """

    model: LanguageModel
    template: Template
    words: LabelWords
    texts: Sequence[Sequence[str]]
    labels: Tensor
    way: Way = "random"
    vectors: Tensor | None = None
    keep: float = 0.5
    shown: int = 32
    length: int = 128
    first: int | None = None
    others: int | None = None

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise BadInput(f"demonstrations are {', '.join(WAYS)}, not {self.way!r}")
        if self.way == "filtered" and self.vectors is None:
            raise BadInput("filtered demonstrations need vectors of the examples")
        if self.shown < 1:
            raise BadInput(f"shown is a number of examples, 1 at least, not {self.shown}")
        if not 0 < self.keep <= 1:
            raise BadInput(f"keep is a share of the examples, not {self.keep}")

    @cached_property
    def filled(self) -> Template:
        """The template with room for the examples."""
        if self.way in ("head", "tail"):
            return self.template.in_context(min(self.shown, len(self.texts)), self.way)
        return self.template if self.way == "none" else self.template.with_demonstrations(len(self.words.classes))

    def __call__(self, inputs: Any, rows: Tensor, generator: torch.Generator) -> list[Prompt]:
        """Prompts of items that are examples themselves, ``rows`` of them: the slot `augment` of a recipe."""
        vectors = None if self.vectors is None else self.vectors[rows]
        return self.ask(inputs, generator, vectors, own=rows.tolist())

    def ask(
        self,
        items: Sequence[Sequence[str]],
        generator: torch.Generator,
        vectors: Tensor | None = None,
        own: Sequence[int] | None = None,
    ) -> list[Prompt]:
        """One prompt an item, with examples drawn for it.

        Args:
            items: the texts of each.
            generator: of the draw.
            vectors: of the items, for ``"filtered"``.
            own: which example each item is, where it is one.

        Raises:
            BadInput: a class has no example to show.
        """
        like = None
        if self.way == "filtered":
            if vectors is None:
                raise BadInput("filtered demonstrations need vectors of the items")
            like = functional.normalize(vectors, dim=1) @ functional.normalize(self.vectors, dim=1).mT  # type: ignore[arg-type]
        prompts = []
        for number, item in enumerate(items):
            near = None if like is None else like[number]
            chosen = self.draw(generator, near, None if own is None else own[number])
            texts = [*item, *(text for one in chosen for text in self.texts[one])]
            most = self.model.most if self.way in ("head", "tail") else min(self.length, self.model.most)
            support = [int(self.labels[i]) for i in chosen]
            with quiet():  # it would warn of long texts
                prompts.append(
                    self.filled.encode(
                        self.model.tokenizer, texts, answers=self.words.ids, support=support, first=self.first,
                        others=self.others, most=most,
                    )
                )  # fmt: skip
        return prompts

    def draw(self, generator: torch.Generator, near: Tensor | None = None, own: int | None = None) -> list[int]:
        """The examples of one prompt: one a class in the classes' order, or ``shown`` of any class."""
        if self.way == "none":
            return []
        everyone = [i for i in range(len(self.texts)) if i != own]
        if self.way in ("head", "tail"):
            order = torch.randperm(len(self.texts), generator=generator).tolist()
            return order[: min(self.shown, len(self.texts))]
        return [self._one(some, generator) for some in self.pools(everyone, near)]

    def pools(self, candidates: Sequence[int], near: Tensor | None = None) -> list[list[int]]:
        """For each class the examples that may be shown, the nearest first where that counts."""
        ways = len(self.words.classes)
        order = list(candidates) if near is None else sorted(candidates, key=lambda i: (-float(near[i]), i))
        limit = len(order) if near is None else int(len(order) // ways * self.keep)
        pools = [[i for i in order if int(self.labels[i]) == c][:limit] for c in range(ways)]
        for name, pool in zip(self.words.classes, pools, strict=True):
            if not pool:
                raise BadInput(
                    f"class {name!r} has no example to show beside the item itself; give it more, or demos='none'"
                )
        return pools

    def _one(self, pool: Sequence[int], generator: torch.Generator) -> int:
        return pool[int(torch.randint(len(pool), (1,), generator=generator))]
