"""How often intervals hold the truth, over a grid of truths and sizes; tests of pairs over the same grid are in
`tests/evaluate/test_significance.py`.

Coverage of a proportion is exact: binomial chances times what holds. Two are known to dip below 93 % at single truths:
Wilson's interval while n is below 50 (91 % at n = 10), and Student's for the mean of 10 episodes where accuracy is high
and so lopsided (92 %). On average over truths neither does, at any size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special, stats

from handful.core.intervals import Estimate, clopper_pearson, mean_interval, wilson
from handful.evaluate.metrics import assess

TRUTHS = np.round(np.arange(0.05, 0.951, 0.05), 3)
SIZES = (5, 10, 20, 50, 100, 200)
LARGE = pytest.param(1000, marks=pytest.mark.slow)


def covered(interval: Callable[[float, float], Estimate], n: int) -> np.ndarray:
    """The exact chance that the interval of n items holds each of `TRUTHS`."""
    low, high = np.array([(e.low, e.high) for e in (interval(k, n) for k in range(n + 1))]).T[..., None]
    chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, TRUTHS)
    found: np.ndarray = (chance * ((low <= TRUTHS) & (high >= TRUTHS))).sum(axis=0)
    return found


@pytest.mark.parametrize("n", [*SIZES, LARGE])
def test_wilson_covers_93_to_97_on_average_and_from_50_items_on_everywhere(n: int) -> None:
    found = covered(wilson, n)
    assert 0.93 <= found.mean() <= 0.97
    assert found.min() >= (0.93 if n >= 50 else 0.91)


@pytest.mark.parametrize("n", [*SIZES, LARGE])
def test_clopper_pearson_covers_95_everywhere(n: int) -> None:
    assert covered(clopper_pearson, n).min() >= 0.95


@pytest.mark.parametrize("episodes", [10, 50, 200, pytest.param(600, marks=pytest.mark.slow)])
def test_means_over_episodes_cover_93_to_97(episodes: int) -> None:
    """Episodes of 75 queries whose difficulty varies; the truth is the mean over all episodes there could be."""
    rng, found, trials = np.random.default_rng(episodes), [], 3000
    for p in (0.3, 0.5, 0.7, 0.9):
        hard = rng.beta(20 * p, 20 * (1 - p), (trials, episodes))
        accuracy = rng.binomial(75, hard) / 75
        half = special.stdtrit(episodes - 1, 0.975) * accuracy.std(axis=1, ddof=1) / episodes**0.5
        one = mean_interval(accuracy[0])  # the formula above is the one that is used
        assert (one.low, one.high) == pytest.approx((accuracy[0].mean() - half[0], accuracy[0].mean() + half[0]))
        found.append(np.mean(np.abs(accuracy.mean(axis=1) - p) <= half))
    assert min(found) >= (0.93 if episodes >= 50 else 0.91)
    assert 0.93 <= np.mean(found) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 300])
def test_bootstrap_intervals_from_50_items_on_cover_93(n: int) -> None:
    """Balanced accuracy and macro-F1, which are resampled, of answers that are as good for every class."""
    rng, names = np.random.default_rng(n), list("abcd")
    for p in (0.5, 0.7, 0.9):
        held = []
        for seed in range(400):
            true = rng.integers(0, 4, n)
            answer = np.where(rng.random(n) < p, true, (true + rng.integers(1, 4, n)) % 4)
            proba = np.full((n, 4), 0.1 / 3)
            proba[np.arange(n), answer] = 0.9
            found = assess(np.array(names)[true], proba, names, seed=seed)
            held.append([e.low <= p <= e.high for e in (found.balanced_accuracy, found.macro_f1)])
        assert (np.mean(held, axis=0) >= 0.93 - 2 * (0.05 * 0.95 / 400) ** 0.5).all(), p  # what luck may take
