"""A delta in a file: its tensors as safetensors, and in the header what they are and which model they belong to.

Reading makes nothing but known changes at named sites, and refuses tensors that do not fit them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.files import whole_file
from handful.tune.change import change_of
from handful.tune.delta import Delta, Placed
from handful.tune.sites import Where

HEADER = "handful-delta"


def description(delta: Delta) -> dict[str, Any]:
    """What a delta is, short of its tensors: JSON-able."""
    return {
        "fingerprint": delta.fingerprint,
        "changes": [
            {
                "change": one.change.key,
                "settings": one.change.settings(),
                "parameter": one.where.parameter,
                "sites": list(one.where.sites),
                "tied": one.where.tied,
            }
            for one in delta.placed()
        ],
    }


def tensors(delta: Delta) -> dict[str, Tensor]:
    """Its tensors by ``"number.name"``, holders in their order; one that several share is the first's."""
    every = [*delta.named_parameters(), *delta.named_buffers()]
    return {name.removeprefix("holders."): t.detach().contiguous() for name, t in every}


def begun_of(model: nn.Module, described: Mapping[str, Any]) -> Delta:
    """A delta that `description` is of, which has learnt nothing yet.

    Raises:
        BadInput: it is no description of one, or belongs to another model.
    """
    try:
        placed = [
            Placed(
                change_of(one["change"], one["settings"]),
                Where((), str(one["parameter"]), sites=tuple(map(str, one["sites"])), tied=bool(one["tied"])),
            )
            for one in described["changes"]
        ]
        fingerprint = str(described["fingerprint"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"these are no changes of a model: {error!r}") from error
    delta = Delta.begin(model, placed, torch.Generator().manual_seed(0))
    if delta.fingerprint != fingerprint:
        raise BadInput(
            f"these changes belong to a model with the fingerprint {fingerprint[:16]}…, not to this one "
            f"({delta.fingerprint[:16]}…)"
        )
    return delta


def delta_of(model: nn.Module, described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Delta:
    """The delta that `description` and `tensors` are of.

    Raises:
        BadInput: it is damaged, or belongs to another model.
    """
    delta = begun_of(model, described)
    mine = tensors(delta)
    for name in sorted(mine.keys() ^ state.keys()):
        raise BadInput(f"tensor {name[:80]!r} is {'missing' if name in mine else 'of no change'}")
    for name, tensor in state.items():
        if tensor.shape != mine[name].shape or not bool(torch.isfinite(tensor).all()):
            raise BadInput(f"tensor {name!r} of shape {tuple(tensor.shape)} must be finite, {tuple(mine[name].shape)}")
    given = {f"holders.{name}": tensor for name, tensor in state.items()}
    delta.load_state_dict(given, strict=False)  # what several share is there once
    return delta


def save_delta(delta: Delta, path: str | Path) -> None:
    """Write one safetensors file, whole or not at all."""
    from safetensors.torch import save

    with whole_file(path) as file:
        file.write(save(tensors(delta), {HEADER: json.dumps(description(delta))}))


def load_delta(path: str | Path, model: nn.Module) -> Delta:
    """What `save_delta` wrote, for the model it belongs to.

    Raises:
        BadInput: it is no such file, is damaged, or belongs to another model.
    """
    return delta_of(model, *read_changes(path, HEADER))


def read_changes(path: str | Path, header: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a file whose description stands under ``header``.

    Raises:
        BadInput: it is no such file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {}).get(header, "null"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as changes of a model: {error}") from error
    if not isinstance(described, dict):
        raise BadInput(f"{path} holds no changes of a model")
    return described, state
