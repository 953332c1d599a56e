"""A language model as a module that can be tuned: prompts in, logits of words, states or likelihoods of answers out.

Three kinds of model, one way to ask each:

    masked     the words at the mask                                       (BERT, RoBERTa)
    causal     the word after the last token                               (GPT-2, Llama, SmolLM2)
    seq2seq    the first word that the decoder gives                       (T5, BART)

``log p(answer | prompt)`` token by token: of a causal model after the prompt, of a decoder from its start; of a masked
one with the mask widened to as many masks as the answer has tokens, all asked at once.

``front`` is the place for vectors that learn in front of what is read (`handful.encode.front`); it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from handful.encode.front import Fronts
from handful.encode.prompt import Prompt, Question, padded
from handful.errors import BadInput

Kind = Literal["masked", "causal", "seq2seq"]
Choices = Sequence[Sequence[Sequence[int]]]
"""For each prompt the tokens of each answer it may be given; prompts may have different numbers of them."""


class LanguageTower(nn.Module):
    """See `handful.encode.language_tower`.

    Args:
        body: a model of `transformers` with its head for words; without one, only `states` can be asked.
        kind: ``"masked"``, ``"causal"`` or ``"seq2seq"``.
        pad: the token that fills up.
    """

    def __init__(self, body: nn.Module, kind: Kind, pad: int = 0) -> None:
        super().__init__()
        self.body, self.kind, self.pad = body, kind, pad
        types = getattr(body.config, "type_vocab_size", 0)
        self._types = int(types) if isinstance(types, int) else 0
        self.front = Fronts(body)

    def forward(self, prompts: Sequence[Prompt] | Sequence[Question]) -> Tensor:
        """Logits of the asked word ``[B, V]``; of questions, what `likelihoods` gives."""
        if prompts and isinstance(prompts[0], Question):
            asked = cast(Sequence[Question], prompts)
            return self.likelihoods([one.prompt for one in asked], [one.answers for one in asked])
        prompts = cast(Sequence[Prompt], prompts)
        at = self._asked(prompts, 1)[:, 0]
        logits = self.run(prompts)
        return logits[torch.arange(len(prompts)), at]

    def run(self, prompts: Sequence[Prompt]) -> Tensor:
        """Logits at every place of the prompts ``[B, L, V]`` (seq2seq: ``[B, 1, V]``, the decoder's first)."""
        inputs = self.inputs(prompts)
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = torch.full((len(prompts), 1), self._first)
            return self.body(**inputs).logits  # type: ignore[no-any-return]
        return self.body(**inputs).logits[:, self.front.ahead :]  # type: ignore[no-any-return]

    def states(self, prompts: Sequence[Prompt], masks: int = 1) -> Tensor:
        """Last hidden states where the model is asked ``[B, masks, d]``, without the head for words."""
        at = self._asked(prompts, masks)
        inputs = self.inputs(prompts)
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = torch.full((len(prompts), 1), self._first)
            h = self.body(**inputs, output_hidden_states=True).decoder_hidden_states[-1]
        else:
            h = getattr(self.body, "base_model", self.body)(**inputs).last_hidden_state[:, self.front.ahead :]
        return h[torch.arange(len(prompts))[:, None], at]  # type: ignore[no-any-return]

    def at_masks(self, prompts: Sequence[Prompt], masks: int) -> tuple[Tensor, Tensor]:
        """Of a masked model what it has where it is asked, both ``[B, masks, d]``.

        The last hidden states, and what the last map of its head for words reads: those behind the head's own map,
        activation and norm. The head is run there only.
        """
        rows, at = torch.arange(len(prompts))[:, None], self._asked(prompts, masks)
        with self._only(rows, at) as read:
            h = self.body(**self.inputs(prompts), output_hidden_states=True).hidden_states[-1]
        return h[rows, at + self.front.ahead], read[0]

    def logits_at(self, prompts: Sequence[Prompt], rows: Tensor, at: Tensor) -> Tensor:
        """Logits ``[n, V]`` at places ``at [n]`` of the prompts ``rows [n]``; the head's last map is run there only."""
        with self._only(rows, at):
            return self.body(**self.inputs(prompts)).logits  # type: ignore[no-any-return]

    @contextmanager
    def _only(self, rows: Tensor, at: Tensor) -> Iterator[list[Tensor]]:
        """The last map of the head, the widest, sees these places only; what it reads there comes out."""
        read: list[Tensor] = []

        def only_there(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            read.append(given[0][rows, at + self.front.ahead])
            return (read[0],)

        handle = cast(Any, self.body).get_output_embeddings().register_forward_pre_hook(only_there)
        try:
            yield read
        finally:
            handle.remove()

    def after(self, prompts: Sequence[Prompt], mix: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits of the asked word ``[m, V]`` for states ``mix(h)`` ``[m, d]`` in place of the last hidden ones.

        Args:
            prompts: B of them, for a masked or causal model.
            mix: takes h ``[B, d]``, where the prompts ask.
        """
        rows, at = torch.arange(len(prompts)), self._asked(prompts, 1)[:, 0] + self.front.ahead

        def mixed(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            output.last_hidden_state = mix(output.last_hidden_state[rows, at])[:, None]
            return output

        handle = cast(Any, self.body).base_model.register_forward_hook(mixed)
        try:
            return self.body(**self.inputs(prompts)).logits[:, 0]  # type: ignore[no-any-return]
        finally:
            handle.remove()

    def blend(self, prompts: Sequence[Prompt], others: Sequence[Prompt], share: Tensor) -> Tensor:
        """Logits of the asked word ``[B, V]`` of ``share [B]`` of a prompt's word embeddings and the rest of another's.

        Raises:
            BadInput: the two of a pair differ in length, or ask at different places.
        """
        at = self._asked(prompts, 1)[:, 0]
        for number, (own, other) in enumerate(zip(prompts, others, strict=True)):
            if len(own.ids) != len(other.ids) or own.masks != other.masks:
                raise BadInput(f"the prompts of pair {number} ask at different places; they cannot be mixed")
        table = cast(Any, self.body).get_input_embeddings()
        inputs, theirs = self.inputs(prompts), self.inputs(others)
        own, other = (i["inputs_embeds"] if "inputs_embeds" in i else table(i["input_ids"]) for i in (inputs, theirs))
        inputs.pop("input_ids", None)
        inputs["inputs_embeds"] = share[:, None, None] * own + (1 - share[:, None, None]) * other
        logits = self.body(**inputs).logits[:, self.front.ahead :]
        return logits[torch.arange(len(prompts)), at]  # type: ignore[no-any-return]

    def likelihoods(self, prompts: Sequence[Prompt], choices: Choices) -> Tensor:
        """``log p`` of each token of each answer ``[B, C, T]``; ``-inf`` where there is no token."""
        if len(prompts) != len(choices):
            raise BadInput(f"{len(prompts)} prompts, but answers for {len(choices)}")
        owner = torch.tensor([b for b, some in enumerate(choices) for _ in some])
        place = torch.tensor([c for some in choices for c in range(len(some))])
        answers = [tuple(one) for some in choices for one in some]
        if not all(answers):
            raise BadInput("an answer has no tokens; give each at least one")
        targets = padded(answers, -1)
        flat = {"masked": self._masked, "causal": self._causal, "seq2seq": self._decoded}[self.kind](
            prompts, owner, answers
        )
        there = targets >= 0
        found = flat.log_softmax(-1).gather(-1, targets.clamp_min(0)[..., None])[..., 0]
        shape = (len(prompts), max(map(len, choices)), targets.shape[1])
        absent = float("-inf")
        return found.new_full(shape, absent).index_put((owner, place), torch.where(there, found, absent))

    def inputs(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """What the body is called with: ids, which of them count, and their kinds where it knows several.

        With vectors in front, see `handful.encode.front`: word embeddings in place of ids, or keys and values.
        """
        ids = padded([prompt.ids for prompt in prompts], self.pad)
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
        out: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        }
        if self._types > 1:
            out["token_type_ids"] = padded([prompt.segments for prompt in prompts], 0).clamp_max(self._types - 1)
        if self.kind == "seq2seq" and len(self.front.keys.vectors):
            raise BadInput("keys and values go in front of a masked or causal model; put words in front of this one")
        return self.front.join(out, self.body)

    @property
    def _first(self) -> int:
        return int(cast(Any, self.body).config.decoder_start_token_id)

    def _asked(self, prompts: Sequence[Prompt], masks: int) -> Tensor:
        """Where each prompt asks ``[B, masks]``."""
        if self.kind == "seq2seq":
            return torch.zeros(len(prompts), 1, dtype=torch.long)
        if self.kind == "causal":
            return torch.tensor([[len(prompt.ids) - 1] for prompt in prompts])
        for number, prompt in enumerate(prompts):
            if len(prompt.masks) != masks:
                raise BadInput(f"prompt {number} has {len(prompt.masks)} masks; this model is asked at {masks}")
        return torch.tensor([prompt.masks for prompt in prompts])

    def _masked(self, prompts: Sequence[Prompt], owner: Tensor, answers: list[tuple[int, ...]]) -> Tensor:
        """Logits ``[rows, T, V]`` of the answers' tokens; answers of one length share a row of the model."""
        self._asked(prompts, 1)
        wanted = [(b, len(answer)) for b, answer in zip(owner.tolist(), answers, strict=True)]
        distinct = {key: row for row, key in enumerate(dict.fromkeys(wanted))}
        wide = [prompts[b].widened(length) for b, length in distinct]
        logits = self.run(wide)
        most = max(length for _, length in wanted)
        at = torch.tensor([[min(prompt.masks[0] + t, prompt.masks[-1]) for t in range(most)] for prompt in wide])
        rows = torch.tensor([distinct[key] for key in wanted])
        return logits[torch.arange(len(wide))[:, None], at][rows]

    def _causal(self, prompts: Sequence[Prompt], owner: Tensor, answers: list[tuple[int, ...]]) -> Tensor:
        whole = [Prompt.of((*prompts[b].ids, *answer), None) for b, answer in zip(owner.tolist(), answers, strict=True)]
        logits = self.run(whole)
        begins = torch.tensor([len(prompts[b].ids) - 1 for b in owner.tolist()])
        at = (begins[:, None] + torch.arange(max(map(len, answers)))).clamp_max(logits.shape[1] - 1)
        return logits[torch.arange(len(whole))[:, None], at]

    def _decoded(self, prompts: Sequence[Prompt], owner: Tensor, answers: list[tuple[int, ...]]) -> Tensor:
        inputs = self.inputs(prompts)
        h = self.body.get_encoder()(**inputs).last_hidden_state[owner]  # type: ignore[operator]
        before = padded([(self._first, *answer[:-1]) for answer in answers], self.pad)
        there = inputs["attention_mask"][owner]
        return self.body(encoder_outputs=(h,), attention_mask=there, decoder_input_ids=before).logits  # type: ignore[no-any-return]


def normalised(values: Tensor, length_norm: float = 1.0) -> Tensor:
    """``sum_t log p_t / T ** length_norm`` of `LanguageTower.likelihoods`: ``[B, C]``, ``-inf`` where is no answer."""
    known = values > float("-inf")
    length = known.sum(-1)
    score = torch.where(known, values, 0.0).sum(-1) / length.clamp_min(1) ** length_norm
    return score.masked_fill(length == 0, float("-inf"))
