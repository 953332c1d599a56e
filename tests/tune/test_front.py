"""Soft prompts and prefixes: what peft gives, and that nothing else changes."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_lm
import torch
from torch import Tensor, nn

from handful.encode.language_tower import LanguageTower
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune import Data, Delta, Placed, Recipe, Where, load_delta, save_delta, tune
from handful.tune.front import KEYS, WORDS, AsWords, Prefix, PrefixTuning, PromptTuning, SoftPrompt
from handful.tune.lm_bff import PromptClassifier
from handful.tune.prompting import Ranked, Words

TEXTS = ["a great film", "great actors", "it was a great story", "a terrible film", "terrible actors", "terrible plot"]
LABELS = torch.tensor([1, 1, 1, 0, 0, 0])
TASKS = {"masked": "FEATURE_EXTRACTION", "roberta": "FEATURE_EXTRACTION", "causal": "CAUSAL_LM",
         "seq2seq": "SEQ_2_SEQ_LM"}  # fmt: skip
SOFT, KEPT = Placed(SoftPrompt(3, spread=1.0), WORDS), Placed(Prefix(3, spread=1.0), KEYS)


def template(kind: str) -> str:
    return {"causal": "*cls**sent_0*_It_was*", "seq2seq": "*sent_0*_It_was*<extra_id_0>*.*sep+*"}.get(
        kind, "*cls**sent_0*_It_was*mask*.*sep+*"
    )


def prompts(model: Any) -> list[Any]:
    kind = "roberta" if model.kind == "masked" and model.tower.body.config.model_type == "roberta" else model.kind
    return model.fill(Template(template(kind)), [[text] for text in TEXTS])  # type: ignore[no-any-return]


def begun(model: Any, *placed: Placed) -> Delta:
    return Delta.begin(model.tower, placed, torch.Generator().manual_seed(0))


def theirs_of(model: Any, kind: str, config: Any) -> Any:
    from peft import get_peft_model

    return get_peft_model(copy.deepcopy(model.tower.body), config).eval()


def plain(model: Any) -> dict[str, Tensor]:
    inputs = model.tower.inputs(prompts(model))
    inputs.pop("token_type_ids", None)
    if model.kind == "seq2seq":
        inputs["decoder_input_ids"] = torch.zeros(len(TEXTS), 1, dtype=torch.long)
    return inputs  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", list(TASKS))
def test_a_soft_prompt_is_pefts(kind: str) -> None:
    from peft import PromptTuningConfig

    model = tiny_lm.tiny(kind)
    config = PromptTuningConfig(task_type=TASKS[kind], num_virtual_tokens=3, num_transformer_submodules=1)
    theirs = theirs_of(model, kind, config)
    with torch.no_grad():
        before, inputs = tiny_lm.logits_everywhere(model.tower, prompts(model)), plain(model)
        delta = begun(model, SOFT)
        theirs.prompt_encoder["default"].embedding.weight.copy_(delta.holders[0].P)
        expected = theirs(**inputs).logits
        with delta.attached(model.tower):
            ours = tiny_lm.logits_everywhere(model.tower, prompts(model))
        torch.testing.assert_close(ours, expected if kind == "seq2seq" else expected[:, 3:], atol=1e-5, rtol=1e-5)
        assert (ours - before).abs().max() > 1e-2
        assert torch.equal(tiny_lm.logits_everywhere(model.tower, prompts(model)), before)
    assert delta.trainable() == 3 * 16


@pytest.mark.parametrize("through", [None, 16])
@pytest.mark.parametrize("kind", ["masked", "roberta", "causal"])
def test_a_prefix_is_pefts(kind: str, through: int | None) -> None:
    from peft import PrefixTuningConfig

    model = tiny_lm.tiny(kind, **({"num_key_value_heads": 2} if kind == "causal" and through else {}))
    config = PrefixTuningConfig(
        task_type=TASKS[kind], num_virtual_tokens=3, prefix_projection=through is not None, encoder_hidden_size=through
    )
    theirs = theirs_of(model, kind, config)
    encoder = theirs.prompt_encoder["default"]
    delta = begun(model, Placed(Prefix(3, 1.0, through), KEYS))
    holder = delta.holders[0]
    with torch.no_grad():
        inputs = plain(model)
        if through is None:
            encoder.embedding.weight.copy_(holder.P)
        else:
            encoder.embedding.weight.copy_(holder.E)
            for at, (w, b) in ((0, ("W1", "b1")), (2, ("W2", "b2"))):
                holder.tensors[b].normal_(generator=torch.Generator().manual_seed(at))
                encoder.transform[at].weight.copy_(holder.tensors[w])
                encoder.transform[at].bias.copy_(holder.tensors[b])
        before, expected = tiny_lm.logits_everywhere(model.tower, prompts(model)), theirs(**inputs).logits
        with delta.attached(model.tower):
            ours = tiny_lm.logits_everywhere(model.tower, prompts(model))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert (ours - before).abs().max() > 1e-2
    assert delta.trainable() == sum(p.numel() for p in encoder.parameters())


def test_a_prefix_of_the_writer_is_pefts() -> None:
    """peft's of a seq2seq model stands nowhere else; of two layers it gives both the numbers of the first."""
    from peft import PrefixTuningConfig

    model = tiny_lm.tiny("seq2seq")
    theirs = theirs_of(model, "seq2seq", PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3))
    delta = begun(model, Placed(Prefix(3, 1.0), Where(names=r"front\.writer$")))
    with torch.no_grad():
        first = delta.holders[0].P[:, :32]
        delta.holders[0].P[:, 32:] = first
        theirs.prompt_encoder["default"].embedding.weight.copy_(delta.holders[0].P)
        inputs = {**plain(model), "decoder_input_ids": torch.tensor([[0, 7, 9]] * len(TEXTS))}
        before, expected = model.tower.body(**inputs).logits, theirs(**inputs).logits
        with delta.attached(model.tower):
            ours = model.tower.body(**inputs).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert (ours - before).abs().max() > 1e-2


@pytest.mark.parametrize("placed", [[SOFT], [KEPT], [SOFT, KEPT], [SOFT, Placed(SoftPrompt(2), WORDS)]])
@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_places_are_counted_from_the_text(kind: str, placed: list[Placed]) -> None:
    """Whatever stands in front, every way of asking reads the same place."""
    model = tiny_lm.tiny(kind)
    tower: LanguageTower = model.tower
    asked = prompts(model)
    with begun(model, *placed).attached(tower), torch.no_grad():
        every = tiny_lm.logits_everywhere(tower, asked)
        at = torch.tensor([p.masks[0] if kind == "masked" else len(p.ids) - 1 for p in asked])
        expected = every[torch.arange(6), at]
        assert every.shape[1] == max(len(p.ids) for p in asked)
        words: Any = tower.body
        torch.testing.assert_close(tower(asked), expected)
        torch.testing.assert_close(tower.after(asked, lambda h: h), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tower.blend(asked, asked, torch.ones(6)), expected, atol=1e-5, rtol=1e-5)
        if kind == "masked":
            h, u = tower.at_masks(asked, 1)
            torch.testing.assert_close(words.get_output_embeddings()(u[:, 0]), expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(tower.states(asked), h)
        likely = tower.likelihoods(asked, [[(7,), (9,)]] * 6)
        torch.testing.assert_close(likely[:, :, 0], expected.log_softmax(-1)[:, [7, 9]], atol=1e-5, rtol=1e-5)
        alone = torch.cat([tower(asked[i : i + 1]) for i in range(6)])  # padding is not seen
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["masked", "causal", "seq2seq"])
@pytest.mark.parametrize("recipe", [
    PromptTuning(4, steps=80, lr=0.05), PromptTuning(4, words=(7, 9), steps=80, lr=0.05),
    PrefixTuning(4, steps=80, lr=0.05),
    PrefixTuning(4, through=8, steps=80, lr=0.02),
])  # fmt: skip
def test_only_what_is_in_front_learns(kind: str, recipe: Any, tmp_path: Path) -> None:
    model = tiny_lm.tiny(kind)
    was = {name: t.clone() for name, t in model.tower.state_dict().items()}
    words = model.words({"bad": "bad", "good": "good"})
    data = Data(prompts(model), LABELS, words.classes)
    whole = recipe.recipe() | Recipe(readout=partial(Words, words.single))
    found = tune(model.tower, data, whole)
    assert sum(found.losses[-5:]) < 0.8 * sum(found.losses[:5])
    assert all(torch.equal(t, was[name]) for name, t in model.tower.state_dict().items())
    keys = ["front.reader", "front.writer", "front.across"] if kind == "seq2seq" else ["front.keys"]
    assert [h.site for h in found.delta.each()] == (["front.words"] if isinstance(recipe, PromptTuning) else keys)
    with pytest.raises(BadInput, match="has no weight form"):
        found.merge()
    logits = found.logits(data.inputs)
    save_delta(found.delta, tmp_path / "d")
    with load_delta(tmp_path / "d", model.tower).attached(model.tower), torch.no_grad():
        torch.testing.assert_close(found.readout(model.tower(data.inputs), model.tower), logits)


def test_a_prompt_begins_as_words() -> None:
    model = tiny_lm.tiny("masked")
    delta = begun(model, Placed(SoftPrompt(5), WORDS))
    AsWords((7, 9))(delta, model.tower, None, None, None)  # type: ignore[arg-type]
    rows = model.tower.body.get_input_embeddings().weight[[7, 9, 7, 9, 7]]
    assert torch.equal(delta.holders[0].P, rows)
    with pytest.raises(BadInput, match="one token at least"):
        AsWords(())(delta, model.tower, None, None, None)  # type: ignore[arg-type]


def test_it_is_a_change_like_others_for_classifiers_that_ask() -> None:
    words = {"bad": "bad", "good": "good"}
    changes = PrefixTuning(4).recipe().changes
    found = PromptClassifier(
        tiny_lm.tiny("masked"), template("masked"), words, steps=80, lr=0.05, batch=6, changes=changes
    )
    names = ["bad", "good"]
    labels = [names[c] for c in LABELS.tolist()]
    assert found.fit(TEXTS, labels).predict(TEXTS).tolist() == labels
    model = tiny_lm.tiny("causal")
    questions = model.questions(prompts(model), ["very bad", "good"])
    recipe = PromptTuning(4, steps=80, lr=0.05).recipe() | Recipe(readout=Ranked)
    assert (tune(model.tower, Data(questions, LABELS), recipe).logits(questions).argmax(1) == LABELS).all()


def test_what_has_no_place_in_front_is_refused() -> None:
    model = tiny_lm.tiny("masked")
    with pytest.raises(BadInput, match="vectors in front are placed at"):
        begun(model, Placed(SoftPrompt(3), Where(("down",))))
    with pytest.raises(BadInput, match="tokens are 1 at least"):
        begun(model, Placed(Prefix(0), KEYS))
    with pytest.raises(BadInput, match="through is a width of 1 at least"):
        begun(model, Placed(Prefix(2, through=0), KEYS))
    with pytest.raises(BadInput, match="fits names"):
        Delta.begin(nn.Linear(2, 2), [SOFT], torch.Generator())
    with (
        begun(model, Placed(SoftPrompt(45), WORDS)).attached(model.tower),
        pytest.raises(BadInput, match="has 11 tokens and 45 in front; the model has places for 48: shorten it"),
    ):
        model.tower(prompts(model))
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    small = DistilBertForMaskedLM(DistilBertConfig(vocab_size=39, dim=16, n_layers=2, n_heads=2, hidden_dim=32)).eval()
    tower = LanguageTower(small, "masked")
    with (
        Delta.begin(tower, [KEPT], torch.Generator()).attached(tower),
        pytest.raises(BadInput, match="DistilBertForMaskedLM takes no keys and values"),
    ):
        tower(prompts(model))
