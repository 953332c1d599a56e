"""Answers from the surest to the least sure: from which confidence on is a precision reached?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST = 2.0
"""Of the logarithm of the power that `sharpened` tries."""


@dataclass(frozen=True)
class Answers:
    """Confidence, whether right, group and weight of each item ``[n]``."""

    confidence: np.ndarray
    right: np.ndarray
    units: np.ndarray
    weight: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Positions of the items, the surest first."""
        return np.argsort(-self.confidence, kind="stable")

    def take(self, rows: np.ndarray) -> Answers:
        """Some of the items."""
        return Answers(self.confidence[rows], self.right[rows], self.units[rows], self.weight[rows])

    def threshold(self, target: float) -> float | None:
        """The lowest confidence from which on the target is reached: half way to the next item below."""
        confidence = self.confidence[self.order]
        n, errors, one = self.sums()
        reached = errors + one <= (1 - target) * (n + one) + 1e-9
        reached[:-1] &= confidence[1:] < confidence[:-1]  # equals are answered together
        if not reached.any():
            return None
        last = int(np.flatnonzero(reached)[-1])
        if last == len(confidence) - 1:
            return 0.0
        half_way, below = float(confidence[last : last + 2].mean()), confidence[last + 1]
        return half_way if half_way > below else float(confidence[last])  # neighbouring floats have nothing in between

    def sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Over the items from the surest to each ``[n]``: weight, weight of errors, and the weight of one usual group.

        The last is the sum over groups of their squared weights, over the weight.
        """
        order = self.order
        weight, n = self.weight[order], np.cumsum(self.weight[order])
        by = np.argsort(self.units[order], kind="stable")  # group after group, the surest first within each
        units, w = self.units[order][by], weight[by]
        starts = np.flatnonzero(np.r_[True, units[1:] != units[:-1]])
        before = np.cumsum(w) - w
        before -= np.repeat(before[starts], np.diff(np.r_[starts, len(units)]))
        squares = np.empty_like(w)
        squares[by] = w * (2 * before + w)  # (before + w)^2 - before^2
        one = np.divide(np.cumsum(squares), n, out=np.ones_like(n), where=n > 0)
        return n, np.cumsum(weight * ~self.right[order]), one


def sharpened(proba: np.ndarray, confidence: float, weight: np.ndarray) -> np.ndarray:
    """``proba [n, C]`` to the power that gives the largest ones the mean ``confidence``, items weighted.

    A model that learnt from more examples than the one behind these probabilities is surer, and right more often.
    """
    logits = np.log(np.maximum(proba, np.finfo(float).tiny))
    logits -= logits.max(axis=1, keepdims=True)

    def powered(log_power: float) -> np.ndarray:
        p = np.exp(np.exp(log_power) * logits)
        out: np.ndarray = p / p.sum(axis=1, keepdims=True)
        return out

    low, high = -LARGEST, LARGEST
    for _ in range(40):
        middle = (low + high) / 2
        surer = np.average(powered(middle).max(axis=1), weights=weight) > confidence
        low, high = (low, middle) if surer else (middle, high)
    return powered((low + high) / 2)
