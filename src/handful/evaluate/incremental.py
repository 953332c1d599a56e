"""How well a classifier grows: base and new classes apart, step by step; and steps to try it on, drawn from labels.

Paper 175: Wang, Zhou, Zhang, Zhan, Ye, "Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration",
2023.

    base, novel     mean over the base (new) classes of the share of their items that is answered right
    harmonic        2 base novel / (base + novel)
    false negative  share of the items of new classes answered with a base class
    false positive  share of the items of base classes answered with a new class
    average, drop   mean accuracy of the steps; accuracy of the first step less that of the last

Paper 088: Lyu et al., "Ambiguity-Guided Learnable Distribution Calibration for Semi-Supervised Few-Shot
Class-Incremental Learning", 2025: a step also brings items without labels, of all classes seen so far ("seen") or, as
was usual before, of its new classes only ("new").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from handful.errors import BadInput
from handful.evaluate.generalised import gzsl_scores, per_class_accuracy


@dataclass(frozen=True)
class Step:
    """What a classifier gets right after one step. What needs new classes is ``None`` as long as there are none.

    Attributes:
        n: items.
        accuracy: share of all items.
        base, novel: mean over classes.
        harmonic: mean of ``base`` and ``novel``; 0 if either is.
        false_negative, false_positive: see the head of this file.
    """

    n: int
    accuracy: float
    base: float
    novel: float | None
    harmonic: float | None
    false_negative: float | None
    false_positive: float | None


@dataclass(frozen=True)
class Incremental:
    """The steps, the mean of their accuracies and how much accuracy falls from the first to the last."""

    steps: tuple[Step, ...]
    average: float
    drop: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"steps": [asdict(step) for step in self.steps], "average": self.average, "drop": self.drop}


def incremental_step(labels: Any, predicted: Any, base: Any) -> Step:
    """Judge one step.

    Args:
        labels: true classes ``[n]`` of items of all classes known so far.
        predicted: answers ``[n]``.
        base: the base classes; every other class is new.

    Raises:
        BadInput: nothing to judge, lengths that differ, no item of a base class.
    """
    labels, predicted, base = np.asarray(labels), np.asarray(predicted), np.unique(np.asarray(base))
    if labels.ndim != 1 or labels.shape != predicted.shape or not len(labels):
        raise BadInput(f"labels and predicted are two lists of one length, not {labels.shape} and {predicted.shape}")
    of_base, as_base, right = np.isin(labels, base), np.isin(predicted, base), labels == predicted
    if not of_base.any():
        raise BadInput("no item is of a base class: judge items of all classes known so far")
    overall = float(right.mean())
    if of_base.all():
        return Step(len(labels), overall, per_class_accuracy(labels, predicted), None, None, None, None)
    novel, seen, harmonic = gzsl_scores(labels, predicted, base)
    false_negative, false_positive = float(as_base[~of_base].mean()), float((~as_base[of_base]).mean())
    return Step(len(labels), overall, seen, novel, harmonic, false_negative, false_positive)


def incremental_report(steps: Sequence[Step]) -> Incremental:
    """Put the steps together, the first being that of the base classes alone.

    Raises:
        BadInput: no steps.
    """
    if not steps:
        raise BadInput("no steps to report: judge at least the base classes first")
    accuracy = [step.accuracy for step in steps]
    return Incremental(tuple(steps), float(np.mean(accuracy)), accuracy[0] - accuracy[-1])


@dataclass(frozen=True)
class Arrival:
    """A step that brings new classes.

    Attributes:
        new: the new classes.
        seen: all classes known after it, in the order in which they came.
        examples: indices of its labelled items.
        pool: indices of its items without labels.
    """

    new: tuple[Any, ...]
    seen: tuple[Any, ...]
    examples: np.ndarray
    pool: np.ndarray


def incremental_arrivals(
    labels: Any,
    *,
    base: int,
    way: int = 5,
    shot: int = 5,
    pool: int = 100,
    pool_of: Literal["seen", "new"] = "seen",
    kept: float = 0.5,
    seed: int = 0,
) -> tuple[np.ndarray, tuple[Arrival, ...]]:
    """Draw base classes and steps of new ones from labelled items.

    Args:
        labels: classes ``[n]``.
        base: how many base classes.
        way: new classes a step; classes that make no whole step are left out.
        shot: examples of each.
        pool: items without labels a class and step, drawn anew in each step; all, where there are fewer.
        pool_of: which classes they are of.
        kept: share of the items of a base class that it keeps for pools, and does not learn from.
        seed: of the draws.

    Returns:
        Indices of the items that the base classes are learnt from, and the steps.

    Raises:
        BadInput: numbers that make no sense, too few classes, a new class without items beyond its examples.
    """
    y = np.asarray(labels)
    for name, value, least in (("base", base, 1), ("way", way, 1), ("shot", shot, 1), ("pool", pool, 0)):
        if value < least:
            raise BadInput(f"{name} must be {least} or more, not {value}")
    if not 0 <= kept < 1 or pool_of not in ("seen", "new"):
        raise BadInput(f"kept is a share below 1 and pool_of 'seen' or 'new', not {kept} and {pool_of!r}")
    draw = np.random.default_rng(seed)
    classes = draw.permutation(np.unique(y))
    if len(classes) < base + way:
        raise BadInput(f"{len(classes)} classes make no {base} base classes and {way} new ones")
    items = {c: draw.permutation(np.flatnonzero(y == c)) for c in classes.tolist()}
    first, order = classes[:base].tolist(), classes.tolist()
    taken = {c: len(items[c]) - int(kept * len(items[c])) if c in first else shot for c in order}
    steps = []
    for at in range(base, len(order) - way + 1, way):
        new, seen = order[at : at + way], order[: at + way]
        if short := [c for c in new if len(items[c]) <= shot]:
            raise BadInput(f"class {short[0]!r} has {len(items[short[0]])} items: {shot} examples leave none to test")
        rest = [items[c][taken[c] :] for c in (seen if pool_of == "seen" else new)]
        some = [draw.permutation(part)[:pool] for part in rest]
        examples = np.concatenate([items[c][:shot] for c in new])
        steps.append(Arrival(tuple(new), tuple(seen), examples, draw.permutation(np.concatenate(some))))
    return np.concatenate([items[c][: taken[c]] for c in first]), tuple(steps)
