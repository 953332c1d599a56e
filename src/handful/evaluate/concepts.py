"""Does accuracy follow how often a class was seen before, and which classes were seen too rarely?

Paper 011: Udandarao, Prabhu, Ghosh, Sharma, Torr, Bibi, Albanie, Bethge, "No 'Zero-Shot' Without Exponential Data:
Pretraining Concept Frequency Determines Multimodal Model Performance", 2024.

    x = ln(max(count, 1))               of each concept, those of all data sets together
    edges = linspace(min x, max x, 12)  bin k holds (edge k-1, edge k], stands at edge k; bin 0 holds min x alone
    r, p, slope                         Pearson and least squares of the bins' mean accuracy on their edges, without the
                                        first and the last bin (the first two and the last for LAION-400M)

The rarest concepts (the 290 of *Let It Wag!*) are where zero-shot answers fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from handful.adapt.parameters import count, numbers, several
from handful.core.intervals import Estimate, mean_interval
from handful.errors import BadInput

BINS, LEAST = 12, 3
"""Edges of bins, and how many bins a trend needs."""
TAIL = 290
"""Concepts of *Let It Wag!*."""
BITS = 10
"""Perceptual hashes of two pictures of one concept that differ in at most so many bits: the same picture."""


@dataclass(frozen=True)
class TrendResult:
    """Accuracy against the logarithm of how often a concept was seen.

    Attributes:
        r, p: Pearson's correlation over bins, and its two-sided p-value.
        slope, intercept: accuracy = slope ln(count) + intercept, over bins.
        counts: upper edge of each bin used, as a count.
        means: mean accuracy of each.
        sizes: concepts in each.
        rank_correlation: Spearman's over single concepts.
    """

    r: float
    p: float
    slope: float
    intercept: float
    counts: tuple[float, ...]
    means: tuple[float, ...]
    sizes: tuple[int, ...]
    rank_correlation: float

    def expected(self, count: float) -> float:
        """Accuracy by the line of a concept seen ``count`` times."""
        return self.slope * float(np.log(max(count, 1))) + self.intercept

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Tail:
    """The rarest concepts, and what accuracy is on them.

    Attributes:
        rare: the concepts, rarest first.
        counts: how often each was seen.
        accuracy: mean over the rare concepts; ``None`` where accuracies are not known.
        others: the same over all others.
        difference: of the two.
    """

    rare: tuple[str, ...]
    counts: tuple[int, ...]
    accuracy: Estimate | None
    others: Estimate | None
    difference: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "rare": list(self.rare),
            "counts": list(self.counts),
            "accuracy": None if self.accuracy is None else self.accuracy.as_dict(),
            "others": None if self.others is None else self.others.as_dict(),
            "difference": self.difference,
        }


def log_linear_trend(counts: Any, accuracies: Any, n_bins: int = BINS, drop: tuple[int, int] = (1, 1)) -> TrendResult:
    """Whether accuracy grows with the logarithm of how often a concept was seen.

    Args:
        counts: of each concept ``[n]``.
        accuracies: of each ``[n]``, in any unit.
        n_bins: edges of bins.
        drop: how many of the first and of the last bins to leave out.

    Raises:
        BadInput: lists of different length, negative counts, missing values, counts that are all equal, fewer than
            three bins with concepts in them, accuracy the same in all bins, ``drop`` that is no pair.
    """
    n, y = _counts(counts), _numbers("accuracies", accuracies)
    if n.shape != y.shape:
        raise BadInput(f"{len(n)} counts and {y.size} accuracies: one of each for every concept")
    if not np.isfinite(y).all():
        raise BadInput(f"accuracy of concept {int(np.flatnonzero(~np.isfinite(y))[0])} is missing")
    x = np.log(np.maximum(n, 1))
    count("n_bins", n_bins, LEAST + 1)
    ends = [count("drop", each) for each in several("drop", drop, "a pair of whole numbers")]
    if len(ends) != 2:
        raise BadInput(f"drop is a pair of whole numbers, not {drop!r}")
    if not len(x) or np.ptp(x) == 0:
        raise BadInput("all concepts are equally frequent: a trend needs counts that differ")
    edges = np.linspace(x.min(), x.max(), n_bins)
    edges[-1] = x.max()
    bins = np.digitize(x, edges, right=True)
    size = np.bincount(bins, minlength=n_bins)
    used = np.array([k for k in range(ends[0], n_bins - ends[1]) if size[k]], int)
    if len(used) < LEAST:
        raise BadInput(f"only {len(used)} bins have concepts in them: a trend needs {LEAST}; give more concepts")
    means = np.bincount(bins, y, n_bins)[used] / size[used]
    if np.ptp(means) == 0:
        raise BadInput(f"accuracy is {means[0]:g} in every bin: there is nothing to correlate")
    line = stats.linregress(edges[used], means)
    return TrendResult(
        r=float(line.rvalue),
        p=float(line.pvalue),
        slope=float(line.slope),
        intercept=float(line.intercept),
        counts=tuple(np.exp(edges[used]).tolist()),
        means=tuple(means.tolist()),
        sizes=tuple(size[used].tolist()),
        rank_correlation=float(stats.spearmanr(n, y).statistic) if np.ptp(y) > 0 else 0.0,
    )


def long_tail(counts: Mapping[str, float], k: int = TAIL, accuracies: Mapping[str, float] | None = None) -> Tail:
    """The ``k`` rarest concepts, and where accuracies are known what they are on those and on the others.

    Raises:
        BadInput: no concepts, fewer than ``k``, negative counts, a concept without accuracy.
    """
    _counts(list(counts.values()))
    names = sorted(counts, key=lambda name: (counts[name], name))
    if count("k", k, 1) > len(names):
        raise BadInput(f"k={k} rarest of {len(names)} concepts")
    rare, others = names[:k], names[k:]
    if accuracies is None:
        return Tail(tuple(rare), tuple(int(counts[name]) for name in rare), None, None, None)
    known = _numbers("accuracies", [accuracies.get(name, np.nan) for name in names])
    if not np.isfinite(known).all():
        missing = names[int(np.flatnonzero(~np.isfinite(known))[0])]
        raise BadInput(f"no accuracy of concept {missing!r}: give one for every concept counted")
    low = mean_interval(known[:k])
    high = mean_interval(known[k:]) if others else None
    difference = None if high is None else low.value - high.value
    return Tail(tuple(rare), tuple(int(counts[name]) for name in rare), low, high, difference)


def tail_images(concepts: Any, hashes: Any, *, bits: int = BITS, seed: int = 0) -> np.ndarray:
    """Rows of a balanced test set of concepts: near-copies left out, then equally many of each concept, at random.

    Args:
        concepts: of each image ``[n]``.
        hashes: perceptual hashes ``[n, B]``, booleans.
        bits: two images of one concept whose hashes differ in no more bits are one.
        seed: of the draw.
    """
    count("bits", bits)
    concepts, hashes = np.asarray(concepts), np.asarray(hashes, bool)
    if hashes.ndim != 2 or len(hashes) != len(concepts) or not len(concepts):
        raise BadInput(f"{len(concepts)} concepts and hashes {hashes.shape}: one row of bits for each image")
    rng, kept = np.random.default_rng(seed), []
    for concept in np.unique(concepts):
        mine: list[int] = []
        for row in np.flatnonzero(concepts == concept).tolist():
            if not mine or (hashes[mine] != hashes[row]).sum(axis=1).min() > bits:
                mine.append(row)
        kept.append(rng.permutation(mine))
    least = min(map(len, kept))
    return np.sort(np.concatenate([rows[:least] for rows in kept]))


def corpus_agreement(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Spearman's correlation of two corpora's counts over the concepts both know.

    Raises:
        BadInput: fewer than three common concepts, negative counts, or one corpus has all of them equally often.
    """
    common = sorted(one.keys() & other.keys())
    a, b = (_counts([corpus[name] for name in common]) for corpus in (one, other))
    if len(common) < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise BadInput(f"{len(common)} common concepts: at least {LEAST} that are not all equally frequent")
    return float(stats.spearmanr(a, b).statistic)


def _counts(counts: Any) -> np.ndarray:
    n = _numbers("counts", counts)
    bad = np.flatnonzero(~((n >= 0) & np.isfinite(n)))
    if len(bad):
        raise BadInput(f"count of concept {int(bad[0])} is {n[bad[0]]:g}: counts are 0 or more")
    return n


def _numbers(name: str, values: Any) -> np.ndarray:
    found = numbers(name, values)
    if found.ndim != 1:
        raise BadInput(f"{name} are a list of numbers, one a concept, not of shape {found.shape}")
    return found
