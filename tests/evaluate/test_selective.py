"""Answering only when sure: the threshold, and that what is quoted for it comes true."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from handful.core.intervals import Estimate, wilson
from handful.errors import BadInput
from handful.evaluate.answers import Answers, sharpened
from handful.evaluate.selective import Selective, selective


def items(n: int, c: int, seed: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and the probabilities an ideal classifier gives."""
    rng = np.random.default_rng(seed)
    true, logits = rng.integers(0, c, n), rng.normal(size=(n, c))
    logits[np.arange(n), true] += strength
    proba = np.exp(strength * logits)
    return true, proba / proba.sum(1, keepdims=True)


def found(n: int, c: int, seed: int, strength: float, target: float | None, folds: int = 5) -> Selective:
    true, proba = items(n, c, seed, strength)
    return selective(true, proba, np.random.default_rng(seed).permutation(n) % folds, target=target)


def plain(right: str, confidence: list[float] | None = None) -> Answers:
    """Answers from the surest down, ``+`` right and ``-`` wrong, each its own group."""
    n = len(right)
    sure = np.linspace(0.99, 0.5, n) if confidence is None else np.array(confidence)
    return Answers(sure, np.array([mark == "+" for mark in right]), np.arange(n), np.ones(n))


def test_one_further_error_is_counted() -> None:
    assert plain("+" * 18).threshold(0.95) is None
    assert plain("+" * 19).threshold(0.95) == 0.0
    assert plain("+" * 38 + "-").threshold(0.95) == pytest.approx(0.0)
    assert plain("+" * 37 + "-").threshold(0.95) == pytest.approx(np.linspace(0.99, 0.5, 38)[36:].mean())


def test_the_threshold_is_the_lowest_that_reaches_the_target() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        answers = plain("".join(rng.choice(["+", "-"], 60, p=[0.85, 0.15])))
        wrong = ~answers.right
        reached = [k for k in range(1, 61) if (wrong[:k].sum() + 1) / (k + 1) <= 0.2 + 1e-12]
        threshold = answers.threshold(0.8)
        given = 0 if threshold is None else int((answers.confidence >= threshold).sum())
        assert given == max(reached, default=0)


def test_equal_confidences_are_answered_together() -> None:
    answers = plain("+" * 9 + "-" * 3, [0.9] * 8 + [0.6] * 4)
    assert answers.threshold(0.85) == pytest.approx(0.75)
    floats = plain("+" * 9 + "-" * 3, [np.nextafter(0.9, 1)] * 9 + [0.9] * 3)
    assert (floats.confidence >= floats.threshold(0.85)).sum() == 9


def test_items_given_three_times_reach_what_single_items_reach() -> None:
    rng = np.random.default_rng(0)
    right, sure = rng.random(80) < 0.9, rng.random(80)
    once = Answers(sure, right, np.arange(80), np.ones(80))
    thrice = Answers(np.repeat(sure, 3), np.repeat(right, 3), np.repeat(np.arange(80), 3), np.ones(240))
    heavy = Answers(sure, right, np.arange(80), np.full(80, 7.0))
    for target in (0.8, 0.9, 0.95):
        assert once.threshold(target) == thrice.threshold(target) == heavy.threshold(target)


def test_sums_over_groups_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    answers = Answers(rng.random(40), rng.random(40) < 0.7, rng.integers(0, 12, 40), rng.random(40))
    n, errors, one = answers.sums()
    for k in range(1, 41):
        some = answers.order[:k]
        each = np.bincount(answers.units[some], answers.weight[some])
        assert n[k - 1] == pytest.approx(each.sum())
        assert errors[k - 1] == pytest.approx(answers.weight[some][~answers.right[some]].sum())
        assert one[k - 1] == pytest.approx((each**2).sum() / each.sum())


@pytest.mark.parametrize(
    ("n", "c", "strength", "target"),
    [(32, 4, 2.5, 0.9), (96, 6, 2.5, 0.95), (95, 19, 3.2, 0.9), (300, 5, 2.0, 0.9), (616, 77, 3.5, 0.95)],
)
def test_what_is_quoted_comes_true(n: int, c: int, strength: float, target: float) -> None:
    true, proba = items(100_000, c, 1, strength)
    sure, right = proba.max(1), proba.argmax(1) == true
    held, reached = [], []
    for seed in range(100, 220):
        quoted = found(n, c, seed, strength, target)
        if quoted.threshold is None or quoted.precision is None or quoted.coverage is None:
            continue
        given = sure >= quoted.threshold
        pairs = (quoted.precision, right[given].mean()), (quoted.coverage, given.mean())
        held.append([estimate.low <= truth <= estimate.high for estimate, truth in pairs])
        reached.append((right[given].mean(), quoted.precision.value))
    assert len(held) >= 100
    assert (np.mean(held, axis=0) >= 0.92).all()
    truth, value = np.mean(reached, axis=0)
    assert truth == pytest.approx(value, abs=0.012)  # no optimism in what is quoted
    assert truth >= target - 0.005


def test_the_table_runs_from_all_items_to_the_surest() -> None:
    table = found(400, 5, 0, 2.0, None).table
    assert table[0].threshold == 0
    assert table[0].coverage == wilson(400, 400)
    assert [level.coverage.value for level in table] == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3])
    assert all(a.threshold < b.threshold and a.n > b.n for a, b in itertools.pairwise(table))
    assert table[-1].precision.value > table[0].precision.value


def test_items_that_are_equally_sure_make_one_row() -> None:
    table = selective(np.zeros(20, int), np.tile([0.8, 0.2], (20, 1)), np.arange(20) % 5).table
    assert [(level.n, level.precision) for level in table] == [(20, wilson(20, 20))]


def test_a_target_that_is_not_reached_says_what_is() -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet([1, 1], 60)
    quoted = selective(rng.integers(0, 2, 60), proba, np.arange(60) % 5, target=0.99)
    assert (quoted.threshold, quoted.coverage, quoted.precision) == (None, None, None)
    assert "0.99 is not reached" in (quoted.note or "")
    assert "99 answers" in (quoted.note or "")
    assert quoted.table


def test_a_better_model_answers_more_at_the_same_threshold() -> None:
    true, weaker = items(400, 5, 0, 1.8)
    fold = np.arange(400) % 5
    seen = selective(true, weaker, fold, target=0.9)
    accuracy = float((weaker.argmax(1) == true).mean())
    same = selective(true, weaker, fold, target=0.9, accuracy=wilson(round(400 * accuracy), 400))
    better = selective(true, weaker, fold, target=0.9, accuracy=Estimate(accuracy + 0.06, 0.0, 1.0))
    assert seen.coverage and same.coverage and better.coverage and seen.precision and better.precision
    assert same.coverage.value == pytest.approx(seen.coverage.value, abs=0.005)
    assert better.threshold == seen.threshold
    assert better.coverage.value > seen.coverage.value + 0.05
    assert better.table[0].precision.value == pytest.approx(accuracy + 0.06, abs=1e-6)
    width, wider = (e.high - e.low for e in (seen.precision, better.precision))
    assert wider > 2 * width  # as unsure as the accuracy


def test_sharpening_says_how_sure() -> None:
    proba = items(200, 4, 0, 1.5)[1]
    ones = np.ones(200)
    for goal in (0.5, 0.7, 0.9):
        sharp = sharpened(proba, goal, ones)
        assert sharp.max(1).mean() == pytest.approx(goal)
        np.testing.assert_array_equal(sharp.argsort(1), proba.argsort(1))
    assert np.isfinite(sharpened(np.array([[1.0, 0.0], [0.6, 0.4]]), 2.0, np.ones(2))).all()


def test_groups_and_weights_count() -> None:
    true, proba = items(150, 4, 0, 2.0)
    fold = np.arange(150) % 5
    once = selective(true, proba, fold, target=0.85)
    thrice = selective(
        np.repeat(true, 3),
        np.repeat(proba, 3, axis=0),
        np.repeat(fold, 3),
        target=0.85,
        groups=np.repeat(range(150), 3),
    )
    assert thrice.threshold == once.threshold
    assert once.precision and thrice.precision
    width, grouped = (e.high - e.low for e in (once.precision, thrice.precision))
    assert grouped == pytest.approx(width, rel=0.1)
    weighted = selective(true, proba, fold, target=0.85, weights=np.where(true == 0, 3.0, 1.0))
    seen = np.average(proba.argmax(1) == true, weights=np.where(true == 0, 3.0, 1.0))
    assert weighted.table[0].precision.value == pytest.approx(seen)


def test_the_dictionary_is_json_with_the_promised_keys() -> None:
    quoted = json.loads(json.dumps(found(100, 4, 0, 2.0, 0.9).as_dict(), allow_nan=False))
    assert list(quoted) == ["target", "threshold", "coverage", "precision", "table", "note"]
    assert list(quoted["table"][0]) == ["threshold", "coverage", "precision", "n"]
    assert set(quoted["coverage"]) == {"value", "low", "high"}
    assert found(100, 4, 0, 2.0, 0.9) == found(100, 4, 0, 2.0, 0.9)


@pytest.mark.parametrize(("target", "message"), [(95, "write 0.95"), (0, "above 0"), (1.0, "below 1")])
def test_what_is_no_target_is_refused(target: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        found(20, 2, 0, 2.0, target)
    with pytest.raises(BadInput, match="do not fit"):
        selective(np.zeros(3, int), np.full((2, 2), 0.5), np.zeros(3))
