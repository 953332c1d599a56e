"""How errors fall with examples: power laws, in logarithms. Pure functions of arrays; `forecast` says what to trust.

PPL-forecast (069): Jain et al., "A Meta-Learning Approach to Predicting Performance and Data Requirements", 2023

    x = log n, y = log error
    power law        y = theta_0 + theta_1 x                               least squares on logarithms
    with an offset   error = exp(theta_0) n^theta_1 + c                    nonlinear: c >= 0, theta_1 <= 0
    piecewise        y = theta_0 + theta_1 x + theta_2 g(x)
                     g(x) = x^2 up to the knee X = log N*, its tangent 2 X x - X^2 beyond

For a given X the piecewise law is linear in theta; value and slope are continuous, and theta_2 = 0 is the power law.
The final slope, theta_1 + 2 theta_2 X, is at most 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np

from handful.adapt.parameters import finite, numbers
from handful.errors import BadInput

Kind = Literal["power", "offset", "piecewise"]
KINDS: tuple[Kind, ...] = ("power", "offset", "piecewise")
KNEES = 200
"""Knees tried between the second and the last size, before the best is refined."""
SHRINK = 0.618


@dataclass(frozen=True)
class Law:
    """An error curve, or as many as its arrays have leading dimensions ``*b``.

    Attributes:
        theta: ``[*b, 3]``.
        knee: X ``[*b]``; says nothing where ``theta_2`` is 0.
        offset: c ``[*b]``, what is left of the error with any number of examples.
    """

    theta: np.ndarray
    knee: np.ndarray
    offset: np.ndarray

    def log_error(self, n: np.ndarray | Sequence[float]) -> np.ndarray:
        """y at ``n [m]`` examples ``[*b, m]``."""
        x = np.log(np.asarray(n, float))
        power = (design(x, self.knee[..., None]) * self.theta[..., None, :]).sum(axis=-1)
        out: np.ndarray = np.where(
            self.offset[..., None] > 0, np.logaddexp(power, np.log(np.maximum(self.offset[..., None], 1e-300))), power
        )
        return out

    def accuracy(self, n: np.ndarray | Sequence[float]) -> np.ndarray:
        """``1 - error`` at ``n [m]`` examples ``[*b, m]``, not below 0."""
        out: np.ndarray = 1 - np.exp(np.minimum(self.log_error(n), 0.0))
        return out

    @property
    def final_slope(self) -> np.ndarray:
        """Slope of y in x beyond the knee ``[*b]``."""
        bend = np.where(self.theta[..., 2] == 0, 0.0, self.theta[..., 2] * self.knee)
        out: np.ndarray = self.theta[..., 1] + 2 * bend
        return out


def design(x: np.ndarray, knee: np.ndarray | float) -> np.ndarray:
    """``1, x, g(x)`` of sizes ``x [*b, m]`` ``[*b, m, 3]``."""
    bent = np.where(x <= knee, x**2, 2 * np.asarray(knee) * x - np.asarray(knee) ** 2)
    return np.stack([np.ones_like(bent), np.broadcast_to(x, bent.shape), bent], axis=-1)


def fit_law(
    n: Sequence[float] | np.ndarray,
    accuracy: Sequence[float] | np.ndarray,
    kind: Kind = "piecewise",
    *,
    weights: np.ndarray | None = None,
    knee: float | None = None,
) -> Law:
    """The law nearest to points in log error, in the sense of least squares.

    Args:
        n: numbers of examples ``[k]``, at least three different ones (for the piecewise law with a knee to be found,
            four).
        accuracy: at each ``[k]``, at least 0 and below 1.
        kind: which law.
        weights: of the points ``[k]``; by default equal.
        knee: X, where it is known; by default the best between the second and the last size.

    Raises:
        BadInput: points that are too few, or no sizes and shares.
    """
    x, y = checked(n, accuracy)
    w = np.ones(len(x)) if weights is None else numbers("weights", weights)
    if w.shape != x.shape or not (np.isfinite(w) & (w >= 0)).all() or not w.any():
        raise BadInput(f"weights {w.shape} of {len(x)} points are numbers of at least 0, one for each, not all 0")
    if kind == "power":
        return _law(_least_squares(design(x, 0.0)[:, :2], y, w))
    if kind == "offset":
        return _with_offset(x, y, w)
    if kind != "piecewise":
        raise BadInput(f"unknown law {kind!r}; there are: {', '.join(KINDS)}")
    if knee is not None:
        return _law(bent(x, y, w, finite("knee", knee))[0], knee)
    if len(np.unique(x)) < 4:
        raise BadInput(f"a knee is found from 4 different sizes or more, not {len(np.unique(x))}; give it")
    return _law(*_best_knee(x, y, w))


def required(law: Law, accuracy: float, most: float = 1e9) -> float:
    """The fewest examples for which one law reaches ``accuracy``; infinite where it does not within ``most``, or where
    errors grow with examples.

    Raises:
        BadInput: ``accuracy`` is not between 0 and 1.
    """
    checked_target(accuracy)
    if float(law.final_slope) > 0:
        return math.inf
    grid = np.geomspace(1.0, most, 4001)
    reached = law.accuracy(grid) >= accuracy
    if not reached.any():
        return math.inf
    first = int(np.argmax(reached))
    if first == 0:
        return 1.0
    low, high = float(grid[first - 1]), float(grid[first])
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if float(law.accuracy(np.array([middle]))[0]) >= accuracy else (middle, high)
    return high


def checked(n: Sequence[float] | np.ndarray, accuracy: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of points ``[k]``. Raises `BadInput` for what are no sizes and shares, or fewer than three sizes."""
    size, share = numbers("sizes", n), numbers("accuracies", accuracy)
    if size.shape != share.shape or size.ndim != 1:
        raise BadInput(f"sizes {size.shape} and accuracies {share.shape} are not two lists of one length")
    if not (np.isfinite(size) & (size > 0)).all():
        raise BadInput("sizes are numbers above 0")
    if (share > 1).any() and (share <= 100).all():
        raise BadInput(f"accuracies are shares between 0 and 1, not percent: {share.max():g} is above 1")
    if not ((share >= 0) & (share < 1)).all():
        raise BadInput("accuracies are at least 0 and below 1: no power law has an error of 0")
    if len(np.unique(size)) < 3:
        raise BadInput(f"a curve needs at least 3 different sizes, not {len(np.unique(size))}")
    return np.log(size), np.log(1 - share)


def checked_target(target: float) -> None:
    """Raises `BadInput` for an accuracy to reach that is not between 0 and 1."""
    if not isinstance(target, Real) or not 0 < target < 1:
        raise BadInput(f"a target is an accuracy between 0 and 1, not {target}")


def bent(x: np.ndarray, y: np.ndarray, w: np.ndarray, knee: float) -> tuple[np.ndarray, float]:
    """theta ``[3]`` for one knee, and what is left of the weighted squares; the final slope is at most 0."""
    a = design(x, knee)
    theta = _least_squares(a, y, w)
    if theta[1] + 2 * theta[2] * knee > 0:  # flat beyond the knee: theta_1 = -2 theta_2 X
        flat = _least_squares(np.stack([a[:, 0], a[:, 2] - 2 * knee * x], axis=1), y, w)
        theta = np.array([flat[0], -2 * knee * flat[1], flat[1]])
    return theta, float((w * (a @ theta - y) ** 2).sum())


def _best_knee(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, float]:
    sizes = np.unique(x)
    grid = np.linspace(sizes[1], sizes[-1], KNEES)
    left = np.array([bent(x, y, w, float(knee))[1] for knee in grid])
    best = int(left.argmin())
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, KNEES - 1)])
    for _ in range(60):  # golden section
        a, b = high - SHRINK * (high - low), low + SHRINK * (high - low)
        low, high = (low, b) if bent(x, y, w, a)[1] <= bent(x, y, w, b)[1] else (a, high)
    knee = (low + high) / 2
    return bent(x, y, w, knee)[0], knee


def _with_offset(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> Law:
    """From the power law of the points, the offset growing from a part of the smallest error."""
    from scipy.optimize import least_squares

    root, line = np.sqrt(w), _least_squares(design(x, 0.0)[:, :2], y, w)

    def left(p: np.ndarray) -> np.ndarray:
        gap: np.ndarray = root * (np.logaddexp(p[0] + p[1] * x, np.log(max(p[2], 1e-300))) - y)
        return gap

    most = float(np.exp(y.min()))
    starts = [np.array([line[0], min(line[1], -1e-3), part * most]) for part in (0.02, 0.5, 0.9)]
    found = [least_squares(left, s, bounds=([-np.inf, -np.inf, 0.0], [np.inf, 0.0, 1.0])) for s in starts]
    best = min(found, key=lambda f: float(f.cost)).x
    return Law(np.array([best[0], best[1], 0.0]), np.array(0.0), np.array(float(best[2])))


def _least_squares(a: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    root = np.sqrt(w)
    theta: np.ndarray = np.linalg.lstsq(a * root[:, None], y * root, rcond=None)[0]
    return theta


def _law(theta: np.ndarray, knee: float = 0.0) -> Law:
    full = np.zeros(3)
    full[: len(theta)] = theta
    return Law(full, np.array(float(knee)), np.array(0.0))
