"""How a language model writes: one token after the other, for many prompts at once.

    draw       from the softmax of logits by `temperature`, of the `top_k` likeliest, of the fewest that hold `top_p`;
               the likeliest at temperature 0
    again      a token that was there before: l / repetition if l > 0, else l repetition     (Keskar et al., CTRL, 2019)
    never      a row of `no_repeat` tokens that was said before
    diverse    several go on from one prompt, one after the other at each step; log p - diversity times how many of
               those before said the same token at this step     (Vijayakumar et al., Diverse Beam Search, 2016, with as
               many groups as beams)

In this order: diverse, again, never, temperature, top_k, top_p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handful.encode.front import cache_name
from handful.encode.language_tower import LanguageTower, there
from handful.encode.prompt import padded
from handful.errors import BadInput

Reader = Callable[[Tensor], Tensor]
"""Takes the tokens that were said last ``[B, 1]`` and gives the logits of the next ``[B, V]``."""


@dataclass(frozen=True)
class Decoding:
    """See `handful.encode.decode`.

    Args:
        most: tokens at most.
        temperature: 0 for the likeliest token.
        top_k: 0 for all.
        top_p: 1 for all.
        repetition: 1 for none; below 1 it is a reward.
        no_repeat: 0 for none.
        diversity: 0 for none.
        prompt_counts: whether tokens of a causal model's prompt count as there before.
    """

    most: int = 60
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition: float = 1.0
    no_repeat: int = 0
    diversity: float = 0.0
    prompt_counts: bool = True

    def __post_init__(self) -> None:
        if self.most < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise BadInput(
                f"most is at least 1, temperature and top_k at least 0, top_p above 0 and at most 1; not {self.most}, "
                f"{self.temperature}, {self.top_k}, {self.top_p}"
            )
        if not self.repetition > 0 or self.no_repeat < 0 or self.diversity < 0:
            raise BadInput(
                f"repetition is above 0, no_repeat and diversity are not below; not {self.repetition}, "
                f"{self.no_repeat}, {self.diversity}"
            )


@dataclass(frozen=True)
class Said:
    """What was said.

    Args:
        ids: without the end.
        ended: whether the model ended it itself.
    """

    ids: tuple[int, ...]
    ended: bool


@torch.no_grad()
def decode(
    tower: LanguageTower, prompts: Sequence[Sequence[int]], how: Decoding, end: int | None,
    generator: torch.Generator, each: int = 1, ahead: tuple[Tensor, Tensor] | None = None,
) -> list[list[Said]]:  # fmt: skip
    """Go on from each prompt ``each`` times: ``[n][each]``.

    Args:
        tower: causal or seq2seq.
        prompts: n of them, token ids, none empty.
        how: see `Decoding`.
        end: the token that ends a text.
        generator: of the draws.
        each: texts a prompt; what `diversity` keeps apart.
        ahead: keys and values in front of each prompt of a causal model and which of them are there: ``[n, m, width]``
            and ``[n, m]``, see `handful.encode.front`.

    Raises:
        BadInput: the model fills masks; something learnt stands in front of it; a prompt is empty.
    """
    if tower.kind == "masked":
        raise BadInput("a masked model fills masks and does not go on with a text; take a causal or a seq2seq one")
    if tower.front.used:
        raise BadInput("what is learnt in front of a text is not read while one is gone on with; take it off before")
    if not prompts or not all(len(one) for one in prompts):
        raise BadInput("there is nothing to go on from: a prompt is empty")
    rows = [list(one) for one in prompts for _ in range(each)]
    if ahead is not None:
        ahead = (ahead[0].repeat_interleave(each, 0), ahead[1].repeat_interleave(each, 0))
    if tower.kind == "causal":
        logits, reader = _causal(tower, rows, ahead)
        before = rows if how.prompt_counts else [[] for _ in rows]
    else:
        logits, reader = _decoder(tower, rows)
        before = [[tower.first] for _ in rows]
    return _loop(logits, reader, before, how, end, tower.pad, generator, each)


def _loop(
    logits: Tensor, reader: Reader, before: list[list[int]], how: Decoding, end: int | None, pad: int,
    generator: torch.Generator, each: int,
) -> list[list[Said]]:  # fmt: skip
    history, start = [list(one) for one in before], [len(one) for one in before]
    done = torch.zeros(len(history), dtype=torch.bool)
    ended = done.clone()
    for at in range(how.most):
        chosen = _choose(logits, history, done, how, generator, each)
        for row in (~done).nonzero()[:, 0].tolist():
            history[row].append(int(chosen[row]))
        if end is not None:
            ended |= ~done & (chosen == end)
            done = ended.clone()
        if bool(done.all()) or at + 1 == how.most:
            break
        logits = reader(torch.where(done, pad, chosen)[:, None])
    said = [
        Said(tuple(row[first : len(row) - int(over)]), bool(over))
        for row, first, over in zip(history, start, ended, strict=True)
    ]
    return [said[at : at + each] for at in range(0, len(said), each)]


def _choose(
    logits: Tensor, history: Sequence[Sequence[int]], done: Tensor, how: Decoding, generator: torch.Generator, each: int
) -> Tensor:
    """The next token of each row ``[B]``; with `diversity` the rows of a prompt choose one after the other."""
    if not how.diversity:
        return _drawn(_kept_in(logits, history, how), how, generator)
    scores = logits.log_softmax(-1).view(-1, each, logits.shape[-1])
    said = torch.zeros_like(scores[:, 0])
    chosen = torch.zeros(scores.shape[:2], dtype=torch.long)
    for one in range(each):
        some = _kept_in(scores[:, one] - how.diversity * said, history[one::each], how)
        chosen[:, one] = _drawn(some, how, generator)
        said.scatter_add_(1, chosen[:, one, None], (~done[one::each]).to(said)[:, None])
    return chosen.flatten()


def _kept_in(scores: Tensor, history: Sequence[Sequence[int]], how: Decoding) -> Tensor:
    """Scores ``[B, V]`` with what was there before made less likely, or forbidden."""
    scores = scores.clone()
    if how.repetition != 1:
        seen = torch.zeros_like(scores, dtype=torch.bool)
        for row, some in enumerate(history):
            seen[row, list(some)] = True
        again = torch.where(scores > 0, scores / how.repetition, scores * how.repetition)
        scores = torch.where(seen, again, scores)
    if size := how.no_repeat:
        for row, some in enumerate(history):
            last = tuple(some[len(some) - size + 1 :]) if size > 1 else ()
            begins = range(len(some) - size + 1)
            forbidden = [some[at + size - 1] for at in begins if tuple(some[at : at + size - 1]) == last]
            scores[row, forbidden] = float("-inf")
    return scores


def _drawn(scores: Tensor, how: Decoding, generator: torch.Generator) -> Tensor:
    if not how.temperature:
        return scores.argmax(-1)
    scores = scores / how.temperature
    if how.top_k:
        least = scores.topk(min(how.top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if how.top_p < 1:
        ordered, place = scores.sort(descending=True)
        share = ordered.softmax(-1)
        beyond = (share.cumsum(-1) - share) >= how.top_p  # what stands before it suffices
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, place, beyond), float("-inf"))
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]


def _causal(tower: LanguageTower, rows: list[list[int]], ahead: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Reader]:
    """The logits of the first token, and what reads on. What fills up stands on the left."""
    body: Any = tower.body
    ids, mask = padded([one[::-1] for one in rows], tower.pad).flip(1), there([len(one) for one in rows]).flip(1)
    name, state = cache_name(body), dict[str, Any]()
    if ahead is not None:
        state[name] = tower.front.cache(ahead[0])
        mask = torch.cat([ahead[1].long(), mask], 1)

    def read(tokens: Tensor) -> Tensor:
        nonlocal mask
        if tokens is not ids:
            mask = torch.cat([mask, torch.ones_like(tokens)], 1)
        position = (mask.cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        out = body(input_ids=tokens, attention_mask=mask, position_ids=position, use_cache=True, **state)
        state[name] = out[name]
        return out.logits[:, -1].float()  # type: ignore[no-any-return]

    return read(ids), read


def _decoder(tower: LanguageTower, rows: list[list[int]]) -> tuple[Tensor, Reader]:
    body: Any = tower.body
    inputs = {"attention_mask": there([len(one) for one in rows])}
    encoded = body.get_encoder()(input_ids=padded(rows, tower.pad), **inputs)
    name, state = cache_name(body), dict[str, Any]()

    def read(tokens: Tensor) -> Tensor:
        out = body(encoder_outputs=encoded, decoder_input_ids=tokens, use_cache=True, **inputs, **state)
        state[name] = out[name]
        return out.logits[:, -1].float()  # type: ignore[no-any-return]

    return read(torch.full((len(rows), 1), tower.first)), read
