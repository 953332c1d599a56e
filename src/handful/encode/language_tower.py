"""A language model as a module that can be tuned: prompts in, logits of words, states or likelihoods of answers out.

Three kinds of model, one way to ask each:

    masked     the words at the mask                                       (BERT, RoBERTa)
    causal     the word after the last token                               (GPT-2, Llama, SmolLM2)
    seq2seq    the first word that the decoder gives                       (T5, BART)

``log p(answer | prompt)`` token by token: of a causal model after the prompt, of a decoder from its start; of a masked
one with the mask widened to as many masks as the answer has tokens, all asked at once.

The head for words sees the places that are asked alone: over a vocabulary of 50,000, logits at every place are most of
the memory that a small model needs, and a fifth of its time.

``front`` is the place for vectors that learn in front of what is read (`handful.encode.front`); it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from handful.encode.front import Fronts, cache_name
from handful.encode.prompt import Prompt, Question, padded
from handful.encode.rows import Row, block_mask
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
        self.front = Fronts(body, kind == "seq2seq")

    def forward(self, prompts: Sequence[Prompt] | Sequence[Question] | Sequence[Row]) -> Tensor:
        """Logits of the asked word ``[B, V]``; of questions, what `likelihoods` gives; of rows, what `learnt` gives."""
        if prompts and isinstance(prompts[0], Question):
            asked = cast(Sequence[Question], prompts)
            return self.likelihoods([one.prompt for one in asked], [one.answers for one in asked])
        if prompts and isinstance(prompts[0], Row):
            return self.learnt(cast(Sequence[Row], prompts))
        prompts = cast(Sequence[Prompt], prompts)
        return self._logits(self.inputs(prompts), self._asked(prompts, 1))[:, 0]

    def learnt(self, rows: Sequence[Row]) -> Tensor:
        """``log p`` of each token of a row that is learnt ``[B, 1, T]``; ``-inf`` behind the last."""
        logits, tokens, known = self._of_rows(rows)
        return _of_tokens(logits, tokens).masked_fill(~known, float("-inf"))[:, None]

    def certain(self, rows: Sequence[Row]) -> Tensor:
        """Whether all tokens of a row that are learnt are the likeliest ones ``[B]``, each behind those before it."""
        logits, tokens, known = self._of_rows(rows)
        return ((logits.argmax(-1) == tokens) | ~known).all(-1)

    def _of_rows(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``[B, T, V]`` of what is learnt, its tokens ``[B, T]``, and where there are such."""
        if self.kind != "causal":
            raise BadInput(f"rows with several answers need a model that goes on with a text, not a {self.kind} one")
        places = padded([row.learnt for row in rows], 0)
        ids = padded([row.ids for row in rows], self.pad)
        if any(len(row.begins) > 1 for row in rows):
            if self.front.used:
                raise BadInput("packed rows have no place in front of each for what is learnt there; do not pack them")
            mask, position = block_mask(rows)
            inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position}
        else:
            plain = {"input_ids": ids, "attention_mask": there([len(row.ids) for row in rows])}
            inputs = self.front.join(plain, self.body)
        return self._logits(inputs, (places - 1).clamp_min(0)), ids.gather(1, places), places > 0

    def states(self, prompts: Sequence[Prompt], masks: int = 1) -> Tensor:
        """Last hidden states where the model is asked ``[B, masks, d]``, without the head for words."""
        at = self._asked(prompts, masks)
        inputs = self.inputs(prompts)
        if self.kind == "seq2seq":
            inputs["decoder_input_ids"] = torch.full((len(prompts), 1), self.first)
            h = self.body(**inputs, output_hidden_states=True).decoder_hidden_states[-1]
        else:
            h = getattr(self.body, "base_model", self.body)(**inputs).last_hidden_state[:, self.front.ahead :]
        return h[torch.arange(len(prompts))[:, None], at]  # type: ignore[no-any-return]

    def at_masks(self, prompts: Sequence[Prompt], masks: int) -> tuple[Tensor, Tensor]:
        """Of a masked model what it has where it is asked, both ``[B, masks, d]``.

        The last hidden states, and what the last map of its head for words reads: those behind the head's own map,
        activation and norm. The head is run there only.
        """
        rows, at, read = torch.arange(len(prompts))[:, None], self._asked(prompts, masks) + self.front.ahead, []

        def only_there(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            read.append(given[0][rows, at])
            return (read[0],)

        handle = cast(Any, self.body).get_output_embeddings().register_forward_pre_hook(only_there)
        try:
            h = self.body(**self.inputs(prompts), output_hidden_states=True).hidden_states[-1]
        finally:
            handle.remove()
        return h[rows, at], read[0]

    def logits_at(self, prompts: Sequence[Prompt], rows: Tensor, at: Tensor) -> Tensor:
        """Logits ``[n, V]`` at places ``at [n]`` of the prompts ``rows [n]``, of a masked or causal model."""
        return self._logits(self.inputs(prompts), at[:, None], rows[:, None])[:, 0]

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
        found = _of_tokens(flat, targets.clamp_min(0))
        shape = (len(prompts), max(map(len, choices)), targets.shape[1])
        absent = float("-inf")
        return found.new_full(shape, absent).index_put((owner, place), torch.where(there, found, absent))

    def mean(self, prompts: Sequence[Prompt]) -> Tensor:
        """The mean of the last hidden states over the tokens of each prompt ``[B, d]``; a seq2seq model's reader's."""
        body: Any = self.body
        reads = body.get_encoder() if self.kind == "seq2seq" else getattr(body, "base_model", body)
        h = reads(**self.inputs(prompts)).last_hidden_state[:, self.front.ahead :]
        mask = there([len(prompt.ids) for prompt in prompts])[..., None]
        return (h * mask).sum(1) / mask.sum(1)  # type: ignore[no-any-return]

    def kept(self, ids: Sequence[int]) -> Tensor:
        """Keys and values of tokens that a causal model has read ``[m, layers 2 heads w]``, for `Fronts.holding`."""
        base: Any = getattr(self.body, "base_model", self.body)
        found = base(input_ids=torch.tensor([list(ids)]), use_cache=True)
        return self.front.keys_of(found[cache_name(self.body)])[0]

    def layers(self, prompts: Sequence[Prompt]) -> Tensor:
        """Hidden states of every layer at the last token of each prompt ``[layers + 1, B, d]``, embeddings first."""
        if self.kind == "seq2seq":
            raise BadInput("layers are looked at in a model that reads a text as one, not in a seq2seq one")
        base = getattr(self.body, "base_model", self.body)
        states = base(**self.inputs(prompts), output_hidden_states=True).hidden_states
        last = torch.tensor([len(prompt.ids) - 1 for prompt in prompts]) + self.front.ahead
        return torch.stack([h[torch.arange(len(prompts)), last] for h in states])

    def inputs(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """What the body is called with: ids, which of them count, and their kinds where it knows several.

        With vectors in front, see `handful.encode.front`: word embeddings in place of ids, or keys and values, which
        a seq2seq model's layers see without being given them here.
        """
        ids = padded([prompt.ids for prompt in prompts], self.pad)
        out: dict[str, Any] = {"input_ids": ids, "attention_mask": there([len(prompt.ids) for prompt in prompts])}
        if self._types > 1:
            out["token_type_ids"] = padded([prompt.segments for prompt in prompts], 0).clamp_max(self._types - 1)
        return self.front.join(out, self.body)

    def _logits(self, inputs: dict[str, Any], at: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits at the places ``at [B, T]`` of each input, or of the inputs ``rows [B, 1]``: ``[B, T, V]`` (seq2seq:
        of the decoder's first, T = 1).

        What the body hands to its head is narrowed down by a hook; a body that goes another way gives all and loses.
        """
        if self.kind == "seq2seq":
            inputs = {**inputs, "decoder_input_ids": torch.full((len(at), 1), self.first)}
            return self.body(**inputs).logits  # type: ignore[no-any-return]
        rows, narrowed = torch.arange(len(at))[:, None] if rows is None else rows, []
        at = at + self.front.ahead

        def narrow(module: nn.Module, given: Any, out: Any) -> Any:
            out.last_hidden_state = out.last_hidden_state[rows, at]
            narrowed.append(True)
            return out

        base = cast(nn.Module, getattr(self.body, "base_model", self.body))
        hook = None if base is self.body else base.register_forward_hook(narrow)
        try:
            logits: Tensor = self.body(**inputs).logits
        finally:
            if hook is not None:
                hook.remove()
        return logits if narrowed else logits[rows, at]

    @property
    def first(self) -> int:
        """The token that a decoder begins with."""
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
        most = max(length for _, length in wanted)
        at = torch.tensor([[min(prompt.masks[0] + t, prompt.masks[-1]) for t in range(most)] for prompt in wide])
        rows = torch.tensor([distinct[key] for key in wanted])
        return self._logits(self.inputs(wide), at)[rows]

    def _causal(self, prompts: Sequence[Prompt], owner: Tensor, answers: list[tuple[int, ...]]) -> Tensor:
        """Logits ``[rows, T, V]``; answers that differ in their last token alone share a row of the model."""
        wanted = [(b, answer[:-1]) for b, answer in zip(owner.tolist(), answers, strict=True)]
        distinct = {key: row for row, key in enumerate(dict.fromkeys(wanted))}
        whole = [Prompt.of((*prompts[b].ids, *before), None) for b, before in distinct]
        begins = torch.tensor([len(prompts[b].ids) - 1 for b, _ in distinct])
        last = max(len(one.ids) for one in whole) - 1
        at = (begins[:, None] + torch.arange(max(map(len, answers)))).clamp_max(last)
        rows = torch.tensor([distinct[key] for key in wanted])
        return self._logits(self.inputs(whole), at)[rows]

    def _decoded(self, prompts: Sequence[Prompt], owner: Tensor, answers: list[tuple[int, ...]]) -> Tensor:
        inputs = self.inputs(prompts)
        h = self.body.get_encoder()(**inputs).last_hidden_state[owner]  # type: ignore[operator]
        before = padded([(self.first, *answer[:-1]) for answer in answers], self.pad)
        there = inputs["attention_mask"][owner]
        return self.body(encoder_outputs=(h,), attention_mask=there, decoder_input_ids=before).logits  # type: ignore[no-any-return]


def there(lengths: Sequence[int]) -> Tensor:
    """Which places of each hold a token ``[B, L]``."""
    return (torch.arange(max(lengths, default=0)) < torch.tensor(lengths)[:, None]).long()


def _of_tokens(logits: Tensor, tokens: Tensor) -> Tensor:
    """``log p`` of ``tokens [...]`` under ``logits [..., V]``, without a second copy of these."""
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def normalised(values: Tensor, length_norm: float = 1.0) -> Tensor:
    """``sum_t log p_t / T ** length_norm`` of `LanguageTower.likelihoods`: ``[B, C]``, ``-inf`` where is no answer."""
    known = values > float("-inf")
    length = known.sum(-1)
    score = torch.where(known, values, 0.0).sum(-1) / length.clamp_min(1) ** length_norm
    return score.masked_fill(length == 0, float("-inf"))
