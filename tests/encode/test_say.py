"""What a model says is its likeliest token again and again, whatever stands beside a prompt."""

from __future__ import annotations

import pytest
import tiny_lm
import torch

from handful.encode.lm import LanguageModel
from handful.encode.say import say
from handful.errors import BadInput

PROMPTS = ["the film was great", "it is a dull story about actors , not very good", "a film"]


@torch.no_grad()
def by_hand(model: LanguageModel, prompt: str, most: int) -> str:
    ids, said = model.tokenizer.encode(prompt), list[int]()
    start = [model.tower.body.config.decoder_start_token_id] if model.kind == "seq2seq" else []
    for _ in range(most):
        if model.kind == "seq2seq":
            logits = model.tower.body(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([start + said])
            ).logits
        else:
            logits = model.tower.body(input_ids=torch.tensor([ids + said])).logits
        said.append(int(logits[0, -1].argmax()))
        if said[-1] == model.tokenizer.eos_token_id:
            break
    return str(model.tokenizer.decode(said, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_the_likeliest_token_again_and_again(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    found = say(model, PROMPTS, 6, stop=None)
    assert found == [by_hand(model, prompt, 6) for prompt in PROMPTS]
    assert len(set(found)) > 1


def test_it_is_cut_where_it_stops() -> None:
    model = tiny_lm.tiny("causal")
    whole = say(model, PROMPTS, 6, stop=None)
    stop = whole[0].lstrip()[2]
    assert say(model, PROMPTS, 6, stop=stop)[0] == whole[0].split(stop)[0].strip()


def test_draws_follow_from_the_seed() -> None:
    model = tiny_lm.tiny("causal")
    drawn = [say(model, PROMPTS, 6, stop=None, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    cold = say(model, PROMPTS, 6, stop=None, temperature=1e-3)
    assert cold == say(model, PROMPTS, 6, stop=None)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="fills masks"):
        say(tiny_lm.tiny("masked"), ["it was [MASK]"])
    with pytest.raises(BadInput, match=r"leaves no room for 47 more: .* reads 48"):
        say(tiny_lm.tiny("causal"), ["a film"], 47)
    with pytest.raises(BadInput, match="at least 1"):
        say(tiny_lm.tiny("causal"), ["a film"], 0)
