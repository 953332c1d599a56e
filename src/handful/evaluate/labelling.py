"""What to label next: items the model is unsure of, unlike each other, of classes with few labels. Whether that pays.

BADGE, Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Embeddings", 2020 (arXiv 1906.03671), with
the coverage of classes as a further weight:

    g_i    = (p_i - onehot(best_i)) x h_i        gradient of a linear readout if its best answer were the label
    D_i    = min over picked j of |g_i - g_j|    |g_i| before the first pick: small where one is sure
    need_i = sum_c p_ic / (1 + n_c)              n_c: labels of class c, those the picks are taken for among them
    pick i with probability ~ D_i^2 need_i       k-means++, Arthur and Vassilvitskii 2007

Gradients are never written down: |g_i - g_j|^2 follows from the products of their two factors.

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
CHOICE = 3
"""Times as many items as are picked that a replay keeps to choose among, at least."""


@dataclass(frozen=True)
class Replay:
    """Accuracy after picking and after drawing at random, on the same items kept apart.

    Attributes:
        picked, random: mean accuracy over draws.
        gain: their difference in each draw, with a 95 % interval.
        shots: labels a class before.
        n: items added.
        draws: how many.
        tested: items judged by, in each.
    """

    picked: float
    random: float
    gain: Estimate
    shots: int
    n: int
    draws: int
    tested: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        found = {name: getattr(self, name) for name in ("picked", "random", "shots", "n", "draws", "tested")}
        return {**found, "gain": self.gain.as_dict()}


def pick(proba: np.ndarray, x: np.ndarray, counts: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
    """The ``n`` items to label next ``[n]``, the first to be labelled first.

    Args:
        proba: what the model says of the pool ``[m, C]``.
        x: features of the pool ``[m, D]``.
        counts: labels of each class ``[C]``.
        n: how many, at most m.
        seed: of the draws.
    """
    if not 1 <= n <= len(proba):
        raise BadInput(f"{n} items cannot be picked out of {len(proba)}")
    h = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    a = proba - np.eye(proba.shape[1])[proba.argmax(axis=1)]
    size = (a**2).sum(axis=1)  # |g|^2, h being of length 1
    labels, gap, free = np.asarray(counts, float).copy(), size.copy(), np.ones(len(proba), dtype=bool)
    rng, chosen = np.random.default_rng(seed), np.empty(n, dtype=np.int64)
    for k in range(n):  # each pick depends on the one before
        weight = np.where(free, gap * (proba @ (1 / (1 + labels))), 0.0)
        if not weight.sum() > 0:  # copies of what is picked, or nothing to learn: any other
            weight = free.astype(float)
        j = int(rng.choice(len(weight), p=weight / weight.sum()))
        chosen[k], free[j] = j, False
        gap = np.minimum(gap, np.maximum(size + size[j] - 2 * (a @ a[j]) * (h @ h[j]), 0.0))
        labels += proba[j]
    return chosen


def replay(
    head: Head,
    features: Features,
    labels: np.ndarray,
    n: int,
    *,
    shots: int = 1,
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
        shots: labels a class before; fewer, too, where that leaves too little.
        draws: how many.
        seed: of the draws.

    Raises:
        BadInput: too few items for a replay.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    most = int(len(codes) * (1 - TEST))
    least = max(1, head.needs.min_shots)
    room = (most - CHOICE * n) // len(classes)
    shots = max(least, min(shots, room))
    n = min(n, (most - shots * len(classes)) // CHOICE)
    if n < 1 or len(classes) < 2 or np.bincount(codes).min() < least + 1:
        raise BadInput(
            f"{len(codes)} labelled items of {len(classes)} classes are too few for a replay: it needs {least + 1} or "
            f"more of each class and some to choose among"
        )
    rng, found, tested = np.random.default_rng(seed), np.empty((draws, 2)), 0
    for r in range(draws):
        start, rest, test = _split(codes, shots, most, rng)
        tested, names = len(test), classes[codes]
        proba = special.softmax(answers(head, features, names, start, rest), axis=1)
        counts = np.bincount(codes[start], minlength=len(classes))
        ways = pick(proba, features.x[rest], counts, n, seed=int(rng.integers(2**31))), rng.permutation(len(rest))[:n]
        for i, added in enumerate(ways):
            rows = np.concatenate([start, rest[added]])
            right = clone(head).fit(features.take(rows), names[rows]).predict(features.take(test)) == names[test]
            found[r, i] = float(right.mean())
    gain = _corrected(found[:, 0] - found[:, 1], tested / (len(codes) - tested))
    picked, random = found.mean(axis=0)
    return Replay(float(picked), float(random), gain, shots, n, draws, tested)


def _split(
    codes: np.ndarray, shots: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled, to choose among, kept apart; every class has ``shots`` labels, one fewer than it has items at most."""
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
