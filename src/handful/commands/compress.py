"""`handful compress`: a tuned model with its changes in a tenth of the bytes, and what that does to its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.commands.fitted import read_for, refuse_label_sets
from handful.commands.sources import Columns
from handful.errors import BadInput
from handful.files import refuse_existing
from handful.protocols import Encoder, Progress
from handful.ship.model import Model, encode_dataset

ALPHAS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 3.0)
"""Magnitudes that are tried."""
MOST = 200
"""Items that answers are compared on, at most."""
_UNKNOWN = "not estimated: the model was compressed; evaluate judges it"


def compress(
    model: Model | str | Path,
    source: Any,
    *,
    out: str | Path | None = None,
    density: float = 0.5,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    force: bool = False,
    encoder: str | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Keep what tuning changed about a model's encoder as signs, positions and one number (ComPEFT, paper 149).

    How large that number is, is chosen so that answers to items of ``source`` stay nearest to those before
    (Kullback-Leibler divergence); labels are not looked at, and the head stays as it is.

    Args:
        model: a tuned `Model` or the file of one; it stays as it is.
        source: items such as the model will be asked: what `handful.read.read` takes, a `Dataset`, or a list.
        out: where to save the compressed model; not saved when not given.
        density: the share of the numbers that is kept. Half makes changes 10.7 times smaller than in 16 bits, a fifth
            17 times, at more risk.
        text, image: columns; by default those the model was fitted with, else guessed from their names.
        force: replace ``out`` if it exists.
        encoder: where the encoder of a model is that was made with one that is not built in.
        skip_bad: leave out items that cannot be read, rather than stop.

    Returns:
        The compressed `Model`. ``card["compressed"]`` says what was done and what it did to answers. What the card said
        of new items was true of the model before, and is gone.

    Raises:
        BadInput: the model was not tuned, or is compressed already; density is not above 0 and at most 1; the source
            cannot be read, or has nothing the model takes.
    """
    from handful.compress.encoders import compressed_file

    if out is not None:
        if Path(out).is_dir():
            raise BadInput(f"{out} is a folder; give a file name for the model")
        refuse_existing(out, force)
    if not 0 < density <= 1:
        raise BadInput(f"density is a share above 0, at most 1, not {density}")
    model = model if isinstance(model, Model) else Model.load(model, encoder)
    refuse_label_sets(model, "compress")
    if model.delta is None or model.encoder_name is None:
        raise BadInput("the model's encoder was not tuned, so that its file holds no changes to compress")
    data, _ = read_for(model, source, Columns(text, image), skip_bad=skip_bad)
    data = data.take(np.linspace(0, len(data) - 1, min(MOST, len(data))).round().astype(int))
    encoded = encode_dataset(data, model.encoder, cache=False, skip_bad=skip_bad)
    if not len(encoded.features):
        raise BadInput("there is no item to compare answers on")
    before, tries = model.proba_of(encoded.features), 0

    def near(changed: Encoder) -> float:
        nonlocal tries
        found = encode_dataset(data, changed, cache=False, skip_bad=skip_bad)
        tries += 1
        if progress is not None:
            progress(tries, len(ALPHAS))
        return -divergence(before, model.proba_of(found.features))

    small = replace(model, card={**model.card}, decision=replace(model.decision, threshold=None), seconds={})
    base = model._encoder(model.encoder_name)
    small.delta, chosen, was, now = compressed_file(base, model.delta, near, (density,), ALPHAS)
    after = small.proba_of(encode_dataset(data, small.encoder, cache=False, skip_bad=skip_bad).features)
    same = model.decision.ranking(before)[:, 0] == model.decision.ranking(after)[:, 0]
    notes = (_THRESHOLD, model.decision.threshold is not None), (_NONE, model.rejection is not None)
    small.card |= _gone(model.card) | {
        "compressed": {
            "numbers": len(chosen.update),
            "density": density,
            "alpha": chosen.best.alpha,
            "ratio": chosen.update.ratio,
            "bytes": {"before": was, "after": now},
            "n": len(before),
            "same": float(same.mean()),
            "divergence": divergence(before, after),
            "sources": list(data.provenance.sources),
            "notes": [note for note, holds in notes if holds],
        }
    }
    if out is not None:
        small.save(out)
    return small


_THRESHOLD = "the least confidence of --target-precision was for the model before, and is gone"

_NONE = "items are called none of the classes by the rule fitted before; how often wrongly is not known any more"


def divergence(before: np.ndarray, after: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of answers ``[n, C]`` from those before, in nats."""
    p, q = before.clip(1e-12), after.clip(1e-12)
    return float((p * np.log(p / q)).sum(axis=1).mean())


def _gone(card: Mapping[str, Any]) -> dict[str, Any]:
    """What was estimated of the model before."""
    told = card.get("reject")
    return {
        "reject": told and {"kind": told["kind"], "other": told["other"], "method": _UNKNOWN},
        "estimate": {"method": _UNKNOWN, "accuracy": None, "groups": None, "assessment": None},
        "test": None,
        "selective": None,
        "cost": None,
        "shots_curve": [],
    }
