"""Items that are only tested on: which of them the model has all but seen, and how it does on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handful.adapt.base import Features
from handful.errors import BadInput
from handful.evaluate.duplicates import merge_units, near_duplicates
from handful.read import Dataset
from handful.ship.evidence import Example, mistaken
from handful.ship.model import Model


def copies_of(data: Dataset, features: Features, near: bool) -> np.ndarray:
    """Which items are (nearly) the same ``[n]``; where that is not asked for, none."""
    return near_duplicates(data.items, features.x, data.modality) if near else np.arange(len(data))


@dataclass(frozen=True)
class Apart:
    """Labelled items kept apart, encoded.

    Args:
        source: where they come from, in words.
        note: what to know about those that resemble an item learnt from.
        data, features: the items.
    """

    source: str
    note: str | None
    data: Dataset
    features: Features

    def card(self, model: Model) -> dict[str, Any]:
        """How the model does on them."""
        labels = [str(label) for label in self.data.labels]
        found = model.assess(self.features, labels, self.data.groups)
        return {"source": self.source, "note": self.note, "assessment": found.as_dict()}

    def mistaken(self, model: Model) -> dict[tuple[str, str], tuple[Example, ...]]:
        """Examples of what it takes for what."""
        answers = [model.classes[i] for i in model.proba_of(self.features).argmax(axis=1)]
        return mistaken(self.data, answers, model.card["test"]["assessment"])


def named(test: Any) -> str:
    """What a test set is called."""
    return str(test) if isinstance(test, (str, Path)) else "items kept apart"


def kept_apart(
    learnt: Dataset, features: Features, held: Dataset, seen: Features, test: Any, near_duplicates: bool
) -> Apart:
    """The items to test on.

    A test set that the user gives is taken whole; of what an experiment did not draw, items that (nearly) equal one
    learnt from, or share its group, are left out.

    Args:
        learnt, features: what the model learnt from.
        held, seen: the items kept apart.
        test: as the user gave it; ``None`` in an experiment.
        near_duplicates: whether near-duplicates count.

    Raises:
        BadInput: nothing is left.
    """
    rows = np.flatnonzero(~resembling(learnt, features, held, seen, near_duplicates))
    many = len(held) - len(rows)
    what = "were left out" if test is None else "are among them"
    note = f"{many:,} items that (nearly) equal one learnt from, or share its group, {what}" if many else None
    if test is not None:
        return Apart(named(test), note, held, seen)
    if not len(rows):
        raise BadInput("nothing to test on: every item not drawn is in a group with one that is learnt from")
    return Apart("the items not drawn", note, held.take(rows), seen.take(rows))


def resembling(learnt: Dataset, features: Features, held: Dataset, seen: Features, near: bool) -> np.ndarray:
    """Which of the items ``held`` are in one unit with an item ``learnt`` from ``[m]``: a (near) copy, or its group."""
    groups = None if learnt.groups is None or held.groups is None else (*learnt.groups, *held.groups)
    both = Dataset([*learnt.items, *held.items], (*learnt.labels, *held.labels), learnt.modality)
    units = merge_units(groups, copies_of(both, Features(np.concatenate([features.x, seen.x]), {}), near))
    return np.isin(units[len(learnt) :], units[: len(learnt)])
