"""How good answers are: every metric with an interval, the classes that suffer, and what they are taken for.

Shares of items (accuracy, precision, recall, cells of the confusion matrix) have Wilson intervals. F1 has one too: it
is 2 J / (1 + J) of the share J = TP / (TP + FP + FN). Balanced accuracy, macro-F1, log loss and calibration error are
functions of sums over items and are resampled, 1,000 times; log loss, which few errors rule, by the bootstrap-t. With
groups, whole groups are resampled, and a share counts as many items as the groups are worth
(`handful.core.intervals.worth`).

With weights, every metric is the one of a stream in which items like each come as often as it weighs: sums over items
become sums of weights, and a share counts as many items as the weights are worth. Counts stay counts.

The expected calibration error (Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017) is taken over bins of equal mass, at
least 20 items each and at most 15 bins: bins of equal width leave most of few-shot test sets in one bin and noise in
the others. Noise alone makes it positive, so its interval is mirrored (`handful.core.intervals.reflected`), and reaches
down to 0 where noise alone would make as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from handful.core.intervals import Estimate, no_narrower, percentiles, reflected, resample, skewed_mean
from handful.core.shares import Shares, checked_weights
from handful.errors import BadInput
from handful.evaluate.assessment import Assessment, Bin, ClassScore, Confused

BINS, BIN_ITEMS = 15, 20
REPLICATES = 1000


def assess(
    labels: Sequence[str] | np.ndarray,
    proba: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[Any] | np.ndarray | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Assessment:
    """Judge answers to n items.

    Args:
        labels: the n true classes.
        proba: probabilities ``[n, C]``; the answer is the largest, the first of equals.
        classes: the C classes, as the columns of ``proba``.
        groups: n group names; items of a group are not independent, and the intervals know it.
        weights: n numbers, not negative: how often items like each come in the population the metrics are to speak of,
            over how often they come here (`handful.evaluate.population.Population.item_weights`). ``None``: as here.
        seed: of the resampling.

    Raises:
        BadInput: no items, shapes that do not fit, a label that is no class, rows that are not probabilities, or
            weights that are negative, not finite or nothing but 0.
    """
    true, proba, units = _checked(labels, proba, classes, groups)
    n, c = proba.shape
    predicted = proba.argmax(axis=1)
    weight = None if weights is None else checked_weights(weights, n)
    share = Shares(units, weight)
    confidence, right = proba.max(axis=1), true == predicted
    loss = -np.log(np.clip(proba[np.arange(n), true], np.finfo(float).eps, 1.0))
    bins = _bins(confidence)
    rows = sparse.hstack(
        [
            _one_hot(true, c),
            _one_hot(predicted, c),
            _one_hot(true, c, right),
            _one_hot(bins, int(bins.max()) + 1, confidence - right),
        ],
        format="csr",
    )
    values, drawn = _resampled(rows, c, units, weight, seed)
    everything = np.ones(n, bool)
    least = share.worth(right, everything)
    confusion = np.zeros((c, c), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    names = [str(name) for name in classes]
    return Assessment(
        n=n,
        groups=None if units is None else int(units.max()) + 1,
        classes=tuple(names),
        accuracy=share(right, everything),
        balanced_accuracy=no_narrower(
            percentiles(float(values[0]), drawn[:, 0]), Shares(units).worth(right, everything)
        ),
        macro_f1=no_narrower(percentiles(float(values[1]), drawn[:, 1]), least),
        log_loss=_mean_loss(loss, units, weight, seed),
        calibration_error=_calibration_error(values[2:], drawn[:, 2:]),
        per_class=tuple(_score(name, true == i, predicted == i, share) for i, name in enumerate(names)),
        confusion=confusion,
        confused=_confused(confusion, true, predicted, names, share),
        reliability=tuple(_bin(bins == b, confidence, right, share) for b in range(int(bins.max()) + 1)),
    )


def _checked(
    labels: Sequence[str] | np.ndarray,
    proba: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[Any] | np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Class of each item ``[n]``, probabilities ``[n, C]`` as float64, group of each item ``[n]``."""
    proba, position = np.asarray(proba, dtype=float), {name: i for i, name in enumerate(classes)}
    n = len(labels)
    if not n:
        raise BadInput("nothing to judge: no items")
    if proba.shape != (n, len(classes)) or len(position) != len(classes):
        different = f"{len(classes)} classes, {len(position)} of them different,"
        raise BadInput(f"{n} labels and {different} do not fit probabilities of shape {proba.shape}")
    unknown = next((label for label in labels if label not in position), None)
    if unknown is not None:
        raise BadInput(f"label {str(unknown)!r} is none of the {len(classes)} classes")
    bad = ~(np.isfinite(proba).all(axis=1) & (proba >= 0).all(axis=1) & (np.abs(proba.sum(axis=1) - 1) < 1e-3))
    if bad.any():
        raise BadInput(f"row {int(bad.argmax())} does not hold probabilities: they are not negative and add up to 1")
    if groups is not None and len(groups) != n:
        raise BadInput(f"{n} labels but {len(groups)} groups")
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return np.array([position[label] for label in labels]), proba, units


def _one_hot(codes: np.ndarray, width: int, values: np.ndarray | None = None) -> sparse.csr_array:
    """``[n, width]``, ``values [n]`` (1 by default) at ``codes [n]``."""
    n = len(codes)
    values = np.ones(n) if values is None else values.astype(float)
    return sparse.csr_array((values, (np.arange(n), codes)), shape=(n, width))


def _resampled(
    rows: sparse.csr_array, c: int, units: np.ndarray | None, weight: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`_metrics` of these items and their replicates ``[R, 2 + bins]``, from what each item adds to the sums."""
    if weight is not None:  # items that weigh nothing are not drawn: a replicate of nothing else would have no value
        counts = weight > 0
        rows, units = rows.multiply(weight[:, None]).tocsr()[counts], None if units is None else units[counts]
    values = _metrics(np.asarray(rows.sum(axis=0))[None], c)[0]
    return values, resample(rows, lambda totals: _metrics(totals, c), groups=units, replicates=REPLICATES, seed=seed)


def _metrics(totals: np.ndarray, c: int) -> np.ndarray:
    """Balanced accuracy, macro-F1 and the gap of each bin ``[R, 2 + bins]`` from sums over items ``[R, 3 C + bins]``.

    The gap of a bin is its share of the items times (mean confidence - accuracy).
    """
    true, predicted, right, gaps = np.split(totals, [c, 2 * c, 3 * c], axis=1)
    n = true.sum(axis=1)
    balanced = _mean_ratio(right, true)
    f1 = _mean_ratio(2 * right, true + predicted)
    return np.column_stack([balanced, f1, gaps / n[:, None]])


def _mean_ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Mean over classes ``[R]`` of ``top / bottom [R, C]`` where ``bottom`` is not zero."""
    mean: np.ndarray = (top / np.where(bottom > 0, bottom, 1)).sum(axis=1) / (bottom > 0).sum(axis=1)
    return mean


def _mean_loss(loss: np.ndarray, units: np.ndarray | None, weight: np.ndarray | None, seed: int) -> Estimate:
    units = np.arange(len(loss)) if units is None else units
    if weight is None:
        return skewed_mean(np.bincount(units, loss), np.bincount(units), replicates=REPLICATES, seed=seed)
    total, n = np.bincount(units, weight * loss), np.bincount(units, weight)
    return skewed_mean(total[n > 0], n[n > 0], replicates=REPLICATES, seed=seed)


def _calibration_error(gaps: np.ndarray, drawn: np.ndarray) -> Estimate:
    """Sum of absolute ``gaps [bins]``, with their replicates ``[R, bins]``."""
    estimate = reflected(float(np.abs(gaps).sum()), np.abs(drawn).sum(axis=1))
    noise = np.quantile(np.abs(drawn - gaps).sum(axis=1), 0.975)
    return replace(estimate, low=0.0) if estimate.value <= noise else estimate


def _score(name: str, true: np.ndarray, predicted: np.ndarray, share: Shares) -> ClassScore:
    jaccard = share(true & predicted, true | predicted) if share.any(true | predicted) else None
    return ClassScore(
        name=name,
        n=int(true.sum()),
        precision=share(true, predicted) if share.any(predicted) else None,
        recall=share(predicted, true) if true.any() else None,
        f1=None if jaccard is None else Estimate(*map(_f1, (jaccard.value, jaccard.low, jaccard.high))),
    )


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _confused(
    confusion: np.ndarray, true: np.ndarray, predicted: np.ndarray, names: Sequence[str], share: Shares
) -> tuple[Confused, ...]:
    cells = [(int(i), int(j)) for i, j in np.argwhere(confusion) if i != j]
    cells.sort(key=lambda cell: -confusion[cell])
    return tuple(Confused(names[i], names[j], int(confusion[i, j]), share(predicted == j, true == i)) for i, j in cells)


def _bins(confidence: np.ndarray) -> np.ndarray:
    """Bin of each item ``[n]``, 0, 1, …: equal mass, equal confidences together."""
    count = int(np.clip(len(confidence) // BIN_ITEMS, 1, BINS))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    return np.unique(np.searchsorted(edges, confidence, side="left"), return_inverse=True)[1]


def _bin(inside: np.ndarray, confidence: np.ndarray, right: np.ndarray, share: Shares) -> Bin:
    held = confidence[inside]
    low, high = float(held.min()), float(held.max())
    weights = share.weights[inside] if share.weights is not None and share.any(inside) else None
    return Bin(low, high, int(inside.sum()), float(np.average(held, weights=weights)), share(right, inside))
