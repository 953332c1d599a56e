"""Classes that come later: what is refused of their examples, and how a tuned encoder sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune.class_texts import refuse_empty
from handful.tune.delta import Delta
from handful.tune.modes import in_mode
from handful.tune.recipe import Data, rows_of


@torch.no_grad()
def features_of(encoder: nn.Module, delta: Delta, inputs: Tensor | Sequence[Any], batch: int = 64) -> Tensor:
    """``[n, d]`` of the encoder with what was learnt about it."""
    at = (range(first, min(first + batch, len(inputs))) for first in range(0, len(inputs), batch))
    with delta.attached(encoder, "weight"), in_mode(False, encoder, delta):
        return torch.cat([encoder(rows_of(inputs, rows)) for rows in at])


def refuse_later(seen: Sequence[str], data: Data) -> None:
    """Raise `BadInput` where there are no base classes yet, or a class of ``data`` was seen or has no example."""
    if not seen:
        raise BadInput("there are no base classes to add to: call fit_base first")
    known = sorted(set(seen) & set(data.classes))
    if known:
        raise BadInput(f"class {known[0]!r} is known already: give examples of new classes only")
    refuse_empty(data)
