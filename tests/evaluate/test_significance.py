"""Paired tests: as scipy has them, with as many false alarms as they say, and no winner without a test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from handful.errors import BadInput
from handful.evaluate.significance import all_pairs, friedman, holm, paired_test, winner


def test_a_list_of_scores_has_students_paired_test() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(30), rng.random(30)
    wanted = stats.ttest_rel(one, other)
    found = paired_test(one, other)
    assert found.p == pytest.approx(wanted.pvalue)
    low, high = wanted.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert paired_test(one[:, None], other[:, None]).p == pytest.approx(wanted.pvalue)  # draws of a single item


def alarms(n: int, p: float, trials: int = 2000) -> float:
    """How often two equal heads, each right with chance p on 75 queries of n shared episodes, are said to differ."""
    rng = np.random.default_rng([n, int(100 * p)])
    hard = rng.beta(20 * p, 20 * (1 - p), (trials, n))  # some episodes are hard for both
    one, other = (rng.binomial(75, hard) / 75 for _ in range(2))
    d = one - other
    error = d.std(axis=1, ddof=1) / n**0.5
    t = np.abs(d.mean(axis=1)) / error
    assert paired_test(one[0], other[0]).p == pytest.approx(2 * stats.t.sf(t[0], n - 1))
    return float(np.mean(t > stats.t.ppf(0.975, n - 1)))


@pytest.mark.parametrize("n", [10, 50, 150])
def test_false_alarms_of_the_paired_test(n: int) -> None:
    assert max(alarms(n, p) for p in (0.3, 0.6, 0.9)) <= 0.06


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_false_alarms_over_draws_and_items(draws: int) -> None:
    """Both the draw of shots and the test items vary the difference; either alone would be too sure."""
    rng, found, naive = np.random.default_rng(draws), [], []
    for _ in range(1000):
        by_draw, by_item = rng.normal(0, 0.03, (draws, 1)), rng.normal(0, 0.3, 80)
        d = by_draw + by_item + rng.normal(0, 0.2, (draws, 80))
        found.append(paired_test(d, np.zeros_like(d)).p < 0.05)
        naive.append(abs(d.mean()) > 1.97 * d.std(ddof=1) / d.size**0.5)
    assert np.mean(found) <= 0.06
    assert np.mean(naive) > 0.1


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((3, 200)) < 0.9
    other = one & (rng.random((3, 200)) < 0.8)
    assert paired_test(one, other).p < 1e-4


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_any_false_alarm_among_many_heads_stays_at_the_level() -> None:
    rng = np.random.default_rng(0)
    found = [
        any(pair.shown for pair in all_pairs({str(h): rng.normal(size=40) for h in range(4)})) for _ in range(1000)
    ]
    assert np.mean(found) <= 0.06


def test_the_winner_beats_each_of_the_others() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=200)
    scores = {"a": base, "b": base + 1 + 0.1 * rng.normal(size=200), "c": base + 0.5 + 0.1 * rng.normal(size=200)}
    assert winner(scores) == "b"
    assert winner({**scores, "d": scores["b"] + 0.1 * rng.normal(size=200)}) is None  # two that are alike
    assert winner({"a": base}) is None  # alone
    assert winner({"a": base, "b": base.copy()}) is None


def test_friedman_against_its_chi_square_and_by_hand() -> None:
    rng = np.random.default_rng(0)
    table = rng.random((9, 4))
    chi2 = stats.friedmanchisquare(*table.T).statistic
    found = friedman(table)
    assert found.p == pytest.approx(stats.f.sf(8 * chi2 / (9 * 3 - chi2), 3, 24))
    assert friedman([[3, 2, 1]] * 4).ranks.tolist() == [1, 2, 3]
    assert friedman([[3, 2, 1]] * 4).p == pytest.approx(1 / 6**3)  # three blocks of four order them as the first
    assert friedman([[0.7, 0.8]] * 3).p == pytest.approx(0.25)
    assert friedman([[2, 2, 1]] * 3).p == pytest.approx(1 / 9)
    assert friedman([[1, 1], [2, 2]]) == (pytest.approx([1.5, 1.5]), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_test([1, 2], [1, 2, 3]), "paired unit by unit"),
        (lambda: paired_test([1], [2]), "at least two finite"),
        (lambda: paired_test([1, np.nan], [2, 3]), "at least two finite"),
        (lambda: holm([1.2]), "from 0 to 1"),
        (lambda: friedman([[1, 2]]), "2 x 2"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()
