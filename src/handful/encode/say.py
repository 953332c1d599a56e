"""What a language model goes on to say: its likeliest next token, again and again, or one drawn by its probability."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from handful.encode.decode import Decoding, decode
from handful.encode.lm import Asked, LanguageModel
from handful.errors import BadInput

BATCH = 16
"""Prompts that are gone on with at a time; those of like length together."""


def say(
    model: LanguageModel,
    prompts: Sequence[Asked],
    most: int = 8,
    *,
    stop: str | None = "\n",
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """What the model says to each prompt, without blanks at its ends; `handful.encode.decode` has more ways.

    Args:
        model: causal or seq2seq.
        prompts: n of them.
        most: tokens at most.
        stop: where the answer is cut; what the model says first may be such.
        temperature: 0 takes the likeliest token; above, one is drawn from the softmax of logits by it.
        seed: of the draws.

    Raises:
        BadInput: the model fills masks; a prompt leaves no room for ``most`` tokens in what the model reads.
    """
    how, generator = Decoding(most, temperature), torch.Generator().manual_seed(seed)
    asked = [model.prompt(one).ids for one in prompts]
    for ids in asked:
        if model.kind == "causal" and len(ids) + most > model.most:
            long = f"a prompt of {len(ids)} tokens leaves no room for {most} more"
            raise BadInput(f"{long}: {model.name!r} reads {model.most}")
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
    out = [""] * len(asked)
    for at in range(0, len(order), BATCH):
        rows = order[at : at + BATCH]
        found = decode(model.tower, [asked[i] for i in rows], how, model.tokenizer.eos_token_id, generator)
        for row, (said,) in zip(rows, found, strict=True):
            text = str(model.tokenizer.decode(said.ids, skip_special_tokens=True))
            out[row] = (text.lstrip().split(stop)[0] if stop else text).strip()
    return out
