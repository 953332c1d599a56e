"""BD-CSPN: queries are moved to where the support is, and lend their weight to the prototypes.

Liu, Song, Qin, "Prototype Rectification for Few-Shot Learning", 2020.

    z_q <- z_q + eta,  eta = mean of the support - mean of the queries            (between the sets)
    a query belongs to the prototype c_k of highest cosine
    c'_k = sum_i w_ik z_i,  i over the support of class k and the queries that belong to it      (within the class)
        "share"   w_ik = exp(t cos(z_i, c_k)) / their sum                                        the paper
        "mean"    w_ik = softmax_k(t cos(z_i, c_k)) / number of i; the support belongs to the class of highest cosine
                  too; a class nobody belongs to keeps c_k              `imtiazziko/LaplacianShot`, src/train_lshot.py
    logit_k(q) = scale cos(z_q, c'_k)

easyfsl 1.5 has t = 1 and asks about the queries where they were: ``BDCSPN(norm="UN", temperature=1, shifted=False)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.parameters import finite, one_of
from handful.adapt.simpleshot import Norm, normed, origin
from handful.adapt.transductive import Transductive, cleaned, joined, mean_of, real_queries
from handful.core.distances import cosine
from handful.core.gaussians import class_means
from handful.core.softem import Rows, among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.protocols import Needs, Ranges

Form = Literal["share", "mean"]


def rectified(rows: Rows, y: Tensor, real: Tensor, temperature: float, form: Form) -> Tensor:
    """Prototypes as coefficients ``[*b, C, N + Q]`` of the support and the moved queries, ``rows``.

    Args:
        y: labels times weights of the support ``[*b, N, C]``.
        real: which queries are real ``[*b, Q]``.
    """
    n, known = y.shape[-2], real_classes(y)
    own = torch.nn.functional.pad(y.mT, (0, real.shape[-1]))
    likeness = among(known, temperature * rows.cosine(shares(own)))
    best = torch.nn.functional.one_hot(likeness.argmax(-2), y.shape[-1]).mT.to(y.dtype)
    if form == "share":
        member = torch.cat([own[..., :n], best[..., n:] * real[..., None, :]], -1)
        return shares(member * (likeness - likeness.amax(-1, keepdim=True).clamp_min(lowest(y))).exp())
    weight = torch.cat([y.sum(-1), real.to(y.dtype)], -1)[..., None, :]
    member = best * weight
    count = member.sum(-1, keepdim=True)
    mean = member * likeness.softmax(-2) / count.clamp_min(torch.finfo(y.dtype).tiny)
    return torch.where(count > 0, mean, shares(own))


@dataclass(eq=False, repr=False, kw_only=True)
class BDCSPN(Transductive):
    """Prototypes rectified by the queries.

    Args:
        temperature: t above, 10 in the paper.
        form: how items are weighted, see above.
        norm: see `handful.adapt.simpleshot`.
        shifted: ask about the moved queries.
        scale: multiplies the cosines.
    """

    key: ClassVar[str] = "bd-cspn"
    needs: ClassVar[Needs] = Needs(transductive=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D", "origin": "D", "shift": "D"}
    ranges: ClassVar[Ranges] = {"temperature": (1.0, 100.0), "norm": ("CL2N", "L2N", "UN")}

    temperature: float = 10.0
    form: Form = "share"
    norm: Norm = "CL2N"
    shifted: bool = True
    scale: float = 10.0

    @property
    def directions(self) -> bool:
        """Cosines are blind to length."""
        return True

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` normed, ``y [*b, N, C]``, ``mean [*b, C, D]``, ``origin`` and
        ``shift [*b, D]``.
        """
        finite("temperature", self.temperature, above=0)
        finite("scale", self.scale, above=0)
        one_of("form", self.form, ("share", "mean"))
        at, y = origin(task, self.norm), task.y
        z = normed(task.x, at, self.norm) * (y.sum(-1, keepdim=True) > 0)
        return {"support": z, "y": y, "mean": class_means(z, y)[0], "origin": at, "shift": torch.zeros_like(at)}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits, and the state with the rectified prototypes and the shift of the queries."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        q = normed(query.x, state["origin"], self.norm)
        shift = mean_of(state["support"], y.sum(-1)) - mean_of(q, real.to(q.dtype))
        rows = Rows.of(joined(state["support"], q, shift), looks=2)
        mean = rectified(rows, y, real, self.temperature, self.form) @ rows.z
        state = {**state, "mean": mean, "shift": shift if self.shifted else torch.zeros_like(shift)}
        asked = rows.z[..., y.shape[-2] :, :] if self.shifted else q
        return self._logits(asked, state), state

    def inductive(self, state: State, query: Query) -> Tensor:
        """The same, each query moved by the shift the state holds."""
        return self._logits(normed(query.x, state["origin"], self.norm) + state["shift"][..., None, :], state)

    def _logits(self, z: Tensor, state: State) -> Tensor:
        logits = self.scale * cosine(z, state["mean"])
        return torch.where(real_classes(state["y"])[..., None, :], logits, lowest(z))
