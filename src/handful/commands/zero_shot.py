"""A model without any labelled example: what classes are called, in words, is all it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handful.adapt import HEADS, head_class
from handful.adapt.base import Features, Head
from handful.adapt.zero_shot import ZeroShot
from handful.commands.judging import NEVER
from handful.commands.kept_apart import Apart
from handful.commands.sources import as_labels, class_sentences, only_sentences
from handful.errors import BadInput
from handful.evaluate.population import population
from handful.protocols import Encoder
from handful.read import Dataset, is_code, read_class_names
from handful.ship.decision import Decision
from handful.ship.model import Model, class_text_vectors

ClassNames = str | Path | Mapping[str, str | Sequence[str]]
NO_ESTIMATE = "not estimated: there are no labels to compare its answers with"


def check_zero_shot(kind: type[Head], **given: Any) -> type[ZeroShot]:
    """The head that is meant by ``kind``.

    Args:
        kind: of the head that was asked for; ``auto`` means `ZeroShot`.
        given: options by name that need labelled examples to learn from.

    Raises:
        BadInput: one of them is given, or the head learns from examples.
    """
    for name, value in given.items():
        if value is not None and value is not False:
            raise BadInput(
                f"--{name.replace('_', '-')} needs labelled examples, and a zero-shot model learns from none"
            )
    if kind.key == "auto":
        return ZeroShot
    if not issubclass(kind, ZeroShot):
        able = [key for key in HEADS if issubclass(head_class(key), ZeroShot)]
        raise BadInput(f"head {kind.key!r} learns from labelled examples; those that need none: {', '.join(able)}")
    return kind


def zero_shot_head(
    kind: type[ZeroShot], data: Dataset, class_names: ClassNames | None, tower: Encoder | None, cache: bool
) -> Head:
    """A fitted head for the classes of ``class_names``, or where none are given for those of the labels.

    Raises:
        BadInput: the encoder has no text side, labels that are codes and no names, one class only.
    """
    if tower is None or tower.aligned is None:
        what = "features are given, not texts or images" if tower is None else f"encoder {tower.name} has no text side"
        raise BadInput(f"zero-shot: {what}, so that class names cannot be compared with items")
    names = read_class_names(class_names) if isinstance(class_names, (str, Path)) else class_names
    names = None if names is None else as_labels(names, data.classes)
    classes = data.classes if names is None else sorted(names)
    code = next((label for label in classes if names is None and is_code(label)), None)
    if code is not None:
        raise BadInput(f"zero-shot: label {code!r} is a code, not words; --class-names FILE says what it means")
    plain = class_names is not None and only_sentences(class_names)
    sentences = class_sentences(names, classes, () if plain else tower.templates)
    vectors = class_text_vectors(tower, sentences, cache=cache)
    return kind.from_text(vectors, logit_scale=tower.logit_scale, width=tower.dim)


def zero_shot_card(
    model: Model, class_prior: str | Path | Mapping[str, float], pool: Features | None, chosen: bool
) -> dict[str, Any]:
    """What the card says where labels would have said more; sets the model's decision.

    Args:
        model: with the head of `zero_shot_head`.
        class_prior: as in `handful.commands.fit.fit`; ``"labels"``, of which there are none, means ``"uniform"``.
        pool: the unlabelled items, for ``"pool"``.
        chosen: whether the head was asked for by name.
    """
    each = list(model.classes)  # as if from one example of every class
    proba = None if pool is None else Decision().proba(np.asarray(model.head.logits(pool), dtype=np.float64))
    mix = population("uniform" if class_prior == "labels" else class_prior, each, each, proba)
    if mix.kind != "uniform":
        model.decision = Decision(tuple(np.maximum(mix.log_ratio(each, each), NEVER).tolist()))
    why = {} if chosen else {"why": "there are no labelled examples to learn or choose by"}
    return {
        "head": {**model.card["head"], **why},
        "task": {**model.card["task"], "classes": [{"name": name, "count": 0} for name in each]},
        "class_text": {"used": True, "weight": 1.0, "reason": "the model is made from them alone"},
        "unlabelled": None,
        "population": mix.as_dict(),
        "duplicates": {"items": 0, "units": 0, "conflicts": []},
        "estimate": {"method": NO_ESTIMATE, "accuracy": None, "groups": None, "assessment": None},
        "selective": None,
        "cost": None,
        "shots_curve": [],
        "suspicious": [],
        "experiment": None,
        "test": None,
    }


def tested_on(model: Model, held: Dataset, features: Features, source: str) -> Apart:
    """Labelled items, none of which was learnt from. Raises `BadInput` for a label that has no class name."""
    unknown = next((label for label in held.classes if label not in model.classes), None)
    if unknown is not None:
        raise BadInput(f"label {unknown!r} has no class name; there are: {', '.join(model.classes[:8])}")
    return Apart(source, None, held, features)
