"""`handful fit --tune`: the encoder is tuned too, and whoever judges the model tunes it anew without what it judges.

A head on frozen features is judged by fits that leave a fold out. A tuned encoder has seen the labels as well, so each
of those fits tunes an encoder of its own. ``auto`` weighs the two by the log loss of the same folds, each class adding
the same share to it: each fold is answered in the way that the other folds prefer, and so is what ships.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from torch import Tensor, nn

from handful.adapt.base import Features, Head
from handful.adapt.inputs import read_label_sets
from handful.adapt.logistic import Logistic
from handful.adapt.reject import REJECTERS, rejecter
from handful.encode.asking import Answers, Levels, Masks, Words
from handful.encode.reading import LateInteraction
from handful.errors import BadInput
from handful.evaluate.crossfit import CrossFit, cross_fit
from handful.evaluate.curve import shots_curve
from handful.evaluate.estimate import Quoted, quote
from handful.protocols import Encoder, Needs
from handful.ship.model import class_text_vectors
from handful.tune.delta import Delta
from handful.tune.encoders import Tunable, as_file, tunable, tuned_encoder
from handful.tune.loop import tune
from handful.tune.recipe import Data, Readout, Recipe, rows_of
from handful.tune.recipes import recipe

AUTO: Mapping[str, str] = {"text": "lora", "image": "film"}
"""What ``auto`` tries beside the frozen encoder, by what it reads."""
FOLDS = 4
"""Encoders that are tuned to judge one, at most."""
ROW = "row"
"""View of the features that says which item of the tuner's a row is ``[n, 1]``."""


@dataclass(frozen=True)
class Material:
    """What a `Tuner` and its clones share.

    Args:
        encoder: the base.
        tower: its network.
        items: what is learnt from, and behind it what is only asked about.
        inputs: those that are learnt from, as the tower takes them.
        sentences: that describe each class; empty where heads get no class text.
        recipe: how the tower is tuned.
        documents: a text of each class, as the tower takes it.
        pool: items without labels that the head learns from.
    """

    encoder: Encoder
    tower: nn.Module
    items: Sequence[Any]
    inputs: Sequence[Any] | Tensor
    sentences: Mapping[str, Sequence[str]]
    recipe: Recipe
    documents: Mapping[str, Any] = field(default_factory=dict)
    pool: Sequence[Any] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Material:
        return self  # scikit-learn's clone copies parameters; these are only read

    def encoded(self, encoder: Encoder, rows: Features) -> Features:
        """Features of rows by another encoder."""
        some = [self.items[i] for i in rows.views[ROW][:, 0].astype(int).tolist()]
        return replace(_encoded(encoder, some, rows), items=rows.items)


class Tuner(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Tunes an encoder on the rows it is fitted on, then fits a head on the tuned encoder's features of them.

    Args:
        head: unfitted, or fitted: copied.
        material: see `Material`.
        random_state: seed of the tuning.

    Attributes (after ``fit``):
        head_, encoder_, delta_, reading_: what came out.
        features_, pool_: of what was learnt from, by that encoder.
        own_: whether the head is the recipe's readout.
    """

    def __init__(self, head: Head, material: Material, random_state: int = 0) -> None:
        self.head, self.material, self.random_state = head, material, random_state

    @property
    def needs(self) -> Needs:
        """Those of the head."""
        return self.head.needs

    def fit(self, rows: Features, labels: Any) -> Tuner:
        """See the class; ``rows`` carry the view `ROW`.

        Args:
            rows: n items.
            labels: of each; for a head of several labels an item a set of each, or a matrix of 0 and 1.
        """
        material, index = self.material, rows.views[ROW][:, 0].astype(int).tolist()
        sets = read_label_sets(labels, len(rows)) if self.needs.multi_label else None
        codes, classes = np.unique(labels, return_inverse=True)[::-1] if sets is None else sets
        targets = torch.as_tensor(codes, dtype=torch.long if sets is None else torch.float32)
        names = tuple(map(str, classes))
        documents = [material.documents[name] for name in names] if material.documents else []
        data = Data(rows_of(material.inputs, index), targets, names, documents=documents)
        found = tune(material.tower, data, material.recipe, seed=self.random_state)
        self.delta_: Delta = found.delta.stored(material.tower)
        self.pool_: Features | None = None
        with torch.no_grad(), self.delta_.attached(material.tower):
            own = found.readout.ships(material.tower)
        self.own_, self.reading_ = own is not None, None if own is None else own.reading
        self.encoder_ = tuned_encoder(material.encoder, material.tower, self.delta_, self.reading_)
        self.features_ = material.encoded(self.encoder_, rows)
        self.head_: Head = self._fitted(labels) if own is None else linear_head(classes, own.weight, own.bias)
        return self

    def _fitted(self, labels: Any) -> Head:
        head = clone(self.head)
        if self.material.pool:
            self.pool_ = _encoded(self.encoder_, self.material.pool, self.features_)
            head.set_params(unlabelled=self.pool_)
        if self.material.sentences:
            head.set_params(text=class_text_vectors(self.encoder_, self.material.sentences, cache=False))
        fitted: Head = head.fit(self.features_, labels)
        return fitted

    def spread(self, rows: Features, labels: np.ndarray) -> float:
        """1: items left out of the head only were learnt from by the encoder, so nothing can be read off them."""
        return 1.0

    def logits(self, rows: Features) -> Tensor | np.ndarray:
        """``[n, C]``."""
        return self.head_.logits(self.material.encoded(self.encoder_, rows))

    def predict(self, rows: Features) -> np.ndarray:
        """As `handful.adapt.base.Head.predict`."""
        return self.head_.predict(self.material.encoded(self.encoder_, rows))


def _encoded(encoder: Encoder, items: Sequence[Any], like: Features) -> Features:
    """Items encoded, with the views that ``like`` has."""
    outputs = ("pooled", *(name for name in like.views if name != ROW))
    found = encoder.encode(items, outputs, cache=False)
    arrays = found if len(outputs) > 1 else {"pooled": found}
    return Features(np.asarray(arrays["pooled"]), {o: arrays[o] for o in outputs[1:]})


def linear_head(classes: np.ndarray, weight: Tensor, bias: Tensor) -> Head:
    """The head ``w x + b`` for weights ``[C, D]`` that were learnt already."""
    state = {"weight": weight.detach().clone(), "bias": bias.detach().clone(), "strength": torch.tensor(1.0)}
    return Logistic.restore({}, classes, state, weight.shape[1])


@dataclass(frozen=True)
class Outcome:
    """What tuning came to.

    Args:
        head: fitted.
        features: what it learnt from, by the encoder that ships.
        encoder: that encoder.
        delta: what tells it from its base, described and as tensors; ``None`` where it stayed as it was.
        quoted: gives the estimate for weights and shift of a population; ``None`` where there is none.
        card: for the model's card.
        why: how the head came to be, where it was not chosen as usual.
        pool: features of the unlabelled items by the encoder that ships.
        refit: what learns as this did, and what from; asked items stand behind in the order that `tuned` was given.
        class_text: for the model's card, where the recipe itself makes something of class names.
    """

    head: Head
    features: Features
    encoder: Encoder
    delta: tuple[dict[str, Any], dict[str, Tensor]] | None
    quoted: Callable[[np.ndarray | None, np.ndarray | None], Quoted | None]
    card: dict[str, Any]
    why: str | None = None
    pool: Features | None = None
    refit: tuple[Tuner, Features] | None = None
    class_text: dict[str, Any] | None = None


SEEN = "chosen on examples that the tuned encoder has seen, so without numbers"
OWN = "it belongs to the recipe, and was learnt along with the encoder"


def check_recipe(key: str, head: object = "auto", learns: Sequence[str] = (), reject: str | None = None) -> None:
    """Refuse, before any work, what cannot be tuned together.

    Args:
        key: of the recipe.
        head: that is asked for.
        learns: options by which a head is to learn from items without labels.
        reject: by what "none of these" is to be answered.

    Raises:
        BadInput: no such recipe; one that answers by itself with a head or a pool; a rejecter that learns from
            features, which would be those of an encoder that has seen every label.
    """
    if reject is not None and rejecter(reject).learns:
        plain = ", ".join(kind for kind in REJECTERS if not rejecter(kind).learns)
        raise BadInput(f"--reject {reject} learns from features, which a tuned encoder sees through; not so: {plain}")
    made = None if key == "auto" else recipe(key)
    own = made is not None and made.readout is not None and type(made.readout()).ships is not Readout.ships
    if own and head != "auto":
        raise BadInput(f"--tune {key} brings a head of its own: leave --head at auto")
    if own and learns:
        raise BadInput(f"--tune {key} brings a head of its own, which knows labelled items only: leave {learns[0]} out")


def tuned(
    key: str,
    head: Head,
    base: Encoder | None,
    items: Any,
    features: Features,
    labels: np.ndarray,
    groups: np.ndarray | None,
    sentences: Mapping[str, Sequence[str]],
    has_text: bool,
    *,
    pool: Sequence[Any] = (),
    asked: Sequence[Any] = (),
    seed: int,
    left: float,
) -> Outcome:
    """Tune ``base`` for ``items``, and judge it.

    Args:
        key: of a recipe, or ``"auto"``.
        head: fitted on ``features``, those of the frozen encoder.
        base: the encoder.
        items, features, labels, groups: what is learnt from, n each.
        sentences: that describe classes.
        has_text: whether the head takes them as class text.
        pool: items without labels that the head learns from.
        asked: further items, of none of the classes.
        seed: of every draw.
        left: seconds left: ``auto`` leaves the encoder as it is where tuning and judging it would take longer.

    Raises:
        BadInput: the encoder cannot be tuned.
    """
    made: Tunable = tunable(base)
    assert base is not None
    chosen = AUTO[base.modality] if key == "auto" else key
    tower = made.tower()
    documents = _documents(made, labels, sentences)
    given, text = [*items, *asked], sentences if has_text else {}
    material = Material(base, tower, given, made.inputs(items), text, recipe(chosen), documents, pool)
    rows = replace(features, views={**features.views, ROW: np.arange(len(items))[:, None]})
    tuner, card = tuned_once(Tuner(head, material, seed), rows, labels, chosen, key)
    took = card["seconds"]
    frozen = cross_fit(head, features, labels, groups, folds=FOLDS, seed=seed)
    judged = None
    if frozen is not None and left > took * (FOLDS + 1):
        judged = cross_fit(tuner, rows, labels, groups, folds=FOLDS, seed=seed)
    if judged is None or frozen is None:
        why = "nothing to judge it by" if frozen is None else "the time does not suffice to judge it"
        kept = key != "auto"
        card |= {"kept": kept, "why": why}
        deals: list[CrossFit] = []
    else:
        codes = np.unique(labels, return_inverse=True)[1]
        gain = _losses(frozen, codes) - _losses(judged, codes)
        kept = key != "auto" or bool(np.nansum(gain) > 0)
        deals = [judged if key != "auto" else _by_the_others(frozen, judged, gain)]
        card |= {"kept": kept, "frozen": _accuracy(frozen, codes), "tuned": _accuracy(judged, codes)}
        card["why"] = f"log loss {'fell' if np.nansum(gain) > 0 else 'did not fall'} on items left out"
    card["sentence"] = sentence(card) + _shown(tuner.reading_)
    curve = partial(shots_curve, head, features, labels, groups, seed=seed)
    quoted = partial(_quoted, deals, labels, groups, curve)
    if kept:
        delta = as_file(tuner.delta_, tuner.reading_)
        why = OWN if tuner.own_ else SEEN
        return Outcome(
            tuner.head_, tuner.features_, tuner.encoder_, delta, quoted, card, why, tuner.pool_,
            (tuner, rows), _said(tuner.reading_, tuner.own_),
        )  # fmt: skip
    return Outcome(head, features, base, None, quoted, card)


def tuned_once(tuner: Tuner, rows: Features, labels: Any, chosen: str, asked: str) -> tuple[Tuner, dict[str, Any]]:
    """The tuner fitted, and what its card begins with.

    Args:
        tuner: unfitted.
        rows, labels: see `Tuner.fit`.
        chosen: the recipe.
        asked: what was asked for.
    """
    began = time.monotonic()
    tuner.fit(rows, labels)
    of, took = sum(p.numel() for p in tuner.material.tower.parameters()), time.monotonic() - began
    return tuner, {
        "recipe": chosen, "asked": asked, "kept": True, "why": None, "frozen": None,
        "changed": tuner.delta_.trainable(), "of": of, "seconds": took,
    }  # fmt: skip


def _documents(made: Tunable, labels: np.ndarray, sentences: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The first sentence of each class, or its name, as the tower takes it; none for towers that read no texts."""
    if cast(Encoder, made).modality != "text":
        return {}
    names = sorted(set(map(str, labels)))
    texts = [next(iter(sentences.get(name, ())), name.replace("_", " ")) for name in names]
    return dict(zip(names, made.inputs(texts), strict=True))


def sentence(card: Mapping[str, Any], score: str = "right") -> str:
    """What was changed, what it brought and whether it stayed, in words; ``score``: what numbers it has are of."""
    share = 100 * card["changed"] / card["of"]
    part = f"{share:.2g}" if share < 10 else f"{share:.0f}"
    what = f"{card['recipe']}, {card['changed']:,} numbers learnt ({part} % of the encoder's)"
    if card["frozen"] is None:
        return f"{what}; {'kept as asked for' if card['kept'] else 'not kept'}: {card['why']}"
    brought = f"{100 * card['frozen']:.1f} % {score} without and {100 * card['tuned']:.1f} % with it on items left out"
    return f"{what}; {brought}; {'kept' if card['kept'] else 'not kept'}: {card['why']}"


def _said(reading: object, own: bool) -> dict[str, Any] | None:
    """What a recipe that answers by itself makes of class names; ``None`` where a head does."""
    if isinstance(reading, LateInteraction):
        return {"used": True, "weight": 1.0, "reason": "each text is compared with theirs, token by token"}
    if reading is None and own:
        return {"used": False, "weight": 0.0, "reason": "the recipe's own head learns from examples alone"}
    if isinstance(reading, Masks):
        return {"used": False, "weight": 0.0, "reason": "the recipe asks a language model without words"}
    if isinstance(reading, Levels):
        return {"used": True, "weight": 1.0, "reason": "what a mask is compared with begins as the words of the labels"}
    if isinstance(reading, Words | Answers):
        return {"used": True, "weight": 1.0, "reason": "they are what the language model answers with"}
    return None


def _shown(reading: object) -> str:
    """What to know of examples that go into the file."""
    shown = reading.shown if isinstance(reading, Answers) else ()
    return f"; {len(shown):,} examples stand in the model as text" if shown else ""


def _quoted(
    deals: Sequence[CrossFit], labels: np.ndarray, groups: np.ndarray | None, curve: Callable[..., Any],
    weights: np.ndarray | None, shift: np.ndarray | None,
) -> Quoted | None:  # fmt: skip
    """How fast errors fall is taken from the frozen encoder, whose curve is not shown for that reason."""
    if not deals:
        return None
    found = quote(deals, labels, groups, curve, weights=weights, shift=shift)
    return replace(found, curve=found.curve[-1:])


def _losses(deal: CrossFit, codes: np.ndarray) -> np.ndarray:
    """Log loss of each item ``[n]``, logits scaled so that it is smallest in all; NaN where it was not judged.

    Each class has the same share in the sum: a model that never names a rare one loses little on all the others.
    """
    from handful.evaluate.estimate import scale_of

    counts = np.bincount(codes[deal.judged], minlength=deal.logits.shape[1])
    share = (deal.judged.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)))[codes]
    logits = scale_of(deal, codes, share) * np.where(deal.judged[:, None], deal.logits, 0.0)
    loss = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(codes)), codes]
    return np.where(deal.judged, share * loss, np.nan)


def _accuracy(deal: CrossFit, codes: np.ndarray) -> float:
    return float((deal.logits[deal.judged].argmax(axis=1) == codes[deal.judged]).mean())


def _by_the_others(frozen: CrossFit, tuned: CrossFit, gain: np.ndarray) -> CrossFit:
    """Each fold answered by whichever had the smaller loss on the other folds."""
    logits = frozen.logits.copy()
    for part in range(frozen.folds):
        if np.nansum(gain[frozen.fold != part]) > 0:
            logits[frozen.fold == part] = tuned.logits[frozen.fold == part]
    return replace(frozen, logits=logits, judged=frozen.judged & tuned.judged)
