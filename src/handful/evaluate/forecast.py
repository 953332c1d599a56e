"""How accurate with more labels, how many labels for a target, and how far to believe it.

A pilot of a few noisy points fixes no law: its line in logarithms follows the noise. Curves of other data sets say what
is usual, how far curves differ, and how bent they are; the pilot moves the usual curve as far as its noise allows.

    u(x)   = log((r + m) / (1 + m - r)) at x = log2 shots     r = error / (1 - 1/C), m = `MARGIN`: a curve leaves chance
                                                              slowly and comes to an end slowly, hence logits
    u      ~ N(B (1, log C), S)                               mean and covariance over curves seen, families equal
    S      + `LEVEL` + `SLOPE` x x'                           data unlike all that was seen
    pilot  = error(x_pilot) + N(0, e (1 - e) / n), in u by the slope du / de, both at the error e that is expected
             there, n the items that its spread stands for: by luck few errors are found, and seem certain
    S      of curves averaged over draws for a card, whose points are averages; of single ones for points of a test set
    u(x)   | pilot: mean and variance of the Gaussian, between powers of two and beyond the last linearly
    90 %   quantiles of (truth - mean) / deviation of families left out (cluster cross-validation), not the Gaussian's
    bound  four times the shots of the pilot, as far as was checked, and less where the interval of log error is wider
           than `WIDTH` (the horizon of paper 069)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from scipy import special

from handful.core.intervals import Estimate
from handful.errors import BadInput
from handful.evaluate.laws import Law, checked_target, fit_law

GRID = 9
"""Curves are known at 1, 2, 4, … 256 shots."""
MARGIN = 0.02
"""What is added at either end of the logit, so that no error at all and chance have one."""
LEVEL, SLOPE, CENTRE = 1.0, 0.0125, 2.5
"""Variance of level and slope (in x from `CENTRE`) that is added to what was seen."""
RIDGE = 0.3
"""Penalty of the slope in log C: the number of classes says little where few data sets say it."""
FARTHEST = 4.0
"""Times the shots of the pilot that forecasts were checked at."""
WIDTH = math.log(4)
"""Width of the interval of log error beyond which a forecast tells nothing that could be acted on."""
CONFIDENCE = 0.9
FLOOR = 0.02
"""Least error at which the spread of a point is taken, one right answer in a row of few not being certainty."""
KINDS = {"own": True, "test": False}
"""Pilots, as they are called in the file of what was seen."""
STEPS = 20
"""Of the search for noise and expected error that fit together; each halves the way."""


@dataclass(frozen=True)
class Pilot:
    """Points of a curve.

    Attributes:
        shots: examples a class ``[k]``, ascending, three or more.
        accuracy: at each ``[k]``.
        spread: standard deviation of each accuracy ``[k]``.
        ways: C, how many classes.
        own: whether the points were found from the very labels that were learnt from (a card), not on a test set.
    """

    shots: tuple[float, ...]
    accuracy: tuple[float, ...]
    spread: tuple[float, ...]
    ways: int
    own: bool

    def __post_init__(self) -> None:
        shots, accuracy, spread = (np.asarray(v, float) for v in (self.shots, self.accuracy, self.spread))
        if not len(shots) == len(accuracy) == len(spread):
            raise BadInput(f"{len(shots)} numbers of shots, {len(accuracy)} accuracies, {len(spread)} spreads")
        if len(shots) < 3:
            raise BadInput(f"a forecast needs at least 3 different numbers of shots, not {len(shots)}")
        if not np.isfinite(shots).all() or (shots <= 0).any() or (np.diff(shots) <= 0).any():
            raise BadInput("numbers of shots are above 0, each once, in ascending order")
        if (accuracy > 1).any():
            raise BadInput(f"accuracies are shares between 0 and 1, not percent: {accuracy.max():g} is above 1")
        if not (accuracy >= 0).all() or not (np.isfinite(spread) & (spread > 0)).all():
            raise BadInput("accuracies are at least 0 and their spreads above 0")
        if self.ways < 2:
            raise BadInput(f"a curve is of two or more classes, not {self.ways}")


@dataclass(frozen=True)
class Curve:
    """A whole curve to learn from, of one draw: all draws of one task and head have one ``name``; sets of one
    ``family`` leave together."""

    name: str
    family: str
    ways: int
    shots: tuple[int, ...]
    accuracy: tuple[float, ...]
    pilots: tuple[Pilot, ...]


@dataclass(frozen=True)
class Seen:
    """What curves seen before say.

    Attributes:
        mean: B ``[G, 2]``.
        covariance: S ``[G, G]``, with what is added to it, for pilots of ``own`` labels and for those of a test set.
        tails: 5 % and 95 % quantile of deviations, for both.
        families, curves: how many it rests on.
    """

    mean: np.ndarray
    covariance: Mapping[bool, np.ndarray]
    tails: Mapping[bool, tuple[float, float]]
    families: int
    curves: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "mean": self.mean.round(5).tolist(),
            **{
                name: {"covariance": self.covariance[own].round(6).tolist(), "tails": list(self.tails[own])}
                for name, own in KINDS.items()
            },
            "families": self.families,
            "curves": self.curves,
        }


@dataclass(frozen=True)
class Forecast:
    """What is expected of more labels.

    Attributes:
        pilot: what it rests on.
        power: the plain power law through the pilot, for comparison; ``None`` where an accuracy of 1 has no logarithm.
        seen: what was seen before.
    """

    pilot: Pilot
    power: Law | None
    seen: Seen

    def accuracy(self, shots: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """Accuracy of one model with so many ``shots [m]``: value, 5 % and 95 % quantile ``[m, 3]``."""
        u, deviation = posterior(self.pilot, np.atleast_1d(np.asarray(shots, float)), self.seen)
        low, high = self.seen.tails[self.pilot.own]
        return 1 - error_of(np.stack([u, u + high * deviation, u + low * deviation], axis=1), self.pilot.ways)

    def at(self, shots: float) -> Estimate:
        """`accuracy` at one number of shots, its interval holding 90 %."""
        value, low, high = map(float, self.accuracy(shots)[0])
        return Estimate(value, min(low, value), max(high, value))

    @property
    def horizon(self) -> float:
        """Shots up to which the forecast can be acted on; those of the pilot where it says nothing of more."""
        last = self.pilot.shots[-1]
        sizes = last * np.geomspace(1, FARTHEST, 65)
        found = self.accuracy(sizes)
        least = 1e-3
        width = np.log(np.maximum(1 - found[:, 1], least)) - np.log(np.maximum(1 - found[:, 2], least))
        wide = np.flatnonzero(width > WIDTH)
        return float(sizes[-1] if not len(wide) else sizes[max(int(wide[0]) - 1, 0)])

    def required(self, target: float) -> Estimate:
        """Fewest shots for ``target``: expected, if things go well, if they go badly; infinite beyond the `horizon`.

        Raises:
            BadInput: the target is no accuracy between 0 and 1.
        """
        checked_target(target)
        last = self.pilot.shots[-1]
        sizes = last * np.geomspace(1, max(self.horizon / last, 1.0), 513)
        reached = np.maximum.accumulate(self.accuracy(sizes), axis=0) >= target - 1e-12
        need = [float(sizes[int(np.argmax(r))]) if r.any() else math.inf for r in reached.T]
        return Estimate(need[0], need[2], need[1])


def forecast(pilot: Pilot, seen: Seen | None = None) -> Forecast:
    """What more labels bring, from a pilot and the curves ``seen`` before (by default those of the package)."""
    able = max(pilot.accuracy) < 1
    power = fit_law(pilot.shots, pilot.accuracy, "power") if able else None
    return Forecast(pilot, power, curves_seen() if seen is None else seen)


def posterior(pilot: Pilot, shots: np.ndarray, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of u at ``shots [m]``."""
    ways, error, covariance = pilot.ways, 1 - np.asarray(pilot.accuracy), seen.covariance[pilot.own]
    have, want = on_grid(np.log2(pilot.shots)), on_grid(np.log2(shots))
    usual = seen.mean @ np.array([1.0, math.log(ways)])
    within, across = have @ covariance @ have.T, want @ covariance @ have.T
    items = _inside(error) * (1 - _inside(error)) / np.asarray(pilot.spread) ** 2  # that each point rests on
    expected = before = have @ usual
    for _ in range(STEPS):
        e = error_of(expected, ways)
        slope, spread = slope_of(e, ways), _inside(e) * (1 - _inside(e)) / items
        found = expected + slope * (error - e)
        among = within + np.diag(spread * slope**2)
        expected = (expected + before + within @ np.linalg.solve(among, found - before)) / 2
    u = want @ usual + across @ np.linalg.solve(among, found - before)
    left = np.einsum("mg,gh,mh->m", want, covariance, want) - (across * np.linalg.solve(among, across.T).T).sum(1)
    return u, np.sqrt(np.maximum(left, 1e-9))


def logit_of(error: np.ndarray, ways: int) -> np.ndarray:
    """u of errors; one above chance counts as little above it."""
    r = _over_chance(error, ways)
    out: np.ndarray = np.log((r + MARGIN) / (1 + MARGIN - r))
    return out


def error_of(u: np.ndarray, ways: int) -> np.ndarray:
    """The error that has such a u, at least 0."""
    out: np.ndarray = np.maximum((1 + 2 * MARGIN) * special.expit(u) - MARGIN, 0) * chance(ways)
    return out


def slope_of(error: np.ndarray, ways: int) -> np.ndarray:
    """du / de."""
    r = _over_chance(error, ways)
    out: np.ndarray = (1 / (r + MARGIN) + 1 / (1 + MARGIN - r)) / chance(ways)
    return out


def _over_chance(error: np.ndarray, ways: int) -> np.ndarray:
    out: np.ndarray = np.minimum(error / chance(ways), 1 + MARGIN / 2)
    return out


def _inside(error: np.ndarray) -> np.ndarray:
    """Errors that no spread vanishes at."""
    out: np.ndarray = np.clip(error, FLOOR, 1 - FLOOR)
    return out


def card_spread(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Standard deviation of accuracies ``[k]`` of a card from their 95 % intervals."""
    out: np.ndarray = np.maximum(np.asarray(high) - np.asarray(low), 1e-3) / (2 * 1.96)
    return out


def binomial_spread(accuracy: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Standard deviation of accuracies ``[k]`` found on so many items; one error and one success are added to each."""
    n = np.asarray(tested, float)
    p = (np.asarray(accuracy, float) * n + 1) / (n + 2)
    out: np.ndarray = np.sqrt(p * (1 - p) / n)
    return out


def on_grid(x: np.ndarray) -> np.ndarray:
    """Weights ``[m, G]`` of the grid's points for ``x [m]``: linear between, and beyond the ends, their neighbours."""
    j = np.clip(np.floor(x).astype(np.int64), 0, GRID - 2)
    rows = np.arange(len(x))
    out = np.zeros((len(x), GRID))
    out[rows, j], out[rows, j + 1] = 1 - (x - j), x - j
    return out


def chance(ways: int) -> float:
    """The error of guessing among so many classes."""
    return 1 - 1 / ways


def learn(curves: Sequence[Curve]) -> Seen:
    """Mean, covariance and tails of curves; every family weighs the same.

    Raises:
        BadInput: fewer than three families: none could be left out.
    """
    families = sorted({curve.family for curve in curves})
    if len(families) < 3:
        raise BadInput(f"curves of at least 3 families of data sets are needed, not {len(families)}")
    mean, covariance = _moments(curves)
    off: dict[bool, list[tuple[np.ndarray, float]]] = {True: [], False: []}
    for family in families:
        rest = Seen(*_moments([c for c in curves if c.family != family]), {}, len(families) - 1, 0)
        for own, z in off.items():
            found = np.array([d for c in curves if c.family == family for d in _deviations(c, rest, own)])
            if len(found):
                z.append((found, 1 / len(found)))
    tails = {own: _tails(z) for own, z in off.items()}
    return Seen(mean, covariance, tails, len(families), len(curves))


@lru_cache(maxsize=1)
def curves_seen() -> Seen:
    """What the package knows of curves; ``benchmarks/forecast.py`` makes it."""
    text = (resources.files("handful.evaluate") / "curves_seen.json").read_text(encoding="utf-8")
    d = json.loads(text)
    covariance = {own: np.asarray(d[name]["covariance"]) for name, own in KINDS.items()}
    tails = {own: tuple(d[name]["tails"]) for name, own in KINDS.items()}
    return Seen(np.asarray(d["mean"]), covariance, tails, d["families"], d["curves"])


def _moments(curves: Sequence[Curve]) -> tuple[np.ndarray, dict[bool, np.ndarray]]:
    """B and both S, pairs of sizes that a curve lacks left out."""
    names, name = np.unique([c.name for c in curves], return_inverse=True)
    first = np.unique(name, return_index=True)[1]
    error = np.full((len(curves), GRID), np.nan)
    for row, curve in zip(error, curves, strict=True):
        row[np.log2(curve.shots).round().astype(int)] = 1 - np.asarray(curve.accuracy)
    averaged = np.stack([error[name == k].mean(axis=0) for k in range(len(names))])
    families, ways = np.array([c.family for c in curves]), np.array([c.ways for c in curves])
    w = np.array([1 / (families[first] == family).sum() for family in families[first]])[:, None]
    design = np.stack([np.ones(len(curves)), np.log(ways)], axis=1)
    u = np.stack([logit_of(e, c) for e, c in zip(averaged, ways[first], strict=True)])
    mean = np.zeros((GRID, 2))
    for g in range(GRID):  # by steps: the curves that go far are not like those that end early
        step = u[:, g] - (u[:, g - 1] if g else 0)
        seen = np.isfinite(step)
        a = design[first][seen] * w[seen]
        step_mean = np.linalg.solve(a.T @ design[first][seen] + np.diag([1e-6, RIDGE]), a.T @ step[seen])
        mean[g] = step_mean + (mean[g - 1] if g else 0)
    each = np.stack([logit_of(e, c) for e, c in zip(error, ways, strict=True)])
    single = w[name] / np.bincount(name)[name][:, None]
    return mean, {True: _covariance(u - design[first] @ mean.T, w), False: _covariance(each - design @ mean.T, single)}


def _covariance(gap: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Of rows ``[n, G]`` of weight ``[n, 1]``, some of them cut short, and what is added to it."""
    there, gap = np.isfinite(gap), np.nan_to_num(gap)
    covariance = (gap * w).T @ gap / np.maximum((there * w).T @ there.astype(float), 1e-9)
    values, vectors = np.linalg.eigh(covariance)  # pairs from different curves need not fit together
    x = np.arange(GRID) - CENTRE
    out: np.ndarray = (vectors * np.maximum(values, 1e-4)) @ vectors.T + LEVEL + SLOPE * np.outer(x, x)
    return out


def _deviations(curve: Curve, seen: Seen, own: bool) -> list[float]:
    """How many standard deviations the truth is off, at two and four times the shots of each pilot."""
    truth = dict(zip(curve.shots, curve.accuracy, strict=True))
    found = []
    for pilot in (p for p in curve.pilots if p.own == own):
        ahead = [m for m in (2 * pilot.shots[-1], 4 * pilot.shots[-1]) if m in truth]
        if ahead:
            u, deviation = posterior(pilot, np.array(ahead), seen)
            true = logit_of(np.array([1 - truth[int(m)] for m in ahead]), curve.ways)
            found += ((true - u) / deviation).tolist()
    return found


def _tails(off: Sequence[tuple[np.ndarray, float]]) -> tuple[float, float]:
    """Weighted quantiles, each family weighing the same; the Gaussian's where there are no pilots of that kind."""
    if not off:
        return -1.645, 1.645
    z, w = np.concatenate([d for d, _ in off]), np.concatenate([np.full(len(d), s) for d, s in off])
    order = np.argsort(z)
    at = (np.cumsum(w[order]) - w[order] / 2) / w.sum()
    low, high = np.interp([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], at, z[order])
    return float(min(low, 0)), float(max(high, 0))
