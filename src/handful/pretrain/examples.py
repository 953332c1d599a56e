"""Examples of instructions: a text that is given, a text that is wanted, and how both become tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handful.encode.lm import LanguageModel
from handful.encode.prompt import Prompt, Question, continuation
from handful.encode.rows import Row, chained
from handful.errors import BadInput


@dataclass(frozen=True)
class Example:
    """Something asked and what is to be answered.

    Args:
        inputs: what is given.
        targets: what is wanted.
        options: the answers it may be chosen from; none for free text.
        task: where it comes from.
        setting: how it was written, such as ``"fs-opt"``.
        template: number of its template.
        case: number of its case in the task.
        shown: numbers of the cases that are shown in the prompt.
    """

    inputs: str
    targets: str
    options: tuple[str, ...] = ()
    task: str = ""
    setting: str = ""
    template: int = 0
    case: int = 0
    shown: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; a line of a file each, so that answers may have several lines."""
        return {
            "inputs": self.inputs, "targets": self.targets, "options": list(self.options), "task": self.task,
            "setting": self.setting, "template_id": self.template,
        }  # fmt: skip


@dataclass(frozen=True)
class Framing:
    """How an example becomes tokens, in training as in use.

    Args:
        separator: the model's end of sequence stands between what is given and what is wanted (Flan's causal models).
        ends: what is learnt ends with the end of sequence, so that the model stops there.
        most_in, most_out: tokens at most; the last ones are cut.
        cut: how many texts were cut, by ``"inputs"`` and ``"targets"``; counted as they are framed.
    """

    separator: bool = False
    ends: bool = True
    most_in: int = 1024
    most_out: int = 256
    cut: dict[str, int] = field(default_factory=lambda: {"inputs": 0, "targets": 0}, compare=False, repr=False)

    def prompt(self, model: LanguageModel, inputs: str) -> Prompt:
        """What the model is asked, without blanks at its end: the first token of an answer has its own."""
        ids = tuple(model.tokenizer.encode(inputs.rstrip(" ")))
        room = min(self.most_in, model.most - 1)
        if len(ids) > room:
            self.cut["inputs"] += 1
            ids = ids[:room]
        if self.separator and model.kind == "causal":
            ids = (*ids, _end(model))
        if not ids:
            raise BadInput(f"what is given is empty: {inputs!r}; give the model something to go on from")
        return Prompt.of(ids, model.tokenizer.mask_token_id if model.kind == "masked" else None)

    def answer(self, model: LanguageModel, targets: str) -> tuple[int, ...]:
        """What it is to say."""
        ids = continuation(model.tokenizer, targets)
        if len(ids) > self.most_out:
            self.cut["targets"] += 1
            ids = ids[: self.most_out]
        return (*ids, _end(model)) if self.ends else ids

    def row(self, model: LanguageModel, example: Example) -> Row:
        """For a causal model."""
        return chained([(self.prompt(model, example.inputs).ids, self.answer(model, example.targets))])

    def items(self, model: LanguageModel, examples: Sequence[Example]) -> list[Row] | list[Question]:
        """What the model's tower learns from: rows of a causal model, questions with one answer of a seq2seq one."""
        if model.kind == "causal":
            return [self.row(model, one) for one in examples]
        if model.kind == "masked":
            raise BadInput(f"{model.name!r} fills masks and cannot learn to go on with a text; take another model")
        pairs = [(self.prompt(model, one.inputs), self.answer(model, one.targets)) for one in examples]
        return [Question(prompt, (answer,)) for prompt, answer in pairs]


def with_shots(query: str, shots: Sequence[tuple[str, str]], between: str = "\n", apart: str = "\n\n") -> str:
    """Examples before a query: ``x between y apart … query between``, without blanks at the end of the last.

    Args:
        query: what is asked.
        shots: pairs that are shown.
        between: stands between what is given and what is wanted.
        apart: stands between examples.
    """
    return "".join(f"{x}{between}{y}{apart}" for x, y in shots) + f"{query}{between}".rstrip(" ")


def checked(examples: Sequence[Example], what: str) -> Sequence[Example]:
    """``examples`` themselves. Raises `BadInput` where there are none, one is none, or one wants nothing."""
    if not examples:
        raise BadInput(f"there are no examples {what}")
    for number, one in enumerate(examples):
        if not isinstance(one, Example) or not (isinstance(one.inputs, str) and isinstance(one.targets, str)):
            raise BadInput(f"example {number} {what} must be an Example of two texts, not {one!r:.60}")
        if not one.targets.strip():
            raise BadInput(f"example {number} {what} wants an empty answer")
    return examples


def by_task(examples: Sequence[Example]) -> Mapping[str, list[Example]]:
    """Examples by their task, in the order of first ones."""
    out: dict[str, list[Example]] = {}
    for one in examples:
        out.setdefault(one.task, []).append(one)
    return out


def _end(model: LanguageModel) -> int:
    end = model.tokenizer.eos_token_id
    if end is None:
        raise BadInput(f"the tokenizer of {model.name!r} has no end of sequence; set ends and separator to False")
    return int(end)
