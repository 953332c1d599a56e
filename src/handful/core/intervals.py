"""Intervals: between which values the truth lies, given what was seen.

Wilson (1927)           p between (p n + z^2/2 -+ z sqrt(p (1-p) n + z^2/4)) / (n + z^2)
Clopper, Pearson (1934) Beta quantiles; never covers less than it says; one-sided too, for proofs
Student (1908)          mean -+ t s / sqrt(n)
Welch (1947)            the same of the mean of several means, each of draws of its own
Korn, Graubard (1998)   groups of items: the interval of the n_eff = p (1-p) / var(p) items they are worth
Kish (1965)             items of unequal weight: no more than (sum w)^2 / sum w^2 equal ones
Newcombe (1998)         a difference of two proportions, from the interval of each
Efron (1979)            percentiles of the statistic over resampled items, or over resampled groups
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse, special

from handful.errors import BadInput

BLOCK = 1 << 23
"""How many resampled counts `resample` holds at a time."""


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, 95 % unless said otherwise."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As every JSON output has it."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(right: float, n: float, confidence: float = 0.95) -> Estimate:
    """Wilson's interval of a proportion, ``right`` out of ``n``; honest for small n and near 0 and 1.

    Raises:
        BadInput: ``n`` is not above 0, or ``right`` not within 0 and ``n``.
    """
    _check(right, n)
    p, z = right / n, _z(confidence)
    centre = (right + z * z / 2) / (n + z * z)
    half = z * (p * (1 - p) * n + z * z / 4) ** 0.5 / (n + z * z)
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))


def clopper_pearson(right: float, n: float, confidence: float = 0.95) -> Estimate:
    """The exact interval of a proportion: holds the truth at least ``confidence`` of the time, whatever it is."""
    _check(right, n)
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(right, n - right + 1, tail)) if right > 0 else 0.0
    high = float(special.betaincinv(right + 1, n - right, 1 - tail)) if right < n else 1.0
    return Estimate(right / n, low, high)


def at_least(right: float, n: float, confidence: float = 0.95) -> float:
    """What a proportion, seen ``right`` out of ``n`` times, is at least: Clopper and Pearson's one-sided bound.

    Whatever the truth, it is above it at most a share ``1 - confidence`` of the time.
    """
    _check(right, n)
    return float(special.betaincinv(right, n - right + 1, 1 - confidence)) if right > 0 else 0.0


def at_most(right: float, n: float, confidence: float = 0.95) -> float:
    """What a proportion, seen ``right`` out of ``n`` times, is at most; as `at_least`."""
    _check(right, n)
    return float(special.betaincinv(right + 1, n - right, confidence)) if right < n else 1.0


def equal_worth(weights: np.ndarray) -> float:
    """How many items of equal weight ``weights [n]`` are worth when the weight says nothing of the value (Kish)."""
    weights = np.asarray(weights, float)
    return float(weights.sum() ** 2 / np.square(weights).sum())


def worth(right: np.ndarray, n: np.ndarray, confidence: float = 0.95, weights: np.ndarray | None = None) -> float:
    """How many independent items G groups are worth, of which ``right [G]`` out of ``n [G]`` are right.

    Items of a group resemble each other: n_eff = p (1-p) / var(p) with the variance between groups, at most as many as
    there are, times (z / t)^2 because that variance is estimated from G groups. Where no group has an error (or none a
    success) the variance says nothing, and each group counts as one item. A single group is worth nearly nothing.

    With ``weights [m]`` of the items, ``right`` and ``n`` are sums of them. Items and groups are then counted by
    `equal_worth`, for errors that happen not to be seen among heavy items would make the variance look small.
    """
    right, n = np.asarray(right, float), np.asarray(n, float)
    right, n = right[n > 0], n[n > 0]
    count, total = len(n), float(n.sum())
    _check(min(float(right.sum()), total), total)
    groups, most = (float(count), total) if weights is None else (equal_worth(n), equal_worth(weights))
    if groups < 1 + 1e-6:
        return 1e-9
    p = min(1.0, float(right.sum()) / total)
    variance = count / (count - 1) * float(np.square(right - p * n).sum()) / total**2
    unanimous = not right.any() or not (right < n).any()
    items = groups if unanimous else min(most, p * (1 - p) / max(variance, 1e-300))
    return items * (_z(confidence) / _t(confidence, groups - 1)) ** 2


def grouped_wilson(right: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Wilson's interval of ``right [G]`` out of ``n [G]`` in G groups, for the number of items they are `worth`."""
    items, p = worth(right, n, confidence), float(np.sum(right)) / float(np.sum(n))
    return replace(wilson(p * items, items, confidence), value=p)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """``a - b`` of two independent proportions, at the confidence of their intervals (Newcombe's method 10).

    d - sqrt((a - low_a)^2 + (high_b - b)^2)  to  d + sqrt((high_a - a)^2 + (b - low_b)^2)
    """
    d = a.value - b.value
    return Estimate(
        d,
        max(-1.0, d - float(np.hypot(a.value - a.low, b.high - b.value))),
        min(1.0, d + float(np.hypot(a.high - a.value, b.value - b.low))),
    )


def mean_interval(values: Any, confidence: float = 0.95, within: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Student's t interval of the mean of independent ``values [n]`` that lie ``within`` bounds; one tells nothing."""
    values = np.asarray(values, dtype=float)
    if not values.size:
        raise BadInput("no values to take the mean of")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, *within)
    half = _t(confidence, values.size - 1) * float(values.std(ddof=1)) / values.size**0.5
    return Estimate(mean, max(within[0], mean - half), min(within[1], mean + half))


def mean_of_means(samples: Sequence[Any], confidence: float = 0.95) -> Estimate:
    """Welch's interval of the mean of k means, sample i being ``[n_i]`` independent values; samples are independent.

    The variance is v = sum v_i / k^2 with v_i = s_i^2 / n_i, of Satterthwaite's (1946) degrees of freedom
    (sum v_i)^2 / sum (v_i^2 / (n_i - 1)). A sample of one value tells nothing of its spread, so neither do all.

    Raises:
        BadInput: no samples, or one without values.
    """
    means = [mean_interval(sample, confidence).value for sample in samples]
    if not means:
        raise BadInput("no values to take the mean of")
    mean, sizes = float(np.mean(means)), np.array([len(sample) for sample in samples])
    if sizes.min() == 1:
        return Estimate(mean, -np.inf, np.inf)
    v = np.array([np.var(sample, ddof=1) for sample in samples]) / sizes
    if not v.any():
        return Estimate(mean, mean, mean)
    freedom = float(v.sum() ** 2 / (v**2 / (sizes - 1)).sum())
    half = _t(confidence, freedom) * float(v.sum()) ** 0.5 / len(means)
    return Estimate(mean, mean - half, mean + half)


def resample(
    rows: np.ndarray | sparse.sparray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    groups: np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap replicates ``[R, M]`` of a statistic that is a function of sums over items.

    Args:
        rows: ``[n, K]``, what each item adds to the K sums (dense or sparse).
        statistic: sums ``[R, K]`` to values ``[R, M]``.
        groups: integers ``[n]``; items of one group are drawn together.
        replicates: R.
        seed: the same seed draws the same items.
    """
    table = sparse.csr_array(rows, dtype=float)
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
        n, count = len(codes), int(codes.max()) + 1
        table = sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(count, n)) @ table
    units, across = table.shape[0], sparse.csr_array(table.T)
    rng, out = np.random.default_rng(seed), []
    step = max(1, BLOCK // units)
    for start in range(0, replicates, step):
        many = min(step, replicates - start)
        drawn = rng.integers(0, units, (many, units)) + units * np.arange(many)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=many * units).reshape(many, units)
        out.append(statistic((across @ counts.T.astype(float)).T))
    return np.concatenate(out)


def percentiles(value: float, replicates: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The bootstrap percentile interval; replicates ``[R]`` that are NaN (nothing to average) are left out."""
    low, high = _tails(replicates, confidence)
    return Estimate(value, min(value, low), max(value, high))


def no_narrower(estimate: Estimate, items: float) -> Estimate:
    """The interval, no narrower than Wilson's for ``items``: resampling items without an error never draws one."""
    if not items > 0:
        return Estimate(estimate.value, 0.0, 1.0)
    floor = wilson(estimate.value * items, items)
    return Estimate(estimate.value, min(estimate.low, floor.low), max(estimate.high, floor.high))


def reflected(value: float, replicates: np.ndarray, confidence: float = 0.95) -> Estimate:
    """The basic bootstrap interval of a value that is never negative: the percentiles mirrored at the value.

    For statistics that noise pushes one way, such as the calibration error: resampling pushes once more, and the mirror
    takes the push back.
    """
    low, high = _tails(replicates, confidence)
    return Estimate(value, max(0.0, min(value, 2 * value - high)), max(value, 2 * value - low))


def skewed_mean(total: np.ndarray, n: np.ndarray, *, replicates: int = 1000, seed: int = 0) -> Estimate:
    """The mean of items not below 0 that few large ones rule, such as losses: bootstrap-t leans the way the data lean.

    Args:
        total: ``[G]``, the sum of each group (of each item, where items stand for themselves).
        n: ``[G]``, how many items it is the sum of.
    """
    rows = np.stack([total, n, total**2, total * n, n**2], axis=1)

    def mean_and_error(sums: np.ndarray) -> np.ndarray:
        s, m, ss, sm, mm = sums.T
        mean = s / m
        return np.stack([mean, np.sqrt(np.maximum(ss - 2 * mean * sm + mean**2 * mm, 0)) / m], axis=1)

    mean, error = mean_and_error(rows.sum(axis=0)[None])[0]
    drawn = resample(rows, mean_and_error, replicates=replicates, seed=seed)
    t = (drawn[:, 0] - mean)[drawn[:, 1] > 0] / drawn[drawn[:, 1] > 0, 1]
    if not len(t):
        return Estimate(float(mean), float(mean), float(mean))
    low, high = _tails(t, 0.95)
    return Estimate(float(mean), max(0.0, float(mean - max(high, 0) * error)), float(mean - min(low, 0) * error))


def _tails(replicates: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.nanquantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check(right: float, n: float) -> None:
    if not n > 0:
        raise BadInput(f"a proportion needs at least one item, not {n}")
    if not 0 <= right <= n:
        raise BadInput(f"{right} right out of {n} is not a proportion")


def _z(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))


def _t(confidence: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))
