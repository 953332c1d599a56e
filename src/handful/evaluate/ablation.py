"""What each trick for growing is worth: all of them, each left out in turn, and none.

Paper 171: Roy, Park, Fahrezi, Etemad, "A Bag of Tricks for Few-Shot Class-Incremental Learning", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handful.adapt.fscil_tricks import TRICKS, FSCILTricks
from handful.core.intervals import Estimate, mean_interval
from handful.errors import BadInput
from handful.evaluate.incremental import incremental_step


@dataclass(frozen=True)
class Ablated:
    """Accuracies on base and new classes and their harmonic mean, over seeds; intervals need two seeds.

    Attributes:
        tricks: those that were used.
        without: the one that was left out; ``None`` for all and for none.
    """

    tricks: tuple[str, ...]
    without: str | None
    base: Estimate
    novel: Estimate
    harmonic: Estimate


def ablate(
    base: tuple[Any, Any],
    new: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    head: FSCILTricks | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Ablated]:
    """Fit on base classes, grow by new ones and judge, with all tricks of ``head``, without each, and without any.

    Args:
        base, new: features and labels to learn from.
        test: features and labels of classes of both.
        head: its tricks and other parameters; by default all tricks.
        seeds: of the fits; the interval is over them.

    Raises:
        BadInput: no seeds, a head without tricks, a test set without new classes.
    """
    head = FSCILTricks() if head is None else head
    tricks = tuple(trick for trick in TRICKS if trick in head.tricks)
    if not seeds or not tricks:
        raise BadInput("an ablation needs at least one seed and one trick")
    sets: dict[tuple[str, ...], str | None] = {tricks: None}
    for left in tricks:
        sets.setdefault(tuple(trick for trick in tricks if trick != left), left)
    sets.setdefault((), None)
    rows = []
    for some, without in sets.items():
        found = []
        for seed in seeds:
            model = FSCILTricks(**{**head.get_params(), "tricks": some, "random_state": seed})
            answers = model.fit(*base).grow(*new).predict(test[0])
            step = incremental_step(test[1], answers, np.unique(base[1]))
            if step.novel is None or step.harmonic is None:
                raise BadInput("the test set has no items of new classes")
            found.append((step.base, step.novel, step.harmonic))
        rows.append(Ablated(some, without, *(_over_seeds(np.array(side)) for side in zip(*found, strict=True))))
    return rows


def _over_seeds(values: np.ndarray) -> Estimate:
    return mean_interval(values, within=(0.0, 1.0))
