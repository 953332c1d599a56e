"""Prototypes: the mean of a class' examples answers for it.

Paper 092: Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning", 2017.

    c_k = mean of the support of class k                                      (eq. 1)
    logit_k(q) = -d(q, c_k),  d squared Euclidean, no normalisation           (eq. 2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.growing import Growing
from handful.adapt.parameters import finite, one_of
from handful.core.distances import cosine, sqeuclidean
from handful.core.gaussians import class_means, means_without_item
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs, Ranges


@dataclass(eq=False, repr=False, kw_only=True)
class Prototypes(Growing):
    """Nearest class mean.

    Args:
        metric: ``"sqeuclidean"`` (the paper's choice) or ``"cosine"`` (the weaker option it compares with).
        temperature: divides the logits; the paper has none.
    """

    key: ClassVar[str] = "prototypes"
    needs: ClassVar[Needs] = Needs()
    shapes: ClassVar[Mapping[str, str]] = {"mean": "C D", "mass": "C"}
    ranges: ClassVar[Ranges] = {"metric": ("sqeuclidean", "cosine")}

    known_too: ClassVar[bool] = True

    metric: Literal["sqeuclidean", "cosine"] = "sqeuclidean"
    temperature: float = 1.0

    @property
    def directions(self) -> bool:
        """Only cosines are blind to length."""
        return self.metric == "cosine"

    def adapt(self, task: Task) -> State:
        """State: ``mean [*b, C, D]``, ``mass [*b, C]``."""
        one_of("metric", self.metric, ("sqeuclidean", "cosine"))
        finite("temperature", self.temperature, above=0)
        mean, mass = class_means(task.x, task.y)
        return {"mean": mean, "mass": mass}

    def answer(self, state: State, query: Query) -> Tensor:
        """``-d(q, c_k) / temperature``; a class without examples gets the lowest logit."""
        like = cosine if self.metric == "cosine" else lambda a, b: -sqeuclidean(a, b)
        logits = like(query.x, state["mean"]) / self.temperature
        return torch.where(state["mass"][..., None, :] > 0, logits, lowest(logits))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """Closed form: class means without the item, soft labels and several rows an item included."""
        x = task.x
        if self.metric == "cosine":
            cross, square, gone = means_without_item(x, task.y, task.items)
            logits = cross / (x.norm(dim=-1, keepdim=True) * square.clamp_min(0).sqrt()).clamp_min(1e-12)
        else:
            real = (task.weight > 0).to(x.dtype)[..., None]
            x = x - (real * x).sum(-2, keepdim=True) / real.sum(-2, keepdim=True).clamp_min(
                1
            )  # keeps digits far from 0
            cross, square, gone = means_without_item(x, task.y, task.items)
            logits = -(x.square().sum(-1, keepdim=True) - 2 * cross + square).clamp_min(0)
        return torch.where(gone, lowest(x), logits / self.temperature)

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """The same classifier as ``x @ w.T + b``: w = 2 c ``[C, D]``, b = -|c|^2 ``[C]`` (section 2.4), over
        temperature.

        Raises:
            BadInput: the metric is not the squared Euclidean one.
        """
        check_is_fitted(self)
        if self.metric != "sqeuclidean":
            raise BadInput("only the squared Euclidean metric has a linear form")
        mean = self.state_["mean"].cpu().numpy() / self.temperature
        return 2 * mean, -self.temperature * np.square(mean).sum(-1)

    def extend(self, state: State, task: Task, fresh: Tensor) -> State:
        """Running means: any order gives the same model as one ``fit``. See `Growing.extend`."""
        rows = torch.cat([state["mean"], task.x], -2)
        mean, mass = class_means(rows, torch.cat([torch.diag_embed(state["mass"]), task.y], -2))
        return {"mean": mean, "mass": mass}
