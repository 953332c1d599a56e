"""`handful evaluate`: how good a model is on labelled items it has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful.commands.fitted import read_for
from handful.commands.sources import Columns
from handful.errors import BadInput
from handful.protocols import Progress
from handful.ship.model import Model, encode_dataset

if TYPE_CHECKING:
    from handful.evaluate import Assessment


class SeenBefore(UserWarning):
    """A model is judged on a file it learnt from."""


def evaluate(
    model: Model | str | Path,
    source: Any,
    *,
    text: str | Sequence[str] | None = None,
    image: str | None = None,
    label: str | None = None,
    merge_labels: bool = False,
    skip_bad: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> Assessment:
    """Compare a model's answers with the labels of a source; rows without a label are left aside.

    Args:
        model: a `Model` or the file of one.
        source: a labelled source: what `handful.read.read` takes, a `Dataset`, or ``{label: [items]}``.
        text, image, label: columns; by default those the model was fitted with, else guessed from their names.
        merge_labels: treat labels that differ only in case or blanks as one.
        skip_bad: leave out items that cannot be read, rather than stop.
        cache: use the feature cache.

    Warns:
        SeenBefore: the source is a file the model learnt from.

    Raises:
        BadInput: the source cannot be read, has no label, or one that the model does not know.
    """
    model = model if isinstance(model, Model) else Model.load(model)
    columns = Columns(text, image, label)
    data, _ = read_for(model, source, columns, merge_labels=merge_labels, skip_bad=skip_bad)
    learnt = set(model.card.get("task", {}).get("sha256", {}).values())
    if learnt & set(data.provenance.sha256.values()):
        warnings.warn(
            "the model learnt from examples in this very file: how it does on them says little of new ones",
            SeenBefore,
            2,
        )
    data = data.labelled
    if not len(data):
        raise BadInput("nothing to evaluate on: no item has a label; --label names the column that holds them")
    encoded = encode_dataset(data, model.encoder, cache=cache, skip_bad=skip_bad, progress=progress)
    kept = data.take(encoded.kept)
    if not len(kept):
        raise BadInput("nothing to evaluate on: no item can be read")
    return model.assess(encoded.features, [str(c) for c in kept.labels], kept.groups)
