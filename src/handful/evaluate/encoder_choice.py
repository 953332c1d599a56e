"""Which encoder suits the data? One simple head on each, answers out of fold, compared in pairs.

Beside accuracy the terms of paper 125's bound that can be read off a few labels (`handful.evaluate.bound.diagnose`):
the parameters of a linear head of this width against the number of examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.adapt.base import Features, Head
from handful.core.intervals import Estimate, grouped_wilson
from handful.errors import BadInput
from handful.evaluate.bound import diagnose
from handful.evaluate.crossfit import as_units, cross_fit
from handful.evaluate.significance import LEVEL, holm, paired_test


@dataclass(frozen=True)
class EncoderScore:
    """One encoder.

    Attributes:
        name: as in ``--encoder``.
        dim: width of its features.
        accuracy: of the head out of fold, on the ``n`` items that could be judged.
        behind: accuracy of the best encoder minus this one's, paired by item; ``None`` for the best itself.
        p: of that difference, adjusted for all encoders; ``None`` for the best itself.
        limits: what holds a linear head on these features back, in words.
    """

    name: str
    dim: int
    n: int
    accuracy: Estimate
    behind: Estimate | None
    p: float | None
    limits: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "encoder": self.name,
            "dim": self.dim,
            "n": self.n,
            "accuracy": self.accuracy.as_dict(),
            "behind": None if self.behind is None else self.behind.as_dict(),
            "p": self.p,
            "limits": list(self.limits),
        }


@dataclass(frozen=True)
class EncoderAdvice:
    """Encoders, the best first; ``setting`` says on what.

    Attributes:
        shown: whether the first is better than each of the others by paired tests; where not, take the smaller one.
    """

    scores: tuple[EncoderScore, ...]
    shown: bool
    setting: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        rows = [score.as_dict() for score in self.scores]
        return {"schema": "handful/advise-encoder/1", **self.setting, "shown": self.shown, "encoders": rows}


def compare_encoders(
    features: Mapping[str, Features],
    labels: Any,
    head: Head,
    *,
    groups: Sequence[Any] | None = None,
    folds: int = 5,
    seed: int = 0,
    setting: Mapping[str, Any] | None = None,
) -> EncoderAdvice:
    """Judge each encoder by a head that is fitted without each fold in turn, the same folds for all.

    Args:
        features: of the same n items by encoder.
        labels: ``[n]``.
        head: unfitted.
        groups: ``[n]``; items of one never stand on both sides.
        folds, seed: of the split.

    Raises:
        BadInput: no encoder, rows that do not fit the labels, or classes too small to leave an item out.
    """
    labels = np.asarray(labels)
    if not features:
        raise BadInput("no encoder to judge")
    if odd := next((name for name, f in features.items() if len(f.x) != len(labels)), None):
        raise BadInput(f"{odd}: {len(features[odd].x)} rows of features but {len(labels)} labels")
    together = None if groups is None else np.asarray(groups)
    classes, judged = np.unique(labels), np.ones(len(labels), dtype=bool)
    every: dict[str, np.ndarray] = {}
    for name, x in features.items():
        found = cross_fit(head, x, labels, together, folds=folds, seed=seed)
        if found is None:
            raise BadInput("two examples of at least two classes are needed to judge an encoder: label a few more")
        every[name] = (classes[np.nan_to_num(found.logits).argmax(axis=1)] == labels).astype(float)
        judged &= found.judged  # items for which a head has no finite answer on some encoder compare nothing
    if not judged.any():
        raise BadInput("no item has an answer on every encoder: their features hold numbers no head can use")
    right = {name: r[judged] for name, r in every.items()}
    units = np.unique(as_units(together, len(labels))[judged], return_inverse=True)[1]
    size = np.bincount(units)
    means = {name: np.bincount(units, r) / size for name, r in right.items()}  # groups are what is independent
    order = sorted(right, key=lambda name: (-right[name].mean(), features[name].x.shape[1]))
    best, others = order[0], order[1:]
    tests = [paired_test(means[best], means[name]) if len(size) > 1 else None for name in others]
    adjusted = holm([1.0 if test is None else test.p for test in tests])
    rows = [_score(best, features[best], labels, right[best], units, None, None)]
    for name, test, p in zip(others, tests, adjusted, strict=True):
        behind = None if test is None else test.difference
        rows.append(_score(name, features[name], labels, right[name], units, behind, float(p)))
    return EncoderAdvice(tuple(rows), bool(len(others) and (adjusted < LEVEL).all()), dict(setting or {}))


def _score(
    name: str,
    features: Features,
    labels: np.ndarray,
    right: np.ndarray,
    units: np.ndarray,
    behind: Estimate | None,
    p: float | None,
) -> EncoderScore:
    dim, classes = int(features.x.shape[1]), len(np.unique(labels))
    limits = diagnose(features.x, labels, parameters=(dim + 1) * classes)
    accuracy = grouped_wilson(np.bincount(units, right), np.bincount(units).astype(float))
    return EncoderScore(name, dim, len(right), accuracy, behind, p, limits.reasons)
