"""Heads that can answer "none of these"."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.inputs import read_rows, to_tensor
from handful.core.task import State
from handful.errors import BadInput


class OpenHead(Head):
    """A head with a score of its own by which an item is none of the classes: above 0."""

    @abstractmethod
    def beyond(self, state: State, x: Tensor) -> Tensor:
        """How far rows ``x [*b, Q, D]`` are from being of any class: ``[*b, Q]``."""

    def unknownness(self, X: Any) -> np.ndarray:
        """What `beyond` says of rows ``[n, d]``: above 0 an item is none of the classes ``[n]``.

        Raises:
            BadInput: features of another width, NaN or infinity.
        """
        check_is_fitted(self)
        x, _ = read_rows(self, X, reset=False, directions=False)
        dtype = next(t.dtype for t in self.state_.values() if t.is_floating_point())
        with torch.no_grad():
            found: np.ndarray = self.beyond(self.state_, to_tensor(x, self.device, dtype)).cpu().numpy()
        return found

    def predict_open(self, X: Any, nota_label: Any = -1) -> np.ndarray:
        """The label of each row, ``nota_label`` where it is none of the classes ``[n]``; objects where the two are of
        different types.

        Raises:
            BadInput: ``nota_label`` is a class; as `unknownness`.
        """
        check_is_fitted(self)
        if nota_label in self.classes_.tolist():
            raise BadInput(f"nota_label {nota_label!r} is one of the classes: choose another")
        answer = self.predict(X).astype(object)
        answer[self.unknownness(X) > 0] = nota_label
        alike = np.asarray(nota_label).dtype.kind == self.classes_.dtype.kind
        return np.array(answer.tolist()) if alike else answer  # -1 among words must not become "-1"
