"""Which differences are real: paired tests, corrected for how many of them are made.

    Student (1908)    t = mean(d) / (s / sqrt(n)) of the paired differences d
    Holm (1979)       p_(i) (m - i + 1), never below an earlier one: the chance of any false alarm stays at the level
    Friedman (1937)   mean ranks of k methods over n blocks; the F of Iman and Davenport (1980)

Draws of a few shots judged on the same test items vary both ways: another draw, other items. With d [S, n] of S draws
and n items the variance of the mean is that of its row means over S plus that of its column means over n, less the
residual they share, with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

import numpy as np
from scipy import special, stats

from handful.core.intervals import Estimate
from handful.errors import BadInput

LEVEL = 0.05
Key = TypeVar("Key")


class Test(NamedTuple):
    """A mean difference with its 95 % interval, and the chance of one as large if there were none."""

    difference: Estimate
    p: float


def paired_test(one: Any, other: Any) -> Test:
    """Whether two methods differ in the mean, judged on the same units.

    Args:
        one, other: scores ``[n]`` of n episodes or items, or ``[S, n]`` of S draws judged on the same n items.

    Raises:
        BadInput: shapes that differ, fewer than two units, or numbers that are not finite.
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if one.shape != other.shape or one.ndim not in (1, 2):
        raise BadInput(f"scores are paired unit by unit: shapes {one.shape} and {other.shape} are not the same")
    d = np.atleast_2d(one - other)
    if d.size < 2 or not np.isfinite(d).all():
        raise BadInput("a paired test needs at least two finite scores of each method")
    mean = float(d.mean())
    variance, freedom = _variance(d)
    if variance <= 0:
        return Test(Estimate(mean, mean, mean), 1.0 if mean == 0 else 0.0)
    error = variance**0.5
    half = float(special.stdtrit(freedom, 1 - LEVEL / 2)) * error
    return Test(Estimate(mean, mean - half, mean + half), float(2 * special.stdtr(freedom, -abs(mean) / error)))


def _variance(d: np.ndarray) -> tuple[float, float]:
    """Of the mean of ``d [S, n]``, and its degrees of freedom."""
    draws, items = d.shape
    parts = []
    if items > 1:
        parts.append((float(d.mean(axis=0).var(ddof=1)) / items, items - 1))
    if draws > 1:
        parts.append((float(d.mean(axis=1).var(ddof=1)) / draws, draws - 1))
    if len(parts) == 1:
        return parts[0]
    rest = d - d.mean(axis=0) - d.mean(axis=1, keepdims=True) + d.mean()
    residual = float(np.square(rest).sum()) / ((draws - 1) * (items - 1)) / (draws * items)
    (by_item, _), (by_draw, _) = parts
    variance = max(by_item + by_draw - residual, by_item, by_draw)
    if draws == 2:  # two draws say too little of their own variance for Satterthwaite's number
        return variance, 1.0
    spread = sum(value**2 / freedom for value, freedom in parts)
    return variance, variance**2 / spread if spread > 0 else 1.0


def holm(p: Any) -> np.ndarray:
    """Adjusted p-values ``[m]`` of m tests: rejecting those below a level keeps any false alarm at that level.

    Raises:
        BadInput: something that is no p-value.
    """
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise BadInput("p-values are a list of numbers from 0 to 1")
    order, m = np.argsort(p, kind="stable"), len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * (m - np.arange(m))), 1.0)
    return adjusted


@dataclass(frozen=True)
class Pair:
    """One comparison among many: ``p`` is adjusted for all of them."""

    one: str
    other: str
    difference: Estimate
    p: float

    @property
    def shown(self) -> bool:
        """Whether the difference is real at 5 %."""
        return self.p < LEVEL

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"one": self.one, "other": self.other, "difference": self.difference.as_dict(), "p": self.p}


def all_pairs(scores: Mapping[str, Any]) -> list[Pair]:
    """Every pair of methods by name, tested on the same units (see `paired_test`), Holm over all pairs."""
    return pairs_by_row({"": scores})[""]


def pairs_by_row(table: Mapping[Key, Mapping[str, Any]]) -> dict[Key, list[Pair]]:
    """`all_pairs` of each row of a table; p-values are adjusted for all comparisons of the whole table."""
    tests = [
        (row, a, b, paired_test(scores[a], scores[b]))
        for row, scores in table.items()
        for a, b in combinations(scores, 2)
    ]
    found: dict[Key, list[Pair]] = {row: [] for row in table}
    for (row, a, b, test), p in zip(tests, holm([test.p for *_, test in tests]), strict=True):
        found[row].append(Pair(a, b, test.difference, float(p)))
    return found


def winner(scores: Mapping[str, Any], pairs: list[Pair] | None = None) -> str | None:
    """The method that is better than each of the others by a test that is corrected for all pairs; often there is none.

    This, and nothing else, earns bold print.
    """
    pairs = all_pairs(scores) if pairs is None else pairs
    for name in scores:
        won = [
            pair.shown and (pair.difference.value > 0 if pair.one == name else pair.difference.value < 0)
            for pair in pairs
            if name in (pair.one, pair.other)
        ]
        if won and all(won):
            return name
    return None


class Friedman(NamedTuple):
    """Mean rank of each method ``[k]`` (1 is best), and the chance of such ranks if all were alike."""

    ranks: np.ndarray
    p: float


def friedman(table: Any) -> Friedman:
    """Whether k methods differ over n blocks (data sets), by ranks within each; ties share their mean rank.

    Args:
        table: scores ``[n, k]``, the larger the better.

    Raises:
        BadInput: fewer than two blocks or methods, or numbers that are not finite.
    """
    table = np.asarray(table, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise BadInput(f"ranks need finite scores [blocks, methods], at least 2 x 2, not {table.shape}")
    n, k = table.shape
    ranks = stats.rankdata(-table, axis=1)
    mean = ranks.mean(axis=0)
    spread = float(np.square(ranks - (k + 1) / 2).sum())
    if spread == 0:
        return Friedman(mean, 1.0)
    chi2 = (k - 1) * n**2 * float(np.square(mean - (k + 1) / 2).sum()) / spread
    room = n * (k - 1) - chi2
    if room <= 1e-12:  # all blocks agree, where F is infinite: the chance that they order methods as the first does
        ties = np.unique(ranks[0], return_counts=True)[1]
        return Friedman(mean, float((special.factorial(ties).prod() / special.factorial(k)) ** (n - 1)))
    return Friedman(mean, float(special.fdtrc(k - 1, (k - 1) * (n - 1), (n - 1) * chi2 / room)))
