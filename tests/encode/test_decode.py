"""Writing, against what transformers writes, and what the settings promise."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_lm
import torch

from handful.encode.decode import Decoding, Said, decode
from handful.encode.lm import LanguageModel
from handful.errors import BadInput

PROMPTS = ["the film was great", "it is a dull story about actors , not very good", "a film"]


def written(model: LanguageModel, how: Decoding, each: int = 1, prompts: Any = PROMPTS) -> list[list[Said]]:
    ids = [model.prompt(one).ids for one in prompts]
    draw = torch.Generator().manual_seed(0)
    return decode(model.tower, ids, how, model.tokenizer.eos_token_id, draw, each)


def theirs(model: LanguageModel, prompt: str, **settings: Any) -> tuple[int, ...]:
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=12, do_sample=False, pad_token_id=model.tower.pad, eos_token_id=model.tokenizer.eos_token_id,
        decoder_start_token_id=getattr(model.tower.body.config, "decoder_start_token_id", None), **settings,
    )  # fmt: skip
    ids = torch.tensor([model.prompt(prompt).ids])
    found = model.tower.body.generate(input_ids=ids, generation_config=config)[0]
    ids = found[1 if model.kind == "seq2seq" else ids.shape[1] :].tolist()
    return tuple(one for one in ids if one != model.tokenizer.eos_token_id)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 2}])
def test_the_likeliest_is_what_transformers_says(kind: str, settings: dict[str, Any]) -> None:
    model = tiny_lm.tiny(kind)
    how = Decoding(
        12, 0.0, repetition=settings.get("repetition_penalty", 1.0), no_repeat=settings.get("no_repeat_ngram_size", 0)
    )
    assert [one.ids for (one,) in written(model, how)] == [theirs(model, one, **settings) for one in PROMPTS]


def test_each_step_is_drawn_from_the_distribution_that_the_settings_leave() -> None:
    model, how = tiny_lm.tiny("causal"), Decoding(1, 0.7, top_k=5, top_p=0.8)
    ids = model.prompt(PROMPTS[0]).ids
    drawn = written(model, how, 4000, PROMPTS[:1])[0]
    counts = torch.bincount(torch.tensor([one.ids[0] if one.ids else 2 for one in drawn]), minlength=400) / 4000
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    with torch.no_grad():
        logits = model.tower.body(input_ids=torch.tensor([ids])).logits[:, -1]
    warp = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopKLogitsWarper(5), TopPLogitsWarper(0.8)])
    expected = warp(torch.tensor([ids]), logits).softmax(-1)[0]
    assert (counts > 0).sum() == (expected > 0).sum() > 1
    torch.testing.assert_close(counts[: len(expected)], expected, atol=0.03, rtol=0)


def test_diverse_texts_differ_from_the_first_token_on() -> None:
    model = tiny_lm.tiny("seq2seq")
    alike = written(model, Decoding(5, 0.0), 4)[0]
    assert len(set(alike)) == 1
    apart = written(model, Decoding(5, 0.0, diversity=100.0), 4)[0]
    assert apart[0] == alike[0] and len({one.ids[:1] for one in apart}) == 4
    # By hand: of the first step, the likeliest four in their order.
    start = torch.tensor([[0]])
    with torch.no_grad():
        logits = model.tower.body(
            input_ids=torch.tensor([model.prompt(PROMPTS[0]).ids]), decoder_input_ids=start
        ).logits
    best = logits[0, -1].topk(4).indices.tolist()
    assert [one.ids[0] if one.ids else 1 for one in apart] == best


def test_a_prompt_that_does_not_count_may_be_said_again() -> None:
    model = tiny_lm.tiny("causal")
    free = [one.ids for (one,) in written(model, Decoding(1, 0.0))]
    strict = [one.ids for (one,) in written(model, Decoding(1, 0.0, repetition=1e6))]
    loose = [one.ids for (one,) in written(model, Decoding(1, 0.0, repetition=1e6, prompt_counts=False))]
    assert loose == free
    asked = [model.prompt(one).ids for one in PROMPTS]
    assert all(not set(said) & set(ids) for said, ids in zip(strict, asked, strict=True))


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="masked model fills masks and does not go on"):
        written(tiny_lm.tiny("masked"), Decoding(), prompts=["it was"])
    with pytest.raises(BadInput, match="a prompt is empty"):
        decode(tiny_lm.tiny("causal").tower, [()], Decoding(), 2, torch.Generator())
    for bad in ({"most": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"repetition": 0.0}, {"diversity": -1.0}):
        with pytest.raises(BadInput, match="not"):
            Decoding(**bad)
