"""What limits a classifier on features made elsewhere: the domain, its size, or the number of examples?

Paper 125: Liu et al., "Few-shot Adaptation of Multi-modal Foundation Models: A Survey", 2024.

    target error <= error on the n = k C examples + gap + sqrt((|theta| log n + log(1 / delta)) / n)

gap is d_A / 2 = 1 - 2 err of a classifier that tells reference features from target features (Ben-David et al. 2007),
also as MMD^2 with a Gaussian kernel (Gretton et al. 2012). With |theta| above n the last term says nothing in numbers;
what counts is which of the three is the largest, and what makes it smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from handful.errors import BadInput

DELTA = 0.05
FOLDS = 5
FEWEST = 20
LARGE_GAP = 1.0
"""A-distance above which reference and target are two worlds: half of the items can be told apart for sure."""
FEW = 5
"""Examples a class below which more knowledge is worth more than a better fit."""


def a_distance(reference: Any, target: Any, *, folds: int = FOLDS, seed: int = 0) -> float:
    """Proxy A-distance ``2 (1 - 2 err)``, from 0 (alike) to 2 (told apart without an error).

    err is that of logistic regression on standardised features, out of fold, both sides equally heavy.

    Args:
        reference, target: features ``[r, d]`` and ``[t, d]``.

    Raises:
        BadInput: fewer than 20 items on a side, widths that differ, or items that are all the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    a, b = _both(reference, target)
    x, y = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1, class_weight="balanced"))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    wrong = cross_val_predict(model, x, y, cv=splits) != y
    error = (wrong[y == 0].mean() + wrong[y == 1].mean()) / 2
    return float(np.clip(2 * (1 - 2 * error), 0.0, 2.0))


def mmd2(reference: Any, target: Any, width: float | None = None) -> float:
    """Unbiased MMD^2 with ``exp(-|x - y|^2 / (2 width^2))``; around 0 for two samples of one distribution.

    Args:
        width: of the kernel; by default the median distance between two items.

    Raises:
        BadInput: as `a_distance`.
    """
    a, b = _both(reference, target)
    x = np.concatenate([a, b])
    square = np.square(x).sum(axis=1)
    d2 = np.maximum(square[:, None] + square - 2 * x @ x.T, 0.0)
    if width is None:
        width = float(np.sqrt(np.median(d2[np.triu_indices(len(x), 1)])))
    if not width > 0:
        raise BadInput(f"the width of the kernel must be above 0, not {width}")
    k, m, n = np.exp(-d2 / (2 * width**2)), len(a), len(b)
    within_a = (k[:m, :m].sum() - m) / (m * (m - 1))
    within_b = (k[m:, m:].sum() - n) / (n * (n - 1))
    return float(within_a + within_b - 2 * k[:m, m:].mean())


def modality_gap(images: Any, texts: Any) -> float:
    """Distance between the mean unit image feature and the mean unit text feature ``[n, d]``, ``[m, d]``."""
    means = []
    for rows in (images, texts):
        rows = np.asarray(rows, dtype=float)
        if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
            raise BadInput(f"features are finite arrays [n, d], not {rows.shape}")
        means.append((rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).mean(axis=0))
    if means[0].shape != means[1].shape:
        raise BadInput(f"images of width {len(means[0])} and texts of width {len(means[1])} share no space")
    return float(np.linalg.norm(means[0] - means[1]))


def stable_rank(update: Any) -> float:
    """``|U|_F^2 / |U|_2^2`` of a weight update ``[p, q]``: over how many directions it spreads."""
    values = np.linalg.svd(np.asarray(update, dtype=float), compute_uv=False)
    if not values.size or values[0] <= 0:
        raise BadInput("an update of zeros has no rank")
    return float(np.square(values).sum() / values[0] ** 2)


def sample_term(parameters: int, n: int, delta: float = DELTA) -> float:
    """``sqrt((|theta| log n + log(1 / delta)) / n)``.

    Raises:
        BadInput: negative parameters, fewer than two examples, a delta that is no probability.
    """
    if parameters < 0 or n < 2 or not 0 < delta < 1:
        raise BadInput(f"needs parameters >= 0, n >= 2, 0 < delta < 1, not {parameters}, {n}, {delta}")
    return math.sqrt((parameters * math.log(n) + math.log(1 / delta)) / n)


def bound(error: float, gap: float, parameters: int, n: int, delta: float = DELTA) -> float:
    """The bound on the target error; above 1 it says nothing.

    Args:
        error: on the examples learnt from, 0 to 1.
        gap: proxy A-distance, 0 to 2.
    """
    if not 0 <= error <= 1 or not 0 <= gap <= 2:
        raise BadInput(f"an error is from 0 to 1 and an A-distance from 0 to 2, not {error} and {gap}")
    return error + gap / 2 + sample_term(parameters, n, delta)


Limit = Literal["gap", "capacity", "samples"]
ADVICE: dict[str, str] = {
    "gap": "the features were made for other data: change the encoder (tune), or take one closer to the data",
    "capacity": "far more parameters than examples: take a smaller method (prototypes, class text, closed forms)",
    "samples": "few examples: add knowledge (class names, descriptions, unlabelled items), or label more",
}


@dataclass(frozen=True)
class Limits:
    """What limits a classifier.

    Attributes:
        gap: A-distance between reference and target; ``None`` without a reference.
        mmd2: the same as MMD^2.
        parameters: trained.
        n: labelled examples, of ``classes`` classes.
        term: the sample term of the bound.
        bound: on the target error, where the error on the examples and the gap are known.
        limits: which of gap, capacity and samples hold it back, the strongest first.
        reasons: the same in words.
    """

    gap: float | None
    mmd2: float | None
    parameters: int
    n: int
    classes: int
    term: float
    bound: float | None
    limits: tuple[Limit, ...]
    reasons: tuple[str, ...]


def diagnose(
    support: Any,
    labels: Any,
    *,
    parameters: int,
    unlabelled: Any = None,
    reference: Any = None,
    error: float | None = None,
    delta: float = DELTA,
    seed: int = 0,
) -> Limits:
    """Name what limits a method with that many trained parameters on these examples.

    Args:
        support, labels: features ``[n, d]`` and classes ``[n]`` of the examples.
        parameters: how many the method trains.
        unlabelled: more features of the target ``[u, d]``, for the gap.
        reference: features ``[r, d]`` of data like those the encoder was made on; without it there is no gap.
        error: of the method on the examples.

    Raises:
        BadInput: one class only, features that are not finite, or too few items for the gap.
    """
    support, labels = np.asarray(support, dtype=float), np.asarray(labels)
    if support.ndim != 2 or len(support) != len(labels):
        raise BadInput(f"features {support.shape} and {len(labels)} labels do not fit")
    if not np.isfinite(support).all():
        raise BadInput("features must be finite")
    classes = len(np.unique(labels))
    if classes < 2:
        raise BadInput("one class only: at least two classes with examples are needed")
    gap = square = None
    if reference is not None:
        target = support if unlabelled is None else np.concatenate([support, np.asarray(unlabelled, dtype=float)])
        gap, square = a_distance(reference, target, seed=seed), mmd2(reference, target)
    n, term = len(labels), sample_term(parameters, len(labels), delta)
    strength: dict[Limit, float] = {
        "gap": 0.0 if gap is None else gap / LARGE_GAP,
        "capacity": math.log1p(parameters / n) / math.log(2) if parameters > n else 0.0,
        "samples": FEW * classes / n if n < FEW * classes else 0.0,
    }
    order = tuple(sorted((k for k, v in strength.items() if v >= 1), key=lambda k: -strength[k]))
    total = None if gap is None or error is None else bound(error, gap, parameters, n, delta)
    return Limits(gap, square, parameters, n, classes, term, total, order, tuple(ADVICE[k] for k in order))


def _both(reference: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(x, dtype=float) for x in (reference, target))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise BadInput(f"reference and target are features of one width, not {a.shape} and {b.shape}")
    if min(len(a), len(b)) < FEWEST:
        raise BadInput(f"the gap needs {FEWEST} items on each side, not {len(a)} and {len(b)}")
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        raise BadInput("features must be finite")
    if np.ptp(np.concatenate([a, b]), axis=0).max() == 0:
        raise BadInput("all items are the same: there is nothing to compare")
    return a, b
