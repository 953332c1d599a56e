"""`handful fit --reject`: what the user asks for, and the model that answers "none of these"."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.adapt.base import Features
from handful.adapt.reject import rejecter
from handful.commands.sources import Columns, read_source
from handful.commands.tuned import ROW
from handful.errors import BadInput
from handful.evaluate.estimate import Quoted
from handful.evaluate.rejection import rejecting
from handful.protocols import Encoder, Progress
from handful.read import Dataset, from_arrays
from handful.ship.model import Model, encode_dataset
from handful.ship.rejection import Rejection, check_other

ALARMS, OTHER = 0.05, "other"


@dataclass(frozen=True)
class RejectWishes:
    """How "none of these" is answered; see `handful.commands.fit.fit`.

    Raises:
        BadInput: an unknown kind, a share that is none, or a wish that is nothing without ``reject``.
    """

    reject: str | None = None
    false_alarms: float = ALARMS
    other: str = OTHER
    negatives: Any = None

    def __post_init__(self) -> None:
        asked = {
            "--false-alarms": self.false_alarms != ALARMS,
            "--other": self.other != OTHER,
            "--negatives": self.negatives is not None,
        }
        if self.reject is None:
            if option := next((name for name, given in asked.items() if given), None):
                raise BadInput(f"{option} needs --reject, which lets the model answer {OTHER!r}: add --reject auto")
            return
        rejecter(self.reject)
        if not 0 < self.false_alarms < 1:
            raise BadInput(f"--false-alarms is a share between 0 and 1, not {self.false_alarms}")


def read_negatives(wishes: RejectWishes, learnt: Dataset, how: Columns, skip_bad: bool) -> Dataset | None:
    """The items of none of the classes, whatever labels they have.

    Raises:
        BadInput: the source cannot be read, has no items, or holds something else than the model learns from.
    """
    if wishes.negatives is None:
        return None
    given = wishes.negatives
    whole = isinstance(given, (str, Path, Dataset))
    data = read_source(given, columns=how, skip_bad=skip_bad) if whole else from_arrays(given)
    data = data.take(np.flatnonzero(data.usable))
    name = ", ".join(data.provenance.sources) or "--negatives"
    if not len(data):
        raise BadInput(f"{name}: nothing there to play the unknown; --negatives takes items of none of the classes")
    if data.modality != learnt.modality:
        raise BadInput(f"{name} holds {data.modality}, the labelled items are {learnt.modality}")
    return data


def encode_negatives(
    data: Dataset | None,
    tower: Encoder | None,
    like: Features,
    *,
    cache: bool,
    skip_bad: bool,
    progress: Progress | None,
) -> tuple[list[Any], Features | None]:
    """Those that can be read and their features, in the views of those of the labelled items.

    Raises:
        BadInput: they have another width than theirs.
    """
    if data is None:
        return [], None
    views, width = list(like.views), like.x.shape[1]
    found = encode_dataset(data, tower, views=views, cache=cache, skip_bad=skip_bad, progress=progress)
    x = found.features.x
    if not len(x) or x.shape[1] != width:
        raise BadInput(f"--negatives has features of shape {x.shape}, the labelled items have {width} each")
    return list(data.take(found.kept).items), found.features


def learn_to_reject(
    model: Model,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None,
    quoted: Quoted | None,
    wishes: RejectWishes,
    negatives: Features | None,
    *,
    weights: np.ndarray | None,
    seed: int,
    left: float = math.inf,
    refit: tuple[Any, Features] | None = None,
) -> None:
    """Give the model its answer "none of these", and its card what that is worth.

    Args:
        model: fitted and judged.
        features, labels, groups, weights: of what it learnt from.
        quoted: its estimate.
        wishes: see `RejectWishes`.
        negatives: items of none of the classes.
        seed: of draws.
        left: seconds left.
        refit: what learns as the model did and the rows it takes, negatives behind; by default its head, ``features``.

    Raises:
        BadInput: no estimate to take a threshold from, too few items for the share, a name that is a class.
    """
    model.card["reject"] = None
    if wishes.reject is None:
        return
    other = check_other(wishes.other, model.classes)
    if quoted is None:
        why = model.card["estimate"]["method"]
        raise BadInput(f"--reject takes its threshold from labelled items left out in turn, and there are none: {why}")
    chosen = rejecter(wishes.reject)
    learner, rows, unseen = model.head, features, negatives
    if refit is not None:
        learner, rows = refit
        if negatives is not None:
            behind = np.arange(len(labels), len(labels) + len(negatives))[:, None]
            unseen = replace(negatives, views={**negatives.views, ROW: behind})
    found = rejecting(
        chosen, learner, rows, labels, groups, quoted, wishes.false_alarms,
        weights=weights, negatives=unseen, seed=seed, budget_seconds=left / 2,
    )  # fmt: skip
    state = chosen.fit(features, labels, negatives, seed)
    model.rejection = Rejection(chosen, state, found.threshold, other)
    given = wishes.negatives
    source = str(given) if isinstance(given, (str, Path)) else None if given is None else "items given"
    model.card["reject"] = {
        "kind": chosen.kind, "other": other, "asked": wishes.false_alarms, "source": source, **found.as_dict(),
    }  # fmt: skip
