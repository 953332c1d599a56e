"""What to label next: items that stand for many others, of classes with few labels.

Facility location: each item of the pool is to have a labelled one near it (Wei, Iyer, Bilmes, "Submodularity in data
subset selection and active learning", 2015; with so few labels that is what pays, while the least certain items are
the odd ones: Hacohen, Dekel, Weinshall, "Active learning on a budget", 2022).

    k_ij   = exp(-d_ij^2 / (2 s^2))       of unit features; s: the middle item's distance to its (m / n)-th nearest, so
                                          that n picks can just cover the pool of m
    need_i = sum_c p_ic / (1 + n_c)       p: what the model says; n_c: labels of class c, those the picks are taken for
                                          among them
    near_i = max over picked j of k_ij
    pick j with the largest  sum_i need_i max(k_ij - near_i, 0)

The gain over a random choice is replayed on items whose labels are known. Draws share their items; the interval is
Nadeau and Bengio's (2003), (1 / R + n_test / n_rest) s^2 in place of s^2 / R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special
from sklearn.base import clone

from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.crossfit import answers
from handful.evaluate.indices import places

if TYPE_CHECKING:
    from handful.adapt.base import Features, Head

TEST = 1 / 3
"""Share of the labelled items that a replay is judged by."""
MOST = 4000
"""Items of a pool that are looked at: products of all pairs are kept."""
CHOICE = 3
"""Times as many items as are picked that a replay keeps to choose among, at least."""


@dataclass(frozen=True)
class Replay:
    """Accuracy after picking and after drawing at random, on the same items kept apart.

    Attributes:
        picked, random: mean accuracy over draws.
        gain: their difference, with a 95 % interval.
        gains: the difference in each draw.
        before: labels before, in all.
        n: items added.
        draws: how many.
        tested: items judged by, in each.
    """

    picked: float
    random: float
    gain: Estimate
    gains: tuple[float, ...]
    before: int
    n: int
    draws: int
    tested: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; without each draw."""
        found = {name: getattr(self, name) for name in ("picked", "random", "before", "n", "draws", "tested")}
        return {**found, "gain": self.gain.as_dict()}


def pick(proba: np.ndarray, x: np.ndarray, counts: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
    """The ``n`` items to label next ``[n]``, the first to be labelled first.

    Args:
        proba: what the model says of the pool ``[m, C]``.
        x: features of the pool ``[m, D]``.
        counts: labels of each class ``[C]``.
        n: how many, at most m.
        seed: of the order, which decides between equals, and of the draw of `MOST` items out of a larger pool.

    Raises:
        BadInput: n is not between 1 and m, or above `MOST`.
    """
    if not 1 <= n <= len(proba):
        raise BadInput(f"{n} items cannot be picked out of {len(proba)}")
    if n > MOST:
        raise BadInput(f"at most {MOST:,} items can be chosen at once, not {n:,}: label those, fit, and choose again")
    some = np.random.default_rng(seed).permutation(len(proba))[:MOST]
    proba, k = proba[some], kernel(x[some], n)
    labels, near = np.asarray(counts, float).copy(), np.zeros(len(some), k.dtype)
    chosen: list[int] = []
    for _ in range(n):  # each pick depends on the one before
        need = proba @ (1 / (1 + labels))
        gain = need.astype(k.dtype) @ np.maximum(k - near[:, None], 0)
        gain[chosen] = -1
        j = int(gain.argmax())
        chosen.append(j)
        near = np.maximum(near, k[:, j])
        labels += proba[j]
    out: np.ndarray = some[chosen]
    return out


def kernel(x: np.ndarray, n: int) -> np.ndarray:
    """k ``[m, m]`` of items with features ``[m, D]``, as wide as ``n`` picks make it."""
    h = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    gap = np.maximum(2 - 2 * h @ h.T, 0)
    rank = min(max(len(h) // n, 1), len(h) - 1)
    width = max(float(np.median(np.partition(gap, rank, axis=1)[:, rank])), 1e-6)
    out: np.ndarray = np.exp(gap / (-2 * width))
    return out


def replay(
    head: Head,
    features: Features,
    labels: np.ndarray,
    n: int,
    *,
    shots: int | np.ndarray = 1,
    draws: int = 20,
    seed: int = 0,
) -> Replay:
    """What `pick` would have gained over a random choice, had these labels come one after the other.

    Each draw keeps a third of the items apart, takes ``shots`` of each class as labelled, and adds ``n`` of the others:
    once as `pick` says after a fit, once at random.

    Args:
        head: unfitted, or fitted: copies are made.
        features: of all labelled items.
        labels: ``[m]``.
        n: items to add; fewer where there are not `CHOICE` times as many to choose among.
        shots: labels of each class before ``[C]``, classes sorted, or one number for all; fewer, too, where that leaves
            too little.
        draws: how many.
        seed: of the draws.

    Raises:
        BadInput: too few items for a replay.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    most = int(len(codes) * (1 - TEST))
    least = max(1, head.needs.min_shots)
    room = (most - CHOICE * n) // len(classes)
    few = np.clip(np.broadcast_to(shots, len(classes)), least, max(least, room))
    n = min(n, (most - int(few.sum())) // CHOICE)
    if n < 1 or len(classes) < 2 or np.bincount(codes).min() < least + 1:
        raise BadInput(
            f"{len(codes)} labelled items of {len(classes)} classes are too few for a replay: it needs {least + 1} or "
            f"more of each class and some to choose among"
        )
    rng, found, before, tested = np.random.default_rng(seed), np.empty((draws, 2)), 0, 0
    for r in range(draws):
        start, rest, test = _split(codes, few, most, rng)
        before, tested, names = len(start), len(test), classes[codes]
        proba = special.softmax(answers(head, features, names, start, rest), axis=1)
        counts = np.bincount(codes[start], minlength=len(classes))
        ways = pick(proba, features.x[rest], counts, n, seed=int(rng.integers(2**31))), rng.permutation(len(rest))[:n]
        for i, added in enumerate(ways):
            rows = np.concatenate([start, rest[added]])
            right = clone(head).fit(features.take(rows), names[rows]).predict(features.take(test)) == names[test]
            found[r, i] = float(right.mean())
    gains = found[:, 0] - found[:, 1]
    gain = _corrected(gains, tested / (len(codes) - tested))
    picked, random = map(float, found.mean(axis=0))
    return Replay(picked, random, gain, tuple(gains.tolist()), before, n, draws, tested)


def _split(
    codes: np.ndarray, shots: np.ndarray, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled, to choose among, kept apart; every class has its ``shots [C]``, one fewer than it has items at most."""
    most_of = np.minimum(shots, np.bincount(codes) - 1)
    start = np.flatnonzero(places(codes, rng.random(len(codes))) < most_of[codes])
    rest = rng.permutation(np.setdiff1d(np.arange(len(codes)), start))
    cut = most - len(start)
    return start, rest[:cut], rest[cut:]


def _corrected(gains: np.ndarray, ratio: float) -> Estimate:
    """Student's interval of the mean of gains in draws that share their items."""
    mean, count = float(gains.mean()), len(gains)
    half = float(special.stdtrit(count - 1, 0.975)) * float(gains.std(ddof=1)) * (1 / count + ratio) ** 0.5
    return Estimate(mean, mean - half, mean + half)
