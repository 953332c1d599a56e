"""FastFit: texts and the names of their classes compared token by token (102, When LLMs are Unfit Use FastFit, 2024).

tokens      unit(P drop(h_t))                     P [128, d], no bias; dropout 0.1 in training
s(a -> b)   mean_{t in b} max_{u in a} <u, t>
batch       N = 4 B: each text four times, each time with another dropout, and the text of its class as often
matrix      [[QQ, QD], [DQ, DD]],  QD = s(D -> Q),  DQ = QD^T            [2 N, 2 N]
loss        SupCon of the matrix, temperature 0.07, + 0.1 cross-entropy of (W unit(mean h) + b) / C
answer      argmax_c s(document_c -> text), or that of the linear head
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.adafactor import Adafactor
from handful.core.late_interaction import Tokens, token_similarity
from handful.encode.reading import Direction, LateInteraction, checked_direction
from handful.errors import BadInput
from handful.tune.contrastive import supcon
from handful.tune.fillers import Shuffled
from handful.tune.plain import EVERYTHING
from handful.tune.recipe import Data, Readout, Recipe, Seen, Shipped, Stage

Answer = Literal["texts", "head"]


class Late(Readout):
    """Scores by late interaction with a text of each class; a class without items answers too (see ``unseen``).

    Args:
        width: of projected tokens.
        direction: see `LateInteraction`.
        dropout: of token vectors, in training.
        answer: by class ``"texts"``, or by the linear ``"head"``.

    Attributes:
        unseen: names of classes that there was nothing but a text of.
    """

    projection: nn.Parameter
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, width: int = 128, direction: Direction = "doc", dropout: float = 0.1, answer: Answer = "texts"
    ) -> None:
        super().__init__()
        checked_direction(direction)
        if answer not in ("texts", "head"):
            raise BadInput(f"answer is 'texts' or 'head', not {answer!r}")
        if width < 1:
            raise BadInput(f"the width of projected tokens must be positive, not {width}")
        self.width, self.direction, self.dropout, self.answer = width, direction, dropout, answer

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Take the class texts. Raises `BadInput` where there are none, two are the same, or one is empty."""
        if not hasattr(model, "tokens"):
            raise BadInput(f"late interaction needs token vectors, and a {type(model).__name__} gives none")
        if not data.documents:
            raise BadInput("late interaction reads a text of each class: give them as documents")
        _refuse_alike(data)
        self.documents = list(data.documents)
        named = zip(data.classes, data.targets.sum(0).tolist(), strict=True)
        self.unseen = tuple(name for name, mass in named if not mass)
        with torch.no_grad():
            width = self.look(model, self.documents[:1]).states.shape[-1]

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(width))

        self.projection = drawn(self.width, width)
        self.weight, self.bias = drawn(len(data.classes), width), drawn(len(data.classes))

    def look(self, model: nn.Module, inputs: Any) -> Tokens:
        return cast(Tokens, cast(Any, model).tokens(inputs))

    def projected(self, tokens: Tokens) -> Tokens:
        """Unit vectors ``[n, T, width]``."""
        states = functional.dropout(tokens.states, self.dropout, self.training)
        return Tokens(functional.normalize(functional.linear(states, self.projection), dim=-1), tokens.mask)

    def classified(self, tokens: Tokens) -> Tensor:
        """Logits ``[n, C]`` of the linear head, over C."""
        mask = tokens.mask.to(tokens.states)[..., None]
        mean = functional.normalize((tokens.states * mask).sum(1) / mask.sum(1), dim=-1)
        return functional.linear(mean, self.weight, self.bias) / len(self.bias)

    def reading(self, model: nn.Module) -> LateInteraction:
        """What scores texts, with the class texts as the model reads them now."""
        states, mask = self.projected(self.look(model, self.documents))
        return LateInteraction(self.projection.detach(), states.detach(), mask, self.direction)

    def forward(self, features: Tokens, model: nn.Module) -> Tensor:
        return self.classified(features) if self.answer == "head" else self.reading(model)(features)

    def ships(self, model: nn.Module) -> Shipped:
        if self.answer == "head":  # reads what the encoder gives by itself, the unit mean
            return Shipped(self.weight.detach() / len(self.bias), self.bias.detach() / len(self.bias))
        ways = len(self.documents)
        return Shipped(torch.eye(ways), torch.zeros(ways), self.reading(model))


def _refuse_alike(data: Data) -> None:
    texts = [repr(text) for text in data.documents]
    for name, text, tokens in zip(data.classes, texts, data.documents, strict=True):
        if not len(tokens):
            raise BadInput(f"the text of class {name!r} is empty")
        if Counter(texts)[text] > 1:
            alike = [repr(c) for c, other in zip(data.classes, texts, strict=True) if other == text]
            raise BadInput(f"classes {' and '.join(alike)} have the same text: tell them apart with class text")


def matrix(q: Tokens, d: Tokens) -> Tensor:
    """Similarities ``[2 N, 2 N]`` of N texts and N documents, among each other and themselves."""
    qd = token_similarity(d, q)
    return torch.cat([torch.cat([token_similarity(q, q), qd], 1), torch.cat([qd.mT, token_similarity(d, d)], 1)])


@dataclass(frozen=True)
class LateContrast:
    """Supervised contrast of texts and class texts, by late interaction.

    Args:
        temperature: of the similarities.
    """

    temperature: float = 0.07
    name = "late-contrast"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        late = seen.read_by(Late)
        documents = late.look(seen.model, [late.documents[c] for c in seen.labels.tolist()])
        similarity = matrix(late.projected(seen.features), late.projected(documents))
        twice = seen.labels.repeat(2)
        return supcon(similarity, twice[:, None] == twice, self.temperature)


@dataclass(frozen=True)
class LateClasses:
    """Cross-entropy of the linear head.

    Args:
        factor: what multiplies it.
    """

    factor: float = 0.1
    name = "late-classes"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        each = functional.cross_entropy(seen.read_by(Late).classified(seen.features), seen.labels, reduction="none")
        return self.factor * seen.mean(each)


@dataclass(frozen=True)
class Repeated:
    """`Shuffled`, each batch several times over.

    Args:
        times: how often an item stands in its batch.
    """

    times: int = 4

    def __post_init__(self) -> None:
        if self.times < 1:
            raise BadInput(f"an item stands at least once in its batch, not {self.times} times")

    def steps(self, data: Data, epochs: float, batch: int) -> int:
        return Shuffled().steps(data, epochs, batch)

    def draws(self, data: Data, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
        return (rows.repeat(self.times) for rows in Shuffled().draws(data, batch, generator))


@dataclass(frozen=True)
class FastFit:
    """Texts told by the texts of their classes, token by token; the model answers so too (102).

    Args:
        epochs: passes over the examples.
        batch: examples a step.
        lr: learning rate, of Adafactor.
        repeats: how often an example stands in its batch, each time with another dropout.
        width: of projected tokens.
        factor: of the linear head's cross-entropy.
        temperature: of the similarities.
        direction: whose tokens are looked for: ``"doc"`` the text's in the class text, ``"query"``, ``"both"``.
        answer: by class ``"texts"``, or by the linear ``"head"``.
    """

    epochs: float = 40
    batch: int = 32
    lr: float = 5e-5
    repeats: int = 4
    width: int = 128
    factor: float = 0.1
    temperature: float = 0.07
    direction: Direction = "doc"
    answer: Answer = "texts"

    def recipe(self) -> Recipe:
        """As slots."""
        if not (0 < self.temperature < math.inf and 0 <= self.factor < math.inf):
            raise BadInput(f"temperature is above 0, factor 0 or more, not {self.temperature} and {self.factor}")
        stage = Stage(
            epochs=self.epochs, lr=self.lr, batch=self.batch, clip=1.0,
            update=lambda decay: Adafactor(weight_decay=decay, relative=False),
        )  # fmt: skip
        return Recipe(
            EVERYTHING, (LateContrast(self.temperature), LateClasses(self.factor)), (stage,),
            readout=partial(Late, self.width, self.direction, answer=self.answer), sampler=Repeated(self.repeats),
        )  # fmt: skip
