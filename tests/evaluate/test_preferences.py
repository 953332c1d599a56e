"""185: which model answers better, whatever the order and the length of answers."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_lm

from handful.errors import BadInput
from handful.evaluate.preferences import (
    fair_rate,
    model_judge,
    overlap_judge,
    pairwise_judge,
    preference_rate,
)

PROMPTS = [f"question {i}" for i in range(40)]
GOOD, BAD = [f"answer {i} is right" for i in range(40)], ["no idea"] * 40


@pytest.mark.paper(185, oracle="d")
def test_a_judge_who_prefers_the_first_says_nothing() -> None:
    found = pairwise_judge(PROMPTS, GOOD, BAD, lambda prompt, first, second: "first")
    assert (found.wins, found.ties, found.losses) == (0, 40, 0)
    assert found.rate.value == found.fair == 0.5 and found.swayed == 1 and found.unread == 0
    alone = pairwise_judge(PROMPTS, GOOD, BAD, lambda prompt, first, second: "first", swap=False)
    assert alone.wins == 40


def test_the_better_answers_win() -> None:
    judge = overlap_judge(dict(zip(PROMPTS, GOOD, strict=True)))
    found = pairwise_judge(PROMPTS, GOOD, BAD, judge)
    assert found.wins == 40 and found.rate.value == 1 and found.swayed == 0
    assert pairwise_judge(PROMPTS, BAD, GOOD, judge).losses == 40
    assert pairwise_judge(PROMPTS, BAD, BAD, judge).ties == 40
    with pytest.raises(BadInput, match="no reference for the prompt 'other'"):
        judge("other", "a", "b")


def test_what_is_not_understood_is_a_tie_and_counted() -> None:
    found = pairwise_judge(PROMPTS, GOOD, BAD, lambda prompt, first, second: "hm" if prompt[-1] == "0" else "tie")
    assert found.ties == 40 and found.unread == pytest.approx(0.1)


@pytest.mark.paper(185, oracle="e")
def test_the_interval_holds_the_true_rate() -> None:
    rng, held = np.random.default_rng(0), 0
    for seed in range(1000):
        outcome = (rng.random(300) < 0.6).astype(float)
        one = preference_rate(outcome, replicates=300, seed=seed)
        held += one.low <= 0.6 <= one.high
    assert 0.93 <= held / 1000 <= 0.97


def test_a_judge_of_length_is_found_out() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(6, 8, 4000)
    longer = (rng.random(4000) < 1 / (1 + np.exp(-difference))).astype(float)
    assert longer.mean() > 0.7 and fair_rate(longer, difference) == pytest.approx(0.5, abs=0.05)
    better = (rng.random(4000) < 0.7).astype(float)  # whatever the length
    assert fair_rate(better, difference) == pytest.approx(0.7, abs=0.04)
    assert fair_rate(better, np.zeros(4000)) == better.mean()


def test_a_model_judges_by_what_it_would_say() -> None:
    model = tiny_lm.tiny("causal", max_position_embeddings=400)
    model.tokenizer.model_max_length = model.most = 400
    judge = model_judge(model)
    assert judge("Which film?", "the long one", "the short one") in ("first", "second")
    assert (
        pairwise_judge(["a?"], ["x"], ["x"], judge).ties == 1
    )  # the same twice: whatever it says turns with the order


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="replicates is 0"):
        pairwise_judge(["a"], ["x"], ["y"], lambda *a: "tie", replicates=0)
    with pytest.raises(BadInput, match="answers are texts, not None"):
        pairwise_judge(["a"], [None], ["y"], lambda *a: "tie")  # type: ignore[list-item]
    assert pairwise_judge(["a"], ["x"], ["y"], lambda *a: ["first"]).unread == 1  # type: ignore[arg-type, return-value]
    with pytest.raises(BadInput, match="0 prompts"):
        pairwise_judge([], [], [], lambda *a: "tie")
    with pytest.raises(BadInput, match="but 1 and 2 answers"):
        pairwise_judge(["a", "b"], ["x"], ["x", "y"], lambda *a: "tie")
