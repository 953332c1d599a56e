"""Items and class names as a model takes them: features with their views, vectors of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from handful.errors import BadInput
from handful.protocols import Encoder, Progress
from handful.read import Dataset

if TYPE_CHECKING:
    from handful.adapt.base import Features

VIEWS = ("middle", "aligned")
"""Of little width and used where they are there; others are worked out for heads that need them."""


@dataclass(frozen=True)
class Encoded:
    """Features of the items that could be read, their positions, and what was wrong with the others."""

    features: Features
    kept: np.ndarray
    skipped: tuple[str, ...]


def encode_dataset(
    data: Dataset,
    encoder: Encoder | None,
    *,
    views: Sequence[str] = (),
    cache: bool = True,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Features of a data set, in its order; features that are given as such pass through.

    Args:
        views: what the head needs beside them (``head.needs.views``), such as ``local``. What the encoder does not give
            is left out, and a head that needs it says so.

    Raises:
        BadInput: naming the place of an item that cannot be read, unless ``skip_bad``.
    """
    from handful.adapt.base import Features
    from handful.errors import BadItem

    everything = np.arange(len(data))
    if data.modality == "features":
        return Encoded(Features(np.asarray(data.items), {}), everything, ())
    if encoder is None or encoder.modality != data.modality:
        wanted = "features" if encoder is None else encoder.modality
        raise BadInput(f"the model reads {wanted}, but the source holds {data.modality}")
    outputs = ["pooled", *(name for name in dict.fromkeys((*VIEWS, *views)) if name in encoder.outputs)]
    try:
        arrays = encoder.encode(data.items, outputs, cache=cache, bad="nan" if skip_bad else "raise", progress=progress)
    except BadItem as error:
        place = data.where[error.index] if data.where else f"item {error.index}"
        raise BadInput(
            f"{place}: {str(error).removeprefix(f'item {error.index}: ')} (--skip-bad leaves it out)"
        ) from error
    if len(outputs) == 1:
        arrays = {"pooled": arrays}
    x = arrays.pop("pooled")
    good = np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
    kept = np.flatnonzero(good)
    skipped = tuple(f"{data.where[i] if data.where else f'item {i}'}: cannot be read" for i in np.flatnonzero(~good))
    if skipped and not skip_bad:
        raise BadInput(skipped[0])
    return Encoded(Features(x[kept], {name: view[kept] for name, view in arrays.items()}), kept, skipped)


def class_text_vectors(
    encoder: Encoder, sentences: Mapping[str, Sequence[str]], *, cache: bool = True
) -> dict[str, np.ndarray]:
    """Unit vectors ``[m, dt]`` a class of its sentences, all encoded in one go."""
    flat = [text for texts in sentences.values() for text in texts]
    vectors = encoder.class_text(flat, cache=cache) if flat else np.empty((0, 0), np.float32)
    out: dict[str, np.ndarray] = {}
    start = 0
    for label, texts in sentences.items():
        out[label] = vectors[start : start + len(texts)]
        start += len(texts)
    return out
