"""Groups that are served worse: found when they are, seldom named when they are not."""

from __future__ import annotations

import numpy as np
import pytest

from handful.core.intervals import Estimate, difference, wilson
from handful.errors import BadInput
from handful.evaluate.gaps import gaps
from handful.evaluate.significance import holm


def test_newcombe_s_worked_example() -> None:
    found = difference(wilson(56, 70), wilson(48, 80))  # Newcombe 1998, table II, example (a), method 10
    assert [found.value, found.low, found.high] == pytest.approx([0.2, 0.0524, 0.3339], abs=1e-4)


def test_the_difference_stays_within_bounds() -> None:
    assert difference(Estimate(1, 0.2, 1), Estimate(0, 0, 0.9)).high == 1


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


def test_a_worse_group_is_named() -> None:
    rng = np.random.default_rng(0)
    site = rng.choice(["a", "b", "c", "d"], 800)
    found = gaps(rng.random(800) < np.where(site == "c", 0.6, 0.85), site, column="site")
    assert [group.name for group in found.worse] == ["c"] and found.groups[0].name == "c"
    assert found.groups[0].gap.high < 0


def test_among_many_equal_groups_one_is_seldom_named() -> None:
    named = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        named += bool(gaps(rng.random(600) < 0.8, rng.integers(0, 20, 600)).worse)
    assert named / 150 < 0.08


def test_items_given_five_times_prove_no_more() -> None:
    rng = np.random.default_rng(1)
    right, site = rng.random(60) < 0.7, rng.choice(["a", "b"], 60)
    once = gaps(right, site)
    five = gaps(np.repeat(right, 5), np.repeat(site, 5), units=np.repeat(np.arange(60), 5))
    for a, b in zip(once.groups, five.groups, strict=True):
        assert b.accuracy.high - b.accuracy.low == pytest.approx(a.accuracy.high - a.accuracy.low, rel=0.15)
        assert b.p == pytest.approx(a.p, abs=0.25)


def test_small_groups_are_not_judged() -> None:
    found = gaps(np.ones(25, bool), ["a"] * 12 + ["b"] * 12 + ["c"])
    assert found.small == ("c",) and [g.name for g in found.groups] == ["a", "b"]


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="column 'site' has one value only"):
        gaps(np.ones(3, bool), ["a"] * 3, column="site")
    with pytest.raises(BadInput, match="3 answers do not fit 2 values"):
        gaps(np.ones(3, bool), ["a"] * 2)
