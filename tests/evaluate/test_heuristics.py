"""The audit of classifiers that go by shared words (072)."""

from __future__ import annotations

import pytest

from handful.errors import BadInput
from handful.evaluate.heuristics import heuristic_audit, make_overlap_pairs

MNLI = {"entailment": "entailment", "neutral": "non-entailment", "contradiction": "non-entailment"}


@pytest.mark.paper(72, oracle="d")
def test_who_follows_the_heuristic_is_right_on_one_half_only() -> None:
    pairs = make_overlap_pairs(20)
    gold, kinds = [p[2] for p in pairs], [p[3] for p in pairs]
    found = heuristic_audit(gold, ["entailment"] * len(pairs), "entailment", answers=MNLI, cases=kinds)
    assert found.supported.value == 1 and found.contradicting.value == 0 and found.gap.value == 1
    assert len(found.by_case) == 6
    assert all(rate.value == (half == "supported") for (_, half), rate in found.by_case.items())
    reverse = heuristic_audit(gold, ["neutral"] * len(pairs), "entailment", answers=MNLI)
    assert reverse.supported.value == 0 and reverse.contradicting.value == 1 and not reverse.by_case


def test_three_answers_count_as_two() -> None:
    gold = ["entailment", "entailment", "non-entailment", "non-entailment", "non-entailment"]
    said = ["entailment", "neutral", "contradiction", "neutral", "entailment"]
    found = heuristic_audit(gold, said, "entailment", answers=MNLI, cases=["x", "y", "x", "y", "y"])
    assert found.supported.value == pytest.approx(0.5) and found.contradicting.value == pytest.approx(2 / 3)
    assert found.by_case["y", "contradicting"].value == pytest.approx(0.5)
    assert found.by_case["x", "supported"].value == 1
    assert found.supported.low < 0.5 < found.supported.high


def test_pairs_share_all_words_whatever_their_label() -> None:
    pairs = make_overlap_pairs(30, seed=1)
    assert len(pairs) == 180 and pairs == make_overlap_pairs(30, seed=1) != make_overlap_pairs(30, seed=2)
    for premise, hypothesis, label, kind in pairs:
        first, second = premise.split(), hypothesis.split()
        assert set(second) <= set(first)
        if kind != "lexical overlap":  # a stretch of the premise, word for word
            assert any(first[i : i + len(second)] == second for i in range(len(first)))
        assert label in ("entailment", "non-entailment")
    for kind in {p[3] for p in pairs}:
        assert sum(p[2] == "entailment" for p in pairs if p[3] == kind) == 30


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="2 true labels, but 1 predicted"):
        heuristic_audit(["a", "b"], ["a"], "a")
    with pytest.raises(BadInput, match="needs items of label 'a' and of another"):
        heuristic_audit(["a", "a"], ["a", "a"], "a")
    with pytest.raises(BadInput, match="no answer means 'a'"):
        heuristic_audit(["a", "b"], ["x", "y"], "a", answers={"x": "b", "y": "b"})
    with pytest.raises(BadInput, match="answer 'neutrl' is no label of the set; did you mean 'neutral'"):
        heuristic_audit(["entailment", "non-entailment"], ["entailment", "neutrl"], "entailment", answers=MNLI)
    with pytest.raises(BadInput, match="at least one pair"):
        make_overlap_pairs(0)
