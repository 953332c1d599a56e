"""Shares of items, with intervals that know of groups and of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from handful.core.intervals import Estimate, wilson, worth
from handful.errors import BadInput


def checked_weights(weights: Sequence[float] | np.ndarray, n: int) -> np.ndarray:
    """Weights ``[n]`` with mean 1. Raises `BadInput` when they are none."""
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (n,):
        raise BadInput(f"{n} items do not fit weights of shape {weights.shape}")
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise BadInput(f"weight {int(bad.argmax())} is {weights[bad][0]}; weights are finite and not negative")
    if not weights.any():
        raise BadInput("nothing to judge: all weights are 0; none of these items occurs in the population")
    scaled: np.ndarray = weights * (n / weights.sum())
    return scaled


@dataclass(frozen=True)
class Shares:
    """The share of the items ``among [n]`` for which ``hit [n]`` holds as well.

    Args:
        units: integers ``[n]``, the group of each item; ``None`` when items stand for themselves.
        weights: ``[n]``, not negative; ``None`` when all count the same. Where all items of a share weigh the same,
            even if nothing at all, they count as if they had no weights.
        each: how many independent items one is worth, where they share an error besides: the model that judged them.
    """

    units: np.ndarray | None = None
    weights: np.ndarray | None = None
    each: float = 1.0

    def __call__(self, hit: np.ndarray, among: np.ndarray) -> Estimate:
        """The share with its 95 % interval: Wilson's, for as many items as they are worth."""
        if self.weights is None and self.units is None and self.each == 1:
            return wilson(int((hit & among).sum()), int(among.sum()))
        right, n = self._sums(hit, among, self._unequal(among))
        items, p = self.worth(hit, among), min(1.0, float(right.sum()) / float(n.sum()))
        return replace(wilson(p * items, items), value=p)

    def any(self, among: np.ndarray) -> bool:
        """Whether any of these items counts."""
        return bool((among if self.weights is None else self.weights[among]).any())

    def worth(self, hit: np.ndarray, among: np.ndarray) -> float:
        """How many independent items of equal weight the share rests on."""
        weights = self._unequal(among)
        if weights is None and self.units is None:
            return self.each * float(among.sum())
        return self.each * worth(*self._sums(hit, among, weights), weights=weights)

    def _unequal(self, among: np.ndarray) -> np.ndarray | None:
        """Weights of the items among which the share is taken, if they differ."""
        if self.weights is None:
            return None
        held: np.ndarray = self.weights[among]
        return held if np.ptp(held) > 1e-9 * held.max() else None

    def _sums(
        self, hit: np.ndarray, among: np.ndarray, weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """By group ``[G]``: how many items (how much weight) are hit, and how many there are."""
        units = np.arange(int(among.sum())) if self.units is None else self.units[among]
        weights = np.ones(len(units)) if weights is None else weights
        return np.bincount(units, weights * hit[among]), np.bincount(units, weights)
