"""A classifier trained on descriptions of the labels instead of labelled examples, on frozen features.

Paper 077: Gao, Ghosh, Gimpel, "The Benefits of Label-Description Training for Zero-Shot Text Classification", 2023,
tunes a language model on such descriptions. Here their vectors y_cj train the weights of class c, which start as their
mean:

    min_W  mean_cj CE(c, softmax(s y_cj W')),  logits = s z W'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.parameters import count, finite
from handful.adapt.two_towers import query_rows, text_rows, text_vectors
from handful.core.losses import cross_entropy
from handful.core.task import Query, State, Task
from handful.core.train import AdamW, descend
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class LabelDescription(Head):
    """Linear classifier trained on the descriptions of the classes; examples, when given, are ignored.

    Args:
        steps: over all descriptions at once; 0 is zero-shot.
        lr: of AdamW, constant.
    """

    key: ClassVar[str] = "label-description"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True)
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C T"}

    steps: int = 200
    lr: float = 1e-3

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``."""
        count("steps", self.steps)
        finite("lr", self.lr, above=0)
        vectors, there = text_vectors(task)
        eye = torch.eye(vectors.shape[-3], dtype=vectors.dtype, device=vectors.device)
        x, y = vectors.flatten(-3, -2), (there[..., None] * eye[:, None, :]).flatten(-3, -2)

        def losses(parameters: list[Tensor], _: Tensor) -> Tensor:
            return cross_entropy(self.logit_scale * x @ parameters[0].mT, y, task.class_mask)

        return {
            "weight": descend([text_rows(task)], losses, torch.arange(self.steps), lambda step: self.lr, AdamW())[0]
        }

    def answer(self, state: State, query: Query) -> Tensor:
        """``s z W'``."""
        return self.logit_scale * query_rows(query) @ state["weight"].mT

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Leaving an example out changes nothing."""
        return self.answer(self.adapt(task), Query(task.x, views=task.views))
