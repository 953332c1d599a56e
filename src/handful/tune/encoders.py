"""Tuned encoders: features of an encoder with a delta merged into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from handful.encode.asking import Asking
from handful.encode.reading import LateInteraction, reading_of
from handful.encode.speaker import Speaker
from handful.errors import BadInput
from handful.protocols import Encoder
from handful.tune.delta import Delta, fingerprint_of
from handful.tune.delta_file import delta_of, description, tensors

READING = "reading"
"""Under which name a file says how an encoder's token vectors are read."""


@runtime_checkable
class Tunable(Protocol):
    """What an `Encoder` needs beside for its network to be changed."""

    name: str

    def tower(self) -> nn.Module:
        """The network, with numbers of its own: it takes some of what `inputs` gives, and gives ``[n, d]``."""
        ...

    def inputs(self, items: Sequence[Any]) -> Any:
        """Items as the tower takes them: a list that may be cut, or a tensor ``[n, …]``."""
        ...

    def retuned(self, tower: Any, mark: str, reading: Any = None) -> Encoder:
        """The encoder with the weights of ``tower`` and, if given, another ``reading`` of what comes out of it.

        ``mark`` tells it from others.
        """
        ...


def tunable(encoder: Encoder | None) -> Tunable:
    """The encoder as one that can be tuned. Raises `BadInput` where it cannot."""
    if encoder is None:
        raise BadInput("the source holds features: there is no encoder to tune")
    if not isinstance(encoder, Tunable):
        raise BadInput(f"encoder {encoder.name!r} cannot be tuned")
    return encoder


def tuned_encoder(
    base: Encoder | None, tower: nn.Module, delta: Delta, reading: LateInteraction | Asking | None = None
) -> Encoder:
    """``base`` with ``delta`` in its weights; ``tower`` is one of its own, and is as it was afterwards.

    Raises:
        BadInput: a change has no weight form, and the base is no language model, which takes changes beside its weights
            as well; the reading is not for such a base.
    """
    made, mark = tunable(base), mark_of(*as_file(delta, reading))
    if reading is not None and isinstance(reading, LateInteraction) == isinstance(tower, Speaker):
        raise BadInput(f"encoder {made.name!r} cannot be read as these changes ask: they are of another kind of model")
    beside = Delta([h for h in delta.each() if isinstance(tower, Speaker) and "weight" not in h.change.modes], "")
    inside = [holder for holder in delta.each() if holder not in beside.holders]
    delta.check_base(tower)
    kept = Delta(inside, fingerprint_of(tower, inside)).merge(tower)
    try:
        with beside.attached(tower):  # hooks, which a language model keeps
            return made.retuned(tower, mark, reading)
    finally:
        kept.undo()


def as_file(delta: Delta, reading: LateInteraction | Asking | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `encoder_with` takes: a description, JSON-able, and tensors."""
    described, state = description(delta), tensors(delta)
    if reading is not None:
        described[READING] = reading.described()
        state |= {f"{READING}.{name}": tensor.contiguous() for name, tensor in reading.tensors().items()}
    return described, state


def encoder_with(base: Encoder | None, described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Encoder:
    """``base`` with the delta, and the reading if there is one, that a file describes.

    Raises:
        BadInput: the base cannot be tuned, or is not the one it was made for; the delta is damaged.
    """
    tower, start = tunable(base).tower(), f"{READING}."
    changes = {name: tensor for name, tensor in state.items() if not name.startswith(start)}
    rest = {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}
    reading = reading_of(described.get(READING) or {}, rest) if rest or READING in described else None
    return tuned_encoder(base, tower, delta_of(tower, described, changes), reading)


def mark_of(described: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """What tells one delta from another."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + cast(Any, tensor.detach().float().cpu().contiguous().numpy()).tobytes())
    return digest.hexdigest()[:16]
