"""What a language model goes on to say: its likeliest next token, again and again, or one drawn by its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from handful.core.train import seeded
from handful.encode.language_tower import there
from handful.encode.lm import Asked, LanguageModel
from handful.encode.prompt import padded
from handful.errors import BadInput

BATCH = 16
"""Prompts that are gone on with at a time; those of like length together."""


@torch.no_grad()
def say(
    model: LanguageModel,
    prompts: Sequence[Asked],
    most: int = 8,
    *,
    stop: str | None = "\n",
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """What the model says to each prompt, without blanks at its ends.

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
    if model.kind == "masked":
        raise BadInput(f"{model.name!r} fills masks and does not go on with a text; take a causal or a seq2seq model")
    if most < 1 or temperature < 0:
        raise BadInput(f"most is at least 1, temperature at least 0: {most}, {temperature}")
    if model.tower.front.used:
        raise BadInput("what is learnt in front of a text is not read while one is gone on with; take it off before")
    asked = [model.prompt(one) for one in prompts]
    for prompt in asked:
        if model.kind == "causal" and len(prompt.ids) + most > model.most:
            long = f"a prompt of {len(prompt.ids)} tokens leaves no room for {most} more"
            raise BadInput(f"{long}: {model.name!r} reads {model.most}")
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].ids))
    out = [""] * len(asked)
    with seeded(seed):
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            for row, text in zip(rows, _said(model, [asked[i].ids for i in rows], most, temperature), strict=True):
                out[row] = (text.lstrip().split(stop)[0] if stop else text).strip()
    return out


def _said(model: LanguageModel, prompts: list[tuple[int, ...]], most: int, temperature: float) -> list[str]:
    from transformers import GenerationConfig

    tower, end = model.tower, model.tokenizer.eos_token_id
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=most, do_sample=temperature > 0, temperature=temperature or None,
        top_k=0 if temperature else None, pad_token_id=tower.pad, eos_token_id=end, use_cache=True,
        decoder_start_token_id=getattr(tower.body.config, "decoder_start_token_id", None),
    )  # fmt: skip
    # A causal model goes on from the right end: what fills up stands on the left.
    flip = model.kind == "causal"
    ids = padded([one[::-1] if flip else one for one in prompts], tower.pad)
    mask = there([len(one) for one in prompts])
    body: Any = tower.body
    found = body.generate(
        input_ids=ids.flip(1) if flip else ids, attention_mask=mask.flip(1) if flip else mask, generation_config=config
    )
    said = found[:, ids.shape[1] :] if flip else found
    return list(model.tokenizer.batch_decode(said, skip_special_tokens=True))
