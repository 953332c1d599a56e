"""Prompt-based fine-tuning of all three kinds of language model."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tiny_lm
import torch

from handful.encode.language_tower import normalised
from handful.encode.lm import LanguageModel
from handful.encode.template import Template
from handful.errors import BadInput
from handful.tune import Data, LoRA, Placed, Recipe, Stage, Where, tune
from handful.tune.prompting import Divergence, Ranked, Words, between, everything, listed, number_of
from handful.tune.recipe import Seen

TEXTS = [["a great film"], ["a terrible story"], ["great actors"], ["the plot was terrible"], ["moving and great"],
         ["dull , terrible"]]  # fmt: skip
LABELS = torch.tensor([1, 0, 1, 0, 1, 0])
KINDS = ["masked", "roberta", "causal", "seq2seq"]


def template(model: LanguageModel) -> Template:
    return Template("*cls**sent_0*_._it_was*mask*.*sep+*" if model.kind == "masked" else "*sent_0*_. it was")


@pytest.mark.parametrize("kind", KINDS)
def test_words_become_what_the_examples_say(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    words = model.words({"neg": "not", "pos": "very"})
    data = Data(model.fill(template(model), TEXTS), LABELS, words.classes)
    recipe = Recipe(
        (Placed(LoRA(4, 8), Where()),), stages=(Stage(steps=60, lr=0.03, batch=6),),
        readout=partial(Words, words.single),
    )  # fmt: skip
    before = model.mask_logits(data.inputs)[:, words.single]
    tuned = tune(model.tower, data, recipe)
    logits = tuned.logits(data.inputs)
    assert tuned.losses[-1] < tuned.losses[0] / 3 and (logits.argmax(1) == LABELS).all()
    torch.testing.assert_close(model.mask_logits(data.inputs)[:, words.single], before)
    with tuned.delta.attached(model.tower):
        torch.testing.assert_close(model.mask_logits(data.inputs)[:, words.single], logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_answers_are_ranked(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    prompts = model.fill(template(model), TEXTS)
    choices = ["not very good", "moving"]
    data = Data(model.questions(prompts, choices), LABELS)
    recipe = Recipe((Placed(LoRA(4, 8), Where()),), stages=(Stage(steps=60, lr=0.03, batch=6),), readout=Ranked)
    tuned = tune(model.tower, data, recipe)
    logits = tuned.logits(data.inputs)
    assert tuned.losses[-1] < tuned.losses[0] / 3 and (logits.argmax(1) == LABELS).all()
    with tuned.delta.attached(model.tower):
        torch.testing.assert_close(model.score(prompts, choices), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_can_learn(kind: str) -> None:
    model = tiny_lm.tiny(kind)
    words = model.words({"neg": "not", "pos": "very"})
    data = Data(model.fill(template(model), TEXTS), LABELS, words.classes)
    recipe = Recipe(
        everything(model.tower), stages=(Stage(steps=30, lr=0.01, batch=6),), readout=partial(Words, words.single)
    )
    tuned = tune(model.tower, data, recipe)
    assert tuned.delta.trainable() == sum(p.numel() for p in model.tower.parameters())
    assert (tuned.logits(data.inputs).argmax(1) == LABELS).all()


def test_an_item_with_fewer_answers_has_none_behind_them() -> None:
    model = tiny_lm.tiny("causal")
    prompts = model.fill(template(model), TEXTS[:2])
    questions = model.questions(prompts, [["good", "very bad", "fine"], ["bad"]])
    readout = Ranked(0.5)
    readout.begin(model.tower, Data(questions, torch.tensor([2, 0])), torch.Generator())
    logits = readout(model.tower(questions), model.tower)
    assert torch.equal(logits, normalised(model.tower(questions), 0.5)) and logits[1, 1:].tolist() == [-torch.inf] * 2
    few = model.questions(prompts[1:], [["bad"]])
    assert readout(model.tower(few), model.tower).shape == (1, 3)
    readout.ways = 2
    with pytest.raises(BadInput, match="3 answers, but there are 2 classes"):
        readout(model.tower(questions), model.tower)
    with pytest.raises(BadInput, match="3 words, but 2 classes"):
        Words(torch.tensor([1, 2, 3])).begin(model.tower, Data(prompts, torch.tensor([0, 1])), torch.Generator())


@pytest.mark.paper(12, oracle="g")
def test_a_number_lies_between_two_words() -> None:
    targets = between([0, 5, 2], 0, 5)
    torch.testing.assert_close(targets, torch.tensor([[1, 0], [0, 1], [0.6, 0.4]]))
    logits = torch.tensor([[3.0, 0.0], [0.1, 0.2], [1.0, 1.5]], requires_grad=True)
    seen = Seen(None, None, None, None, targets, torch.tensor([1.0, 2.0, 1.0]), 0, 1, torch.Generator())  # type: ignore[arg-type]
    seen.__dict__["logits"] = logits
    each = torch.nn.functional.kl_div(logits.log_softmax(1), targets, reduction="none").sum(1)
    torch.testing.assert_close(Divergence()(seen), (each[0] + 2 * each[1] + each[2]) / 4)
    torch.testing.assert_close(number_of(targets.clamp_min(1e-30).log(), 0, 5), torch.tensor([0.0, 5.0, 2.0]))
    with pytest.raises(BadInput, match=r"numbers run from 0.0 to 6.0, but the bounds are 0 and 5"):
        between([0, 6], 0, 5)
    with pytest.raises(BadInput, match=r"between bounds stand numbers, not such as \['good', 'bad'\]"):
        between(["good", "bad"], 0, 5)  # type: ignore[list-item]
    with pytest.raises(BadInput, match="numbers run from nan"):
        between([1.0, float("nan")], 0, 5)


def test_items_are_texts() -> None:
    assert listed(["a", ["b", "c"], ("d",)]) == [["a"], ["b", "c"], ["d"]]  # type: ignore[list-item]
    assert listed(np.array([["a", "b"]])) == [["a", "b"]]  # type: ignore[arg-type]
    for wrong, message in [
        ("a film", "texts are a list of them, not the one text 'a film'"),
        (["a", float("nan")], "item 1 is 'nan', a float: give a text, or several"),
        ([["a", None]], "item 0 is .*, a list: give a text, or several"),
    ]:
        with pytest.raises(BadInput, match=message):
            listed(wrong)  # type: ignore[arg-type]
