"""LM-BFF (12): prompts with examples, words and templates that are found."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_lm
import torch

from handful.errors import BadInput
from handful.tune import LoRA, Placed, Where
from handful.tune.demonstrations import Demonstrations
from handful.tune.label_search import begins_word, find_words, search_label_words
from handful.tune.lm_bff import PromptClassifier, best_of
from handful.tune.template_search import beam_search, search_templates

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lm_bff.json").read_text(encoding="utf-8"))
GOOD = ["a great film", "great actors", "it was great", "very great and moving"]
BAD = ["a terrible film", "terrible actors", "it was terrible", "dull and terrible"]
TEXTS, LABELS = GOOD + BAD, ["pos"] * 4 + ["neg"] * 4
DEV, DEV_LABELS = ["the story was great", "the plot is terrible"], ["pos", "neg"]
TEMPLATE = "*cls**sent_0*_._it_was*mask*.*sep+*"
WORDS = {"neg": "not", "pos": "very"}


class Counted:
    """An encoder of texts: how often great, terrible and film are in them."""

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.array([[t.split().count(w) for w in ("great", "terrible", "film")] for t in texts], np.float32)


def quick(**options: object) -> PromptClassifier:
    settings = {"template": TEMPLATE, "words": WORDS, "steps": 40, "lr": 0.01, "batch": 8, "samples": 3} | options
    return PromptClassifier(tiny_lm.tiny("masked"), **settings)  # type: ignore[arg-type]


@pytest.mark.paper(12, oracle="a")
def test_without_steps_it_is_the_models_own_answer() -> None:
    model = quick(steps=0).fit(TEXTS, LABELS)
    tokenizer, body = model.model.tokenizer, model.model.tower.body
    not_, very = tokenizer.convert_tokens_to_ids(["not", "very"])
    for text, p in zip(DEV, model.predict_proba(DEV), strict=True):
        ids = tokenizer.encode(f"{text} . it was [MASK] .")
        with torch.no_grad():
            logits = body(input_ids=torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)]
        torch.testing.assert_close(torch.tensor(p), logits[[not_, very]].softmax(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("demos", "lr"), [("none", 0.01), ("random", 0.01), ("filtered", 0.02)])
def test_a_few_examples_are_learnt(demos: str, lr: float) -> None:
    model = quick(demos=demos, encoder=Counted(), steps=100, lr=lr).fit(TEXTS, LABELS)
    assert model.predict(TEXTS).tolist() == LABELS
    assert model.tuned is not None and model.tuned.losses[-1] < 0.1 * model.tuned.losses[0]
    again = quick(demos=demos, encoder=Counted(), steps=100, lr=lr).fit(TEXTS, LABELS)
    assert torch.equal(model.logits(DEV), again.logits(DEV))


def test_held_out_examples_choose_rate_batch_and_state() -> None:
    model = quick(lr=(0.0, 0.01), batch=(4, 8), steps=30, check=10).fit(TEXTS, LABELS, DEV, DEV_LABELS)
    assert model.score == 1.0 and model.predict(DEV).tolist() == DEV_LABELS
    idle = quick(lr=0.0, steps=5).fit(TEXTS, LABELS, DEV, DEV_LABELS)
    assert idle.score is not None and idle.score < 1
    ranked = best_of(quick(steps=20), [TEMPLATE, "*cls*a*mask*film*sep+*"], [WORDS], TEXTS, LABELS, DEV, DEV_LABELS)
    assert ranked[0].template == TEMPLATE and ranked[0].score == 1.0 > ranked[1].score  # the other shows no text


def test_only_some_of_the_weights_may_learn() -> None:
    changes = (Placed(LoRA(4, 8), Where()),)
    model = quick(changes=changes, steps=100, lr=0.03).fit(TEXTS, LABELS)
    assert model.tuned is not None and model.tuned.delta.trainable() < 4000
    assert model.predict(DEV).tolist() == DEV_LABELS


def test_numbers_lie_between_two_words() -> None:
    values = [4.5, 5.0, 4.0, 5.0, 0.5, 0.0, 0.0, 1.0]
    model = quick(bounds=(0.0, 5.0)).fit(TEXTS, values, DEV, [4.0, 1.0])
    found = model.predict(DEV)
    assert found[0] > 3.5 and found[1] < 1.5 and model.score == pytest.approx(1.0)
    shown = quick(bounds=(0.0, 5.0), demos="random", steps=1).fit(TEXTS, values)._demos
    assert shown.labels.tolist() == [1] * 4 + [0] * 4  # above the median, 2.5, and below


def shown(way: str, labels: list[int], **options: object) -> Demonstrations:
    base = quick()
    return Demonstrations(
        base.model, base._template, base._words, [[t] for t in TEXTS], torch.tensor(labels), way,  # type: ignore[arg-type]
        torch.from_numpy(Counted().encode(TEXTS)), **options,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_nearest_half_of_each_class_is_shown_and_never_the_item_itself() -> None:
    demos = shown("filtered", [1] * 4 + [0] * 4)
    near = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.2, 0.8, 0.1, 0.7])
    assert demos.pools(range(8), near) == [[5, 7], [0, 2]]
    assert demos.pools([1, 2, 3, 4, 5, 6, 7], near) == [[5], [2]]  # floor(7 // 2 * 0.5)
    drawn = [demos.draw(torch.Generator().manual_seed(i), near, own=0) for i in range(20)]
    assert {tuple(one) for one in drawn} == {(5, 2)}
    random = shown("random", [1] * 4 + [0] * 4)
    drawn = [random.draw(torch.Generator().manual_seed(i), own=0) for i in range(60)]
    assert {one[0] for one in drawn} == {4, 5, 6, 7} and {one[1] for one in drawn} == {1, 2, 3}
    prompt = random.ask([["the film"]], torch.Generator().manual_seed(0))[0]
    text = random.model.tokenizer.decode(list(prompt.ids))
    assert text.startswith("[CLS] the film. it was [MASK]. [SEP]".replace(".", " .")) and text.count("[CLS]") == 1
    assert (
        "terrible . it was not . [SEP]" in text or "film . it was not . [SEP]" in text or "actors . it was not" in text
    )
    assert "it was very . [SEP]" in text and text.index("it was not") < text.index("it was very")


def test_gpt3s_examples_are_of_any_class() -> None:
    demos = shown("tail", [1] * 4 + [0] * 4, shown=3)
    tokenizer = demos.model.tokenizer
    chosen = demos.draw(torch.Generator().manual_seed(5))
    text = tokenizer.decode(list(demos.ask([["the film"]], torch.Generator().manual_seed(5))[0].ids))
    pieces = [piece.strip() for piece in text.split("[SEP]")][1:-1]
    assert pieces == [f"{TEXTS[i]} . it was {'very' if i < 4 else 'not'} ." for i in chosen]
    head = shown("head", [1] * 4 + [0] * 4, shown=3)
    text = tokenizer.decode(list(head.ask([["the film"]], torch.Generator().manual_seed(5))[0].ids))
    assert [piece.strip() for piece in text.split("[SEP]")][:3] == pieces[::-1]
    asked = quick(steps=0, demos="head", shown=2).fit(TEXTS, LABELS)
    assert asked.predict_proba(DEV).shape == (2, 2)


@pytest.mark.paper(12, oracle="f")
def test_equal_draws_count_as_one() -> None:
    two = [GOOD[0], BAD[0]]
    once, often = (
        quick(steps=0, demos="random", samples=n).fit(two, ["pos", "neg"]) for n in (1, 5)
    )  # one example a class: every draw shows the same
    torch.testing.assert_close(once.logits(DEV), often.logits(DEV), atol=1e-6, rtol=0)
    many = quick(steps=0, demos="random", samples=5).fit(TEXTS, LABELS)
    assert not torch.allclose(many.logits(DEV), once.logits(DEV), atol=1e-3)


@pytest.mark.paper(12, oracle="c")
@pytest.mark.parametrize("case", GOLDEN["labels"], ids=str)
def test_words_are_those_of_the_reference(case: dict[str, object]) -> None:
    ways = case["ways"]
    rng = np.random.default_rng(case["seed"])
    logits, vectors = torch.tensor(rng.standard_normal((40, 200))), torch.tensor(rng.standard_normal((200, 16)))
    targets = torch.tensor(rng.random(40) * 5) if case["regression"] else torch.arange(40) % ways
    found = find_words(
        logits, targets, allowed=torch.arange(200) % 4 > 0, seeds=case["seeds"], vectors=vectors, likely=12,
        neighbours=6, top=10**6,
    )  # fmt: skip
    assert len(found) == case["count"]
    score = dict(found)
    for words, value in case["top"]:
        assert score[tuple(words)] == pytest.approx(value, abs=1e-6)
    assert [s for _, s in found[:20]] == pytest.approx([value for _, value in case["top"]], abs=1e-6)
    assert sum(score.values()) == pytest.approx(case["total"], abs=1e-4)
    assert find_words(
        logits, targets, allowed=torch.arange(200) % 4 > 0, seeds=case["seeds"], vectors=vectors, likely=12,
        neighbours=6, top=7,
    ) == found[:7]  # fmt: skip


@pytest.mark.paper(12, oracle="e")
def test_the_order_of_examples_changes_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(30, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets, order = torch.arange(30) % 3, torch.randperm(30, generator=torch.Generator().manual_seed(1))
    found = find_words(logits, targets, likely=9, top=20)
    assert find_words(logits[order], targets[order], likely=9, top=20) == found
    monkeypatch.setattr("handful.tune.label_search.CHUNK", 1000)  # in pieces
    assert find_words(logits, targets, likely=9, top=20) == found


@pytest.mark.parametrize("kind", ["masked", "roberta", "causal"])
def test_words_are_found_for_a_model(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    template = TEMPLATE if model.kind == "masked" else "*sent_0*_. it was"
    base = PromptClassifier(model, template, WORDS, steps=0)
    prompts = model.fill(base._template, [[text] for text in TEXTS])
    targets = torch.tensor([0] * 4 + [1] * 4)
    found = search_label_words(model, prompts, targets, ["pos", "neg"], likely=8, top=5)
    words, score = found[0]
    assert score == max(s for _, s in found) and words.classes == ("pos", "neg")
    own = PromptClassifier(model, template, dict(zip(words.classes, words.words, strict=True)), steps=0)
    if words.words[0] != words.words[1]:
        right = (own.fit(TEXTS, LABELS).predict(TEXTS) == np.array(LABELS)).mean()
        assert right == pytest.approx(score)
    near = search_label_words(
        model, prompts, targets, ["pos", "neg"], seeds={"pos": "great", "neg": "good"}, likely=400, neighbours=1
    )
    assert near[0][0].words == ("great", "good")  # a seed is its own nearest


def test_words_begin_words() -> None:
    spaced = tiny_lm.byte_tokenizer()
    starts = begins_word(spaced, 400)
    ids = spaced.convert_tokens_to_ids(["Ġgreat", "e", "<mask>"])
    assert starts[ids].tolist() == [True, False, False] and len(starts) == 400
    plain = tiny_lm.word_tokenizer()
    assert begins_word(plain, 50)[[0, 4, 5, 48]].tolist() == [False, False, True, False]


@pytest.mark.paper(12, oracle="d")
def test_the_beam_is_the_whole_tree_when_it_is_wide_enough() -> None:
    # 0: end, 1..3: gaps 0..2, 4 and 5: words; what follows what is a fixed table
    table = torch.randn(7, 6, generator=torch.Generator().manual_seed(2))  # by the last token; row 6 before any

    def step(sequences: list[tuple[int, ...]]) -> torch.Tensor:
        return table[[one[-1] if one else 6 for one in sequences]]

    logs = table.log_softmax(1)
    every = []
    for length in range(1, 5):
        for tokens in itertools.product(range(6), repeat=length):
            ended = 0
            complete = None
            for at, token in enumerate(tokens):
                if token == 0 or token == 2 + ended:
                    ended += 1
                if ended == 2:
                    complete = at + 1
                    break
            if (complete == length) or (complete is None and length == 4):
                if 5 in tokens or any(a == b == 4 for a, b in itertools.pairwise(tokens)):
                    continue  # forbidden, and the full stop twice
                score = sum(
                    float(logs[p if p is not None else 6, t]) for p, t in zip((None, *tokens), tokens, strict=False)
                )
                every.append((tokens, score))
    every.sort(key=lambda one: -one[1])
    found = beam_search(step, gap=[1, 2, 3].__getitem__, end=0, beam=5000, length=6, forbidden=[5], once=4)  # type: ignore[arg-type]
    assert {one.tokens: round(one.score, 4) for one in found} == {tokens: round(score, 4) for tokens, score in every}
    assert [one.score for one in found] == pytest.approx([score for _, score in every], abs=1e-5)
    narrow = beam_search(step, gap=[1, 2, 3].__getitem__, end=0, beam=3, length=6, forbidden=[5], once=4)  # type: ignore[arg-type]
    assert len(narrow) == 3


def test_templates_are_written_by_a_model_that_fills_gaps() -> None:
    model = tiny_lm.tiny("seq2seq")
    body, tokenizer = model.tower.body, model.tokenizer
    gaps = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"])
    said = [
        gaps[0],
        *tokenizer.encode("it was", add_special_tokens=False),
        gaps[1],
        tokenizer.convert_tokens_to_ids("."),
        gaps[2],
    ]

    def speaks(*, decoder_input_ids: torch.Tensor, encoder_outputs: object, attention_mask: object) -> object:
        """As a model that says one sequence, whatever it reads."""
        logits = torch.zeros(*decoder_input_ids.shape, 40)
        at = decoder_input_ids.shape[1] - 1
        logits[:, -1, said[at] if at < len(said) else 5] = 9.0
        return type("Out", (), {"logits": logits})

    hooked = model.tower.body.forward
    body.forward = speaks  # type: ignore[method-assign]
    try:
        one = search_templates(model, [[t] for t in TEXTS], LABELS, {"pos": "great", "neg": "bad"}, beam=4)
        two = search_templates(
            model, [["A film .", "It was"], ["a", "b"]], ["pos", "neg"], {"pos": "yes", "neg": "no"}, beam=4
        )
    finally:
        body.forward = hooked  # type: ignore[method-assign]
    sources = [template.source for template, _ in one]
    assert "*cls**sent_0*itwas*mask*.*sep+*" in sources and "*cls*itwas*mask*.*+sent_0**sep+*" in sources
    assert two[0][0].source == "*cls**sent-_0*itwas*mask*.*+sentl_1**sep+*" and len(two) <= 4
    real = search_templates(model, [[t] for t in TEXTS], LABELS, {"pos": "great", "neg": "bad"}, beam=16)
    order = search_templates(model, [[t] for t in TEXTS[::-1]], LABELS[::-1], {"pos": "great", "neg": "bad"}, beam=16)
    assert [t for t, _ in real] == [t for t, _ in order] and all(t.asks for t, _ in real)


def test_what_cannot_be_learnt_from_is_refused() -> None:
    with pytest.raises(BadInput, match="has no mask; put"):
        quick(template="*cls**sent_0**sep+*")
    with pytest.raises(BadInput, match="the word 'very good' is 2 tokens"):
        quick(words={"neg": "bad", "pos": "very good"})
    for options, message in [
        ({"smoothing": 2.0}, "smoothing is a share of each target, from 0 to 1, not 2"),
        ({"first": 0}, "first= and others= are tokens of a text at most, from 1 on, not 0 and None"),
        ({"demos": "tail", "steps": 0, "shown": 0}, "shown is a number of examples, 1 at least, not 0"),
        ({"template": None}, "a template is written as text"),
    ]:
        with pytest.raises(BadInput, match=message):
            quick(**options).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="1 words"):
        quick(words={"neg": "bad"})
    with pytest.raises(BadInput, match="label 'meh' has no word; there are 'neg', 'pos'"):
        quick().fit(TEXTS, ["meh"] * 8)
    with pytest.raises(BadInput, match="class 'neg' has no example to show"):
        quick(demos="random").fit(GOOD, ["pos"] * 4)
    with pytest.raises(BadInput, match="demos='head' shows examples to a model as it is; give steps=0"):
        quick(demos="head")
    with pytest.raises(BadInput, match="lr and batch are one value or several, not none"):
        quick(lr=()).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="several rates or batches"):
        quick(lr=(0.1, 0.2)).fit(TEXTS, LABELS)
    with pytest.raises(BadInput, match="8 and 0 texts, but 7 and 0 labels"):
        quick().fit(TEXTS, LABELS[:7])
    with pytest.raises(BadInput, match="mask was cut off, as no more than 5 tokens"):
        quick(length=5).fit(TEXTS, LABELS)
    assert len(quick(length=5, first=1, template="*cls**sent_0**mask*", steps=1).fit(TEXTS, LABELS).predict(DEV)) == 2
    with pytest.raises(BadInput, match="has not been fitted"):
        quick().logits(DEV)
    with pytest.warns(UserWarning, match="1 held-out texts are learnt from"):
        quick(steps=1).fit(TEXTS, LABELS, [TEXTS[0]], ["pos"])
    with pytest.raises(BadInput, match="'masked' fills no gaps"):
        search_templates(tiny_lm.tiny("masked"), [["a"]], ["pos"], {"pos": "great"})
    with pytest.raises(BadInput, match="class 1 has no examples"):
        find_words(torch.randn(4, 9), torch.zeros(4, dtype=torch.long), ways=2)
    with pytest.raises(BadInput, match="take fewer likely words"):
        find_words(torch.randn(6, 2000), torch.arange(6), likely=1000)
