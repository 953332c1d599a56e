"""Intervals against scipy's, against exact coverage, and against loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from handful.core.intervals import (
    Estimate,
    at_least,
    at_most,
    clopper_pearson,
    equal_worth,
    grouped_wilson,
    mean_interval,
    mean_of_means,
    percentiles,
    reflected,
    resample,
    skewed_mean,
    wilson,
    worth,
)
from handful.errors import BadInput


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (250, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_proportions_agree_with_scipy(right: int, n: int, confidence: float) -> None:
    for ours, theirs in ((wilson, "wilson"), (clopper_pearson, "exact")):
        found = ours(right, n, confidence)
        wanted = stats.binomtest(right, n).proportion_ci(confidence, method=theirs)
        assert found.value == right / n
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (250, 1000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_one_sided_bounds_agree_with_scipy(right: int, n: int, confidence: float) -> None:
    low = stats.binomtest(right, n, alternative="greater").proportion_ci(confidence, method="exact").low
    high = stats.binomtest(right, n, alternative="less").proportion_ci(confidence, method="exact").high
    assert (at_least(right, n, confidence), at_most(right, n, confidence)) == pytest.approx((low, high), abs=1e-9)
    assert at_most(right, n, confidence) == pytest.approx(1 - at_least(n - right, n, confidence))


def test_one_sided_bounds_hold_whatever_the_truth() -> None:
    for n in (5, 30, 100):
        k = np.arange(n + 1)
        low = np.array([at_least(i, n) for i in k])
        high = np.array([at_most(i, n) for i in k])
        for p in np.linspace(0.01, 0.99, 33):
            chance = stats.binom.pmf(k, n, p)
            assert chance @ (low > p) <= 0.05
            assert chance @ (high < p) <= 0.05


def test_an_estimate_is_three_plain_numbers() -> None:
    assert Estimate(0.5, 0.25, 0.75).as_dict() == {"value": 0.5, "low": 0.25, "high": 0.75}


@pytest.mark.parametrize(("right", "n"), [(0, 0), (-1, 5), (6, 5), (float("nan"), 5)])
def test_what_is_no_proportion_is_refused(right: float, n: float) -> None:
    with pytest.raises(BadInput):
        wilson(right, n)


def coverage(interval: object, n: int, p: float) -> float:
    """The exact chance that the interval of n items holds p."""
    holds = [interval(k, n).low <= p <= interval(k, n).high for k in range(n + 1)]  # type: ignore[operator]
    return float(stats.binom.pmf(np.arange(n + 1), n, p) @ np.array(holds))


def test_wilson_covers_what_it_says_on_average_and_clopper_pearson_always() -> None:
    grid = np.linspace(0.05, 0.95, 19)
    for n in (10, 25, 80, 200):
        averages = np.mean([coverage(wilson, n, p) for p in grid])
        assert 0.93 <= averages <= 0.97
        assert min(coverage(clopper_pearson, n, p) for p in grid) >= 0.95


def test_the_mean_has_students_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, 12)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    found = mean_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_the_mean_stays_within_its_bounds_and_one_value_says_nothing_more() -> None:
    assert mean_interval([0.0, 1.0], within=(0, 1)) == Estimate(0.5, 0, 1)
    assert mean_interval([0.4], within=(0, 1)) == Estimate(0.4, 0, 1)
    with pytest.raises(BadInput):
        mean_interval([])


def test_the_mean_of_two_means_has_welchs_interval() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(1, 3, 14), rng.normal(2, 0.5, 6)
    found, welch = mean_of_means([a, b]), stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)  # of a + b
    assert (2 * found.low, 2 * found.high) == pytest.approx((welch.low, welch.high), rel=1e-12)
    assert found.value == pytest.approx((a.mean() + b.mean()) / 2)


def test_the_mean_of_one_mean_is_that_mean_and_one_value_tells_no_spread() -> None:
    a = [1.0, 4.0, 2.0, 7.0]
    assert mean_of_means([a]).as_dict() == pytest.approx(mean_interval(a).as_dict())
    assert mean_of_means([a, [3.0]]) == Estimate(3.25, -np.inf, np.inf)
    assert mean_of_means([[2.0, 2.0], [3.0, 3.0]]) == Estimate(2.5, 2.5, 2.5)
    for nothing in ([], [a, []]):
        with pytest.raises(BadInput, match="no values"):
            mean_of_means(nothing)


def test_groups_of_equal_items_are_worth_one_item_each() -> None:
    right = np.random.default_rng(0).random(60) < 0.7
    assert worth(5 * right, np.full(60, 5)) == pytest.approx(60, rel=0.08)


def test_groups_of_independent_items_are_worth_nearly_all_of_them() -> None:
    right = np.random.default_rng(0).binomial(5, 0.7, 400)
    assert worth(right, np.full(400, 5)) == pytest.approx(2000, rel=0.1)


def test_groups_without_an_error_count_as_one_item_each() -> None:
    found, single = grouped_wilson(np.full(30, 10), np.full(30, 10)), wilson(30, 30)
    assert found.value == 1
    assert found.low == pytest.approx(single.low, abs=0.01)
    assert grouped_wilson(np.array([50]), np.array([50])).low < 0.01  # one group tells nothing about another


def test_items_of_unequal_weight_are_worth_fewer() -> None:
    assert equal_worth(np.full(12, 3.0)) == pytest.approx(12)
    assert equal_worth(np.array([1.0, 0, 0])) == 1
    weights = np.repeat([1.0, 9.0], 50)
    assert equal_worth(weights) == pytest.approx(500**2 / (50 + 50 * 81))
    right = np.random.default_rng(0).random(100) < 0.7
    assert worth(weights * right, weights, weights=weights) == pytest.approx(equal_worth(weights), rel=0.15)
    assert worth(weights, weights, weights=weights) < equal_worth(weights)  # no error seen is no reason to be surer
    assert worth(np.array([1.0, 0]), np.array([1.0, 0]), weights=np.array([1.0, 0])) < 1e-6


def test_grouped_intervals_cover_what_they_say() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        p = rng.beta(4, 1, 25)  # groups differ; the mean is 0.8
        n = rng.integers(2, 9, 25)
        found = grouped_wilson(rng.binomial(n, p), n)
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 400 <= 0.985


def test_resampling_equals_a_loop_over_drawn_items() -> None:
    rng = np.random.default_rng(0)
    rows, groups = rng.random((30, 3)), np.repeat(np.arange(10), 3)

    def ratio(totals: np.ndarray) -> np.ndarray:
        return totals[:, :2] / totals[:, 2:]

    for by in (None, groups):
        units = [[i] for i in range(30)] if by is None else [list(np.flatnonzero(by == g)) for g in range(10)]
        drawn = np.random.default_rng(7).integers(0, len(units), (50, len(units)))
        wanted = [ratio(rows[[i for u in line for i in units[u]]].sum(0)[None])[0] for line in drawn]
        found = resample(rows, ratio, groups=by, replicates=50, seed=7)
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((40, 2))
    whole = resample(rows, lambda totals: totals, replicates=20, seed=1)
    monkeypatch.setattr("handful.core.intervals.BLOCK", 90)
    np.testing.assert_array_equal(resample(rows, lambda totals: totals, replicates=20, seed=1), whole)


def test_a_skewed_mean_leans_the_way_the_data_lean_and_covers_what_it_says() -> None:
    rng, held = np.random.default_rng(0), []
    for seed in range(200):
        x = rng.exponential(1, 40) ** 2  # mean 2, a long tail
        found = skewed_mean(x, np.ones(40), replicates=300, seed=seed)
        held.append((found.low <= 2 <= found.high, mean_interval(x).high >= 2))
        assert found.high - found.value > found.value - found.low
    ours, students = np.mean(held, axis=0)
    assert ours >= 0.89
    assert ours > students


def test_a_skewed_mean_of_groups_is_the_mean_of_items() -> None:
    rng = np.random.default_rng(0)
    x, groups = rng.exponential(1, 90), np.repeat(np.arange(30), 3)
    found = skewed_mean(np.bincount(groups, x), np.bincount(groups))
    assert found.value == pytest.approx(x.mean())
    assert skewed_mean(np.full(9, 0.5), np.ones(9)) == Estimate(0.5, 0.5, 0.5)


def test_percentiles_and_their_mirror_image() -> None:
    replicates = np.linspace(0, 1, 1001)
    assert percentiles(0.4, replicates) == Estimate(0.4, pytest.approx(0.025), pytest.approx(0.975))
    assert reflected(0.4, replicates) == Estimate(0.4, 0.0, pytest.approx(0.775))
    assert percentiles(0.4, np.append(replicates, np.nan)).high == pytest.approx(0.975)
