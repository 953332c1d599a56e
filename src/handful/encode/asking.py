"""How a language model is asked about a text, so that what it says are the logits of C classes.

Words     the logits of one word a class, where a template asks
Answers   log p of whole answers, the sum over tokens by ``tokens ** length_norm``; examples may stand in front:
          text 1, answer 1, …, text k, answer k, the text
Masks     states h [M, d] at masks behind the text, by the nearest prototype p_c [M, d]:
          max_m exp(-|h_m / |h_m| - p_cm / |p_cm||^2)
Levels    V u, u [d] what the model's head makes of the last of D masks, V [C, d] a row a leaf of a tree of D levels

A model file keeps one as plain values (`described`) and tensors; it is read back by `handful.encode.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from handful.encode.hf import quiet
from handful.encode.language_tower import normalised
from handful.encode.lm import LanguageModel
from handful.encode.prompt import LabelWords, Prompt, Question, level_prompt, masked
from handful.encode.template import Template
from handful.errors import BadInput

Over = Literal["max", "mean", "min", "sum"]
OVER: Mapping[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: x.amax(1), "mean": lambda x: x.mean(1), "min": lambda x: x.amin(1), "sum": lambda x: x.sum(1),
}  # fmt: skip


@runtime_checkable
class Asking(Protocol):
    """A way of asking. A text's logits do not depend on the others'."""

    kind: ClassVar[str]

    @property
    def width(self) -> int:
        """C."""
        ...

    @property
    def length(self) -> int:
        """Tokens of a prompt at most."""
        ...

    def look(self, model: LanguageModel, texts: Sequence[str]) -> Tensor:
        """What the model says of n texts, with a gradient."""
        ...

    def logits(self, said: Tensor) -> Tensor:
        """``[n, C]`` of it."""
        ...

    def described(self) -> dict[str, Any]:
        """What it is, short of its tensors: JSON-able, with its ``kind``."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        ...


class _Plain:
    """What askings without tensors share: a dataclass of plain values."""

    kind: ClassVar[str]

    def described(self) -> dict[str, Any]:
        """Its fields."""
        return {"kind": self.kind, **asdict(cast(Any, self))}

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}


@dataclass(frozen=True)
class Words(_Plain):
    """See `handful.encode.asking`.

    Args:
        template: in the language of `handful.encode.template`; the text is ``sent_0``.
        words: of the C classes, one token each.
        length: tokens of a prompt at most; a longer text is cut.
    """

    kind: ClassVar[str] = "words"
    template: str
    words: tuple[str, ...]
    length: int = 128

    @property
    def width(self) -> int:
        return len(self.words)

    def look(self, model: LanguageModel, texts: Sequence[str]) -> Tensor:
        template = asked_of(self.template, model)
        ids = LabelWords.of(model.tokenizer, dict(zip(map(str, range(self.width)), self.words, strict=True))).single
        logits: Tensor = model.tower(filled(template, model, texts, min(self.length, model.most)))
        return logits[:, ids]

    def logits(self, said: Tensor) -> Tensor:
        return said


@dataclass(frozen=True)
class Answers(_Plain):
    """See `handful.encode.asking`.

    Args:
        template: as of `Words`.
        answers: of the C classes, of any number of tokens.
        length_norm: 1 is the mean over tokens, 0 the sum.
        length: tokens of a prompt at most; examples do not count.
        shown: the examples, each a text and its answer.
        separator: between an answer and the next example.
    """

    kind: ClassVar[str] = "answers"
    template: str
    answers: tuple[str, ...]
    length_norm: float = 1.0
    length: int = 256
    shown: tuple[tuple[str, str], ...] = ()
    separator: str = "\n"

    @property
    def width(self) -> int:
        return len(self.answers)

    def look(self, model: LanguageModel, texts: Sequence[str]) -> Tensor:
        """``log p`` of each token of each answer ``[n, C, T]``; ``-inf`` where there is none.

        A causal model reads the examples once for all texts.
        """
        front, questions = self.questions(model, texts)
        if front and model.kind == "causal" and not model.tower.front.used:
            with model.tower.front.holding(model.tower.kept(front)):
                return model.tower(questions)  # type: ignore[no-any-return]
        whole = [Question(Prompt.of((*front, *q.prompt.ids), None), q.answers) if front else q for q in questions]
        return model.tower(whole)  # type: ignore[no-any-return]

    def questions(self, model: LanguageModel, texts: Sequence[str]) -> tuple[tuple[int, ...], list[Question]]:
        """The tokens of the examples, and what the model is asked behind them.

        Raises:
            BadInput: the examples leave no room for a text; they are shown to a masked model.
        """
        template, answers = asked_of(self.template, model), model.answers(1, self.answers)[0]
        if self.shown and model.kind == "masked":
            raise BadInput("a masked model is not prompted with examples: take a causal or seq2seq one")
        front = context_of(model, template, self.shown, self.separator)
        room = model.most - len(front) - max(map(len, answers))
        if front and room <= len(template.encode(model.tokenizer, [""]).ids):
            raise BadInput(
                f"the examples shown are {len(front)} tokens, and the model reads {model.most}: show fewer (shots=)"
            )
        prompts = filled(template, model, texts, min(self.length, room))
        return front, [Question(prompt, tuple(answers)) for prompt in prompts]

    def logits(self, said: Tensor) -> Tensor:
        return normalised(said, self.length_norm)


@dataclass(frozen=True)
class Masks:
    """See `handful.encode.asking`.

    Args:
        prototypes: ``p`` ``[C, M, d]``.
        similarity: ``"euclidean"`` as above, or ``"cosine"``.
        over: masks: ``"max"``, ``"mean"``, ``"min"`` or ``"sum"``.
        length: tokens of a prompt at most.
    """

    kind: ClassVar[str] = "masks"
    prototypes: Tensor
    similarity: Literal["euclidean", "cosine"] = "euclidean"
    over: Over = "max"
    length: int = 128

    def __post_init__(self) -> None:
        if self.prototypes.dim() != 3 or not bool(torch.isfinite(self.prototypes).all()):
            raise BadInput(f"prototypes of shape {tuple(self.prototypes.shape)} must be finite, [classes, masks, d]")
        if self.over not in OVER or self.similarity not in ("euclidean", "cosine"):
            raise BadInput(f"over is {', '.join(OVER)}, similarity euclidean or cosine: {self.over}, {self.similarity}")

    @property
    def width(self) -> int:
        return len(self.prototypes)

    def look(self, model: LanguageModel, texts: Sequence[str]) -> Tensor:
        """States ``[n, M, d]``."""
        return states_at_masks(model, texts, self.prototypes.shape[1], self.length)

    def logits(self, said: Tensor) -> Tensor:
        return nearest_prototype(said, self.prototypes, self.similarity, self.over)

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "similarity": self.similarity, "over": self.over, "length": self.length}

    def tensors(self) -> dict[str, Tensor]:
        return {"prototypes": self.prototypes}


@dataclass(frozen=True)
class Levels:
    """See `handful.encode.asking`.

    Args:
        rows: ``V`` ``[C, d]``.
        depth: D.
        length: tokens of a prompt at most.
    """

    kind: ClassVar[str] = "levels"
    rows: Tensor
    depth: int
    length: int = 512

    def __post_init__(self) -> None:
        if self.rows.dim() != 2 or not bool(torch.isfinite(self.rows).all()):
            raise BadInput(f"rows of shape {tuple(self.rows.shape)} must be finite, [classes, d]")
        if type(self.depth) is not int or self.depth < 1:
            raise BadInput(f"the depth of a tree is a number of levels, not {self.depth!r}")

    @property
    def width(self) -> int:
        return len(self.rows)

    def look(self, model: LanguageModel, texts: Sequence[str]) -> Tensor:
        """``u`` ``[n, d]``."""
        return model.tower.at_masks(leveled(model, texts, self.depth, self.length), self.depth)[1][:, -1]

    def logits(self, said: Tensor) -> Tensor:
        return said @ self.rows.mT

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "depth": self.depth, "length": self.length}

    def tensors(self) -> dict[str, Tensor]:
        return {"rows": self.rows}


def asking_of(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Asking | None:
    """What `Asking.described` and `Asking.tensors` are of; ``None`` for what is no asking.

    Raises:
        BadInput: it is damaged.
    """
    kinds: dict[str, Any] = {one.kind: one for one in (Words, Answers, Masks, Levels)}
    kind = described.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        return None
    given = {name: _tuples(value) for name, value in described.items() if name != "kind"}
    try:
        made: Asking = kinds[kind](**tensors, **given)
        _check_plain(made)
        return made
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"how the language model is asked makes no sense: {' '.join(str(error).split())}") from error


def _check_plain(made: Asking) -> None:
    """Raise `TypeError` for values of another kind than they should be."""
    texts: tuple[Any, ...] = ()
    if isinstance(made, Words):
        texts = (made.template, *made.words)
    elif isinstance(made, Answers):
        texts = (made.template, made.separator, *made.answers, *(part for pair in made.shown for part in pair))
        if any(len(pair) != 2 for pair in made.shown):
            raise TypeError("an example is a text and its answer")
    if not all(isinstance(one, str) for one in texts):
        raise TypeError("a template, a word or an example is no text")
    if type(made.length) is not int or made.length < 1:
        raise TypeError("the length is a number of tokens")
    if not made.width:
        raise TypeError("there are no classes")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def asked_of(template: str, model: LanguageModel) -> Template:
    """The template, for a model of that kind. Raises `BadInput` for a masked model and a template without a mask."""
    made = Template(template)
    if model.kind == "masked" and not made.asks:
        raise BadInput(f"template {template!r} has no mask; put *mask* where the model is to answer")
    if model.kind != "masked" and made.asks:
        raise BadInput(f"template {template!r} has a mask, and a {model.kind} model knows none; leave *mask* out")
    return made


def filled(template: Template, model: LanguageModel, texts: Sequence[str], most: int) -> list[Prompt]:
    """Each text in the template, cut so that all of the prompt fits into ``most`` tokens."""
    room = template.room(model.tokenizer, most)
    with quiet():  # it would warn of long texts
        return [template.encode(model.tokenizer, [text], first=room) for text in texts]


def context_of(
    model: LanguageModel, template: Template, shown: Sequence[tuple[str | Sequence[str], str]], separator: str
) -> tuple[int, ...]:
    """The tokens of examples in front of a question: each text in the template, its answer, ``separator``."""
    between = tuple(model.tokenizer.encode(separator, add_special_tokens=False)) if separator else ()
    ids: list[int] = []
    with quiet():
        for text, answer in shown:
            asked = template.encode(model.tokenizer, [text] if isinstance(text, str) else list(text)).ids
            ids += [*asked, *model.answer(answer), *between]
    return tuple(ids)


def states_at_masks(model: LanguageModel, texts: Sequence[str], masks: int, length: int) -> Tensor:
    """The encoder's states at ``masks`` masks behind each text ``[n, masks, d]``."""
    most = min(length, model.most)
    with quiet():  # it would warn of long texts
        prompts = [masked(model.tokenizer, [text], masks, most=most) for text in texts]
    return model.tower.states(prompts, masks)


def leveled(model: LanguageModel, texts: Sequence[str], depth: int, length: int) -> list[Prompt]:
    """Each text behind a mask a level, see `level_prompt`."""
    with quiet():  # it would warn of long texts
        return [level_prompt(model.tokenizer, text, depth, min(length, model.most)) for text in texts]


def nearest_prototype(h: Tensor, prototypes: Tensor, similarity: str = "euclidean", over: Over = "max") -> Tensor:
    """How much ``h [B, M, d]`` is like each of ``prototypes [C, M, d]``: ``[B, C]``, both made unit first."""
    h, p = functional.normalize(h, dim=-1), functional.normalize(prototypes, dim=-1)
    cosine = torch.einsum("bmd,cmd->bmc", h, p)
    return OVER[over](cosine if similarity == "cosine" else (2 * cosine - 2).exp())
