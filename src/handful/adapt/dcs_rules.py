"""The rules of DCS (paper 179) and what choosing them is to minimise; the equations are in `handful.adapt.dcs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from handful.adapt.inputs import read_labels
from handful.errors import BadInput

SLOPES = (2, 4, 8)
TRIANGLES = sum(slope + 1 for slope in SLOPES)
SAMPLE_RULES = TRIANGLES + 2
"""Rules before the weights: the triangles, p and 1 - p."""


def corrected(p: np.ndarray, n_weights: int) -> np.ndarray:
    """What every rule makes of the probabilities ``p [...]``: ``[19 + n_weights, ...]``, all from 0 to 1."""
    triangles = [
        np.clip(1 - np.abs(slope * p - peak), 0, 1) for slope in SLOPES for peak in np.arange(slope + 1, dtype=float)
    ]
    weights = np.arange(1, n_weights + 1) / n_weights
    return np.concatenate([np.stack([*triangles, p, 1 - p]), np.multiply.outer(weights, p)])


def cobias(labels: Any, predicted: Any) -> float:
    """Mean absolute gap between the accuracies of two classes, over all pairs of the classes in ``labels [n]``.

    Raises:
        BadInput: lengths that differ, one class only.
    """
    y = read_labels(labels, len(labels))
    answers = read_labels(predicted, len(y))
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadInput("one class only: a gap between classes needs two")
    return float(mean_gap(np.bincount(codes, answers == y) / np.bincount(codes)))


def objective(
    right: np.ndarray, given: np.ndarray, size: np.ndarray, *, alpha: float, beta: float, tau: float, smoothing: float
) -> np.ndarray:
    """``z`` ``[...]`` from the right answers ``TP``, all answers ``given`` and the examples ``size`` of each class.

    Args:
        right: ``[..., C]``.
        given: ``[..., C]``.
        size: ``[C]``, none of them 0.
        alpha: of the errors.
        beta: of the gap between classes.
        tau: of the mutual information.
        smoothing: k.
    """
    n, c, k = size.sum(), size.shape[-1], smoothing
    information = np.log((right + k) / (n + k * c * c)) - np.log((given + k) * (size + k) / (n + k * c) ** 2)
    z: np.ndarray = alpha * (n - right.sum(-1)) + beta * n * mean_gap(right / size) - tau * n * information.sum(-1)
    return z


def apply(rules: np.ndarray, p: np.ndarray, n_weights: int) -> np.ndarray:
    """``p [n, C]`` after the ``rules [C]``; a row that they make 0 stays as it was."""
    values = corrected(p.T, n_weights)[rules, np.arange(len(rules))]
    return or_given(values, p.T).T


def or_given(values: np.ndarray, p: np.ndarray) -> np.ndarray:
    """``values [C, n]``; ``p`` where all of them are 0."""
    return np.where(values.any(0), values, p)


def mean_gap(share: np.ndarray) -> np.ndarray:
    """Mean over pairs of classes ``[...]`` of the gap between their ``share [..., C]``: a sum over the sorted ones."""
    c = share.shape[-1]
    if c < 2:
        return np.zeros(share.shape[:-1])
    gap: np.ndarray = np.sort(share, -1) @ (2.0 * np.arange(c) - c + 1) / (c * (c - 1) / 2)
    return gap


def in_words(rule: int, n_weights: int) -> tuple[str, str]:
    """Whether the rule acts on the ``class`` or on the ``sample``, and what it does."""
    if rule >= SAMPLE_RULES:
        weight = (rule - SAMPLE_RULES + 1) / n_weights
        return "class", "unchanged" if weight == 1 else f"times {weight:.3g}"
    if rule >= TRIANGLES:
        return "sample", ("unchanged", "1 - p")[rule - TRIANGLES]
    slope, peak = [(slope, peak) for slope in SLOPES for peak in range(slope + 1)][rule]
    low, high = max(peak - 1, 0) / slope, min(peak + 1, slope) / slope
    return "sample", f"1 at p = {peak / slope:g}, falling to 0 outside {low:g} to {high:g}"
