"""`handful fit --multi-label --tune`: the encoder is tuned for several labels an item, and judged as `tuned` judges it.

Each fold is answered by an encoder that was tuned without it. ``auto`` weighs tuned and frozen by the log loss of all
labels of the same folds, and answers each fold in the way that the other folds prefer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from torch import Tensor

from handful.adapt.base import Features, Head
from handful.commands.tuned import FOLDS, ROW, Material, Tuner, sentence, tuned_once
from handful.evaluate.label_set_estimate import (
    Answers,
    Dealt,
    EstimatedSets,
    assessed,
    by_halves,
    deal_out,
    estimated,
    left_out,
    spread_of,
)
from handful.protocols import Encoder
from handful.tune.encoders import as_file, tunable
from handful.tune.label_sets import for_label_sets

AUTO: Mapping[str, str] = {"text": "lora:learns=classes", "image": "film:learns=classes"}
"""What ``auto`` tries beside the frozen encoder, by what it reads."""
SEEN = "the usual one for several labels an item, on features of the tuned encoder"


@dataclass(frozen=True)
class SetsOutcome:
    """What tuning came to.

    Args:
        head: fitted.
        features: what it learnt from, by the encoder that ships.
        encoder: that encoder.
        delta: what tells it from its base; ``None`` where it stayed as it was.
        found: the estimate; ``None`` where there is nothing to judge by, or no time.
        card: for the model's card.
    """

    head: Head
    features: Features
    encoder: Encoder
    delta: tuple[dict[str, Any], dict[str, Tensor]] | None
    found: EstimatedSets | None
    card: dict[str, Any]


def tuned_label_sets(
    key: str,
    head: Head,
    base: Encoder | None,
    items: Any,
    features: Features,
    given: Sequence[set[str]],
    y: np.ndarray,
    labels: list[str],
    groups: np.ndarray | None,
    *,
    seed: int,
    left: float,
) -> SetsOutcome:
    """Tune ``base`` for n ``items``, and judge it.

    Args:
        key: of a recipe, or ``"auto"``.
        head: fitted on ``features``, those of the frozen encoder.
        base: the encoder.
        items, features, groups: what is learnt from.
        given: the labels of each item.
        y: the same as a table ``[n, L]``, 0 or 1.
        labels: L names.
        seed: of every draw.
        left: seconds left: ``auto`` leaves the encoder as it is where tuning and judging it would take longer.

    Raises:
        BadInput: the encoder cannot be tuned; the recipe learns one label an item.
    """
    made = tunable(base)
    base = cast(Encoder, base)
    chosen = AUTO[base.modality] if key == "auto" else key
    material = Material(base, made.tower(), items, made.inputs(items), {}, for_label_sets(chosen))
    rows = replace(features, views={**features.views, ROW: np.arange(len(items))[:, None]})
    tuner, card = tuned_once(Tuner(head, material, seed), rows, list(given), chosen, key)
    dealt = deal_out(y, groups, FOLDS, seed)
    if dealt is None or left <= card["seconds"] * (FOLDS + 1):
        why = "nothing to judge it by" if dealt is None else "the time does not suffice to judge it"
        card |= {"kept": key != "auto", "why": why}
        found = None
    else:
        frozen, judged = (left_out(one, some, y, dealt.fold) for one, some in ((head, features), (tuner, rows)))
        gain = _losses(frozen, dealt, y) - _losses(judged, dealt, y)
        better = bool(gain.sum() > 0)
        scores = (assessed(one, dealt, y, labels, groups, seed=seed).micro_f1.value for one in (frozen, judged))
        card |= dict(zip(("frozen", "tuned"), scores, strict=True)) | {"kept": key != "auto" or better}
        card["why"] = f"log loss {'fell' if better else 'did not fall'} on items left out"
        answers = judged if key != "auto" else _by_the_others(frozen, judged, dealt.fold, gain)
        halves = by_halves(head, features, y, labels, groups, seed=seed)  # of the frozen encoder: how fast errors fall
        found = estimated(answers, dealt, halves, y, labels, groups, seed=seed)
    card["sentence"] = sentence(card, "micro-F1")
    if not card["kept"]:
        return SetsOutcome(head, features, base, None, found, card)
    tuner.head_.why_ = SEEN
    return SetsOutcome(tuner.head_, tuner.features_, tuner.encoder_, as_file(tuner.delta_), found, card)


def _losses(answers: Answers, dealt: Dealt, y: np.ndarray) -> np.ndarray:
    """Log loss of each item over the labels that are judged ``[n]``, logits spread and moved as fits all best."""
    z, truth = answers.logits[:, dealt.judged], y[:, dealt.judged]
    spread, shift = spread_of(z, truth)
    z = spread * z + shift
    losses: np.ndarray = (np.logaddexp(0, z) - truth * z).sum(1)
    return losses


def _by_the_others(frozen: Answers, tuned: Answers, fold: np.ndarray, gain: np.ndarray) -> Answers:
    """Each fold answered by whichever had the smaller loss on the other folds."""
    share = np.array([gain[fold != part].sum() > 0 for part in range(int(fold.max()) + 1)])[fold]
    return Answers(*(np.where(share[:, None], b, a) for a, b in zip(_both(frozen), _both(tuned), strict=True)))


def _both(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    return answers.logits, answers.said
