"""An encoder rebuilt from its files in memory: what a model file holds that predicts by itself.

The files may come from a stranger. Those of an embedded encoder must hold the very weights this version knows; those of
a ``hf:…`` encoder are data of known kinds under plain names, written to a temporary folder and read as any folder is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from handful.encode.options import Options
from handful.encode.weights import LITE0_TENSORS, MINILM, MINILM_TOKENIZER
from handful.errors import BadInput

if TYPE_CHECKING:
    from handful.encode.base import FeatureEncoder

Parts = Mapping[str, bytes]
MOST_FILES = 256
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""What Windows takes for a device, in any folder."""


def from_parts(name: str, parts: Parts, options: Options) -> FeatureEncoder:
    """As `handful.encode.encoder_from_parts`."""
    if options.language_model and name in ("minilm", "efficientnet-lite0"):
        raise BadInput(f"encoder {name!r} is no language model")
    if name in _EMBEDDED:
        return _EMBEDDED[name](name, parts, options)
    if not name.startswith("hf:"):
        raise BadInput(f"there is no encoder {name[:80]!r}")
    from handful.encode.hf import encoder_of_files

    check_names(name, parts)
    return encoder_of_files(name, parts, options)


def check_names(encoder: str, names: Iterable[str]) -> None:
    """Raise `BadInput` for names of files that are more than plain, on any system, or too many."""
    names = list(names)
    if len(names) > MOST_FILES:
        raise BadInput(f"encoder {encoder!r} has {len(names):,} files, more than the {MOST_FILES} of any model")
    for name in names:
        steps = name.split("/")
        if len(name) > 200 or not _NAME.fullmatch(name) or any(_DEVICE.fullmatch(s) or s[-1] == "." for s in steps):
            raise BadInput(f"encoder {encoder!r} has a file named {name[:80]!r}; give it letters, digits, _, - and .")
    if len({name.casefold() for name in names}) < len(names):
        raise BadInput(f"encoder {encoder!r} has files whose names differ in case only")


def _minilm(name: str, parts: Parts, options: Options) -> FeatureEncoder:
    from handful.encode.minilm import MiniLM

    options.check(name, "text")
    _check_text(name, parts, "")
    return MiniLM(long=options.long, files=dict(parts))


def _lite0(name: str, parts: Parts, options: Options) -> FeatureEncoder:
    from handful.encode.efficientnet import TEXT, WEIGHTS, Lite0, tensors_sha256

    options.check(name, "image")
    _check_text(name, parts, TEXT, WEIGHTS)
    _check_same(name, WEIGHTS, tensors_sha256(parts[WEIGHTS]), LITE0_TENSORS)
    return Lite0(frame=options.frame, files=dict(parts))


def _smollm2(name: str, parts: Parts, options: Options) -> FeatureEncoder:
    from handful.encode.smollm2 import smollm2_of_parts

    return smollm2_of_parts(parts)


_EMBEDDED: Mapping[str, Callable[[str, Parts, Options], FeatureEncoder]] = {
    "minilm": _minilm,
    "efficientnet-lite0": _lite0,
    "smollm2": _smollm2,
}


def _check_text(name: str, parts: Parts, folder: str, *others: str) -> None:
    """MiniLM's files lie under ``folder``, and beside them there are only ``others``."""
    from handful.encode.minilm import TOKENIZER, WEIGHTS

    known = {folder + WEIGHTS: MINILM.sha256, folder + TOKENIZER: MINILM_TOKENIZER.sha256}
    wrong = sorted({*known, *others} ^ set(parts))
    if wrong:
        what = "is missing" if wrong[0] not in parts else "does not belong to it"
        raise BadInput(f"encoder {name!r} cannot be rebuilt from these files: {wrong[0][:80]!r} {what}")
    for file, sha256 in known.items():
        _check_same(name, file, hashlib.sha256(parts[file]).hexdigest(), sha256)


def _check_same(name: str, file: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise BadInput(
            f"encoder {name!r} cannot be rebuilt: {file} is not the file it should be (SHA-256 {found[:12]}…, expected "
            f"{wanted[:12]}…)"
        )
