"""The parts of `handful fit`: the encoder, the head, the model, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handful.adapt import head as make_head
from handful.adapt import head_class
from handful.adapt.base import Features, Head
from handful.commands.pool import Pool, assumes_balance, uneven, without_pool
from handful.encode import default_encoder
from handful.encode import encoder as make_encoder
from handful.errors import BadInput
from handful.protocols import Encoder, Progress
from handful.read import Dataset
from handful.ship.model import Encoded, Model, encode_dataset
from handful.tune.recipes import asks


def refuse_overwriting(out: Path, experiment: bool) -> None:
    """An experiment never replaces a full model, and nothing replaces a file that is no model."""
    if out.is_dir():
        raise BadInput(f"{out} is a folder; give a file name for the model")
    if not out.exists():
        return
    try:
        old = Model.load(out)
    except BadInput as error:
        raise BadInput(f"{out} exists and is not a Handful model; it is not overwritten: give another --out") from error
    if experiment and not old.card.get("experiment"):
        raise BadInput(f"{out} is a full model; an experiment with --shots does not overwrite it: give another --out")


def refuse_unknown(test: Dataset, learn: Dataset) -> None:
    """Raise `BadInput` for a class of the test set that nothing was learnt of."""
    unknown = sorted(set(test.classes) - set(learn.classes))
    if unknown:
        raise BadInput(f"the test set has class {unknown[0]!r}, which no labelled example has")


def tower_of(
    data: Dataset,
    name: str | None,
    long: Literal["first", "mean"],
    crop: str | Sequence[float] | None,
    tiles: str | Sequence[int] | None,
    tune: str | None = None,
) -> Encoder | None:
    """The encoder that was asked for, or the one for such items; ``None`` for features.

    Recipes that ask a language model (``tune``) take the encoder as one.
    """
    speaks = tune is not None and tune != "auto" and asks(tune)
    if speaks and name is None:
        raise BadInput(f"--tune {tune} asks a language model: name it with --encoder hf:FOLDER, hf:NAME or smollm2")
    if data.modality == "features":
        asked = {"--encoder": name, "--crop": crop, "--tiles": tiles, "--long": None if long == "first" else long}
        for option, value in asked.items():
            if value is not None:
                raise BadInput(f"the source holds features; {option} {value} has nothing to look at")
        return None
    if name is None:
        name = default_encoder(data.modality).name
    crop, tiles = numbers_of(crop, "--crop", ","), numbers_of(tiles, "--tiles", "x")
    return make_encoder(name, long=long, crop=crop, tiles=tiles, language_model=speaks)


def numbers_of(given: str | Sequence[float] | None, option: str, between: str) -> tuple[Any, ...] | None:
    """``"2x3"`` or ``(2, 3)`` as a tuple. Raises `BadInput` for what holds no numbers."""
    if given is None or not isinstance(given, str):
        return None if given is None else tuple(given)
    try:
        return tuple(float(part) if "." in part else int(part) for part in given.split(between))
    except ValueError as error:
        raise BadInput(f"{option} {given!r} is not numbers with {between!r} between them") from error


def model_of(estimator: Head, tower: Encoder | None, standalone: bool) -> Model:
    """A fitted head and its encoder, not yet calibrated."""
    if tower is None:
        return Model(estimator, None, "", 1.0)
    return Model(
        estimator,
        tower.name,
        tower.identity,
        1.0,
        encoder_options=dict(tower.options),
        standalone=standalone,
        _allowed=tower.name,
    )


def encoded_pool(
    pool: Dataset, tower: Encoder | None, views: Sequence[str], cache: bool, progress: Progress | None
) -> Features | None:
    """Features of the unlabelled items, for the population to be read off them; ``views``: what the head needs."""
    if not len(pool):
        return None
    found: Encoded = encode_dataset(
        pool.take(np.flatnonzero(pool.usable)), tower, views=views, cache=cache, skip_bad=True, progress=progress
    )
    return found.features


def unlabelled_card(
    head: Head, features: Features, labels: np.ndarray, pool: Pool | None, transductive: bool
) -> dict[str, Any] | None:
    """What the head made of items without labels."""
    if pool is None:
        return without_pool(head, transductive)
    if not head.learns_from_pool:
        return {**pool.card, "use": "only the mix of classes was read off them; this head learns nothing from them"}
    return pool.card | (uneven(head, features, labels, pool.features) if assumes_balance(head) else {})


def estimator_of(
    head: str | Head,
    vectors: Mapping[str, np.ndarray] | None,
    tower: Encoder | None,
    metric: str,
    seed: int,
    pool: Pool | None,
    transductive: bool,
) -> Head:
    """The head with what is known beside the examples."""
    given: dict[str, Any] = {"text": vectors, "random_state": seed}
    if pool is not None:
        given["unlabelled"] = pool.features
    if (head_class(head) if isinstance(head, str) else head).needs.transductive:
        given["transductive"] = transductive  # what ships answers each item by itself, unless asked
    if tower is not None:
        given["logit_scale"] = tower.logit_scale
    if not isinstance(head, str):
        given = {k: v for k, v in given.items() if head.get_params()[k] == type(head)().get_params()[k]}
        changed: Head = head.set_params(**given)
        return changed
    if head == "auto":
        given["metric"] = metric
    return make_head(head, **given)
