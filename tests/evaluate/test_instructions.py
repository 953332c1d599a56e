"""121: what instruction tuning brings, judged with tables of answers and on models of two layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny_lm
import torch

from handful.core.train import AdamW
from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.evaluate.gauntlet import normalised_average
from handful.evaluate.in_context import answerer, chosen, in_context, right, shown
from handful.evaluate.instructions import Suite, judge, reasoner, task_scaling
from handful.pretrain.examples import Example, Framing
from handful.pretrain.instruct import Instruct
from handful.pretrain.mixture import InstructionMixture, Task
from handful.pretrain.self_supervised import asked

NOUNS = ("harbour", "forest", "bridge", "market", "river", "workshop", "tower", "garden")


def held(task: str = "held", n: int = 8) -> list[Example]:
    return [Example(f"{task}: {NOUNS[i % 8]} {i}?", ("yes", "no")[i % 2], ("yes", "no"), task) for i in range(n)]


@pytest.fixture(scope="module")
def causal() -> LanguageModel:
    model = tiny_lm.tiny("causal", max_position_embeddings=200)
    model.tokenizer.model_max_length = model.most = 200
    return model


def oracle(examples: Sequence[Example]) -> list[str]:
    return [one.targets for one in examples]


def always_yes(examples: Sequence[Example]) -> list[str]:
    return ["yes"] * len(examples)


@pytest.mark.paper(121, oracle="f")
def test_a_guesser_scores_nothing_and_who_knows_all_one() -> None:
    assert normalised_average({"a": {"x": 0.25, "y": 0.25}, "b": {"z": 0.5}}, {"a": 0.25, "b": {"z": 0.5}}) == 0
    assert normalised_average({"a": {"x": 1.0, "y": 1.0}, "b": {"z": 1.0}}, {"a": 0.25, "b": 0.5}) == 1
    # Suites count alike, whatever the number of their tasks.
    assert normalised_average({"a": {"x": 1.0, "y": 0.0}, "b": {"z": 1.0}}, {"a": 0, "b": 0}) == 0.75
    four = [Example(f"w: {noun}?", "yes", ("yes", "no", "both", "none"), "w") for noun in NOUNS]
    four[2:] = [replace(one, targets="none") for one in four[2:]]  # a guesser is right one time in four here
    suites = [
        Suite("one", [*held("t", 4), *four]),
        Suite("free", [replace(e, options=()) for e in held("v")]),
    ]
    perfect, guess = judge(suites, oracle), judge(suites, always_yes)
    assert perfect.average == 1 and [one.normalised for one in perfect.suites] == [1, 1]
    assert guess.suites[0].normalised == 0 and guess.suites[1].normalised == 0.5
    assert guess.suites[0].tasks == {"t": 0.5, "w": 0.25}
    assert guess.suites[0].mean.value == 0.375 and guess.suites[0].mean.low < 0.375 < guess.suites[0].mean.high
    assert [row["suite"] for row in guess.table()] == ["one", "free", "average"]


def test_a_blank_model_is_right_as_often_as_a_guesser() -> None:
    found = chosen(torch.zeros(4000, 4))
    assert all(abs(found.count(c) / 4000 - 0.25) < 3 * (0.25 * 0.75 / 4000) ** 0.5 for c in range(4))
    assert chosen(torch.tensor([[0.0, 1.0, float("-inf")]])) == [1]


def test_chooses_by_likelihood_and_writes_what_the_model_says(causal: LanguageModel) -> None:
    examples = [*held(n=3), Example("the film was", "great")]
    said = answerer(causal, most=3)(examples)
    scores = causal.score([one.inputs for one in examples[:3]], ["yes", "no"])
    assert said[:3] == [("yes", "no")[i] for i in scores.argmax(1).tolist()]
    assert said[3] not in ("yes", "no")


def test_a_model_that_fills_masks_can_choose_but_not_write() -> None:
    model = tiny_lm.tiny("masked")
    asked = [Example("it was [MASK] .", "good", ("good", "bad")), Example("a film is [MASK] .", "bad", ("good", "bad"))]
    scores = model.score([one.inputs for one in asked], ["good", "bad"])
    assert answerer(model)(asked) == [("good", "bad")[i] for i in scores.argmax(1).tolist()]
    with pytest.raises(BadInput, match="fills masks and does not go on"):
        answerer(model)([Example("it was [MASK] .", "good")])


def test_what_is_shown_stands_before_the_query_and_is_none_of_it() -> None:
    queries = held()
    for one, query in zip(shown(queries, queries, 3, seed=1), queries, strict=True):
        assert one.inputs.endswith(f"\n\n{query.inputs}\n") and one.inputs.count(query.inputs) == 1
        assert one.inputs.count("?\nyes\n\n") + one.inputs.count("?\nno\n\n") == 3
    with pytest.raises(BadInput, match="8 examples are to be shown, but there are 7"):
        shown(queries, queries, 8)


def test_inputs_that_are_cut_are_told(causal: LanguageModel) -> None:
    narrow = Framing(most_in=3)
    asks: list[Any] = [answerer(causal, None, narrow, most=2), reasoner(causal, None, narrow, most=2)]
    for ask in asks:
        with pytest.warns(UserWarning, match="2 of 3 inputs are longer than 3 tokens and cut at their end"):
            ask([*held(n=2), Example("a", "b")])


def test_learning_in_context_over_tasks() -> None:
    found = in_context(oracle, {"a": (held("a"), held("a")), "b": (held("b"), held("b"))}, k=2)
    assert found.mean.value == 1 and found.tasks["a"].low > 0.6
    half = in_context(always_yes, {"a": (held("a"), held("a"))}, k=0)
    assert half.tasks["a"].value == 0.5 == half.mean.value
    with pytest.raises(BadInput, match="at least one task"):
        in_context(oracle, {})


def test_examples_in_a_prompt_can_be_written_as_those_of_self_supervision() -> None:
    seen: list[str] = []

    def reads(examples: Sequence[Example]) -> list[str]:
        seen.extend(one.inputs for one in examples)
        return oracle(examples)

    few = asked(held("a", 3))
    in_context(reads, {"a": (few[:1], few[1:])}, k=2, seeds=(0,), between=" ", apart="\n")
    (prompt,) = seen
    assert prompt.count("Input: ") == 3 and prompt.endswith("\nInput: a: harbour 0?\nOutput:")
    assert {"Input: a: forest 1?\nOutput: no", "Input: a: bridge 2?\nOutput: yes"} == {
        "\n".join(prompt.split("\n")[i : i + 2]) for i in (0, 2)
    }


def test_reasoning_is_read_behind_its_phrase(causal: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(
        [
            ["2 and 2. The answer is 4", "I do not know"],
            ["So the answer is 5", "The answer: 6"],
            ["The answer is 4", ""],
        ]
    )
    monkeypatch.setattr("handful.evaluate.instructions.say", lambda *a, **k: next(said))
    assert reasoner(causal, samples=3)([Example("2 + 2", "4"), Example("3 + 3", "6")]) == ["4", "6"]
    suite = Suite("sums", [Example("2 + 2", "4", ("3", "4"), "sums")], reasons=True)
    found = judge([suite], always_yes, lambda examples: ["4"])
    assert found.average == 1 and suite.guesser == {"sums": 0.5}  # of two options, however one comes to them
    assert judge([suite], always_yes, lambda examples: ["3"]).average == -1
    votes = iter([["The answer is 5"], ["The answer is: 4."], ["The answer is 4"]])
    monkeypatch.setattr("handful.evaluate.instructions.say", lambda *a, **k: next(votes))
    assert reasoner(causal, samples=3)([Example("2 + 2", "4")]) == ["4."]  # one answer, with a full stop and without
    with pytest.raises(BadInput, match="suite 'sums' has chance 25"):
        judge([replace(suite, chance=25.0)], always_yes, always_yes)
    letters = Suite("letters", [Example("Which?", "A", ("A", "B"), "letters")], reasons=True)
    assert judge([letters], always_yes, lambda examples: [""]).average == -1  # no answer is no right one
    assert judge([letters], always_yes, lambda examples: ["(A)."]).average == 1
    with pytest.raises(BadInput, match="say who reasons"):
        judge([suite], always_yes)


QUICK = Instruct(
    lr=1e-2, batch=8, epochs=3, update=lambda decay: AdamW(weight_decay=decay), framing=Framing(most_in=120, most_out=8)
)


def learnable(name: str) -> Task:
    cases = [{"text": f"{name}: {NOUNS[i % 8]}", "answer": "no"} for i in range(12)]
    return Task(name, cases, [("{text}?\n{options_}", "{answer}")], ("yes", "no"))


def test_tuning_on_tasks_moves_the_score_of_held_out_ones(causal: LanguageModel) -> None:
    before = {name: p.clone() for name, p in causal.tower.named_parameters()}
    mixture = InstructionMixture([learnable("a"), learnable("b"), learnable("c")], settings={"flan2021": ("zs-noopt",)})
    suites = [Suite("held", [Example(f"held: {noun}?", "no", ("yes", "no"), "held") for noun in NOUNS])]
    seen: list[tuple[int, int]] = []
    rows = task_scaling(
        causal,
        mixture,
        suites,
        counts=(1, 2, 64),
        examples=24,
        settings=replace(QUICK, pack=False),
        seeds=(0, 1),
        progress=lambda a, b: seen.append((a, b)),
    )
    assert [row["tasks"] for row in rows] == [0, 1, 2] and seen[-1] == (4, 4)
    assert rows[2]["value"] == 1 and rows[0]["value"] < 1  # all say no
    assert len(rows[1]["each"]) == 2 and rows[1]["low"] <= rows[1]["value"] <= rows[1]["high"]
    assert all(torch.equal(p, before[name]) for name, p in causal.tower.named_parameters())
    leaking = [Suite("held", [Example("a: x?", "yes", ("yes", "no"), "a")])]
    with pytest.raises(BadInput, match="'a' is learnt and tested"):
        task_scaling(causal, InstructionMixture([learnable("a")]), leaking, counts=(1,), examples=8, settings=QUICK)
    with pytest.raises(BadInput, match="which none of"):
        task_scaling(causal, mixture, suites, counts=(64,))


def test_the_model_as_it_is_sees_no_separator(causal: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[tuple[bool, bool]] = []

    def watched(model: LanguageModel, tuned: Any, framing: Framing, **how: int) -> Any:
        frames.append((tuned is not None, framing.separator))
        return always_yes

    monkeypatch.setattr("handful.evaluate.instructions.answerer", watched)
    separated = replace(QUICK, framing=replace(QUICK.framing, separator=True))
    mixture = InstructionMixture([learnable("a")], settings={"flan2021": ("zs-noopt",)})
    task_scaling(causal, mixture, [Suite("held", held())], counts=(1,), examples=8, settings=separated, seeds=(0,))
    assert frames == [(False, False), (True, True)]


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_packed_or_not_the_loss_falls(kind: str, causal: LanguageModel) -> None:
    model = causal if kind == "causal" else tiny_lm.tiny("seq2seq")
    examples = [Example(f"the film is {i % 3} good", "very good", task="t") for i in range(16)]
    tuned = replace(QUICK, epochs=40).fit(model, examples)
    assert tuned.losses[-1] < tuned.losses[0] - 0.5
    with tuned.delta.attached(model.tower):
        assert answerer(model, framing=QUICK.framing)(examples[:1]) == ["very good"]


def test_packing_takes_fewer_rows_and_learns_the_same_tokens(causal: LanguageModel) -> None:
    examples = [Example(f"the film {i}", "good", task="t") for i in range(10)]
    rows, alone = QUICK.items(causal, examples), replace(QUICK, pack=False).items(causal, examples)
    assert len(rows) < len(alone) == 10
    assert [block for row in rows for block in row.blocks()] == alone


def test_framing(causal: LanguageModel) -> None:
    frame = Framing(separator=True, most_in=3, most_out=2)
    end = causal.tokenizer.eos_token_id
    row = frame.row(causal, Example("the film was very long", "a moving story"))
    assert row.ids[3] == end == row.ids[-1] and len(row.ids) == 7 and frame.cut == {"inputs": 1, "targets": 1}
    with pytest.raises(BadInput, match="fills masks"):
        frame.items(tiny_lm.tiny("masked"), [Example("a", "b")])
    with pytest.raises(BadInput, match="wants an empty answer"):
        QUICK.items(causal, [Example("a", " ")])
    with pytest.raises(BadInput, match="none of its options"):
        right([Example("a", "b", ("c", "d"))], ["c"])


def bad_suites() -> list[Any]:
    return [[], [Suite("a", [])], [Suite("a", held()), Suite("a", held())]]


@pytest.mark.parametrize("suites", bad_suites())
def test_bad_suites(suites: list[Suite]) -> None:
    with pytest.raises(BadInput, match="give suites"):
        judge(suites, oracle)
