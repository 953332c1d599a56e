"""A compressed delta in a file: its code, what it never learnt, and in the header which model it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handful.compress.compeft import with_vector
from handful.compress.ternary import Ternary
from handful.errors import BadInput
from handful.files import whole_file
from handful.tune.delta import Delta
from handful.tune.delta_file import begun_of, delta_of, description, read_changes

HEADER = "handful-compressed-delta"
CODE = "ternary"
"""Name of the code among the tensors."""


def compressed(update: Ternary, delta: Delta) -> dict[str, Tensor]:
    """The tensors of ``delta`` with those that learnt as one code, by the names that files have for them.

    Raises:
        BadInput: the update is of another number of entries.
    """
    if len(update) != delta.trainable():
        raise BadInput(f"the update has {len(update):,} entries, but {delta.trainable():,} numbers learnt")
    fixed = {name.removeprefix("holders."): tensor.contiguous() for name, tensor in delta.named_buffers()}
    return {**fixed, CODE: torch.from_numpy(np.frombuffer(update.to_bytes(), np.uint8).copy())}


def expanded(model: nn.Module, described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Delta:
    """The delta of ``model`` that `compressed` gave the tensors of, described as `description` has it.

    Raises:
        BadInput: it is damaged, or belongs to another model.
    """
    start = begun_of(model, described)
    if CODE not in state or state[CODE].dtype != torch.uint8:
        raise BadInput(f"tensor {CODE!r} is missing: these are no compressed changes of a model")
    update = Ternary.from_bytes(state[CODE].numpy().tobytes(), start.trainable())
    numbers = with_vector(start, model, update.dense()).named_parameters()
    learnt = {name.removeprefix("holders."): p.detach() for name, p in numbers}
    rest = {name: tensor for name, tensor in state.items() if name != CODE}
    for name in sorted(learnt.keys() & rest.keys()):
        raise BadInput(f"tensor {name!r} is there beside the code that holds it")
    return delta_of(model, described, {**learnt, **rest})


def save_compressed(update: Ternary, delta: Delta, path: str | Path) -> None:
    """Write ``update``, the task vector of ``delta`` compressed; one safetensors file, whole or not at all."""
    from safetensors.torch import save

    with whole_file(path) as file:
        file.write(save(compressed(update, delta), {HEADER: json.dumps(description(delta))}))


def load_compressed(path: str | Path, model: nn.Module) -> Delta:
    """What `save_compressed` wrote, for the model it belongs to.

    Raises:
        BadInput: it is no such file, is damaged, or belongs to another model.
    """
    return expanded(model, *read_changes(path, HEADER))
