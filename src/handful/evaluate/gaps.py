"""Which groups a model serves worse than the others, told from those that only look so among many.

For each value g of a column, with the items of the other values as the rest:

    gap_g   accuracy of g - accuracy of the rest, with Newcombe's interval (`handful.core.intervals.difference`)
    p_g     Fisher's exact test of right and wrong in g and in the rest
    Holm (1979): p_(i) of the i-th smallest of G becomes  max_{j <= i} min(1, (G - j + 1) p_(j))

so that with 20 values, none of which differs, one is named at most 5 % of the time. Items that come in units (a
customer, a patient) count as many as they are worth (`handful.core.shares.Shares`), rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from handful.core.intervals import Estimate, difference
from handful.core.shares import Shares
from handful.errors import BadInput
from handful.evaluate.significance import LEVEL, holm

LEAST = 10
"""Items of a value below which it is not judged."""


@dataclass(frozen=True)
class Gap:
    """One value of the column: its accuracy, how much above the rest, and the p corrected for all values."""

    name: str
    n: int
    accuracy: Estimate
    gap: Estimate
    p: float

    @property
    def worse(self) -> bool:
        """Whether it is served worse than chance allows."""
        return self.p < LEVEL and self.gap.value < 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        estimates = {"accuracy": self.accuracy.as_dict(), "gap": self.gap.as_dict()}
        return {"name": self.name, "n": self.n, **estimates, "p": self.p, "worse": self.worse}


@dataclass(frozen=True)
class Gaps:
    """What `gaps` finds.

    Attributes:
        column: what the values are of.
        groups: one entry a value that is judged, the lowest accuracy first.
        small: values with too few items to judge, sorted.
    """

    column: str
    groups: tuple[Gap, ...]
    small: tuple[str, ...]

    @property
    def worse(self) -> tuple[Gap, ...]:
        """The values that are served worse than chance allows."""
        return tuple(group for group in self.groups if group.worse)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"column": self.column, "groups": [g.as_dict() for g in self.groups], "small": list(self.small)}


def gaps(
    right: Sequence[bool] | np.ndarray,
    values: Sequence[Any] | np.ndarray,
    *,
    column: str = "group",
    units: Sequence[Any] | np.ndarray | None = None,
    least: int = LEAST,
) -> Gaps:
    """Accuracy of each value of a column against that of all others.

    Args:
        right: whether each item was answered rightly ``[n]``.
        values: n values of the column.
        column: its name.
        units: n names; items of one are not independent.
        least: values with fewer items are not judged, but stay in the rest of the others.

    Raises:
        BadInput: shapes that do not fit, or fewer than two values.
    """
    hit, names = np.asarray(right, bool), np.asarray([str(value) for value in values])
    if hit.shape != names.shape or (units is not None and len(units) != len(names)):
        raise BadInput(f"{len(hit)} answers do not fit {len(names)} values of {column!r} and their units")
    found, codes = np.unique(names, return_inverse=True)
    if len(found) < 2:
        raise BadInput(f"column {column!r} has one value only; a gap needs at least two")
    share = Shares(None if units is None else np.unique(np.asarray(units), return_inverse=True)[1])
    counts = np.bincount(codes)
    judged = np.flatnonzero(counts >= least)
    rows = [(g, *_against(hit, codes == g, share)) for g in judged]
    corrected = holm([p for *_, p in rows])
    made = [
        Gap(str(found[g]), int(counts[g]), accuracy, gap, float(p))
        for (g, accuracy, gap, _), p in zip(rows, corrected, strict=True)
    ]
    small = tuple(str(name) for name in found[counts < least])
    return Gaps(column, tuple(sorted(made, key=lambda each: each.accuracy.value)), small)


def _against(hit: np.ndarray, inside: np.ndarray, share: Shares) -> tuple[Estimate, Estimate, float]:
    """Accuracy of the items ``inside [n]``, its difference to the rest, and p of that before correction."""
    here, there = share(hit, inside), share(hit, ~inside)
    cells = [_counts(estimate.value, share.worth(hit, part)) for estimate, part in ((here, inside), (there, ~inside))]
    return here, difference(here, there), float(stats.fisher_exact(cells).pvalue)


def _counts(value: float, items: float) -> tuple[int, int]:
    """Right and wrong among the whole items that a share rests on."""
    n = int(items + 1e-9)
    right = round(value * n)
    return right, n - right
