"""UniFGVC: the closest example by what an item looks like and by how it is described.

Paper 186: "UniFGVC: Universal Training-Free Few-Shot Fine-Grained Vision Classification via Attribute-Aware Multimodal
Retrieval", 2025. With unit image features v and unit features t of the items' descriptions:

    F = [sqrt(lam) v, sqrt(1 - lam) t],  so that F.F' = lam v.v' + (1 - lam) t.t'
    R = exp(-beta (1 - F_q F_c)),  F_c the unit mean of the class' examples, or the closest of them

Logits are log R.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.cache import closest, others
from handful.adapt.parameters import finite, one_of
from handful.adapt.proto_clip import cosines_left_out
from handful.core.distances import unit
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs


@dataclass(eq=False, repr=False, kw_only=True)
class UniFGVC(Head):
    """Closest class, or closest example, by image and by description.

    The features carry those of the descriptions ``[n, Dt]`` as a view ``description``. An item without a description
    has zeros there, and is compared by its image alone.

    Args:
        lam: share of the image.
        aggregate: compare with the ``"mean"`` example of a class, or with the ``"nearest"``.
        beta: sharpness; it does not change which class is first.
    """

    key: ClassVar[str] = "unifgvc"
    needs: ClassVar[Needs] = Needs(views=("description",))
    shapes: ClassVar[Mapping[str, str]] = {"templates": "K F", "label": "K C"}

    lam: float = 0.5
    aggregate: Literal["mean", "nearest"] = "mean"
    beta: float = 0.5

    def adapt(self, task: Task) -> State:
        """State: unit ``templates [*b, K, D + Dt]``, and which class each is of ``label [*b, K, C]``."""
        finite("beta", self.beta, above=0)
        if one_of("aggregate", self.aggregate, ("mean", "nearest")) == "nearest":
            return {"templates": self._rows(task), "label": (task.y > 0).to(task.y.dtype)}
        templates = unit(task.y.mT @ self._rows(task))
        return {"templates": templates, "label": torch.diag_embed(task.class_mask.to(task.y.dtype))}

    def answer(self, state: State, query: Query) -> Tensor:
        """``log R``."""
        if "description" not in query.views:
            raise BadInput("UniFGVC needs features with a view 'description'")
        f = self._joined(query.x, query.views["description"].to(query.x.dtype))
        return self._closest(f @ state["templates"].mT, state["label"])

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: an item's own rows are taken off the mean, or are no candidates."""
        if self.aggregate == "mean":
            return self.beta * (cosines_left_out(replace(task, support=self._rows(task))) - 1)
        rows, label = self._rows(task), (task.y > 0).to(task.y.dtype)
        free = others(torch.ones_like(rows @ rows.mT), task) > 0
        return self._closest((rows @ rows.mT).masked_fill(~free, -3.0), label)

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`."""
        width = self.state_["templates"].shape[-1] - self.n_features_in_
        return super().view_widths() | {"description": max(width, 0)}

    def _rows(self, task: Task) -> Tensor:
        if "description" not in task.views:
            raise BadInput("UniFGVC needs features with a view 'description'")
        text = task.views["description"].to(task.support.dtype)
        return self._joined(task.x, torch.where(task.weight[..., None] > 0, text, 0.0))

    def _joined(self, image: Tensor, text: Tensor) -> Tensor:
        lam = finite("lam", self.lam, least=0, most=1)
        return unit(torch.cat([math.sqrt(lam) * unit(image), math.sqrt(1 - lam) * unit(text)], -1))

    def _closest(self, cosines: Tensor, label: Tensor) -> Tensor:
        """``log R`` of the template of each class with the largest cosine ``[*b, n, C]``."""
        return self.beta * (closest(cosines, label) - 1)


def references(x: Tensor, y: Tensor, query: Tensor, n: int = 5, *, own: Tensor | None = None, seed: int = 0) -> Tensor:
    """Which examples to show beside an item so that what tells it apart can be described: indices ``[q, n]``.

    One example, drawn at random, of each of the ``n`` classes whose mean is closest by cosine, closest first.

    Args:
        x: features ``[N, D]``.
        y: one-hot labels ``[N, C]``.
        query: features ``[q, D]``.
        n: how many; at most the number of other classes.
        own: class of each query ``[q]`` where it is an example itself: that class is left out.
        seed: of the draw.
    """
    cosines = unit(query) @ unit(y.mT @ unit(x)).mT
    if own is not None:
        cosines = cosines.scatter(-1, own[:, None], lowest(cosines))
    classes = cosines.topk(min(n, y.shape[-1] - (own is not None)), dim=-1).indices
    order = torch.rand(len(query), len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    members = y.mT[classes] > 0
    return torch.where(members, order[:, None], -1.0).argmax(-1)
