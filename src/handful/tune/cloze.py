"""Masked language modelling: words of a text are covered, and the model is to say which they were.

    asked    each word with probability `share`, special tokens never
    shown    the mask for 80 % of those, a random word for 10 %, the word itself for 10 %
    loss     -log p(word), the mean over the words asked

Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, 2018, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from handful.encode.language_tower import LanguageTower
from handful.encode.prompt import Prompt, padded
from handful.errors import BadInput
from handful.tune.recipe import Seen

IGNORED = -100
"""In place of a word that is not asked."""


def covered(
    prompts: Sequence[Prompt], tokenizer: Any, generator: torch.Generator, share: float = 0.15
) -> tuple[list[Prompt], Tensor]:
    """Prompts with words covered, and the words asked ``[B, L]``, `IGNORED` elsewhere.

    Args:
        prompts: B of them, of L tokens at most.
        tokenizer: with a mask.
        generator: of the draw.
        share: of the words that are asked.

    Raises:
        BadInput: the tokenizer has no mask; ``share`` is no share.
    """
    if tokenizer.mask_token_id is None:
        raise BadInput("the tokenizer has no mask token: words cannot be covered")
    if not 0 < share <= 1:
        raise BadInput(f"the share of covered words is above 0 and at most 1, not {share}")
    ids = padded([prompt.ids for prompt in prompts], -1)
    plain = (ids >= 0) & ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    asked = plain & (torch.rand(ids.shape, generator=generator) < share)
    way = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(tokenizer), ids.shape, generator=generator)
    shown = torch.where(asked & (way < 0.8), tokenizer.mask_token_id, ids)
    shown = torch.where(asked & (way >= 0.9), other, shown)
    rows = zip(shown.tolist(), prompts, strict=True)
    made = [Prompt.of(row[: len(p.ids)], tokenizer.mask_token_id, p.segments) for row, p in rows]
    return made, torch.where(asked, ids, IGNORED)


@dataclass(frozen=True)
class Cloze:
    """See `handful.tune.cloze`; 0 where a batch has no word that is asked.

    Args:
        tokenizer: with a mask.
        share: of the words that are asked.
    """

    tokenizer: Any
    share: float = 0.15
    name = "cloze"
    separable = False

    def __call__(self, seen: Seen) -> Tensor:
        assert isinstance(seen.model, LanguageTower)
        prompts, words = covered(seen.inputs, self.tokenizer, seen.generator, self.share)
        rows, at = (words != IGNORED).nonzero(as_tuple=True)
        logits = seen.model.logits_at(prompts, rows, at)
        return functional.cross_entropy(logits, words[rows, at], reduction="sum") / max(len(rows), 1)
