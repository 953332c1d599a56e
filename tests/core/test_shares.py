"""Shares of items with groups and weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handful.core.intervals import grouped_wilson, wilson
from handful.core.shares import Shares

RNG = np.random.default_rng(0)
HIT, AMONG = RNG.random(90) < 0.8, RNG.random(90) < 0.6
UNITS = RNG.integers(0, 25, 90)


def test_without_groups_or_weights_it_is_wilsons() -> None:
    assert Shares()(HIT, AMONG) == wilson(int((HIT & AMONG).sum()), int(AMONG.sum()))
    assert Shares().worth(HIT, AMONG) == AMONG.sum()


def test_groups_are_counted_by_group() -> None:
    n = np.bincount(UNITS[AMONG], minlength=25)
    right = np.bincount(UNITS[AMONG & HIT], minlength=25)
    assert Shares(UNITS)(HIT, AMONG) == grouped_wilson(right, n)


def test_equal_weights_count_as_none() -> None:
    for units in (None, UNITS):
        wanted = Shares(units)(HIT, AMONG).as_dict()
        for weight in (0.0, 0.1, 7.0):
            assert Shares(units, np.full(90, weight))(HIT, AMONG).as_dict() == pytest.approx(wanted)


def test_whether_any_item_counts() -> None:
    nothing = np.zeros(90)
    assert Shares().any(AMONG)
    assert not Shares().any(AMONG & ~AMONG)
    assert not Shares(weights=nothing).any(AMONG)


def test_items_that_are_worth_less_are_less_sure() -> None:
    full, half = Shares()(HIT, AMONG), Shares(each=0.5)(HIT, AMONG)
    share, n = full.value, AMONG.sum() / 2
    assert half == replace(wilson(share * n, n), value=share)


@pytest.mark.parametrize("tilt", [0.5, 2.0])
@pytest.mark.parametrize("recalls", [(0.3, 0.95), (0.85, 0.99)])
def test_weighted_intervals_hold_the_truth_of_the_other_mix(tilt: float, recalls: tuple[float, float]) -> None:
    held = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        recall, labels = rng.uniform(*recalls, 10), np.repeat(np.arange(10), 8)
        mix = 1 / np.arange(1, 11) ** tilt
        found = Shares(weights=mix[labels])(rng.random(80) < recall[labels], np.ones(80, bool))
        held.append(found.low <= mix @ recall / mix.sum() <= found.high)
    assert 0.94 <= np.mean(held) <= 0.99
