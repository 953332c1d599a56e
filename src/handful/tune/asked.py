"""Prompt methods as recipes: what a language model says, once tuned, is the model's answer and goes into its file.

    lm-bff        the word of a class at a blank, all weights learn                        (012)
    t-few         the likelihood of whole answers, (IA)^3 and the losses of T-Few          (027)
    perfect       neither template nor words: bottlenecks and label embeddings at masks    (078)
    in-context    examples stand in front of the text, nothing learns                      (the baseline of 027)
    hierverb      classes in a tree, a mask a level                                        (203, `asked_levels`)

Word or answer of a class is its name, or the first text that describes it (``--class-names``). An encoder for them is
a `handful.encode.speaker.LanguageEncoder`. What each method has beside (grids of rates, examples drawn anew, templates
that are searched) is in Python: `lm_bff`, `t_few`, `perfect`, `in_context`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from handful.encode.asking import Answers, Asking, Masks, Over, Words, asked_of, states_at_masks
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords
from handful.encode.speaker import Speaker
from handful.errors import BadInput
from handful.tune.delta import Placed
from handful.tune.fillers import CrossEntropy
from handful.tune.ia3 import IA3
from handful.tune.lora import LoRA
from handful.tune.own import Own
from handful.tune.perfect import LabelEmbeddings, slots
from handful.tune.recipe import Data, Readout, Recipe, Shipped, Stage
from handful.tune.sites import LINEAR, Where, refuse_bare
from handful.tune.t_few import TFew

TEMPLATES = {
    "masked": "*cls**sent_0*_It_was*mask*.*sep+*",
    "causal": "Text:_*sent_0*\nLabel:",
    "seq2seq": "Text:_*sent_0*_Label:*sep*",
}
"""By kind of model, where none is given: the first is LM-BFF's for sentiment, the others say nothing of the task."""
EVERY = tuple(Placed(Own(), Where(names="", parameter=kind, tied=True), needed=False) for kind in ("weight", "bias"))
"""Every weight and bias; those that modules share once."""
Learns = Literal["all", "lora", "bias"]


def speaker(model: nn.Module) -> Speaker:
    """The model as one that can be asked. Raises `BadInput` where it is none."""
    if not isinstance(model, Speaker):
        raise BadInput(f"this recipe asks a language model, and a {type(model).__name__} is none")
    return model


def one_hot_head(ways: int) -> tuple[Tensor, Tensor]:
    """Weight and bias that leave ``ways`` logits as they are."""
    return torch.eye(ways), torch.zeros(ways)


class Asked(Readout):
    """Logits by asking; nothing of its own learns.

    Args:
        make: how it is asked, for a model and the data.
        whole: whether every weight is to learn, so that one beside all modules is refused.
    """

    def __init__(self, make: Callable[[LanguageModel, Data], Asking], whole: bool = False) -> None:
        super().__init__()
        self.make, self.whole = make, whole

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Make the question. Raises `BadInput` for what the model cannot be asked."""
        asked = speaker(model).model
        if self.whole:
            refuse_bare(model)
        self.asking = self.make(asked, data)

    def look(self, model: nn.Module, inputs: Sequence[str]) -> Tensor:
        return self.asking.look(speaker(model).model, inputs)

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return self.asking.logits(features)

    def ships(self, model: nn.Module) -> Shipped:
        return Shipped(*one_hot_head(self.asking.width), self.asking)


def template_of(given: str, model: LanguageModel) -> str:
    """The template that is given, or the usual one for that kind of model. Raises `BadInput` where it does not fit."""
    return asked_of(given or TEMPLATES[model.kind], model).source


def answers_of(data: Data) -> tuple[str, ...]:
    """What stands for each class: the text that describes it, else its name."""
    return tuple(map(str, data.documents or data.classes))


def _words(model: LanguageModel, data: Data, template: str, length: int) -> Words:
    made = Words(template_of(template, model), answers_of(data), length)
    LabelWords.of(model.tokenizer, dict(zip(data.classes, made.words, strict=True))).single  # noqa: B018
    return made


def _answers(model: LanguageModel, data: Data, template: str, length: int, norm: float) -> Answers:
    made = Answers(template_of(template, model), answers_of(data), norm, length)
    LabelWords.of(model.tokenizer, dict(zip(data.classes, made.answers, strict=True)))
    return made


def _changed(learns: str) -> tuple[Placed, ...]:
    if learns not in get_args(Learns):
        raise BadInput(f"learns is one of {', '.join(get_args(Learns))}, not {learns!r}")
    return {"all": EVERY, "lora": (Placed(LoRA(8, 16.0), Where(LINEAR)),), "bias": EVERY[1:]}[learns]


@dataclass(frozen=True)
class AskedLMBFF:
    """A language model fills a blank with the word of a class, one token each (012).

    Args:
        template: in the language of `handful.encode.template`; by default that of the kind of model in `TEMPLATES`.
        learns: ``"all"`` weights, as in the paper, a ``"lora"`` of its maps, or the ``"bias"`` of each.
        steps: of training.
        lr: learning rate; the paper tries 1e-5, 2e-5 and 5e-5.
        batch: texts a step; the paper tries 2, 4 and 8.
        length: tokens of a prompt at most.
    """

    asks: ClassVar[bool] = True
    template: str = ""
    learns: Learns = "all"
    steps: int = 1000
    lr: float = 1e-5
    batch: int = 8
    length: int = 128

    def recipe(self) -> Recipe:
        """As slots."""
        stage = Stage(steps=self.steps, lr=self.lr, batch=self.batch, clip=1.0)
        make = partial(_words, template=self.template, length=self.length)
        readout = partial(Asked, make, self.learns == "all")
        return Recipe(_changed(self.learns), (CrossEntropy(),), (stage,), readout=readout)


@dataclass(frozen=True)
class AskedTFew(TFew):
    """A language model chooses among whole answers; (IA)^3 learns, by the losses of T-Few (027). See `TFew`.

    Args:
        template, length: as of `AskedLMBFF`.
    """

    asks: ClassVar[bool] = True
    template: str = ""
    length: int = 256

    def recipe(self, changes: tuple[Placed, ...] = ()) -> Recipe:
        """As slots. What goes into the second map of a gated feed-forward is scaled, as is the same as its first."""
        vectors = changes or (Placed(IA3(), Where(("k", "v"))), Placed(IA3("in"), Where(("down",))))
        make = partial(_answers, template=self.template, length=self.length, norm=self.length_norm)
        return replace(super().recipe(vectors), readout=partial(Asked, make))


class AskedMasks(LabelEmbeddings):
    """Label embeddings at masks behind a text; what answers are the prototypes of the examples.

    Args:
        masks: M.
        similarity, over, length: see `handful.encode.asking.Masks`.
    """

    def __init__(
        self, masks: int = 2, similarity: Literal["euclidean", "cosine"] = "euclidean", over: Over = "max",
        length: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        self.masks, self.similarity, self.over, self.length = masks, similarity, over, length

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Raises `BadInput` for a model that is not asked at masks."""
        if (kind := speaker(model).model.kind) != "masked":
            raise BadInput(f"perfect asks at masks behind the text: take a masked model, not a {kind} one")
        super().begin(model, data, generator)
        self._data = data

    def look(self, model: nn.Module, inputs: Sequence[str]) -> Tensor:
        return states_at_masks(speaker(model).model, inputs, self.masks, self.length)

    def ships(self, model: nn.Module) -> Shipped:
        inputs, y = list(self._data.inputs), self._data.targets
        h = torch.cat([self.look(model, inputs[at : at + 16]) for at in range(0, len(inputs), 16)])
        means = torch.einsum("nc,nmd->cmd", y, h) / y.sum(0)[:, None, None]
        return Shipped(*one_hot_head(len(means)), Masks(means, self.similarity, self.over, self.length))


@dataclass(frozen=True)
class AskedPerfect:
    """A masked model told apart at masks, without template or words (078). See `handful.tune.perfect`.

    Args:
        masks, reduction, loss, similarity, over, steps, lr, batch, embedding_lr, length: see `PerfectClassifier`.
    """

    asks: ClassVar[bool] = True
    masks: int = 2
    reduction: int = 16
    loss: Literal["hinge", "cross-entropy"] = "hinge"
    similarity: Literal["euclidean", "cosine"] = "euclidean"
    over: Over = "max"
    steps: int = 6000
    lr: float = 1e-4
    batch: int = 32
    embedding_lr: float = 0.1
    length: int = 128

    def recipe(self) -> Recipe:
        """As slots."""
        made = slots(self.reduction, self.loss, self.steps, self.lr, self.batch, self.embedding_lr)
        return replace(made, readout=partial(AskedMasks, self.masks, self.similarity, self.over, self.length))


@dataclass(frozen=True)
class AskedInContext:
    """Examples stand in front of the text, in the file as well; nothing learns. See `handful.tune.in_context`.

    Args:
        shots: examples shown, drawn once; 0 shows all.
        template: as of `AskedLMBFF`.
        separator: between an answer and the next example.
        length_norm: of answers, see `handful.encode.asking.Answers`.
        length: tokens of the question at most; examples do not count.
        seed: of the draw and the order.
    """

    asks: ClassVar[bool] = True
    shots: int = 0
    template: str = ""
    separator: str = "\n\n"
    length_norm: float = 1.0
    length: int = 256
    seed: int = 0

    def recipe(self) -> Recipe:
        """As slots."""
        if self.shots < 0:
            raise BadInput(f"shots is a number of examples, or 0 for all, not {self.shots}")
        return Recipe(stages=(Stage(steps=0),), readout=partial(Asked, self._shows))

    def _shows(self, model: LanguageModel, data: Data) -> Answers:
        plain = _answers(model, data, self.template, self.length, self.length_norm)
        if self.shots > len(data):
            raise BadInput(f"{self.shots} examples are to be shown, but there are {len(data)}")
        rows = np.random.default_rng(self.seed).permutation(len(data))[: self.shots or None].tolist()
        told = [plain.answers[c] for c in data.labels.tolist()]
        shown = tuple((str(data.inputs[row]), told[row]) for row in rows)
        made = replace(plain, shown=shown, separator=self.separator)
        made.questions(model, [shown[0][0]])  # too many examples are refused before any work
        return made
