"""`handful fit --private`: what may be known of the examples, and what is withheld.

Only the noisy weights of the head come from the examples. Everything else that a model file, a report or a summary says
of them would be an exact count or a copy, and is left out, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from handful.adapt.base import Head
from handful.adapt.parameters import finite
from handful.adapt.private import PrivateHead, PrivateLogistic
from handful.adapt.private_search import PrivateSearch
from handful.commands.card import make_card
from handful.commands.making import model_of
from handful.core.accounting import accountant
from handful.core.privacy import Budget
from handful.errors import BadInput
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.ship.model import Model
from handful.tune.encoders import as_file, tunable, tuned_encoder
from handful.tune.private import PrivateTuning
from handful.tune.recipe import Data

HEAD = PrivateLogistic.key
FIXED: Mapping[str, Any] = {"batch_size": None, "optimizer": "sgd", "epochs": 10, "lr": 4.0}
"""Hyper-parameters of the command: a few long steps on all examples. For the same budget they do a few points better on
average than the paper's, on Fashion-MNIST, TREC and AG News: those are public, so that choosing them spent nothing."""
SEARCH = PrivateSearch.key
SEARCHED: Mapping[str, Any] = {
    "optimizer": "sgd", "trials": 8, "epochs": (1, 40), "lr": (0.1, 16.0), "max_grad_norm": (0.2, 2.0)
}  # fmt: skip
"""Where the command's search looks: around `FIXED`; by fewer trials than the paper's, as each takes of the budget."""
FILM = "film"
SLOWER = 1 / 20
"""Rate of the encoder's normalisations by that of the head: of those tried on TREC, which is public, the least harm."""
WHY = "fixed, because choosing among heads would spend privacy"
WHY_SEARCHED = "fixed; its hyper-parameters were searched, and the budget paid for that too"
WITHHELD = (
    "accuracy and every other estimate by leaving examples out",
    "examples of each class",
    "accuracy by examples a class",
    "labels that look wrong",
    "near-duplicates",
    "what the encoder cannot see of the examples",
    "items left out and remarks on the data",
    "names and hashes of the files, and the command",
    "unlabelled items",
    "texts and pictures",
)
"""What is not told because it would be un-noised."""
PUBLIC = ("how many examples there are", "names of the classes and of the columns", "the encoder", "hyper-parameters")
"""What is taken as known to everybody."""
HOW_TO_MEASURE = "withheld because un-noised; `handful evaluate MODEL TEST` measures it on other, public examples"
_CANNOT = {
    "seed": "noise that a seed repeats is not private",
    "test": "use `handful evaluate` on the saved model",
    "shots": "an experiment tests on the examples themselves, un-noised",
    "group": "one example is protected, not a group of them",
    "group_regex": "one example is protected, not a group of them",
    "class_names": "the private head reads no class names",
    "class_prior": "it corrects by exact shares of the classes among the examples",
    "target_precision": "its threshold would be an exact count over the examples",
    "cost": "what mistakes cost on average would be un-noised",
    "time_limit": "the steps are fixed by the budget",
    "reject": "its threshold would be an exact count over the examples",
    "unlabelled": "the private head learns nothing from them",
    "transductive": "the private head answers each item by itself",
    "zero_shot": "a model from class names alone has no examples to protect",
}


def private_head(epsilon: float, head: str | Head, asked: Sequence[str], tune: str | None = None) -> PrivateHead:
    """The head that learns with this budget.

    Args:
        epsilon: above 0.
        head: ``"auto"`` becomes the one private head, with the parameters `FIXED`; the one that searches them takes
            `SEARCHED`; or one of these, with its own.
        asked: names of the other options of `fit` that were given.
        tune: a recipe that was asked for too.

    Raises:
        BadInput: an epsilon that is none, dp-accounting not installed, another head or recipe, an option that would
            look at the examples without noise.
    """
    finite("--private", epsilon, above=0)
    if tune not in (None, FILM):
        raise BadInput(f"--tune {tune} is not private: --private tunes with {FILM}, or not at all")
    accountant()  # missing, it is told before any work is done
    for name in asked:
        if name in _CANNOT:
            raise BadInput(f"--{name.replace('_', '-')} does not go with --private: {_CANNOT[name]}")
    if tune is not None and (head == SEARCH or isinstance(head, PrivateSearch)):
        raise BadInput(f"--tune {tune} does not go with --head {SEARCH}: it learns with parameters that are fixed")
    if isinstance(head, PrivateHead):
        if head.noise != "system":
            raise BadInput("noise='seeded' is not private: --private takes a head whose noise is that of the system")
        changed: PrivateHead = head.set_params(epsilon=float(epsilon))
        return changed
    if head == SEARCH:
        return PrivateSearch(epsilon=float(epsilon), **SEARCHED)
    if head not in ("auto", HEAD):
        name = head if isinstance(head, str) else type(head).__name__
        raise BadInput(f"--head {name} is not private: --private learns with {HEAD}, or {SEARCH}")
    return PrivateLogistic(epsilon=float(epsilon), **FIXED)


def private_film(
    head: PrivateHead,
    base: Encoder | None,
    items: Any,
    labels: np.ndarray,
    standalone: bool,
    progress: Progress | None,
) -> tuple[Model, dict[str, Any]]:
    """A model whose encoder learnt too, in the steps of ``head`` and within its budget; and what its card says of it.

    Args:
        head: not fitted.
        base: the encoder.
        items: what is learnt from.
        labels: of those.
        standalone: put the encoder into the file.
        progress: called with (steps done, steps in all).

    Raises:
        BadInput: the encoder cannot be tuned, or has no normalisation.
    """
    assert isinstance(head, PrivateLogistic)
    made = tunable(base)
    tower = made.tower()
    classes, codes = np.unique(labels, return_inverse=True)
    shared = {field.name: getattr(head, field.name) for field in fields(Budget)}
    data = Data(made.inputs(items), torch.as_tensor(codes), tuple(map(str, classes)))
    found = PrivateTuning(normalize=head.normalize, encoder_lr=head.lr * SLOWER, **shared).fit(tower, data, progress)
    own = found.readout.state_dict()
    fitted = PrivateLogistic.restore(head.get_params(), classes, own, own["weight"].shape[1])
    assert found.spent is not None
    fitted.privacy_spent_ = found.spent
    model = model_of(fitted, base, standalone)
    model.tuned_by(as_file(found.delta), tuned_encoder(base, tower, found.delta))
    changed, of = found.delta.trainable(), sum(p.numel() for p in tower.parameters())
    why = "what it brought is withheld"
    said = f"{FILM}, {changed:,} numbers learnt ({100 * changed / of:.2g} % of the encoder's) with noise; {why}"
    card = {"recipe": FILM, "asked": FILM, "kept": True, "why": why, "frozen": None, "sentence": said}
    return model, card | {"changed": changed, "of": of}


def private_card(
    model: Model, learnt: Dataset, metric: str, revision: str | None, tuning: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The card of a private model: what is public, what was spent, and what is withheld; ``tuning`` as `private_film`
    says it."""
    head = model.head
    assert isinstance(head, PrivateHead)
    searched = head.searched() if isinstance(head, PrivateSearch) else None
    card = make_card(model, learnt, 0, 0, metric, (), None, revision)
    card["seed"] = None
    card["task"] |= {
        "sources": [],
        "sha256": {},
        "pool": None,
        "classes": [{"name": c, "count": None} for c in model.classes],
        "notes": [],
        "skipped": [],
    }
    card["head"]["why"] = WHY if searched is None else WHY_SEARCHED
    public = [*PUBLIC] if searched is None else [*PUBLIC[:-1], "the range of each hyper-parameter"]
    spent = {**head.privacy_spent_.as_dict(), "withheld": list(WITHHELD), "public": public, "searched": searched}
    return card | {
        "class_text": {"used": False, "weight": 0.0, "reason": "the private head reads none"},
        "population": {
            "kind": "labels",
            "source": None,
            "shares": {},
            "sentence": "the classes as often as among the labels",
        },
        "estimate": {"method": HOW_TO_MEASURE, "accuracy": None, "groups": None, "assessment": None},
        "selective": None,
        "cost": None,
        "shots_curve": [],
        "suspicious": [],
        "duplicates": None,
        "blind_spots": [],
        "test": None,
        "experiment": None,
        "unlabelled": None,
        "reject": None,
        "tuning": tuning,
        "certificate": None,
        "private": spent,
    }
