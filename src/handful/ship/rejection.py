"""When a model answers that an item is none of its classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.errors import BadInput

if TYPE_CHECKING:
    from handful.adapt.base import Features
    from handful.adapt.reject.base import Rejecter
    from handful.core.task import State

PREFIX = "reject."
"""Of its tensors in a model file."""
LONGEST = 200
"""Characters of the name."""


@dataclass(frozen=True)
class Rejection:
    """A fitted rejecter and where it draws the line.

    Args:
        rejecter: scores how little an item is like any class.
        state: what it learnt.
        threshold: an item with a higher score is none of the classes.
        other: what such an item is called.
    """

    rejecter: Rejecter
    state: State
    threshold: float
    other: str

    def rejects(self, features: Features, logits: np.ndarray) -> np.ndarray:
        """Which of n items are none of the classes ``[n]``; ``logits [n, C]`` are scaled."""
        out: np.ndarray = self.rejecter.scores(self.state, features, logits) > self.threshold
        return out

    def as_dict(self) -> dict[str, Any]:
        """As a model file keeps it, without the tensors."""
        found = {"kind": self.rejecter.kind, "parameters": self.rejecter.parameters()}
        return {**found, "threshold": self.threshold, "other": self.other}

    def tensors(self) -> State:
        """Its tensors as a model file names them."""
        return {PREFIX + name: tensor for name, tensor in self.state.items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], tensors: State, classes: list[str], width: int) -> Rejection:
        """What `as_dict` and `tensors` wrote. Raises `BadInput` or `ValueError` for what does not fit together."""
        from handful.adapt.reject import rejecter

        found = rejecter(str(given["kind"]), **given["parameters"])
        state = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        found.check_state(state, len(classes), width)
        threshold, other = float(given["threshold"]), check_other(given["other"], classes)
        if not math.isfinite(threshold):
            raise ValueError(f"threshold {threshold}")
        return cls(found, state, threshold, other)


def check_other(name: Any, classes: list[str] | tuple[str, ...]) -> str:
    """``name``, when it can stand for "none of these". Raises `BadInput` for a class, or no name at all."""
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST:
        raise BadInput(f"--other must be a name of up to {LONGEST} characters, not {str(name)[:40]!r}")
    if name in classes:
        raise BadInput(f"--other {name!r} is the name of a class: choose another")
    return name
