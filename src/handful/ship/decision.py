"""From logits to an answer: one label or several, the population it is for, what mistakes cost, when none is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from handful.read.labels import LabelSets


@dataclass(frozen=True)
class Decision:
    """How a model decides.

    Args:
        shift: what is added to the C logits: log of each class's share in the population over its share among the
            examples learnt from. ``None``: they are the same.
        threshold: the least confidence with which a label is given; ``None``: always.
        costs: what an item of class i costs that is answered as j ``[C, C]``; ``None``: every mistake the same.
        sets: how several labels an item are written; ``None``: an item has one.
    """

    shift: tuple[float, ...] | None = None
    threshold: float | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    sets: LabelSets | None = None

    def proba(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities ``[n, C]`` in the population: softmax of ``logits [n, C]`` and the shift; of several labels an
        item the sigmoid, each label by itself."""
        logits = np.asarray(logits, dtype=np.float64)
        logits = logits if self.shift is None else logits + np.asarray(self.shift)
        if self.sets is not None:
            each: np.ndarray = expit(logits)
            return each
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        out: np.ndarray = p / p.sum(axis=1, keepdims=True)
        return out

    def ranking(self, proba: np.ndarray) -> np.ndarray:
        """Classes of each item, the best answer first ``[n, C]``: by probability, or by least expected cost."""
        key = -proba if self.costs is None else proba @ np.asarray(self.costs)
        return np.argsort(key, axis=1, kind="stable")

    def as_dict(self) -> dict[str, Any]:
        """As a model file keeps it."""
        sets = {} if self.sets is None else {"sets": {"separator": self.sets.separator, "none": self.sets.none}}
        return {
            **sets,
            "shift": None if self.shift is None else list(self.shift),
            "threshold": self.threshold,
            "costs": None if self.costs is None else [list(row) for row in self.costs],
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], ways: int) -> Decision:
        """What `as_dict` wrote. Raises `ValueError` for what no decision over ``ways`` classes says."""
        shift, threshold, costs = given.get("shift"), given.get("threshold"), given.get("costs")
        if threshold is not None and not 0 <= float(threshold) <= 1:
            raise ValueError(f"threshold {threshold}")
        sets = given.get("sets")
        return cls(
            None if shift is None else _row(shift, ways),
            None if threshold is None else float(threshold),
            None if costs is None else tuple(_row(row, ways) for row in _rows(costs, ways)),
            None if sets is None else _sets(sets),
        )


def _sets(given: Mapping[str, Any]) -> LabelSets:
    separator, none = given["separator"], given["none"]
    if not isinstance(separator, str) or not isinstance(none, (str, type(None))):
        raise ValueError("separator")
    return LabelSets(separator, none)


def _rows(costs: Sequence[Any], ways: int) -> Sequence[Any]:
    if len(costs) != ways:
        raise ValueError(f"{len(costs)} rows of costs for {ways} classes")
    return costs


def _row(values: Sequence[Any], ways: int) -> tuple[float, ...]:
    row = tuple(float(v) for v in values)
    if len(row) != ways or not np.isfinite(row).all():
        raise ValueError(f"{len(row)} numbers for {ways} classes")
    return row
