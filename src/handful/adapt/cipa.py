"""Calibrated iterative prototype adaptation: rows centred again and again, prototypes led by the queries.

Paper 021: Ye, Lin, Burachas, Divakaran, Yao, "Hybrid Consistency Training with Prototype Adaptation for Few-Shot
Learning", 2020; the part that learns from frozen features.

    repeat n_steps times, from z = (x + 1e-6)^power and w_k the class means of the first centred support:
        z_s <- unit(z_s - mu_s),  z_q <- unit(z_q - mu_q),  each set by its own class-balanced mean
               mu = mean over k of sum_i p_ik z_i / sum_i p_ik,  the first time the plain mean for the queries
        p_qk = softmax_k(tau cos(z_q, w_k))
        v_k = (sum_s y_sk z_s + sum_q p_qk z_q) / (sum_s y_sk + sum_q p_qk);   w_k <- w_k + alpha (v_k - w_k)
    answer by tau cos(z_q, w_k)

Without steps, rows are made unit and not centred: the nearest class mean by cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from handful.adapt.parameters import count, finite
from handful.adapt.transductive import Transductive, cleaned, mean_of, real_queries
from handful.adapt.transforms import Power, refuse_negative
from handful.core.distances import cosine, unit
from handful.core.gaussians import class_means
from handful.core.softem import among, real_classes, shares
from handful.core.task import Query, State, Task, lowest
from handful.errors import BadInput
from handful.protocols import Needs


def balanced_mean(z: Tensor, p: Tensor) -> Tensor:
    """The mean over classes of their means ``[*b, D]``: rows ``z [*b, n, D]``, assignments ``p [*b, C, n]``.

    Classes nobody is assigned to do not count.
    """
    there = (p.sum(-1) > 0).to(z.dtype)
    return mean_of(shares(p) @ z, there)


@dataclass(eq=False, repr=False, kw_only=True)
class CIPA(Transductive):
    """Calibrated iterative prototype adaptation.

    Args:
        n_steps: how often rows are centred and prototypes moved.
        alpha: how far prototypes move in a step.
        tau: multiplies cosines.
        power: exponent of the features, which may not be negative then; ``None`` leaves them as they are.
        recentre: centre the rows at all.
    """

    key: ClassVar[str] = "cipa"
    needs: ClassVar[Needs] = Needs(transductive=True, assumes_balanced=True, positive=True)
    shapes: ClassVar[Mapping[str, str]] = {"support": "N D", "y": "N C", "mean": "C D", "centers": "T D"}

    n_steps: int = 20
    alpha: float = 0.2
    tau: float = 10.0
    power: float | None = 0.5
    recentre: bool = True

    @property
    def positive_only(self) -> bool:
        """Where features are raised to a power."""
        return self.power is not None

    @property
    def directions(self) -> bool:
        """Rows are made unit, but a power comes before."""
        return self.power is None

    def start(self, task: Task) -> State:
        """State: ``support [*b, N, D]`` after the power, ``y [*b, N, C]``, ``mean [*b, C, D]``,
        ``centers [*b, T, D]``.
        """
        self._check()
        x, y = self._powered(task.x), task.y
        x = x * (y.sum(-1, keepdim=True) > 0)
        return {"support": x, "y": y, "mean": class_means(unit(x), y)[0], "centers": torch.zeros_like(x[..., :1, :])}

    def move(self, state: State, query: Query) -> tuple[Tensor, State]:
        """Logits, prototypes, and what was subtracted from the queries at each step."""
        query, real, y = cleaned(query), real_queries(query), state["y"]
        if self.recentre and self.n_steps and int(real.sum(-1).min()) < 2:
            raise BadInput("a single query minus the queries' mean is nothing: ask several, or set recentre=False")
        s, q, there = state["support"], self._powered(query.x) * real[..., None], real.to(query.x.dtype)
        if not (self.recentre and self.n_steps):
            s, q = unit(s), unit(q)
        w, p, centers = state["mean"], None, []
        for step in range(self.n_steps):
            if self.recentre:
                centers.append(mean_of(q, there) if p is None else balanced_mean(q, p))
                s = unit(s - balanced_mean(s, y.mT)[..., None, :]) * (y.sum(-1, keepdim=True) > 0)
                q = unit(q - centers[-1][..., None, :]) * real[..., None]
                w = class_means(s, y)[0] if step == 0 else w
            p = self._logits(w, q, y).softmax(-2) * there[..., None, :]
            w = torch.lerp(w, shares(torch.cat([y.mT, p], -1)) @ torch.cat([s, q], -2), self.alpha)
        logits = self._logits(w, q, y).mT.clamp_min(lowest(q))
        return logits, {**state, "mean": w, "centers": torch.stack(centers, -2) if centers else state["centers"]}

    def inductive(self, state: State, query: Query) -> Tensor:
        """The same for rows that take the steps the queries took."""
        z = self._powered(query.x)
        for center in state["centers"].unbind(-2):
            z = unit(z - center[..., None, :])
        return self._logits(state["mean"], z, state["y"]).mT.clamp_min(lowest(z))

    def _logits(self, w: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """``[*b, C, n]``."""
        return among(real_classes(y), self.tau * cosine(w, z))

    def _powered(self, x: Tensor) -> Tensor:
        if self.power is None:
            return x
        refuse_negative(x, "set power=None")
        return Power(beta=self.power).apply({}, x)

    def _check(self) -> None:
        count("n_steps", self.n_steps)
        finite("alpha", self.alpha, least=0, most=1)
        finite("tau", self.tau, above=0)
        if self.power is not None:
            finite("power", self.power, above=0)
