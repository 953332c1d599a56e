"""`handful advise`: which method, which encoder; what files of answers and ratings say; what a context is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import handful
from handful.adapt import head_class
from handful.commands.advise_context import advise_context as advise_context
from handful.commands.advise_files import advise_models as advise_models
from handful.commands.advise_files import advise_raters as advise_raters
from handful.commands.sources import Columns, labelled, read_source
from handful.encode import encoder as make_encoder
from handful.encode import list_encoders
from handful.errors import BadInput
from handful.evaluate.cards import Advice, recommend
from handful.evaluate.encoder_choice import EncoderAdvice, compare_encoders
from handful.protocols import Progress
from handful.ship.model import encode_dataset


def advise_method(*, have: Sequence[str] | None = None, shots: int = 5, cost: str | None = None) -> list[Advice]:
    """The heads that can run with what is at hand, those that were measured first, best first.

    Args:
        have: what there is beside labelled examples: ``"class-names"``, ``"unlabelled"``, ``"all-queries"``,
            ``"background"``, ``"language-model"``, or views such as ``"crops"``.
        shots: labelled examples a class.
        cost: the most a method may cost: ``"closed-form"`` for none that trains, ``"gradient"`` for those that learn
            many episodes at once too, ``"one-by-one"`` for all.

    Raises:
        BadInput: shots below 1, or something no head knows what to do with, or no such cost.
    """
    if isinstance(have, str):
        raise BadInput(f"have= is a list, such as [{have!r}]")
    return recommend(have or (), shots, None if cost is None else cost.replace("-", " "))


def advise_encoder(
    sources: Any,
    *,
    encoders: Sequence[str] | None = None,
    head: str = "logistic",
    folds: int = 5,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    group: str | None = None,
    seed: int = 0,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> EncoderAdvice:
    """Judge encoders on a few labelled examples by a simple head, fitted without each fold in turn.

    Args:
        sources: labelled data: what `handful.read.read` takes, a `Dataset`, or ``{label: [items]}``.
        encoders: names to judge beside the built-in ones for these data, ``hf:NAME`` or a folder included.
        head: key of the head.
        folds: at most.
        text, image, label, group: columns of a table; guessed from their names when not given (a group is not).
        seed: of the folds.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read.
        cache: use the feature cache.

    Raises:
        BadInput: one line that says what is wrong: features instead of items, an encoder for something else, too few
            labels.
    """
    if folds < 2:
        raise BadInput(f"--folds must be at least 2, not {folds}")
    cls = head_class(head)
    if cls.needs.text or cls.needs.background or cls.needs.unlabelled or cls.needs.views or cls.needs.transductive:
        raise BadInput(f"encoders are judged by a head that needs nothing but labels; {head!r} needs more")
    columns = Columns(text, image, label, group)
    data = labelled(read_source(sources, None, columns, merge_labels=merge_labels, skip_bad=skip_bad))
    if data.modality == "features":
        raise BadInput("the source holds features; encoders are judged on what they read, texts or images")
    here = [str(row["name"]) for row in list_encoders() if row["modality"] == data.modality and row["installed"]]
    names = list(dict.fromkeys([*here, *(encoders or ())]))
    if not names:
        raise BadInput(f"no encoder for {data.modality} is installed: name one with --encoder")
    found, kept = {}, np.arange(len(data))
    for name in names:
        tower = make_encoder(name)
        if tower.modality != data.modality:
            raise BadInput(f"--encoder {name} reads {tower.modality}, but the source holds {data.modality}")
        encoded = encode_dataset(data, tower, cache=cache, skip_bad=skip_bad, progress=progress)
        found[name] = encoded
        kept = np.intersect1d(kept, encoded.kept)
    features = {name: e.features.take(np.flatnonzero(np.isin(e.kept, kept))) for name, e in found.items()}
    data = data.take(kept)
    setting = {
        "handful": handful.__version__,
        "sources": list(data.provenance.sources),
        "head": head,
        "items": len(data),
        "classes": len(data.classes),
        "folds": folds,
        "seed": seed,
    }
    made = cls(random_state=seed)
    return compare_encoders(
        features, np.asarray(data.labels), made, groups=data.groups, folds=folds, seed=seed, setting=setting
    )
