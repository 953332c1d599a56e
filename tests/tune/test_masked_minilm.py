"""The masked language model made of MiniLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_lm
import torch
from torch.nn import functional

from handful.encode.lm import LanguageModel, language_model
from handful.encode.minilm import MiniLM
from handful.errors import BadInput, HandfulError
from handful.tune.cloze import covered
from handful.tune.masked_minilm import masked_minilm, save, teach

TEXTS = [f"{a} {b} {c}" for a in ("the", "a") for b in ("great", "dull", "long") for c in ("film", "story", "plot")]


@pytest.fixture(scope="module")
def made() -> LanguageModel:
    return masked_minilm()


def test_its_body_is_the_encoders(made: LanguageModel) -> None:
    texts = ["hello there", "I lost my card and want it back please"]
    with torch.no_grad():
        for text, expected in zip(texts, MiniLM("float32").encode(texts, cache=False), strict=True):
            ids = torch.tensor([made.prompt(text).ids])
            h = made.tower.body.bert(ids).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(functional.normalize(h, dim=0).numpy(), expected, atol=2e-6)
    head = made.tower.body.cls.predictions
    assert head.decoder.weight is made.tower.body.bert.embeddings.word_embeddings.weight
    assert made.most == 512 and made.tokenizer.mask_token_id == 103
    again = masked_minilm(seed=0).tower.body.cls.predictions.transform.dense.weight
    other = masked_minilm(seed=1).tower.body.cls.predictions.transform.dense.weight
    assert torch.equal(again, head.transform.dense.weight) and not torch.equal(other, again)


def test_a_few_steps_teach_it_and_it_is_read_again(tmp_path: Path) -> None:
    made = masked_minilm()
    text = "it was a great [MASK]."
    before = made.mask_logits([text])
    losses = teach(made, TEXTS, epochs=4, batch=9, lr=1e-3, length=16)
    assert len(losses) == 8 and losses[-1] < losses[0]
    after = made.mask_logits([text])
    assert (after - before).abs().max() > 0.1
    save(made, tmp_path / "there" / "minilm-mlm")
    read = language_model(f"hf:{tmp_path / 'there' / 'minilm-mlm'}")
    assert read.kind == "masked" and [p.name for p in (tmp_path / "there").iterdir()] == ["minilm-mlm"]
    torch.testing.assert_close(read.mask_logits([text]), after, atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match="exists; give --force"):
        save(made, tmp_path / "there" / "minilm-mlm")
    save(made, tmp_path / "there" / "minilm-mlm", force=True)
    (tmp_path / "a-file").write_text("", encoding="utf-8")
    with pytest.raises(HandfulError, match="cannot write"):
        save(made, tmp_path / "a-file" / "minilm-mlm")


def test_covered_words_are_learnt_and_some_sentences_are_not() -> None:
    model = tiny_lm.tiny("masked")
    prompts = [model.prompt(text) for text in TEXTS]
    shown, asked = covered(prompts * 20, model.tokenizer, torch.Generator().manual_seed(9), 0.3)

    def loss() -> float:
        with torch.no_grad():
            return float(model.tower.body(**model.tower.inputs(shown), labels=asked).loss)

    before = loss()
    losses = teach(model, TEXTS, epochs=60, batch=6, lr=0.01)
    assert loss() < 0.5 * before and sum(losses[-9:]) < 0.6 * sum(losses[:9])
    few = tiny_lm.tiny("masked")
    assert len(teach(few, [*TEXTS, TEXTS[0], " "], leave_out=["THE  great film", *TEXTS[2:]], epochs=1, batch=1)) == 1
    with pytest.raises(BadInput, match="no text to learn from is left"):
        teach(few, TEXTS, leave_out=TEXTS)
    with pytest.raises(BadInput, match="is causal; words are covered for a masked model"):
        teach(tiny_lm.tiny("causal"), TEXTS)


def test_it_stops_in_time() -> None:
    assert len(teach(tiny_lm.tiny("masked"), TEXTS, epochs=50, time_limit=0.0)) == 0
