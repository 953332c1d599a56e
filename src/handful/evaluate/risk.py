"""What keeps a classifier from the best one: too small a family, or too few examples?

Paper 038: Wang et al., "Generalizing from a Few Examples: A Survey on Few-Shot Learning", 2019.

    E[R(h_I) - R(h^)] = (R(h*) - R(h^)) + E[R(h_I) - R(h*)]
                         approximation      estimation

h^ is the best of all functions, h* the best of the family, h_I what the family makes of I examples. R(h*) is estimated
by a fit on all the data, R(h^) is the Bayes risk, 0 unless it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from handful.core.intervals import Estimate, mean_interval
from handful.errors import BadInput
from handful.evaluate.indices import places

SIZES = (1, 2, 5, 10, 20, 50)


class Risk(NamedTuple):
    """Risks at one size: ``size`` is items a class, or items where the target is a number."""

    size: int
    approximation: float
    estimation: Estimate


def zero_one(y: np.ndarray, predicted: np.ndarray) -> float:
    """Share of wrong answers."""
    return float(np.mean(y != predicted))


def squared(y: np.ndarray, predicted: np.ndarray) -> float:
    """Mean squared error."""
    return float(np.mean(np.square(y - predicted)))


def risk_decomposition(
    make_estimator: Callable[[], Any],
    X: Any,
    y: Any,
    sizes: Sequence[int] = SIZES,
    n_repeats: int = 20,
    *,
    seed: int = 0,
    loss: Callable[[np.ndarray, np.ndarray], float] = zero_one,
    bayes: float = 0.0,
    by_class: bool = True,
) -> list[Risk]:
    """Approximation and estimation error of a family at several sizes, judged on all items.

    Args:
        make_estimator: makes an unfitted estimator with ``fit`` and ``predict``.
        X: features ``[n, d]``.
        y: classes ``[n]``, or numbers with ``by_class=False``.
        sizes: items a class to learn from (items in all with ``by_class=False``).
        n_repeats: draws at each size.
        seed: of the draws.
        loss: of true and predicted values.
        bayes: R(h^), where it is known.

    Raises:
        BadInput: fewer than two classes, a size larger than a class (than the data), fewer than two repeats.
    """
    X, y = np.asarray(X), np.asarray(y)
    if len(X) != len(y) or not len(y):
        raise BadInput(f"{len(X)} rows of features but {len(y)} labels")
    codes = np.unique(y, return_inverse=True)[1] if by_class else np.zeros(len(y), dtype=int)
    counts = np.bincount(codes)
    if by_class and len(counts) < 2:
        raise BadInput("one class only: there is nothing to tell apart")
    if not sizes or min(sizes) < 1 or max(sizes) > counts.min():
        raise BadInput(f"sizes go from 1 to {counts.min()}, what the smallest class has, not {list(sizes)}")
    if n_repeats < 2:
        raise BadInput(f"at least two repeats are needed to tell how risks vary, not {n_repeats}")
    best = loss(y, make_estimator().fit(X, y).predict(X))
    rng, found = np.random.default_rng(seed), []
    for size in sizes:
        risks = []
        for _ in range(n_repeats):
            rows = np.flatnonzero(places(codes, rng.random(len(y))) < size)
            risks.append(loss(y, make_estimator().fit(X[rows], y[rows]).predict(X)) - best)
        found.append(Risk(int(size), best - bayes, mean_interval(risks)))
    return found
