"""How near answers are: by hand, and as the programs that are used for it say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handful.core.stem import stem
from handful.errors import BadInput
from handful.evaluate.wording import exact_match, measured, plain_answer, rouge_l, word_f1


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "golden" / "quick_learners.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.paper(178, oracle="c")
def test_rouge_is_that_of_the_package(golden: dict[str, Any]) -> None:
    assert rouge_l("the cat sat", "the cat sat down") == pytest.approx(6 / 7)  # P = 1, R = 0.75
    assert rouge_l("", "a") == 0 and rouge_l("sat cat", "cat sat") == 0.5
    np.testing.assert_allclose([rouge_l(*pair) for pair in golden["pairs"]], golden["rouge"], atol=1e-12)
    assert len(set(golden["rouge"])) > 30


def test_stems_are_those_of_the_package(golden: dict[str, Any]) -> None:
    wrong = {word: stem(word) for word, root in golden["stems"].items() if stem(word) != root}
    assert not wrong and len(golden["stems"]) > 250


@pytest.mark.paper(178, oracle="d")
def test_exact_match_and_f1_are_those_of_the_authors(golden: dict[str, Any]) -> None:
    assert [exact_match(*pair) for pair in golden["pairs"]] == golden["exact"]
    np.testing.assert_allclose([word_f1(*pair) for pair in golden["pairs"]], golden["f1"], atol=1e-12)
    assert 0 < sum(golden["exact"]) < 300
    assert plain_answer("The  Cat, a dog!") == "cat dog"


@pytest.mark.parametrize(
    ("said", "wanted", "same"),
    [
        ("The  Cat.", "cat", 1), ("(A)", "A", 1), ("", "A", 0), ("", "(A)", 0), ("an", "A", 0), ("B", "(A)", 0),
        ("4.", "4", 1), ("-5", "5", 0), ("(-5)", "-5.", 1), ("1.5", "15", 0), (".5", "5", 0), ("$1,200", "1200", 1),
        ("1,2", "12", 0), ("50%", "50", 1), ("+", "-", 0), ("", "+", 0), ("don't", "don't!", 1),
    ],
)  # fmt: skip
def test_short_answers_keep_the_signs_that_mean_something(said: str, wanted: str, same: float) -> None:
    assert measured([said], [wanted], "answer") == same


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="2 answers, but 1 are wanted"):
        measured(["a", "b"], ["a"])
    with pytest.raises(BadInput, match="wanted answer 1 is empty"):
        measured(["a", "b"], ["a", " "])
    with pytest.raises(BadInput, match="no measure 'rouge'; did you mean 'rouge-l'"):
        measured(["a"], ["a"], "rouge")
