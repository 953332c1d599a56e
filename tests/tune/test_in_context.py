"""The comparison of T-Few with prompting (027), and RAFT's protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch

from handful.encode.language_tower import normalised
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.tune.in_context import InContext, break_even, middle, prompted_costs, tuned_costs
from handful.tune.prompting import everything
from handful.tune.raft import RaftClassifier, RaftTask, raft_prompt, read_raft
from handful.tune.t_few import TFew, TFewClassifier

TEXTS = ["a great film", "great actors", "a terrible film", "terrible actors"]
LABELS = ["good", "good", "bad", "bad"]
PROMPTING, BENCHMARK = "costs and prompting", "benchmark"


@pytest.mark.paper(27, oracle="d", part=PROMPTING)
def test_costs_follow_from_tokens_and_shapes() -> None:
    # The vectors by the shapes of T0: 24 blocks each side; 3B has widths 2048 and 5120, 11B 4096 and 10240.
    small, large = (24 * (2 * d + ff) + 24 * (4 * d + ff) for d, ff in ((2048, 5120), (4096, 10240)))
    assert tuned_costs(3e9, small, 103).stored == 4 * 540_672
    # 11B with 103 tokens a question, against 175B with 41 examples of 98 tokens. The right sides are what is recalled
    # of section 4.2 of the paper, to two digits.
    t_few, gpt3 = tuned_costs(11e9, large, 103), prompted_costs(175e9, 41, 103, 98)
    assert t_few.inference == pytest.approx(1.1e12, rel=0.05) and t_few.training == pytest.approx(2.7e16, rel=0.02)
    assert gpt3.inference == pytest.approx(1.4e15, rel=0.04) and gpt3.training == 0
    assert t_few.stored == pytest.approx(4.2e6, rel=0.04) and gpt3.stored == pytest.approx(16e3, rel=0.02)
    many = break_even(t_few, gpt3)
    assert t_few.total(many) == pytest.approx(gpt3.total(many)) and 15 < many < 25
    assert break_even(gpt3, t_few) == float("inf")
    # k examples make k + 1 times the tokens of one question.
    assert prompted_costs(1e9, 7, 50, 50).inference == 8 * prompted_costs(1e9, 0, 50, 50).inference
    assert tuned_costs(1e9, 1, 50, kind="causal").inference == 2 * tuned_costs(1e9, 1, 50).inference
    for wrong in ((0, 1, 5), (1e9, 0, 5), (1e9, 1, 0)):
        with pytest.raises(BadInput):
            tuned_costs(*wrong)


@pytest.mark.paper(27, oracle="g", part=PROMPTING)
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_examples_stand_in_front_and_the_order_of_answers_does_not_count(kind: str) -> None:
    lm = tiny_lm.tiny(kind, max_position_embeddings=512) if kind == "causal" else tiny_lm.tiny(kind)
    lm.most = 512
    model = InContext(lm, "review:_*sent_0*_it_was", shots=3, seed=1, separator=" .").fit(
        TEXTS, LABELS, ["good", "bad"]
    )
    logits = model.logits(["a film", "actors"], ["good", "bad"])
    torch.testing.assert_close(model.logits(["a film", "actors"], ["bad", "good"]), logits.flip(1))
    assert model.predict(["a film"], ["good", "bad"]) == model.predict(["a film"], ["bad", "good"])

    def ids(text: str) -> list[int]:
        return list(lm.tokenizer.encode(text, add_special_tokens=False))

    assert model.shown is not None and len(set(model.shown)) == 3
    context: list[int] = []
    for row in model.shown:
        context += [*ids("review: "), *ids(TEXTS[row]), *ids(" it was"), *lm.answer(LABELS[row]), *ids(" .")]
    question = model.questions(["a film"], ["good", "bad"])[0]
    assert list(question.prompt.ids) == [*context, *ids("review: "), *ids("a film"), *ids(" it was")]
    spent = model.costs([question])
    numbers = sum(p.numel() for p in lm.tower.parameters())
    tokens = len(question.prompt.ids) + sum(map(len, question.answers))
    assert spent.inference == pytest.approx((2 if kind == "causal" else 1) * numbers * tokens)
    assert spent.stored == 4 * len(context)


@pytest.mark.paper(27, oracle="f", part=PROMPTING)
def test_answers_of_one_length_differ_by_it() -> None:
    lm = tiny_lm.tiny("causal", max_position_embeddings=512)
    lm.most = 512
    by_length = InContext(lm, "*sent_0*_it_was", shots=2).fit(TEXTS, LABELS, ["good", "bad"])
    summed = replace(by_length, length_norm=0.0).fit(TEXTS, LABELS, ["good", "bad"])
    pair = next(
        (a, b) for a in tiny_lm.WORDS for b in tiny_lm.WORDS if a < b and len(lm.answer(a)) == len(lm.answer(b)) == 2
    )
    torch.testing.assert_close(summed.logits(["a film"], pair), 2 * by_length.logits(["a film"], pair))
    alone = InContext(lm, "*sent_0*_it_was", shots=0).fit(TEXTS, LABELS, ["good", "bad"])
    words = [lm.tokenizer.encode(text, add_special_tokens=False) for text in ("a film", " it was")]
    bare = lm.score([Prompt.of([*words[0], *words[1]], None)], pair)
    torch.testing.assert_close(alone.logits(["a film"], pair), bare)


def test_scores_over_templates_and_seeds_are_told_by_their_middle() -> None:
    found = middle(np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.9]]))
    assert (found.low, found.median, found.high) == pytest.approx((0.225, 0.35, 0.475))
    with pytest.raises(BadInput, match="at least one"):
        middle([])


def test_what_cannot_be_prompted_is_refused() -> None:
    with pytest.raises(BadInput, match="masked model"):
        InContext(tiny_lm.tiny("masked"), "*sent_0*")
    with pytest.raises(BadInput, match="batch is a number of questions, 1 at least, not 0"):
        InContext(tiny_lm.tiny("causal"), "*sent_0*", batch=0)
    with pytest.raises(BadInput, match="item 0 is 'None', a NoneType"):
        InContext(tiny_lm.tiny("causal"), "*sent_0*").fit([None], ["good"], ["good", "bad"])  # type: ignore[list-item]
    model = InContext(tiny_lm.tiny("causal"), "*sent_0*", shots=5)
    with pytest.raises(BadInput, match="5 examples are to be shown, but there are 4"):
        model.fit(TEXTS, LABELS, ["good", "bad"])
    with pytest.raises(BadInput, match="label 'meh' of example 0"):
        model.fit(["a"], ["meh"], ["good", "bad"])
    with pytest.raises(BadInput, match="not been fitted"):
        model.logits(TEXTS, ["good", "bad"])
    some = InContext(tiny_lm.tiny("causal"), "*sent_0*_it_was")
    with pytest.raises(BadInput, match="has the answer 'good' twice"):
        some.fit(TEXTS, LABELS, ["good", "good", "bad"])
    with pytest.raises(BadInput, match="4 prompts, but answers for 1"):
        some.fit(TEXTS, LABELS, [["good", "bad"]])
    with pytest.raises(BadInput, match="no texts"):
        some.fit(TEXTS[:1], LABELS[:1], ["good", "bad"]).logits([], ["good", "bad"])
    with pytest.raises(BadInput, match="'causal' reads 48"):
        InContext(tiny_lm.tiny("causal"), "*sent_0*").fit(TEXTS * 4, LABELS * 4, ["good", "bad"]).logits(
            ["a"], ["b", "c"]
        )


ROWS: list[dict[str, str]] = [{"Text": text, "Note": "news" if i % 2 else " "} for i, text in enumerate(TEXTS * 5)]
TASK = RaftTask("is it good ?", ROWS, LABELS * 5, ("good", "bad"))


def raft(**options: Any) -> RaftClassifier:
    lm = tiny_lm.tiny("seq2seq")
    lm.most = 64
    return RaftClassifier(lm, TFew(steps=60, lr=0.03), everything, **options)


@pytest.mark.paper(27, oracle="a", part=BENCHMARK)
def test_without_steps_answers_are_the_bases() -> None:
    model = raft()
    model.settings = TFew(steps=0)
    model.fit(TASK)
    prompts = [raft_prompt(TASK.instruction, row, TASK.choices) for row in ROWS[:4]]
    assert prompts[0] == "is it good ? Possible labels: good, bad Text: a great film\nLabel:"
    assert prompts[1].endswith(" Text: great actors Note: news\nLabel:")
    assert torch.equal(model.logits(ROWS[:4]), model.model.score(prompts, ["good", "bad"]))


@pytest.mark.paper(27, oracle="g", part=BENCHMARK)
def test_the_order_of_scored_labels_does_not_count() -> None:
    model = raft().fit(TASK)
    assert model.predict(ROWS[:4]).tolist() == LABELS
    assert model.fitted is not None
    texts = [raft_prompt(TASK.instruction, row, TASK.choices) for row in ROWS[:4]]
    assert torch.equal(model.fitted.logits(texts, ["bad", "good"]).flip(1), model.logits(ROWS[:4]))


def test_a_task_of_many_labels_learns_from_right_answers_and_is_scored_in_parts() -> None:
    words = [w for w in tiny_lm.WORDS if w.isalpha()]
    choices = tuple(dict.fromkeys([*words, *(f"{a} {b}" for a in words[:6] for b in words[6:10])]))[:52]
    task = RaftTask("a", [{"Text": "film"}, {"Text": "news"}] * 2, [choices[3], choices[40]] * 2, choices)
    assert task.many and not TASK.many
    lm = tiny_lm.tiny("seq2seq")
    lm.most = 400
    model = RaftClassifier(lm, TFew(steps=2), everything, most=150).fit(task)
    assert model.fitted is not None and model.fitted.most == 300
    assert [o.name for o in model.fitted.settings.recipe().objectives] == ["lm"]
    whole = replace(model, parts=1)
    whole.fitted, whole._task = model.fitted, task
    torch.testing.assert_close(model.logits(task.rows[:2]), whole.logits(task.rows[:2]), atol=1e-5, rtol=1e-5)
    assert model.logits(task.rows[:2]).shape == (2, 52)


def test_ten_neighbouring_rows_are_held_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    fit = RaftClassifier.fit

    def watched(self: RaftClassifier, task: RaftTask) -> RaftClassifier:
        seen.append([row["Text"] for row in task.rows])
        return fit(self, task)

    monkeypatch.setattr(RaftClassifier, "fit", watched)
    rows = [{"Text": f"{text} {'very ' * i}"} for i, text in enumerate(TEXTS)] * 5
    found = raft().check(RaftTask("is it good ?", rows, LABELS * 5, ("good", "bad")))
    assert found.shape == (2,) and found.tolist() == [1.0, 1.0]  # the same texts stand on both sides here
    assert seen == [[row["Text"] for row in rows[10:]], [row["Text"] for row in rows[:10]]]
    with pytest.raises(BadInput, match="20 rows cannot be cut into folds of 7"):
        raft().check(TASK, 7)


def test_the_longest_field_is_cut_and_the_question_stays() -> None:
    model = raft(most=24)
    made = model._prompt({"Text": "the film " * 30, "Note": "short news"}, TASK, 24)
    assert made.endswith(" Note: short news\nLabel:") and "Text: the film" in made
    assert len(model.model.tokenizer.encode(made)) <= 24
    with pytest.raises(BadInput, match="alone are longer than 8"):
        model._prompt({"Text": "the film"}, TASK, 8)


def test_a_task_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('Title,Text,ID,Label\nA,"b, c",0,yes\n,d,1,no\n', encoding="utf-8")
    task = read_raft(path, "Is it?", ["Text", "Title"])
    assert task.choices == ("no", "yes") and task.labels == ["yes", "no"]
    assert raft_prompt(task.instruction, task.rows[0], task.choices) == (
        "Is it? Possible labels: no, yes Text: b, c Title: A\nLabel:"
    )
    with pytest.raises(BadInput, match="no column 'Abstract'"):
        read_raft(path, "Is it?", ["Abstract"])
    with pytest.raises(BadInput, match="there is no file"):
        read_raft(tmp_path / "none.csv", "Is it?", ["Text"])
    with pytest.raises(BadInput, match="'maybe' is none of"):
        replace(task, labels=["maybe", "no"])


def test_tuning_and_prompting_are_told_beside_each_other() -> None:
    lm = tiny_lm.tiny("causal", max_position_embeddings=512)
    lm.most = 512
    tuned = TFewClassifier(lm, ["*sent_0*_it_was"], TFew(steps=40, lr=0.03), everything).fit(
        TEXTS, LABELS, ["good", "bad"]
    )
    prompted = InContext(lm, "*sent_0*_it_was").fit(TEXTS, LABELS, ["good", "bad"])
    assert tuned.predict(TEXTS, ["good", "bad"]).tolist() == LABELS
    assert prompted.shown is not None and sorted(prompted.shown) == [0, 1, 2, 3]
    questions = prompted.questions(TEXTS[:1], ["good", "bad"])
    by_hand = normalised(lm.tower(questions)).detach()
    torch.testing.assert_close(prompted.logits(TEXTS[:1], ["good", "bad"]), by_hand)
