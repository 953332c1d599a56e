"""Unknownness by the Gaussian prototypes of paper 058 (`handful.adapt.gpam`): ``d_k - b_k`` of the nearest class.

The rows are made unit first, so that the variances of many features are of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from handful.adapt.gpam import GPAM, beyond
from handful.adapt.reject.base import Rejecter
from handful.core.distances import unit
from handful.core.task import State, Task


@dataclass(frozen=True, kw_only=True)
class GPAMRejecter(Rejecter):
    """How far outside the radius of its nearest class an item is.

    Args:
        n_components, shrinkage, steps: as `handful.adapt.gpam.GPAM` has them.
    """

    kind: ClassVar[str] = "gpam"
    negatives: ClassVar[bool] = True
    shapes: ClassVar[Mapping[str, str]] = GPAM.shapes

    n_components: int = 1
    shrinkage: float = 1.0
    steps: int = 100

    def adapt(self, task: Task) -> State:
        """The state of the head."""
        rows = replace(task, views={}).map(unit)
        return GPAM(**self.parameters()).adapt(rows)

    def unknownness(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        """``d_k - b_k``."""
        return beyond(state, unit(x))
