"""Keys and values in front, in each attention of a seq2seq model, against attention written by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handful.encode.front_layers import FAMILIES
from handful.encode.language_tower import LanguageTower
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.tune import Delta, Placed, Where
from handful.tune.front import KEYS, Prefix

T5 = {"d_kv": 6, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2, "dropout_rate": 0.0,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}  # fmt: skip
BART = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 12, "dropout": 0.0}  # fmt: skip
TEXTS = [Prompt.of(ids, None) for ids in ((5, 9, 4, 12, 7, 3, 1), (8, 3, 1), (6, 11, 10, 2, 1))]
ANSWERS = [[(7, 9, 1), (4, 1)], [(3, 1)], [(12, 13, 14, 1), (5, 5, 1)]]


def tower(family: str, how: str = "sdpa") -> LanguageTower:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(
        family, vocab_size=23, d_model=16, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        **(T5 if "t5" in family else BART),
    )  # fmt: skip
    body = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=how).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(body.named_parameters()):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return LanguageTower(body, "seq2seq")


def prefix(model: nn.Module, tokens: int = 3, where: Where = KEYS) -> Delta:
    return Delta.begin(model, [Placed(Prefix(tokens, spread=1.0), where)], torch.Generator().manual_seed(1))


def bucket(distance: int, both_ways: bool) -> int:
    """T5's, of 8 up to 16 tokens away: near ones apart, far ones by the logarithm."""
    many, shift = (4, 4 * (distance > 0)) if both_ways else (8, 0)
    far = abs(distance) if both_ways else max(-distance, 0)
    if far < many // 2:
        return shift + far
    return shift + min(many // 2 + int(math.log(far / (many // 2)) / math.log(32 / many) * (many // 2)), many - 1)


def by_hand(module: Any, x: Tensor, read: Tensor, ahead: Tensor, seen: Tensor, table: Tensor | None) -> Tensor:
    """``softmax(q [P_k; k]^T + bias) [P_v; v]`` of two heads, ``ahead [2, n, heads w]``, ``seen [B, Lq, Lk]``."""
    t5 = hasattr(module, "k")
    q, k, v, o = (module.q, module.k, module.v, module.o) if t5 else (
        module.q_proj, module.k_proj, module.v_proj, module.out_proj)  # fmt: skip
    n = ahead.shape[1]
    keys, values = (torch.cat([p.expand(len(x), -1, -1), m(read)], 1) for p, m in zip(ahead, (k, v), strict=True))
    heads = [part.unflatten(-1, (2, -1)) for part in (q(x), keys, values)]
    scores = torch.einsum("bqhw,bkhw->bhqk", heads[0], heads[1]) / (1 if t5 else heads[0].shape[-1] ** 0.5)
    if table is not None:
        away = [[bucket(j - n - i, not module.is_decoder) for j in range(scores.shape[3])] for i in range(x.shape[1])]
        scores = scores + table[torch.tensor(away)].permute(2, 0, 1)
    everywhere = torch.cat([torch.ones(*seen.shape[:2], n, dtype=torch.bool), seen], 2)
    weights = scores.masked_fill(~everywhere[:, None], float("-inf")).softmax(-1)
    out: Tensor = o(torch.einsum("bhqk,bkhw->bqhw", weights, heads[2]).flatten(2))
    return out


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["eager", "sdpa"])
def test_each_attention_is_the_one_written_by_hand(family: str, how: str) -> None:
    model = tower(family, how)
    body: Any = model.body
    stacks = {"reader": body.get_encoder(), "writer": body.get_decoder(), "across": body.get_decoder()}
    names = {name: ("EncDecAttention", "encoder_attn") if name == "across" else ("SelfAttention", "self_attn")
             for name in stacks}  # fmt: skip
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def watch(module: nn.Module, given: Any, named: dict[str, Any], out: Any) -> None:
        x = given[0] if given else named["hidden_states"]
        memory = named.get("key_value_states", named.get("encoder_hidden_states"))
        found[module] = x, x if memory is None else memory, out[0]  # type: ignore[assignment]

    here = {name: [m for path, m in stack.named_modules() if path.rpartition(".")[2] in names[name]]
            for name, stack in stacks.items()}  # fmt: skip
    hooks = [one.register_forward_hook(watch, with_kwargs=True) for some in here.values() for one in some]
    delta = prefix(model)
    inputs = model.inputs(TEXTS)
    mask, written = inputs["attention_mask"].bool(), torch.tensor([[0, 7, 9, 4]] * 3)
    with torch.no_grad(), delta.attached(model):
        body(**inputs, decoder_input_ids=written)
        for hook in hooks:
            hook.remove()
        for holder in delta.each():
            place = holder.site.rpartition(".")[2]
            long = 7 if place == "reader" else 4
            seen = torch.ones(4, 4, dtype=torch.bool).tril().expand(3, -1, -1)
            seen = seen if place == "writer" else mask[:, None].expand(-1, long, -1)
            table = None
            for layer, module in enumerate(here[place]):
                table = module.relative_attention_bias.weight if getattr(
                    module, "has_relative_attention_bias", False) else table  # fmt: skip
                ahead = holder.P.unflatten(1, (len(here[place]), 2, -1))[:, layer].transpose(0, 1)
                x, read, out = found[module]  # type: ignore[misc]
                want = by_hand(module, x, read, ahead, seen, table)
                torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
    widths = [2 * len(here[name]) * (12 if "t5" in family else 16) for name in here]
    assert [holder.P.shape[1] for holder in delta.each()] == widths


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_without_any_a_model_is_as_it_was_bit_for_bit(family: str) -> None:
    model = tower(family)
    body: Any = copy.deepcopy(model.body)
    for module in body.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    with torch.no_grad():
        bare = body(**model.inputs(TEXTS), decoder_input_ids=torch.zeros(3, 1, dtype=torch.long)).logits[:, 0]
        twin = copy.deepcopy(model)
        with prefix(twin).attached(twin):
            assert torch.equal(model(TEXTS), bare)  # what stands in front of a copy is not in front of this one
            assert (twin(TEXTS) - bare).abs().max() > 1e-2
        assert torch.equal(twin(TEXTS), bare)


@pytest.mark.parametrize("place", ["reader", "writer", "across"])
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_neither_padding_nor_other_texts_are_seen(family: str, place: str) -> None:
    model = tower(family)
    with torch.no_grad():
        before = model(TEXTS)
        with prefix(model, where=Where(names=rf"front\.{place}$")).attached(model):
            first, likely, means = model(TEXTS), model.likelihoods(TEXTS, ANSWERS), model.mean(TEXTS)
            assert (first - before).abs().amax(1).min() > 1e-3
            for at, (text, answers) in enumerate(zip(TEXTS, ANSWERS, strict=True)):
                torch.testing.assert_close(model([text])[0], first[at], atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(model.mean([text])[0], means[at], atol=1e-5, rtol=1e-5)
                for number, answer in enumerate(answers):
                    alone = model.likelihoods([text], [[answer]])[0, 0]
                    torch.testing.assert_close(alone, likely[at, number, : len(answer)], atol=1e-5, rtol=1e-5)


def test_what_was_written_is_a_prefix_of_what_is_written_next() -> None:
    """Keys and values of the writer's first tokens in front, and T5 goes on as behind the tokens."""
    model = tower("t5")
    body: Any = model.body
    maps = [getattr(b.layer[0].SelfAttention, name) for b in body.decoder.block for name in "kv"]
    kept: list[Tensor] = []
    hooks = [one.register_forward_hook(lambda module, given, out: kept.append(out[0, :3])) for one in maps]
    delta = prefix(model, where=Where(names=r"front\.writer$"))
    with torch.no_grad():
        read = {"encoder_outputs": (body.encoder(**model.inputs(TEXTS[:1])).last_hidden_state,)}
        whole = body(**read, decoder_input_ids=torch.tensor([[0, 7, 9, 4, 12]])).logits[:, 3:]
        for hook in hooks:
            hook.remove()
        delta.holders[0].P.copy_(torch.cat(kept, 1))
        with delta.attached(model):
            torch.testing.assert_close(body(**read, decoder_input_ids=torch.tensor([[4, 12]])).logits, whole)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_token_by_token_is_all_at_once(family: str) -> None:
    """A model that keeps the keys of what it has written sees the prefix once, in front of them."""
    model = tower(family)
    body: Any = model.body
    inputs, written, state = model.inputs(TEXTS), torch.tensor([[0, 7, 9, 4]] * 3), dict[str, Any]()
    with torch.no_grad(), prefix(model).attached(model):
        read = {"attention_mask": inputs["attention_mask"], "encoder_outputs": body.get_encoder()(**inputs)}
        whole = body(**read, decoder_input_ids=written).logits
        for at in range(4):
            out = body(**read, decoder_input_ids=written[:, at : at + 1], use_cache=True, **state)
            state = {"cache": out["cache"]}
            torch.testing.assert_close(out.logits[:, 0], whole[:, at], atol=1e-5, rtol=1e-5)


def test_gradients_reach_all_three_also_when_layers_are_run_again() -> None:
    model = tower("t5")
    delta, found = prefix(model), []
    body: Any = model.body
    for again in (False, True):
        if again:
            body.gradient_checkpointing_enable()
        body.train()
        with delta.attached(model):
            likely = model.likelihoods(TEXTS, ANSWERS)
            likely[likely > float("-inf")].sum().backward()
        found.append([h.P.grad.clone() for h in delta.each()])
        for holder in delta.each():
            holder.P.grad = None
    for once, twice in zip(*found, strict=True):
        assert (once.unflatten(1, (-1, 12)).abs().amax((0, 2)) > 1e-4).all()  # every layer's keys, and values
        torch.testing.assert_close(once, twice)
    copy.deepcopy(model)  # nothing of a graph is left behind


def test_what_takes_none_is_refused() -> None:
    from transformers import LongT5Config, LongT5ForConditionalGeneration

    local = LongT5ForConditionalGeneration(LongT5Config(vocab_size=23, d_model=16, **T5)).eval()
    with pytest.raises(BadInput, match="of seq2seq models those of t5, mt5, umt5, bart, mbart, pegasus do"):
        prefix(LanguageTower(local, "seq2seq"))
    model = tower("t5")
    with prefix(model).attached(model):
        body: Any = model.body
        body.encoder.config._attn_implementation = "flex_attention"
        with pytest.raises(BadInput, match="'flex_attention' sees no keys and values in front; load"):
            model(TEXTS)
