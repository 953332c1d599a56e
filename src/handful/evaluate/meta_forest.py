"""PPL-forecast (069): which piecewise power law a pilot is the start of, as a random forest learnt it from curves.

Jain et al., "A Meta-Learning Approach to Predicting Performance and Data Requirements", 2023. The law is in `laws`;
sizes are counted from the last of the pilot, x = log(n / n_last), so that the forest need not know how large they are.

    meta-fit   of each whole curve the piecewise law, hence (theta_2, X); features of its pilots (`features`)
    forest     trees, each on families of data sets drawn with replacement (cluster bootstrap), predict (theta_2, X)
    fit        theta_0, theta_1 by least squares on the pilot, theta_2 and X being fixed; one law a tree
    forecast   the mean over trees of y(n); its 90 % interval is the wider of that of the trees and of what they were
               off among families they had not seen
    horizon    the largest n at which the interval of log error is not wider than a given width
    collected  examples that are collected for a target over those it takes: what is said to be required, or first up to
               the horizon, the curve measured there, and then what is said to be required (`score`)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from handful.adapt.parameters import count, finite, numbers
from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.laws import Law, checked, checked_target, design, fit_law, required

TREES, LEAF = 500, 3
KNEES = (-2.0, 2.0)
"""Knees are told apart within e^2 times the last size; beyond, a pilot could not show them."""
BENDS = (-0.5, 0.5)
WIDTH = 0.2
GRID = np.log(np.array([1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256]))
"""Sizes beyond the pilot, over its last, at which what trees are off is kept."""


class Rising(UserWarning):
    """Errors grow along a pilot: no number of examples is said to reach a target."""


@dataclass(frozen=True)
class Whole:
    """A whole curve: sizes ``[m]``, accuracies, classes, and the ``family`` that is drawn and left out together."""

    family: str
    ways: int
    n: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class MetaForest:
    """A forest that was fitted by `fit_meta`.

    Attributes:
        trees: scikit-learn's.
        off: log error of left-out curves less that of trees that had not seen their family ``[r, len(GRID)]``; NaN
            beyond the end of a curve.
    """

    trees: tuple[Any, ...]
    off: np.ndarray

    def laws(self, n: Sequence[float], accuracy: Sequence[float], ways: int) -> Law:
        """One law a tree, in x = log(n / n_last)."""
        x, y = _points(n, accuracy, ways)
        x = x - x[-1]
        seen = features(x, y, math.log(n[-1]), ways)[None]
        told = np.stack([tree.predict(seen)[0] for tree in self.trees])
        return _through(x, y, told[:, 0], told[:, 1])

    def forecast(
        self, n: Sequence[float], accuracy: Sequence[float], ways: int, sizes: Sequence[float]
    ) -> list[Estimate]:
        """Accuracy at ``sizes``, with 90 % intervals.

        Args:
            n: sizes of the pilot ``[k]``, ascending, as many as the forest learnt from.
            accuracy: at each ``[k]``, a share from 0 and below 1.
            ways: classes.
            sizes: ``[m]``, above 0.

        Raises:
            BadInput: a pilot that is no start of a curve, sizes that are none.
        """
        wanted = np.atleast_1d(numbers("sizes", sizes))
        if wanted.ndim != 1 or not (np.isfinite(wanted) & (wanted > 0)).all():
            raise BadInput("sizes to forecast at are a list of numbers above 0")
        y, low, high = self._band(n, accuracy, ways, wanted)
        return [Estimate(*(1 - math.exp(min(v, 0)) for v in row)) for row in zip(y, high, low, strict=True)]

    def horizon(self, n: Sequence[float], accuracy: Sequence[float], ways: int, width: float = WIDTH) -> float:
        """The largest size at which the interval of log error is at most ``width`` wide, 256 times the pilot at most;
        the last of the pilot, if it is wider at once."""
        finite("width", width, least=0)
        sizes = max(n) * np.exp(np.linspace(0, GRID[-1], 400))
        _, low, high = self._band(n, accuracy, ways, sizes)
        wide = np.flatnonzero(high - low > width)
        return float(sizes[-1] if not len(wide) else sizes[max(int(wide[0]) - 1, 0)])

    def required(self, n: Sequence[float], accuracy: Sequence[float], ways: int, target: float) -> float:
        """Fewest examples for ``target``, from the last of the pilot on; infinite where no size within 256 times the
        pilot reaches it. Beyond the `horizon`, collect up to there first and measure anew.

        Warns:
            Rising: errors grow along the pilot, by the line through it; then infinite.
        """
        checked_target(target)
        if float(fit_law(n, accuracy, "power").final_slope) > 0:
            warnings.warn("errors grow along the pilot: no number of examples reaches a target", Rising, stacklevel=2)
            return math.inf
        sizes = max(n) * np.exp(np.linspace(0, GRID[-1], 4000))
        wanted, fallen = math.log(1 - target), np.minimum.accumulate(self._band(n, accuracy, ways, sizes)[0])
        if fallen[-1] > wanted + 1e-12:
            return math.inf
        at = int(np.argmax(fallen <= wanted + 1e-12))
        if at == 0:
            return float(sizes[0])
        share = min((fallen[at - 1] - wanted) / (fallen[at - 1] - fallen[at]), 1.0)
        return float(sizes[at - 1] * (sizes[at] / sizes[at - 1]) ** share)

    def _band(
        self, n: Sequence[float], accuracy: Sequence[float], ways: int, sizes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = np.log(sizes / max(n))
        each = self.laws(n, accuracy, ways).log_error(np.exp(x))
        mean = each.mean(axis=0)
        tails = np.nanquantile(self.off, [0.05, 0.95], axis=0)
        low, high = (np.interp(x, np.r_[0.0, GRID], np.r_[tail[0], tail]) for tail in tails)
        spread = np.quantile(each - mean, [0.05, 0.95], axis=0)
        return mean, mean + np.minimum(low, spread[0]), mean + np.maximum(high, spread[1])


def fit_meta(curves: Sequence[Whole], pilot: int, *, trees: int = TREES, leaf: int = LEAF, seed: int = 0) -> MetaForest:
    """Learn what curves look like beyond their first ``pilot`` sizes.

    Args:
        curves: whole ones, each of ``pilot`` sizes and at least two more.
        pilot: sizes a pilot has, three or more.
        trees, leaf: of the forest; examples in a leaf, at least.
        seed: of the forest.

    Raises:
        BadInput: fewer than three families of curves, curves that are too short, or none that goes on beyond 1.25 times
            its pilot.
    """
    from sklearn.tree import DecisionTreeRegressor

    count("trees", trees, 1), count("leaf", leaf, 1), count("seed", seed), count("pilot", pilot)
    if not all(isinstance(curve, Whole) for curve in curves):
        raise BadInput("curves are a list of Whole(family, ways, n, accuracy)")
    names, family = np.unique([curve.family for curve in curves], return_inverse=True)
    if len(names) < 3:
        raise BadInput(f"curves of at least 3 families of data sets are needed, not {len(names)}")
    if pilot < 3 or any(len(curve.n) < pilot + 2 for curve in curves):
        raise BadInput("a pilot has 3 sizes or more, a curve to learn from at least two more than the pilot")
    points = [_points(curve.n, curve.accuracy, curve.ways) for curve in curves]
    rows = np.stack(
        [
            features(x[:pilot] - x[pilot - 1], y[:pilot], float(x[pilot - 1]), curve.ways)
            for curve, (x, y) in zip(curves, points, strict=True)
        ]
    )
    told = np.stack([_target(curve, pilot) for curve in curves])
    share = 1 / np.bincount(family)[family]
    rng = np.random.default_rng(seed)
    found, total, votes = [], np.zeros_like(told), np.zeros(len(curves))
    for _ in range(trees):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[family]
        tree = DecisionTreeRegressor(min_samples_leaf=leaf, max_features=1 / 3, random_state=int(rng.integers(2**31)))
        used = drawn > 0
        tree.fit(rows[used], told[used], sample_weight=(drawn * share)[used])
        found.append(tree)
        total[~used] += tree.predict(rows[~used]) if (~used).any() else 0
        votes[~used] += 1
    told = total / np.maximum(votes, 1)[:, None]
    off = np.full((len(curves), len(GRID)), np.nan)
    for row, (x, y), (bend, knee), vote in zip(off, points, told, votes, strict=True):
        if vote:
            u = x - x[pilot - 1]
            law = _through(u[:pilot], y[:pilot], np.array([bend]), np.array([knee]))
            inside = u[-1] + 1e-9 >= GRID
            row[inside] = np.interp(GRID[inside], u, y) - law.log_error(np.exp(GRID[inside]))[0]
    known = np.isfinite(off).sum(axis=0) >= 2
    if not known.any():
        raise BadInput(f"curves must go on beyond {math.exp(GRID[0]):g} times their pilot, two at least")
    if not known.all():  # beyond the longest curve: as at its end
        off[:, ~known] = off[:, [int(np.flatnonzero(known)[-1])]]
    return MetaForest(tuple(found), off)


def features(x: np.ndarray, y: np.ndarray, log_n: float, ways: int) -> np.ndarray:
    """What the forest sees of a pilot: level over chance, line and what it leaves, local slopes, sizes and classes.

    Args:
        x, y: log sizes ``[k]``, counted from the last, and log errors.
        log_n: log of the last size.
        ways: classes.
    """
    slope, level = np.polyfit(x, y, 1)
    local = np.diff(y) / np.diff(x)
    guess = math.log(1 - 1 / ways)
    left = float(np.std(y - level - slope * x))
    seen = [y[-1] - guess, y[0] - guess, level - guess, slope, left, local[0], local[-1], local[-1] - local[0]]
    return np.array([*seen, log_n, float(x[0]), math.log(ways), guess])


class Scores(NamedTuple):
    """How good a forecast was of a curve that is known to its end.

    Attributes:
        error: mean absolute error of accuracy at the sizes beyond the pilot.
        one_step: examples collected over those needed, where all that is said to be required is collected at once.
        two_steps: the same where no more than up to the horizon is collected first.
    """

    error: float
    one_step: float
    two_steps: float


def score(curve: Whole, pilot: int, target: float, forest: MetaForest | None = None, *, width: float = WIDTH) -> Scores:
    """Judge a forecast from the first ``pilot`` sizes of a curve.

    Args:
        curve: a whole one; between its sizes it is linear in logarithms.
        pilot: sizes that are known.
        target: accuracy that the curve reaches beyond the pilot.
        forest: which forecasts; by default the power law, which has no horizon and takes one step.
        width: of the horizon.

    Raises:
        BadInput: the curve reaches the target within the pilot, or never.
    """
    checked_target(target)
    x, y = _points(curve.n, curve.accuracy, curve.ways)
    fallen = np.minimum.accumulate(y) <= math.log(1 - target)
    first = int(np.argmax(fallen))
    if not fallen.any() or first < pilot:
        raise BadInput(f"the curve reaches {target:g} {'within the pilot' if fallen.any() else 'nowhere'}")
    share = (math.log(1 - target) - y[first - 1]) / (y[first] - y[first - 1])
    needed = math.exp(x[first - 1] + share * (x[first] - x[first - 1]))
    n, seen, after = curve.n[:pilot], curve.accuracy[:pilot], curve.n[pilot:]
    if forest is None:
        law = fit_law(n, seen, "power")
        told, asked = law.accuracy(after), required(law, target)
        total = asked
    else:
        told = np.array([e.value for e in forest.forecast(n, seen, curve.ways, after)])
        asked = total = forest.required(n, seen, curve.ways, target)
        so_far = forest.horizon(n, seen, curve.ways, width)
        if n[-1] < so_far < asked:
            larger = np.array(n) * so_far / n[-1]  # a pilot as long as the first, which is what the forest learnt from
            measured = 1 - np.exp(np.interp(np.log(larger), x, y))
            total = max(so_far, forest.required(larger.tolist(), measured.tolist(), curve.ways, target))
    error = float(np.abs(told - np.array(curve.accuracy[pilot:])).mean())
    return Scores(error, asked / needed, total / needed)


def _points(n: Sequence[float], accuracy: Sequence[float], ways: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a curve; `BadInput` as `checked`, and for sizes out of order or fewer than two classes."""
    x, y = checked(n, accuracy)
    if (np.diff(x) <= 0).any():
        raise BadInput("sizes of a curve ascend, each once")
    count("ways", ways, 2)
    return x, y


def _target(curve: Whole, pilot: int) -> np.ndarray:
    """theta_2 and X of a whole curve, x counted from the last size of the pilot."""
    last = curve.n[pilot - 1]
    law = fit_law(np.asarray(curve.n) / last, curve.accuracy, "piecewise")
    return np.array([np.clip(float(law.theta[2]), *BENDS), np.clip(float(law.knee), *KNEES)])


def _through(x: np.ndarray, y: np.ndarray, bend: np.ndarray, knee: np.ndarray) -> Law:
    """The laws of so much bend and such a knee ``[t]`` that are nearest to points; final slopes are at most 0."""
    curved = bend[:, None] * design(x, knee[:, None])[..., 2]
    a = np.stack([np.ones_like(x), x], axis=1)
    line = np.linalg.lstsq(a, (y - curved).T, rcond=None)[0].T
    rising = line[:, 1] + 2 * bend * knee > 0
    steep = np.where(rising, -2 * bend * knee, line[:, 1])
    level = np.where(rising, (y - curved - steep[:, None] * x).mean(axis=1), line[:, 0])
    return Law(np.stack([level, steep, bend], axis=1), knee, np.zeros(len(knee)))
