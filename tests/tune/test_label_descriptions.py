"""LabelDesc (77): a masked language model that learns from descriptions of its classes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch
from torch import nn

from handful.errors import BadInput
from handful.tune.describe import (
    SENTIMENT,
    TOPIC,
    Pattern,
    make_label_descriptions,
    read_descriptions,
    read_patterns,
)
from handful.tune.first_token import FirstToken
from handful.tune.label_descriptions import (
    LabelDescriptionTrainer,
    learning,
    over_patterns,
    prompt,
    shuffled,
    with_new_words,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "label_desc.json").read_text(encoding="utf-8"))
WORDS = {"film": "film", "news": "news", "story": "story"}
ASK = Pattern("it is <mask>.", True, -2)
KEYS = {"film": ["actors", "plot", "great"], "news": ["terrible", "short", "bad"], "story": ["long", "moving", "dull"]}


def written(each: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of a word that tells their class and one to three that do not."""
    rng = np.random.default_rng(seed)
    fillers = ["the", "a", "it", "is", "and", "of", "in", "about"]

    def text(words: list[str]) -> str:
        return " ".join(rng.permutation([rng.choice(words), *rng.choice(fillers, rng.integers(1, 4))]))

    pairs = [(text(words), name) for name, words in KEYS.items() for _ in range(each)]
    return [text for text, _ in pairs], [name for _, name in pairs]


DESCRIPTIONS = written(20, 0)
TEXTS, LABELS = written(20, 1)


def trainer(**options: Any) -> LabelDescriptionTrainer:
    settings = {"words": WORDS, "pattern": ASK, "steps": 300, "lr": 1e-2, "batch": 8} | options
    return LabelDescriptionTrainer(tiny_lm.tiny("masked"), **settings)


def bits(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


@pytest.mark.paper(77, oracle="a", part="method")
def test_without_steps_it_is_zero_shot() -> None:
    fitted = trainer(steps=0).fit(*DESCRIPTIONS)
    tokenizer, body = fitted.model.tokenizer, fitted.model.tower.body
    words = tokenizer.convert_tokens_to_ids(list(WORDS.values()))
    for text, found in zip(TEXTS[::7], fitted.predict_proba(TEXTS[::7]), strict=True):
        ids = tokenizer.encode(f"{text} it is [MASK] .")
        with torch.no_grad():
            logits = body(input_ids=torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)]
        torch.testing.assert_close(torch.tensor(found), logits[words].softmax(0), atol=1e-6, rtol=0)


@pytest.mark.paper(77, oracle="d", part="method")
@pytest.mark.parametrize("asks", [True, False], ids=["words", "head"])
def test_descriptions_that_share_words_with_texts_are_enough(asks: bool) -> None:
    options = {} if asks else {"words": None, "pattern": None}
    before = trainer(steps=0, **options).fit(*DESCRIPTIONS)
    after = trainer(**options).fit(*DESCRIPTIONS)
    assert (before.predict(TEXTS) == np.array(LABELS)).mean() < 0.45
    assert (after.predict(TEXTS) == np.array(LABELS)).mean() > 0.9
    assert after.classes == ("film", "news", "story")
    again = trainer(**options).fit(*DESCRIPTIONS)
    assert torch.equal(after.logits(TEXTS), again.logits(TEXTS))


def test_the_loss_is_over_the_whole_vocabulary() -> None:
    lm = tiny_lm.tiny("masked")
    fitted = LabelDescriptionTrainer(lm, WORDS, ASK, 1, 0.0, batch=len(DESCRIPTIONS[0])).fit(*DESCRIPTIONS)
    prompts = [prompt(lm, text, ASK) for text in DESCRIPTIONS[0]]
    ids = torch.tensor(lm.tokenizer.convert_tokens_to_ids([WORDS[label] for label in DESCRIPTIONS[1]]))
    expected = nn.functional.cross_entropy(lm.mask_logits(prompts), ids)
    assert fitted.tuned is not None and fitted.tuned.losses[0] == pytest.approx(float(expected), rel=1e-5)
    assert float(expected) > np.log(3)  # more than it could be among three words at random


@pytest.mark.paper(77, oracle="c", part="method")
def test_the_lower_half_of_the_blocks_stays() -> None:
    fitted = trainer(steps=20).fit(*DESCRIPTIONS)
    tower = fitted.model.tower
    was = bits(tower)
    assert fitted.tuned is not None
    kept = fitted.tuned.merge()
    now = bits(tower)
    kept.undo()
    lower = {name for name in was if ".layer.0." in name}
    upper = {name for name in was if ".layer.1." in name and "key.bias" not in name}  # the softmax cancels a key's bias
    assert lower and all(now[name] == was[name] for name in lower)
    assert upper and all(now[name] != was[name] for name in upper)
    assert now["body.bert.embeddings.word_embeddings.weight"] != was["body.bert.embeddings.word_embeddings.weight"]
    assert bits(tower) == was


def test_what_is_frozen_is_as_in_the_authors_code() -> None:
    for layers, names in GOLDEN["frozen"].items():
        model = tiny_lm.body("roberta", 60, num_hidden_layers=int(layers))
        learns = {f"{site}.{one.where.parameter}" for one in learning(model) for site in one.where.sites}
        frozen = [name for name, _ in model.named_parameters() if name not in learns]
        assert sorted(frozen) == names
        every = {f"{site}.{one.where.parameter}" for one in learning(model, False) for site in one.where.sites}
        assert {name for name, _ in model.named_parameters()} <= every


def test_the_head_on_the_first_token_is_the_authors() -> None:
    told = {name: torch.tensor(value) for name, value in GOLDEN["head"].items()}
    head = FirstToken()
    for name in "wbvc":
        setattr(head, name, nn.Parameter(told[name]))
    torch.testing.assert_close(head(told["h"], nn.Identity()), told["logits"], atol=1e-6, rtol=1e-6)


@pytest.mark.paper(77, oracle="b")
@pytest.mark.parametrize("kind", ["masked", "roberta"])
def test_the_mask_is_where_the_pattern_says(kind: str) -> None:
    lm = tiny_lm.tiny(kind)
    long = " ".join(["the film was great and the story moving"] * 12)
    for pattern, text in itertools.product({*TOPIC, *SENTIMENT}, ["a film", long]):
        if kind == "roberta" and pattern.text.startswith("Question"):
            continue  # its few tokens make such a question longer than what it reads
        found = prompt(lm, text, pattern)
        assert pattern.place is not None
        at = len(found.ids) - 1 + pattern.place if pattern.behind else 1 + pattern.place
        assert found.masks == (at,) and found.ids[at] == lm.tokenizer.mask_token_id
        assert len(found.ids) <= 48 and (found.ids[0], found.ids[-1]) == (
            lm.tokenizer.cls_token_id, lm.tokenizer.sep_token_id,
        )  # fmt: skip
    assert len(TOPIC) == len(SENTIMENT) == 14


def test_a_long_text_is_cut_at_the_end_away_from_the_pattern() -> None:
    lm = tiny_lm.tiny("masked")
    text = "terrible " + "the film was great " * 20 + "not moving"
    patterns = (ASK, Pattern("<mask>:", False))
    behind, ahead = (lm.tokenizer.convert_ids_to_tokens(prompt(lm, text, one, 12).ids) for one in patterns)
    assert " ".join(behind) == "[CLS] the film was great not moving it is [MASK] . [SEP]"
    assert " ".join(ahead) == "[CLS] [MASK] : terrible the film was great the film was [SEP]"


@pytest.mark.paper(77, oracle="e", part="data")
def test_published_descriptions_and_patterns_are_read(tmp_path: Path) -> None:
    rows = [f"{c}\tword {c} {i}\tnote" for c in range(1, 5) for i in range(5)]
    rows += [f'{c}\t"the term ""{c}"",  in general"\tWikipedia' for c in range(1, 4)] + ["4\tno note "]
    path = tmp_path / "manual_24.tsv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    texts, labels = read_descriptions(path, ("world", "sport", "business", "technology"))
    assert len(texts) == 24 and [labels.count(c) for c in dict.fromkeys(labels)] == [6] * 4
    assert texts[20] == 'the term "1", in general' and labels[20] == "world" and texts[23] == "no note"
    assert read_descriptions(path)[1][:6] == ["1"] * 5 + ["2"]
    with pytest.raises(BadInput, match=r"row 16: class 4, but there are 3 names"):
        read_descriptions(path, ("a", "b", "c"))
    path.write_text("one\ttext\n", encoding="utf-8")
    with pytest.raises(BadInput, match="row 1: it needs the number"):
        read_descriptions(path)
    with pytest.raises(BadInput, match="there is no file"):
        read_descriptions(tmp_path / "none")
    header = "pattern type\tpattern id\tbefore/after\tstring\tmask position\n"
    asked = tmp_path / "prompts.tsv"
    asked.write_text(
        header + "qa\t1\tbefore\tQuestion: What is the topic of this article? Answer: <mask>.\t-2\n"
        "prompt\t10\tafter\t<mask> NEWS: \t0", encoding="latin-1"
    )  # fmt: skip
    assert read_patterns(asked) == (TOPIC[0], TOPIC[-1])
    asked.write_text(header + "qa\t1\tbehind\tIt is <mask>.\t-2\n", encoding="latin-1")
    with pytest.raises(BadInput, match="row 2: no pattern"):
        read_patterns(asked)


def test_descriptions_are_made_as_the_paper_makes_them() -> None:
    texts, labels = make_label_descriptions(
        ["sport", "business"], related={"sport": ["racing"]}, definitions={"business": ["the purchase of goods"]}
    )
    assert texts == ["sport", "racing", "business", "the purchase of goods"]
    assert labels == ["sport", "sport", "business", "business"]
    terms = {"terrible": ["awful", "horrendous", "horrible", "dreadful"]}
    texts, labels = make_label_descriptions(["terrible", "great"], "sentiment", related=terms)
    assert labels.count("terrible") == 25 and labels.count("great") == 5
    assert {"awful", "It was awful.", "An awful experience.", "Just awful.", "Overall, it was awful."} <= set(texts)
    assert "A terrible experience." in texts
    with pytest.raises(BadInput, match="'word' describes 'a' and 'b'"):
        make_label_descriptions(["a", "b"], related={"a": ["word"], "b": ["word"]})
    with pytest.raises(BadInput, match="'c', which is no class"):
        make_label_descriptions(["a", "b"], related={"c": ["word"]})


def test_words_are_shuffled_or_new() -> None:
    for seed in range(10):
        other = shuffled(WORDS, seed)
        assert sorted(other.values()) == sorted(WORDS.values()) and all(other[c] != WORDS[c] for c in WORDS)
    lm = tiny_lm.tiny("masked")
    was = bits(lm.tower)
    model, words = with_new_words(lm, list(WORDS), seed=1)
    ids = model.tokenizer.convert_tokens_to_ids(list(words.values()))
    assert bits(lm.tower) == was and min(ids) >= len(lm.tokenizer) and len(set(ids)) == 3
    table = model.tower.body.get_input_embeddings().weight
    assert float(table[ids].std().detach()) == pytest.approx(model.tower.body.config.initializer_range, rel=0.3)
    assert torch.equal(table[: min(ids)], lm.tower.body.get_input_embeddings().weight)
    fitted = LabelDescriptionTrainer(model, words, ASK, 300, 1e-2, batch=8).fit(*DESCRIPTIONS)
    assert (fitted.predict(TEXTS) == np.array(LABELS)).mean() > 0.8


def test_the_protocol_is_all_patterns_and_seeds() -> None:
    patterns = (ASK, Pattern("<mask> news:", False, 0))
    found = over_patterns(trainer(steps=40), patterns, *DESCRIPTIONS, TEXTS, LABELS, seeds=(1, 2))
    assert found.accuracies.shape == (2, 2)
    alone = trainer(steps=40, pattern=patterns[1], seed=2).fit(*DESCRIPTIONS)
    assert found.accuracies[1, 1] == (alone.predict(TEXTS) == np.array(LABELS)).mean()
    assert found.mean == pytest.approx(found.accuracies.mean())
    assert found.deviation == pytest.approx(np.std(found.accuracies.ravel(), ddof=1))


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(BadInput, match="is 2 tokens"):
        LabelDescriptionTrainer(tiny_lm.tiny("masked"), {"a": "very good", "b": "bad"}, ASK)
    with pytest.raises(BadInput, match="has 2 masks"):
        Pattern("<mask> or <mask>")
    with pytest.raises(BadInput, match="counted from the end"):
        Pattern("<mask>", True, 0)
    with pytest.raises(BadInput, match="token 5 of 8, not at -1"):
        prompt(tiny_lm.tiny("masked"), "a film", Pattern("it is <mask>.", True, -1))
    with pytest.raises(BadInput, match="0 masks in 6 tokens"):
        prompt(tiny_lm.tiny("masked"), "a", Pattern("<mask> of the story and plot.", True), 6)
    with pytest.raises(BadInput, match="give both, or neither"):
        trainer(pattern=None)
    with pytest.raises(BadInput, match="is causal"):
        LabelDescriptionTrainer(tiny_lm.tiny("causal"))
    with pytest.raises(BadInput, match="'plot' has no word"):
        trainer().fit(["a"], ["plot"])
    with pytest.raises(BadInput, match="'news' has no description"):
        trainer().fit(["a", "b"], ["film", "story"])
    with pytest.raises(BadInput, match="not been fitted"):
        trainer().predict(["a"])
