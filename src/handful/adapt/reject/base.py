"""`Rejecter`: a batched core that says how little an item is like any class, and its face to arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from handful.adapt.base import CHUNK, Features
from handful.adapt.checks import check_shapes
from handful.adapt.inputs import read_background, to_tensor
from handful.core.task import State, Task, make_task
from handful.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Rejecter(ABC):
    """Base of every rejecter: ``adapt(task) -> state``, ``unknownness(state, x, logits) -> [*b, Q]``."""

    kind: ClassVar[str] = ""
    learns: ClassVar[bool] = True
    """Whether it looks at features; else at the logits alone."""
    negatives: ClassVar[bool] = False
    """Whether it learns from items of none of the classes, where there are any."""
    shapes: ClassVar[Mapping[str, str]] = {}
    """Axes of every tensor of the state after ``*b``, as those of a head."""

    @abstractmethod
    def adapt(self, task: Task) -> State:
        """Learn from the support of ``task``; every tensor of the state has the task's leading batch dimensions."""

    @abstractmethod
    def unknownness(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        """How little each query is like any class ``[*b, Q]``; only its order counts.

        Args:
            state: what `adapt` gave.
            x: features ``[*b, Q, D]``.
            logits: of the fitted head ``[*b, Q, C]``, scaled so that their softmax means what it says, padded classes
                at the lowest number.
        """

    def fit(self, features: Features, labels: np.ndarray, negatives: Features | None = None, seed: int = 0) -> State:
        """The state for n items, labels ``[n]``, and items of none of the classes where they are known."""
        classes, codes = np.unique(labels, return_inverse=True)
        x = to_tensor(np.asarray(features.x), "cpu")
        items = np.arange(len(codes)) if features.items is None else features.items
        task = make_task(
            x,
            torch.as_tensor(codes, dtype=torch.long),
            ways=len(classes),
            item=torch.as_tensor(np.unique(items, return_inverse=True)[1]),
            views={name: to_tensor(np.asarray(view), "cpu") for name, view in features.views.items()},
            background=read_background(negatives, x) if self.negatives and negatives is not None else None,
            seed=seed,
        )
        with torch.no_grad():
            return {name: tensor.contiguous() for name, tensor in self.adapt(task).items()}

    def scores(self, state: State, features: Features, logits: np.ndarray) -> np.ndarray:
        """`unknownness` ``[n]`` of n items, some thousands at a time, in double precision."""
        dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float64)
        parts = []
        with torch.no_grad():
            for at in range(0, len(features), CHUNK):
                x = to_tensor(np.asarray(features.x[at : at + CHUNK]), "cpu", dtype)
                z = torch.as_tensor(np.asarray(logits[at : at + CHUNK], dtype=np.float64))
                parts.append(self.unknownness(state, x, z).double())
        return torch.cat(parts).numpy() if parts else np.empty(0)

    def parameters(self) -> dict[str, Any]:
        """As a model file keeps them."""
        return asdict(self)

    def check_state(self, state: State, ways: int, width: int) -> None:
        """Whether a state is whole.

        Raises:
            BadInput: naming the tensor that does not fit.
        """
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise BadInput(f"the rejecter's {name!r} has numbers that are not finite")
        check_shapes(self.shapes, state, {"C": ways, "D": width})
        try:
            found = self.scores(state, Features(np.ones((1, width)), {}), np.zeros((1, ways)))
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            raise BadInput(f"the rejecter {self.kind!r} does not answer: {' '.join(str(error).split())}") from error
        if found.shape != (1,) or np.isnan(found).any():
            raise BadInput(f"the rejecter {self.kind!r} answers {found}, not one number an item")
