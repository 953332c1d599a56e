"""What counts prove: a share is at least so much, however unlucky the draw (Clopper, Pearson 1934)."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from handful.core.intervals import at_least, at_most
from handful.errors import BadInput

MOST = 1 << 50
"""Further units beyond which nobody looks."""


@dataclass(frozen=True)
class Evidence:
    """Units, which are items or groups of items, some without any error.

    Attributes:
        units, clean: how many there are, and how many are without an error.
        items, clean_items, right_items: items in all units, in clean ones, and those that are right.
        squares: sum over units of the square of their number of items.
    """

    units: int
    clean: int
    items: float
    clean_items: float
    right_items: float
    squares: float

    @classmethod
    def of(cls, right: np.ndarray, groups: np.ndarray | None = None) -> Evidence:
        """Of items that are ``right [n]`` or not, in ``groups [n]`` (0, 1, …) or each for itself."""
        groups = np.arange(len(right)) if groups is None else groups
        size, good = np.bincount(groups), np.bincount(groups, right)
        clean = good == size
        sums = size.sum(), size[clean].sum(), good.sum(), size @ size
        return cls(len(size), int(clean.sum()), *map(float, sums))

    def and_clean(self, more: int) -> Evidence:
        """Beside ``more`` units without an error, of the mean size."""
        size = self.items / self.units if self.units else 1.0
        items = more * size
        return Evidence(
            self.units + more,
            self.clean + more,
            self.items + items,
            self.clean_items + items,
            self.right_items + items,
            self.squares + items * size,
        )

    def at_least(self, confidence: float) -> float:
        """What the share of right items is at least.

        A unit with any error counts as an error. Units of unequal size count as the number of equal ones they are
        worth, and the share of clean ones is the lower of two, by units and by items: units alone hide that the large
        ones err, items alone that many small ones do.
        """
        if not self.units:
            return 0.0
        n = self.items**2 / self.squares
        return at_least(n * min(self.clean / self.units, self.clean_items / self.items), n, confidence)

    def disproves(self, limit: float, confidence: float) -> bool:
        """Whether the share of right items, with the benefit of the doubt, is below ``limit``."""
        if not self.units:
            return False
        n = self.items**2 / self.squares
        return at_most(n * min(1.0, self.right_items / self.items), n, confidence) < limit

    def needed(self, limit: float, confidence: float) -> int | None:
        """The least number of further units without an error that proves a share of at least ``limit``.

        ``None`` where it is disproved, and where no number does: nothing proves a share of 1.
        """

        def proved(more: int) -> bool:
            return self.and_clean(more).at_least(confidence) >= limit

        if proved(0):
            return 0
        if limit >= 1 or self.disproves(limit, confidence):
            return None
        enough = 1
        while not proved(enough):
            enough *= 2
            if enough > MOST:
                raise BadInput(f"a share of at least {limit!r} is too close to 1 to be proved by any number of items")
        return bisect.bisect_left(range(enough), True, key=proved)
