"""Scores of answers in a tree of labels (203)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handful.core.hierarchy import Hierarchy
from handful.errors import BadInput
from handful.evaluate.hierarchical import hierarchical_scores

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hierverb.json").read_text(encoding="utf-8"))["scores"]
TREE = Hierarchy.of([
    "a > a > a", "a > a > b", "a > b > a", "b > a > a", "b > a > b", "b > b > a", "b > b > b",
])  # fmt: skip
NAMES = [name for level in TREE.levels for name in level]
SMALL = Hierarchy.of(["a > x", "a > y", "b > x"])


@pytest.mark.paper(203, oracle="d")
@pytest.mark.parametrize("repo", [True, False])
def test_scores_are_the_authors(repo: bool) -> None:
    said, true = ([[NAMES[i] for i in row] for row in GOLDEN[which]] for which in ("pred", "gold"))
    found = hierarchical_scores(said, true, TREE, repo=repo)  # one path a text: nothing is shared
    assert found.micro == pytest.approx(GOLDEN["micro_f1"]) and found.macro == pytest.approx(GOLDEN["macro_f1"])
    assert found.c_micro == pytest.approx(GOLDEN["c_micro_f1"]) and found.c_macro == pytest.approx(GOLDEN["c_macro_f1"])
    assert found.p_micro == pytest.approx(GOLDEN["p_micro_f1"]) and found.p_macro == pytest.approx(GOLDEN["p_macro_f1"])
    assert found.p_micro / found.discount == pytest.approx(GOLDEN["p_ori_micro_f1"])
    assert found.exact == pytest.approx(GOLDEN["P_acc"])


@pytest.mark.paper(203, oracle="d")
def test_a_right_leaf_below_a_wrong_parent_is_worth_nothing() -> None:
    perfect = hierarchical_scores([["a", "a > x"], ["a", "a > y"], ["b", "b > x"]], _true(), SMALL)
    assert set(vars(perfect).values()) == {1.0}
    wrong = hierarchical_scores([["b", "a > x"]], [["a", "a > x"]], SMALL)
    assert wrong.micro == pytest.approx(0.5) and wrong.c_micro == wrong.p_micro == wrong.exact == 0
    assert wrong.discount == pytest.approx(0.53788, abs=1e-5)  # x = 1
    half = hierarchical_scores([["b", "a > x"], ["a", "a > y"]], [["a", "a > x"], ["a", "a > y"]], SMALL)
    assert half.discount == pytest.approx(0.75508, abs=1e-5)  # x = 0.5
    # Micro over paths: 1 right, 1 answered, 2 true.
    assert half.p_micro == pytest.approx(0.75508 * 2 / 3, abs=1e-5)
    assert half.p_macro == pytest.approx(0.75508 / 3, abs=1e-5)


def _true() -> list[list[str]]:
    return [["a", "a > x"], ["a", "a > y"], ["b", "b > x"]]


def test_a_parent_of_two_paths_is_counted_once() -> None:
    said, true = [["a", "a > x", "a > y", "b"]], [["a", "a > x", "a > y"]]
    assert hierarchical_scores(said, true, SMALL).discount < 1  # b is in no path
    assert hierarchical_scores(said, true, SMALL, repo=True).discount == pytest.approx(1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="1 answers for 2 texts"):
        hierarchical_scores([["a"]], _true()[:2], SMALL)
    with pytest.raises(BadInput, match="text 0: the hierarchy has no label 'c'"):
        hierarchical_scores([["c"]], [["a"]], SMALL)
    with pytest.raises(BadInput, match="text 0 has no true label"):
        hierarchical_scores([["a"]], [[]], SMALL)
