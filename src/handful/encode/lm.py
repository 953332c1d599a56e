"""Language models as they are, without training: what they would say, and how likely an answer is.

    model = language_model("hf:FOLDER")
    model.score(["the film is great. It was"], ["good", "bad"])     # log-likelihood, by its length
    model.mask_logits(["it was [MASK]."])                           # over the vocabulary

Masked, causal and seq2seq models of `transformers` from a folder or the hub; their files are data and run no code
(`handful.encode.hf_safety`). Training is in the room ``tune``, on ``model.tower``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, get_args

import torch
from torch import Tensor

from handful.encode.front import places
from handful.encode.hf import PREFIX, Source, find, first_line, needs_transformers, quiet
from handful.encode.hf_safety import check_files
from handful.encode.language_tower import Kind, LanguageTower, normalised
from handful.encode.prompt import LabelWords, Prompt, Question, word_ids
from handful.encode.template import Template
from handful.errors import BadInput

BATCH_TOKENS = 2048
"""Tokens that go through the model at once, as far as one prompt has not more."""
_CLASS = {"masked": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM", "seq2seq": "AutoModelForSeq2SeqLM"}
Asked = str | Prompt
"""A prompt as text, or as ids. A masked model's text holds the tokenizer's own mask token."""


def language_model(name: str, kind: Kind | None = None) -> LanguageModel:
    """The language model ``"hf:FOLDER"`` or ``"hf:NAME@REVISION"``, or the embedded ``"smollm2"``.

    Args:
        name: where it is.
        kind: ``"masked"``, ``"causal"`` or ``"seq2seq"``; by default what its configuration says.

    Raises:
        BadInput: no such model; its files are not safe; it is no language model, or lacks the head of one.
    """
    if kind is not None and kind not in _CLASS:
        raise BadInput(f"kind is {kind!r}; it is one of {', '.join(get_args(Kind))}")
    needs_transformers(name)
    if name == "smollm2":
        from handful.encode.smollm2 import smollm2

        return smollm2()
    if not name.startswith(PREFIX):
        raise BadInput(f"there is no language model {name!r}; give hf:FOLDER, hf:NAME or smollm2")
    return model_of(find(name), kind)


def model_of(source: Source, kind: Kind | None = None) -> LanguageModel:
    """The language model of these files; see `language_model`."""
    check_files(source)
    kind = kind or _kind(source)
    body = source.load_model("float32", loader=_CLASS[kind])
    return LanguageModel(body, source.load("AutoTokenizer"), kind, source.name)


class LanguageModel:
    """A language model and its tokenizer. See `handful.encode.lm`.

    Args:
        body: of `transformers`, with its head for words.
        tokenizer: its own.
        kind: ``"masked"``, ``"causal"`` or ``"seq2seq"``.
        name: for messages.
    """

    def __init__(self, body: Any, tokenizer: Any, kind: Kind, name: str = "model") -> None:
        self.tokenizer, self.kind, self.name = tokenizer, kind, name
        if kind == "masked" and tokenizer.mask_token_id is None:
            raise BadInput(f"the tokenizer of {name!r} has no mask token, so that it cannot be asked as a masked model")
        pad = tokenizer.pad_token_id
        self.tower = LanguageTower(body, kind, 0 if pad is None else int(pad)).eval()
        self.most = min(int(tokenizer.model_max_length), places(body.config) or int(tokenizer.model_max_length))

    def with_tower(self, tower: LanguageTower) -> LanguageModel:
        """The same model with the network ``tower``."""
        other = copy(self)
        other.tower = tower
        return other

    def prompt(self, text: Asked) -> Prompt:
        """A text as token ids, with the special tokens of its model. Raises `BadInput` when it is too long."""
        if isinstance(text, Prompt):
            prompt = text
        else:
            with quiet():
                ids = self.tokenizer.encode(text)
            prompt = Prompt.of(ids, self.tokenizer.mask_token_id if self.kind == "masked" else None)
        if not prompt.ids:
            raise BadInput("a prompt is empty")
        if len(prompt.ids) > self.most:
            raise BadInput(
                f"a prompt has {len(prompt.ids)} tokens, {self.name!r} reads {self.most}; "
                f"shorten it: {str(text)[:60]!r}…"
            )
        return prompt

    def fill(self, template: Template, texts: Sequence[Sequence[str]], words: LabelWords | None = None) -> list[Prompt]:
        """Each item, a list of its texts, in the template; cut at the tail to what the model reads."""
        answers = words.ids if words else ()
        return [template.encode(self.tokenizer, item, answers=answers, most=self.most) for item in texts]

    def questions(self, prompts: Sequence[Asked], choices: Sequence[str] | Sequence[Sequence[str]]) -> list[Question]:
        """Prompts with their answers, see `score`: what ``tower`` takes to give likelihoods."""
        answers = self.answers(len(prompts), choices)
        return [Question(self.prompt(one), tuple(own)) for one, own in zip(prompts, answers, strict=True)]

    def words(self, words: Mapping[str, str]) -> LabelWords:
        """The answers by class, encoded. See `LabelWords.of`."""
        return LabelWords.of(self.tokenizer, words)

    def mask_logits(self, prompts: Sequence[Asked]) -> Tensor:
        """Over the vocabulary, where each prompt asks ``[n, V]``."""
        return self._each(prompts, self.tower)

    def hidden(self, prompts: Sequence[Asked]) -> Tensor:
        """The last hidden state where each prompt asks ``[n, d]``."""
        return self._each(prompts, lambda some: self.tower.states(some)[:, 0])

    def score(
        self, prompts: Sequence[Asked], choices: Sequence[str] | Sequence[Sequence[str]], *, length_norm: float = 1.0
    ) -> Tensor:
        """How likely each answer is: the sum of its tokens' log-likelihoods, by ``tokens ** length_norm``.

        Args:
            prompts: n of them.
            choices: answers to every prompt, or for each prompt its own; a seq2seq model also says that it ends.
            length_norm: 1 is the mean over tokens, 0 the sum.

        Returns:
            ``[n, C]``; where a prompt has fewer answers than others, ``-inf``.

        Raises:
            BadInput: an answer is empty, or two of a prompt are equal.
        """

        def ranked(some: Sequence[Prompt], theirs: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
            return normalised(self.tower.likelihoods(some, theirs), length_norm)

        return self._answers(prompts, choices, ranked, float("-inf"))

    def label_probabilities(self, prompts: Sequence[Asked], choices: Sequence[str] | Sequence[Sequence[str]]) -> Tensor:
        """The probability of each answer ``[n, C]``: the mean of its tokens' probabilities, rows divided by their sum.

        What `handful.adapt.dcs` corrects (paper 179, Lin, Wang, You, Ensemble Debiasing, 2025, section 3).
        """

        def mean(some: Sequence[Prompt], theirs: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
            values = self.tower.likelihoods(some, theirs)
            return values.exp().sum(-1) / (values > float("-inf")).sum(-1).clamp_min(1)

        found = self._answers(prompts, choices, mean, 0.0)
        return found / found.sum(1, keepdim=True)

    def answer(self, choice: str) -> tuple[int, ...]:
        """The tokens of an answer; a seq2seq model's ends with its end of sequence."""
        ids = word_ids(self.tokenizer, choice)
        if self.kind == "seq2seq" and self.tokenizer.eos_token_id is not None:
            return (*ids, int(self.tokenizer.eos_token_id))
        return ids

    def answers(self, prompts: int, choices: Sequence[str] | Sequence[Sequence[str]]) -> list[list[tuple[int, ...]]]:
        """For each of ``prompts`` prompts the tokens of its answers. Raises `BadInput`, see `score`."""
        listed, known = choices_of(prompts, choices), dict[str, tuple[int, ...]]()
        for number, some in enumerate(listed):
            if not some:
                raise BadInput(f"prompt {number} has no answers to choose from")
            if len(set(some)) < len(some):
                twice = next(one for one in some if list(some).count(one) > 1)
                raise BadInput(f"prompt {number} has the answer {twice!r} twice")
            known.update({one: self.answer(one) for one in some if one not in known})
        return [[known[one] for one in some] for some in listed]

    def _answers(
        self,
        prompts: Sequence[Asked],
        choices: Sequence[str] | Sequence[Sequence[str]],
        read: Callable[[Sequence[Prompt], Sequence[Sequence[tuple[int, ...]]]], Tensor],
        fill: float,
    ) -> Tensor:
        asked = [self.prompt(one) for one in prompts]
        answers = self.answers(len(asked), choices)
        ways = max(map(len, answers), default=0)
        out = torch.full((len(asked), ways), fill)
        cost = [len(a.ids) * len(c) + sum(map(len, c)) for a, c in zip(asked, answers, strict=True)]
        with torch.inference_mode():
            for rows in _batches(cost):
                found = read([asked[i] for i in rows], [answers[i] for i in rows]).float()
                for row, values in zip(rows, found, strict=True):
                    out[row, : len(answers[row])] = values[: len(answers[row])]
        return out

    def _each(self, prompts: Sequence[Asked], read: Callable[[Sequence[Prompt]], Tensor]) -> Tensor:
        asked = [self.prompt(one) for one in prompts]
        if not asked:
            raise BadInput("no prompts")
        order = _batches([len(one.ids) for one in asked])
        with torch.inference_mode():
            found = torch.cat([read([asked[i] for i in rows]).float() for rows in order])
        return found[torch.tensor([i for rows in order for i in rows]).argsort()].clone()


def _batches(cost: Sequence[int]) -> list[list[int]]:
    """Rows of like length together, as many as fit the budget."""
    out: list[list[int]] = []
    for row in sorted(range(len(cost)), key=lambda i: (cost[i], i)):
        if out and (len(out[-1]) + 1) * cost[row] <= BATCH_TOKENS:
            out[-1].append(row)
        else:
            out.append([row])
    return out


def _kind(source: Source) -> Kind:
    import transformers
    from transformers.models.auto import modeling_auto as auto

    named = " ".join(map(str, source.config.get("architectures") or ()))
    if source.config.get("is_encoder_decoder") or "ConditionalGeneration" in named:
        return "seq2seq"
    if "MaskedLM" in named or "ForPreTraining" in named:
        return "masked"
    if "CausalLM" in named or "LMHead" in named:
        return "causal"
    try:
        model_type = transformers.CONFIG_MAPPING[str(source.config.get("model_type"))].model_type
    except KeyError as error:
        raise BadInput(f"{source.name!r} is of no kind that transformers knows: {first_line(error)}") from error
    has = [
        kind
        for kind, table in (
            ("masked", auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
            ("causal", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        )
        if model_type in table
    ]
    if not has:
        raise BadInput(f"{source.name!r} is a {model_type}, which is no language model")
    return has[0]  # type: ignore[return-value]


def choices_of(prompts: int, choices: Sequence[str] | Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The answers to each prompt, from answers to all or to each. Raises `BadInput` for more or fewer than prompts."""
    shared = not choices or isinstance(choices[0], str)
    found: list[Sequence[str]] = [choices] * prompts if shared else list(choices)  # type: ignore[list-item]
    if len(found) != prompts:
        raise BadInput(f"{prompts} prompts, but answers for {len(found)}")
    return found
