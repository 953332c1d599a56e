"""A frozen causal language model that writes for each class in its own way: keys and values in front, one set a class.

    P_c        [m, layers 2 heads w]     begins as what the model keeps of the class' prompt ("positive movie review:")
    infix_c    [k, d]                    between two texts, begins as the embeddings of its words ("Sentence 2:")
    ends       s [S, d], b [S]           added to the embeddings and to the output rows of the tokens that begin and
                                         end a text: as an embedding that is tied to a head of S rows; both begin at 0

At first the model says exactly what it says behind those words. Of a text it is looked at how likely each token is
under every class' prefix. As a readout, the logit of a class is the log-likelihood of the whole text under its prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.front import cache_name
from handful.encode.language_tower import LanguageTower, there
from handful.encode.lm import LanguageModel
from handful.encode.prompt import continuation, padded
from handful.encode.rows import Row
from handful.errors import BadInput
from handful.tune.recipe import Data, Readout


@dataclass(frozen=True)
class Tokens:
    """What the model has for the tokens that are learnt, under the prefix of each class.

    Args:
        gold: the logit of the token itself ``[B, C, T]``.
        likelihood: its log-probability ``[B, C, T]``.
        known: where there is a token ``[B, T]``.
    """

    gold: Tensor
    likelihood: Tensor
    known: Tensor


class ClassPrefixes(Readout):
    """See `handful.generate.prefixes`. What it reads are rows of `handful.encode.rows`.

    Args:
        model: causal.
        prompts: of each class, C of them.
        infix: what stands between two texts; ``None`` for one text.
        control: stands in front of every prompt, and what the model keeps of it never learns (CTRL's control code).
        dropout: of the prefixes in training.
    """

    keys: nn.Parameter
    infix: nn.Parameter
    ends: nn.Parameter
    bias: nn.Parameter
    control: Tensor
    filled: Tensor

    def __init__(
        self, model: LanguageModel, prompts: Sequence[str], infix: str | None = None, control: str = "",
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if model.kind != "causal":
            raise BadInput(f"{model.name!r} is a {model.kind} model; texts are written by a causal one")
        if model.tokenizer.eos_token_id is None:
            raise BadInput(f"the tokenizer of {model.name!r} has no end of sequence, so that no text would end")
        if not 0 <= dropout < 1:
            raise BadInput(f"dropout is a share from 0 to below 1, not {dropout}")
        self.dropout, self._instead = dropout, dict[str, Tensor]()
        tokenizer = model.tokenizer
        special = [one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None]
        self.special = tuple(dict.fromkeys(map(int, special)))
        self.between = () if infix is None else continuation(tokenizer, infix)
        self._begin(model, prompts, control)

    @torch.no_grad()
    def _begin(self, model: LanguageModel, prompts: Sequence[str], control: str) -> None:
        tower, body = model.tower, _body(model.tower)
        first = len(model.prompt(control).ids) if control else 0
        asked = [model.prompt(f"{control} {one}".strip()).ids for one in prompts]
        if min(map(len, asked)) <= first:
            raise BadInput("a prompt has no token beside the control code; give each class a few words")
        kept = [body(input_ids=torch.tensor([one]), use_cache=True)[cache_name(body)] for one in asked]
        keys = [tower.front.keys_of(one)[0] for one in kept]
        longest = max(map(len, asked)) - first
        self.register_buffer("control", torch.stack([one[:first] for one in keys]))
        own = torch.stack([functional.pad(one[first:], (0, 0, longest - len(one) + first, 0)) for one in keys])
        counts = torch.tensor([len(one) - first for one in asked])
        self.register_buffer("filled", torch.arange(longest) >= longest - counts[:, None])
        table = body.get_input_embeddings().weight
        self.keys = nn.Parameter(own)
        self.infix = nn.Parameter(table[list(self.between)].expand(len(prompts), -1, -1).clone())
        self.ends = nn.Parameter(table.new_zeros(len(self.special), table.shape[1]))
        self.bias = nn.Parameter(table.new_zeros(len(self.special)))

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        if len(data.classes) != len(self.keys):
            raise BadInput(f"{len(self.keys)} prompts, but {len(data.classes)} classes")

    @contextmanager
    def instead(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, these tensors take the place of its own of that name, and gradients reach what they were made of."""
        was, self._instead = self._instead, {**self._instead, **tensors}
        try:
            yield
        finally:
            self._instead = was

    def now(self, name: str) -> Tensor:
        """The tensor of that name, or what is there instead of it."""
        own: Tensor = getattr(self, name)
        return self._instead.get(name, own)

    def ahead(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """What stands in front of rows of these classes ``[B]``: ``[B, m, width]`` and where it is ``[B, m]``."""
        keys = torch.cat([self.control, self.now("keys")], 1)
        keys = functional.dropout(keys, self.dropout, self.training)
        filled = functional.pad(self.filled, (self.control.shape[1], 0), value=True)
        return keys[classes], filled[classes]

    @contextmanager
    def reading(self, tower: LanguageTower, classes: Tensor, places: Tensor) -> Iterator[None]:
        """Inside, the model reads infixes and ends as they are learnt.

        Args:
            tower: of the model.
            classes: of the rows ``[B]``.
            places: which token of the infix stands where in what is read first ``[B, L]``, -1 where none does.
        """
        body, first = _body(tower), [places]

        def read(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
            for token, shift in zip(self.special, self.now("ends"), strict=True):
                found = found + (given[0] == token)[..., None] * shift
            if first and self.between:
                at = first.pop()
                own = self.now("infix")[classes[:, None], at.clamp_min(0)]
                found = torch.where((at >= 0)[..., None], own, found)
            return found

        def say(module: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> Tensor:
            more = functional.linear(given[0], self.now("ends"), self.now("bias"))
            return logits.index_add(-1, torch.tensor(self.special), more)

        hooks = [body.get_input_embeddings().register_forward_hook(read)]
        hooks.append(body.get_output_embeddings().register_forward_hook(say))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def look(self, model: nn.Module, inputs: Sequence[Row]) -> Tokens:
        """Read B rows under each class' prefix, which takes the memory of B C rows."""
        assert isinstance(model, LanguageTower)
        ways, size, k = len(self.keys), len(inputs), len(self.between)
        ids, learnt = padded([row.ids for row in inputs], model.pad), padded([row.learnt for row in inputs], 0)
        spots = torch.arange(ids.shape[1]) - (learnt[:, :1] - k)
        places = torch.where((spots >= 0) & (spots < k), spots, -1).repeat(ways, 1)
        classes = torch.arange(ways).repeat_interleave(size)
        keys, filled = self.ahead(classes)
        mask = torch.cat([filled.long(), there([len(row.ids) for row in inputs]).repeat(ways, 1)], 1)
        position = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        body = _body(model)
        with self.reading(model, classes, places):
            logits = body(
                input_ids=ids.repeat(ways, 1), attention_mask=mask, position_ids=position,
                **{cache_name(body): model.front.cache(keys)},
            ).logits  # fmt: skip
        logits = logits.unflatten(0, (ways, size))[:, torch.arange(size)[:, None], (learnt - 1).clamp_min(0)]
        tokens = ids.gather(1, learnt).expand(ways, -1, -1)[..., None]
        gold = logits.gather(-1, tokens)[..., 0]
        likelihood = gold - logits.logsumexp(-1)
        return Tokens(gold.transpose(0, 1), likelihood.transpose(0, 1), learnt > 0)

    def forward(self, features: Tokens, model: nn.Module) -> Tensor:
        return (features.likelihood * features.known[:, None]).sum(-1)


def _body(tower: LanguageTower) -> Any:
    return tower.body
