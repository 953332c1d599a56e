"""`Tuned`: what comes out of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from handful.tune.change import Mode
from handful.tune.delta import Delta, Merged
from handful.tune.modes import in_mode
from handful.tune.recipe import Data, Readout


@dataclass
class Tuned:
    """A model and what was learnt about it.

    Args:
        model: the base, untouched.
        delta: what changes it.
        readout: fitted along with it.
        classes: names of the logits' columns.
        losses: of each step.
    """

    model: nn.Module
    delta: Delta
    readout: Readout
    classes: tuple[str, ...]
    losses: list[float] = field(default_factory=list)

    @property
    def base_fingerprint(self) -> str:
        """Of the weights that were changed."""
        return self.delta.fingerprint

    @torch.no_grad()
    def logits(self, inputs: Any, batch: int = 64, mode: Mode = "branch") -> Tensor:
        """``[n, C]``, as the classes stand in ``classes``."""
        data = Data(inputs, torch.zeros(len(inputs), len(self.classes)), self.classes)
        with self.delta.attached(self.model, mode), in_mode(False, self.model, self.readout):
            every = (data.take(torch.arange(at, min(at + batch, len(data)))) for at in range(0, len(data), batch))
            return torch.cat([self.readout(self.readout.look(self.model, some), self.model) for some in every])

    def merge(self) -> Merged:
        """Write the changes into the model's weights; ``.undo()`` of the answer takes them out again."""
        return self.delta.merge(self.model)
