"""080: what is lost where prompts are worded otherwise, on tables of answers and on models of two layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lm
import torch
from sklearn.metrics import silhouette_score

from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.evaluate.prompt_layers import silhouette, stability, states_of
from handful.evaluate.prompt_pictures import flattened
from handful.evaluate.prompt_shift import KNOWN, OTHER, PromptShiftAudit
from handful.evaluate.toy_tasks import ToyTask, toy_tasks
from handful.evaluate.wording_shift import Shift, advised, agreement, shift, summary, written
from handful.pretrain.examples import Example, Framing

TASKS = toy_tasks(pool=8, queries=6)


@pytest.fixture(scope="module")
def causal() -> LanguageModel:
    model = tiny_lm.tiny("causal", max_position_embeddings=900)
    model.tokenizer.model_max_length = model.most = 900
    return model


@pytest.mark.paper(80, oracle="a")
def test_the_same_wording_loses_nothing(causal: LanguageModel) -> None:
    task = TASKS[0]
    found = shift(
        lambda examples: ["positive" if i % 2 else "negative" for i in range(len(examples))], task, KNOWN, KNOWN
    )
    assert found.agreement == 1 and not found.drop.any()
    prompts = [[one.inputs for one in written(task, task.queries, KNOWN[0])]] * 2
    for row in stability(states_of(causal, prompts), [answer for _, answer in task.queries]):
        assert row["cosine"] == pytest.approx(1, abs=1e-6)
        assert row["layer"] == 0 or row["cka"] == pytest.approx(1, abs=1e-6)  # all end with one token: one embedding
    other = stability(states_of(causal, [prompts[0], [f"{text}!" for text in prompts[0]]]), ["a", "b"] * 3)
    assert other[-1]["cosine"] < 0.999 and other[-1]["cka"] < 0.999


@pytest.mark.paper(80, oracle="c")
def test_a_table_that_knows_one_wording() -> None:
    task = TASKS[2]
    table = {one.inputs: one.targets for one in written(task, task.queries, KNOWN[0])}
    found = shift(lambda examples: [table.get(one.inputs, "?") for one in examples], task, KNOWN[:1], OTHER)
    row = summary([found])
    assert row["known"]["value"] == 1 and row["other"]["value"] == 0 == row["worst"] and row["drop"]["value"] == 1
    many = len(OTHER)
    assert row["agreement"] == pytest.approx((many * (many - 1) / 2) / (many * (many + 1) / 2))
    assert "prompting drops +1.00" in advised("m", [[found]], [[replace(found, right=np.ones_like(found.right))]])
    assert "cannot be told" in advised("m", [[found]], [[found]])


@pytest.mark.paper(80, oracle="d")
def test_silhouettes_are_those_of_scikit_learn(causal: LanguageModel) -> None:
    prompts = [[one.inputs for one in written(TASKS[0], TASKS[0].queries, template)] for template in (*KNOWN, OTHER[0])]
    states = states_of(causal, prompts)
    meaning = [answer for _, answer in TASKS[0].queries]
    row = stability(states, meaning)[-1]
    flat = torch.cat([states[t, -1] for t in range(3)]).double().numpy()
    assert row["by_meaning"] == pytest.approx(silhouette_score(flat, meaning * 3))
    assert row["by_template"] == pytest.approx(silhouette_score(flat, np.repeat(range(3), 6)))
    apart = np.repeat(np.eye(2) * 9, 4, axis=0) + 0.01 * np.arange(8)[:, None]
    assert silhouette(apart, ["a"] * 4 + ["b"] * 4) > 0.9 and np.isnan(silhouette(apart, ["a"] * 8))


@pytest.mark.paper(80, oracle="e")
def test_the_toy_answers_are_true() -> None:
    tasks = {task.name: task for task in toy_tasks(200, 200)}
    sums = (*tasks["arithmetic"].pool, *tasks["arithmetic"].queries)
    assert len(sums) == 400
    for text, answer in sums:
        a, sign, b = text.split(" ")
        assert int(answer) == {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
    for task in tasks.values():
        assert not set(task.pool) & set(task.queries) and len(set(task.pool)) == len(task.pool)
    assert {answer for _, answer in tasks["sentiment"].pool} == set(tasks["sentiment"].options)
    wrong, right_ = tasks["grammar"].pool[0]
    assert right_ != wrong and right_.replace("s ", " ") == wrong.replace("s ", " ")
    assert dict(tasks["plural"].pool + tasks["plural"].queries)["city"] == "cities"
    assert all(len(task.pool) == len(task.queries) == 32 for task in toy_tasks())  # enough for the audit's defaults
    assert toy_tasks(8, 6) == TASKS != toy_tasks(8, 6, seed=1)


def test_examples_are_shown_in_a_known_wording() -> None:
    (one,) = written(TASKS[2], TASKS[2].queries[:1], "Q: {text}\nA:", [("1 + 1", "2")], KNOWN[0])
    assert one.inputs == f"Input: 1 + 1\nOutput: 2\n\nQ: {TASKS[2].queries[0][0]}\nA:"
    assert agreement([("a", "b"), ("a", "c"), ("a", "b")]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    with pytest.raises(BadInput, match="one template agrees"):
        agreement([("a",)])


def test_the_advice_is_no_surer_for_more_seeds_on_the_same_queries() -> None:
    """Six queries are six, however often they are asked."""
    right = np.array([[1, 1, 1, 1, 0, 1], [0, 1, 0, 1, 1, 0]])
    prompt = Shift(1, right, (("a",) * 6,) * 2)
    tune = replace(prompt, right=np.ones_like(right))
    once, often = (advised("m", [[prompt] * seeds], [[tune] * seeds]) for seeds in (1, 9))
    assert once == often and "cannot be told" in once


def test_the_whole_audit(causal: LanguageModel, tmp_path: Path) -> None:
    body = tiny_lm.body("causal", len(causal.tokenizer), num_hidden_layers=1, max_position_embeddings=900)
    small = LanguageModel(body, causal.tokenizer, "causal")
    tasks = [replace(task, queries=task.queries[:4]) for task in (TASKS[0], TASKS[2])]
    audit = PromptShiftAudit({"two": causal, "one": small}, tasks, other=OTHER[:2], ks=(0, 2), seeds=(0, 1), most=4)
    learns = replace(audit.settings, lr=1e-2, epochs=15)
    audit = replace(audit, settings=learns)
    seen: list[tuple[int, int]] = []
    report = audit.run(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (16, 16) and len(report.rows) == 2 * 2 * 2 * 2
    assert [row["model"] for row in report.rows[::8]] == ["one", "two"]  # the smaller first
    by = {(row["model"], row["task"], row["way"], row["k"]): row for row in report.rows}
    zero = [by["two", "arithmetic", way, 0] for way in ("prompt", "tune")]
    assert {k: v for k, v in zero[0].items() if k != "way"} == {k: v for k, v in zero[1].items() if k != "way"}
    assert set(report.layers) == {(m, when) for m in ("one", "two") for when in ("before", "after")}
    assert report.layers["two", "before"] != report.layers["two", "after"]
    assert len(report.layers["two", "after"]) == 3 and set(report.advice) == {"one", "two"}
    assert report.table().count("\n| ") == 16 and set(report.as_dict()) == {"rows", "layers", "advice"}
    first = json.loads(json.dumps(report.as_dict(), allow_nan=False))["layers"][0]["rows"][0]
    assert first["layer"] == 0 and 0 < first["cosine"] < 1
    pictures = report.plot(tmp_path)
    assert len(pictures) == 2 * 1 + 2 * 2 and all(
        path.read_text(encoding="utf-8").startswith("<svg") for path in pictures
    )
    places = flattened(report.states["two", "after"][:, -1].reshape(-1, 16).numpy())
    assert places.shape == (4 * 8, 2) and np.isfinite(places).all()
    assert not flattened(np.ones((6, 16), np.float32)).any()  # as embeddings of one last token


def test_tuning_on_k_examples_learns_them(causal: LanguageModel) -> None:
    task = ToyTask("same", TASKS[2].pool[:2], TASKS[2].pool[:2])  # asked what it learnt
    audit = PromptShiftAudit({"m": causal}, [task], ks=(2,), most=6)
    audit.settings = replace(audit.settings, lr=1e-2, epochs=60)
    found = audit.compare(causal, task, 2, seed=0)
    assert found["tune"].right[:2].mean() == 1 and found["prompt"].right[:2].mean() < 1


def test_what_is_learnt_keeps_the_end_of_its_template(causal: LanguageModel) -> None:
    framing = Framing(most_in=4)
    audit = PromptShiftAudit({"m": causal}, TASKS[:1], ks=(1,), seeds=(0,), most=2)
    audit.settings = replace(audit.settings, framing=framing)
    audit.compare(causal, TASKS[0], 1, seed=0), audit.tuned_on_all(causal)
    assert framing.cut == {"inputs": 0, "targets": 0}


def bad(**options: Any) -> dict[str, Any]:
    return options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (bad(models={}), "at least one model"),
        (bad(models={"gpt2": "gpt2"}), "language models by name"),
        (bad(known=("Input:",)), "'Input:' is no text with one place"),
        (bad(known=(3,)), "3 is no text with one place"),
        (bad(known=KNOWN[0]), "known is a list"),
        (bad(ks=(-1, 2)), "each of ks must be a whole number from 0, not -1"),
        (bad(ks=(0.5,)), "each of ks must be a whole number from 0, not 0.5"),
        (bad(seeds=3), "seeds is a list of whole numbers, not 3"),
        (bad(most=0), "most must be a whole number from 1"),
        (bad(tasks=TASKS[:1] * 2), "two tasks are called 'sentiment'"),
        (bad(tasks=[replace(TASKS[0], queries=())]), "'sentiment' has no queries"),
        (bad(other=()), "with one alone there is nothing to compare"),
        (bad(other=(KNOWN[0],)), "stands there twice"),
        (bad(ks=(16,)), "16 examples are asked for, but task 'sentiment' has 8"),
        (bad(most=890), "0 examples do not fit into the 900 tokens 'model' reads; none fit"),
        (bad(most=600, ks=(1, 8)), r"8 examples do not fit .* at most \d fit"),
    ],
)
def test_bad_input(causal: LanguageModel, options: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        PromptShiftAudit(**{"models": {"model": causal}, "tasks": TASKS, "ks": (0, 2), **options})


def test_a_prompt_that_fits_is_not_refused_and_one_token_more_is(causal: LanguageModel) -> None:
    """Whole prompts as they are asked, by tokens: a short text may have many."""
    task = ToyTask("t", (("a" * 60, "b"), (". " * 25, "b")), (("c", "d"),))
    model = LanguageModel(
        tiny_lm.body("causal", len(causal.tokenizer), max_position_embeddings=900), causal.tokenizer, "causal"
    )
    asked = [
        one.inputs
        for template in (*KNOWN, *OTHER) for one in written(task, task.queries, template, task.pool, KNOWN[0])
    ]  # fmt: skip
    model.most = max(len(model.tokenizer.encode(text)) for text in asked) + 4
    PromptShiftAudit({"m": model}, [task], ks=(2,), seeds=(0,), most=4)
    model.most -= 1
    with pytest.raises(BadInput, match=r"2 examples do not fit .* at most 1 fit"):
        PromptShiftAudit({"m": model}, [task], ks=(2,), seeds=(0,), most=4)


def test_masked_models_are_refused() -> None:
    with pytest.raises(BadInput, match="'m' is masked"):
        PromptShiftAudit({"m": tiny_lm.tiny("masked")}, TASKS, ks=(0,))


def test_broken_weights_are_refused(causal: LanguageModel) -> None:
    broken = LanguageModel(tiny_lm.body("causal", len(causal.tokenizer)), causal.tokenizer, "causal")
    with torch.no_grad():
        broken.tower.body.model.norm.weight.fill_(float("nan"))
    with pytest.raises(BadInput, match="not finite"):
        states_of(broken, [["a film"]])


def answers(examples: Sequence[Example]) -> list[str]:
    return [one.targets for one in examples]


def test_who_knows_all_drops_nothing() -> None:
    row = summary([shift(answers, task, KNOWN, OTHER) for task in TASKS[:1]])
    assert (
        row["known"]["value"] == row["other"]["value"] == row["worst"] == row["agreement"] == 1 and row["spread"] == 0
    )
