"""Matching: every support example votes for its label, by how close it is.

Paper 154: Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching Networks for One Shot Learning", 2016.

    p(y | q) = sum_i a(q, x_i) y_i,   a = softmax_i cos(q, x_i) / temperature          (eq. 1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import finite, one_of
from handful.core.distances import unit
from handful.core.task import Query, State, Task
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class MatchingNetworks(Head):
    """Attention over the support; its logits are log-probabilities.

    Args:
        normalize: ``"both"`` sides of the similarity are made unit, as the paper writes it, or only the ``"support"``,
            as a public re-implementation has it to keep the attention sharp.
        temperature: divides the similarities.
        epsilon: added to the probabilities before the logarithm.
    """

    key: ClassVar[str] = "matching-networks"
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {"key": "N D", "value": "N C"}

    normalize: Literal["both", "support"] = "both"
    temperature: float = 1.0
    epsilon: float = 1e-6

    @property
    def directions(self) -> bool:
        """The support is made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: unit keys ``key [*b, N, D]`` and labels times weights ``value [*b, N, C]``."""
        one_of("normalize", self.normalize, ("both", "support"))
        finite("temperature", self.temperature, above=0)
        finite("epsilon", self.epsilon, above=0, below=1)
        return {"key": unit(task.x), "value": task.y}

    def answer(self, state: State, query: Query) -> Tensor:
        """``log(p + epsilon)``."""
        return self._log_votes(query.x, state["key"], state["value"])

    def leave_one_out(self, task: Task) -> Tensor | None:
        """An item's rows do not vote on it."""
        state, same = self.adapt(task), task.items.same
        if same is None:
            same = torch.eye(task.x.shape[-2], dtype=torch.bool, device=task.x.device)
        return self._log_votes(task.x, state["key"], state["value"], same)

    def _log_votes(self, x: Tensor, key: Tensor, value: Tensor, banned: Tensor | None = None) -> Tensor:
        q = unit(x) if self.normalize == "both" else x
        mass = value.sum(-1)[..., None, :]  # a row of weight w is w rows: log w is added to its similarity
        silent = mass <= 0 if banned is None else (mass <= 0) | banned
        similarity = q @ key.mT / self.temperature + mass.clamp_min(torch.finfo(x.dtype).tiny).log()
        attention = similarity.masked_fill(silent, torch.finfo(x.dtype).min).softmax(-1)
        label = value / value.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return (attention @ label + self.epsilon).log()
